"""What a Restore would do, and what forbids it, planned on a real server from records as the API server has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from psycopg import sql
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import Login, PostgresServer
from tests.postgres.server_kit import KEY, secrets_for, serving, spec_for

from pgtend.api.kinds import BY_NAME
from pgtend.api.postgresoperation import OperationSpec
from pgtend.api.reasons import OperationReason as R
from pgtend.api.reasons import TargetReason
from pgtend.backups.plan import ToolsImages
from pgtend.backups.prepare import Preparer
from pgtend.backups.restore import Means, Restore, maker
from pgtend.core.clock import SystemClock
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.kube.index import Record, record_of
from pgtend.server.member import MemberSessions
from pgtend.server.standing import ServerIdentity, Standing
from pgtend.tasks.protocol import Breach, Ground, TaskPlan

PUBLIC = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
NAME = {"secretRef": {"name": "any"}}


def record(kind: str, name: str, spec: dict[str, Any], status: dict[str, Any]) -> Record:
    meta = {
        "name": name,
        "namespace": KEY.namespace,
        "uid": f"uid-of-{name}",
        "resourceVersion": "1",
        "creationTimestamp": "2026-11-22T14:00:00Z",
        "generation": 1,
    }
    return record_of(BY_NAME[kind], {"metadata": meta, "spec": spec, "status": status})


def condition(type_: str, status: str) -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": "AsExpected", "message": ""}


@dataclass
class World:
    """A backup `now` of a database `shop`, its policy and destination, and a server to restore into. Tests change the
    parts."""

    server: PostgresServer
    role: Login
    version: str = "18.1"
    backup: dict[str, Any] = field(default_factory=dict)
    destination: dict[str, Any] = field(default_factory=dict)
    majors: frozenset[int] = frozenset()
    credential: bool = True

    def records(self) -> dict[ObjectKey, Record]:
        key = {"accessKey": {"id": NAME, "secret": NAME}}
        recipient = {"name": "verify", "publicKey": PUBLIC, "identity": {"secretRef": {"name": "identity"}}}
        recipient |= self.destination.pop("recipient", {})
        recipient = {name: value for name, value in recipient.items() if value is not None}
        status = {
            "manifest": "production/1/dump/x/manifest.json",
            "policy": "orders",
            "finishedAt": "2026-11-22T02:12:40Z",
            "origin": {"systemIdentifier": "1", "timeline": "1", "serverVersion": "18.0"},
            "databases": [{"name": "shop", "tables": 3}],
            "recipients": ["verify"],
            "size": {"raw": "96Gi", "stored": "13Gi"},
            "conditions": [condition("Available", "True")],
            **self.backup,
        }
        made = [
            record("PostgresBackup", "now", {"policyRef": {"name": "orders"}}, status),
            record(
                "PostgresBackupPolicy",
                "orders",
                {"targetRef": {"name": "orders"}, "destinationRef": {"name": "s3"}},
                {},
            ),
            record(
                "BackupDestination",
                "s3",
                {
                    "s3": {"bucket": "backups", "prefix": "production", "credentials": {"write": key}},
                    "encryption": {"age": {"recipients": [recipient]}},
                },
                {"observedGeneration": 1, "conditions": [condition("Ready", "True")], **self.destination},
            ),
            record(
                "PostgresTarget",
                KEY.name,
                {"members": [{"name": "a", "host": "a"}], "credentials": {"monitor": {"password": NAME}}},
                {"serverVersion": self.version},
            ),
        ]
        return {one.key: one for one in made}

    @asynccontextmanager
    async def task(self, database: str, **options: Any) -> AsyncIterator[tuple[Restore, Ground]]:
        records: Any = self.records()
        images = ToolsImages(template="tools:{major}", majors=self.majors)
        preparer = Preparer(index=records, registry=None, installation="tests", images=images)  # type: ignore[arg-type]
        client: Any = None
        means = Means(index=records, client=client, preparer=preparer, installation="tests", clock=SystemClock())
        restore = {
            "from": {"backupRef": {"name": options.pop("backup", "now")}},
            "into": {"database": {"name": database, **options.pop("into", {})}},
            **options,
        }
        spec = {"targetRef": {"name": KEY.name}, "type": "Restore", "reason": "x", "notAfter": "2026-11-23T00:00:00Z"}
        operation = record("PostgresOperation", "again", {**spec, "restore": restore}, {})
        user = {"username": self.role.user, "password": {"secretRef": {"name": self.role.user.replace("_", "-")}}}
        credentials = {"monitor": user} | ({"restore": user} if self.credential else {})
        target = spec_for({"a": self.server}, credentials=credentials, mode="Enforce")
        async with serving(target, secrets_for(self.server, self.role)) as server:
            identity = ServerIdentity(system_identifier=str(self.server.system_identifier), timeline=1, lsn=0)
            server.standing = Standing(primary="a", identity=identity, refusal=None)
            made = maker(means)(operation, operation.parsed(OperationSpec))
            yield made, Ground(server=server, members=MemberSessions())

    async def plan(self, database: str, **options: Any) -> TaskPlan:
        async with self.task(database, **options) as (task, ground):
            return await task.plan(ground)

    async def waits(self, **options: Any) -> PgtendError:
        with pytest.raises(PgtendError) as caught:
            await self.plan("copy", **options)
        return caught.value


@pytest.fixture
def world(postgres: Postgres) -> World:
    server = postgres(18)
    return World(server=server, role=server.fresh_role("restore", "CREATEDB"))


async def test_what_would_be_done_is_shown(world: World) -> None:
    plan = await world.plan("again", into={"owner": "the shop"})
    assert plan.objection is None
    assert plan.sql == (
        'CREATE DATABASE again OWNER "the shop"',
        "pg_restore --single-transaction --no-owner --role=the shop -d again <shop of now>",
    )
    assert plan.notes == ("now has not been read back yet", "96Gi before compression")
    (item,) = plan.items
    assert item.object == "again" and item.facts["job"].startswith("again-restore-")
    other = await world.plan("elsewhere", into={"owner": "the shop"})
    assert other.plan_hash != plan.plan_hash
    assert (await world.plan("again", into={"owner": "the shop"})).plan_hash == plan.plan_hash


async def test_what_is_not_empty_is_refused_unless_told(world: World) -> None:
    name = world.server.fresh_database("held")
    assert (await world.plan(name)).objection is None
    with world.server.superuser_connect(name) as connection:
        connection.execute("CREATE TABLE kept (a int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    refused = (await world.plan(name)).objection
    assert refused is not None and refused.breach is Breach.DATABASE_NOT_EMPTY and refused.object == name
    assert "public.kept, public.f()" in refused.message and "nothing is ever dropped" in refused.message
    added = await world.plan(name, into={"ifNotEmpty": "Add"})
    assert added.objection is None and "it is added to what is there: public.kept" in added.notes[-1]
    names = sql.SQL("SELECT count(*) FROM pg_class WHERE relname = 'kept'")
    with world.server.superuser_connect(name) as connection:
        assert connection.execute(names).fetchall() == [(1,)], "a plan changes nothing"


@pytest.mark.covers(
    "PostgresOperation.reason.BackupNotAvailable",
    "PostgresOperation.reason.VersionMismatch",
    "PostgresOperation.reason.DatabaseNotInBackup",
)
@pytest.mark.parametrize(
    ("backup", "options", "breach", "said"),
    [
        ({"conditions": [condition("Available", "False")]}, {}, Breach.BACKUP_NOT_AVAILABLE, "not in the bucket any"),
        ({"origin": {"serverVersion": "19.1"}}, {}, Breach.VERSION_MISMATCH, "runs 18.1"),
        ({}, {"select": {"databases": ["other"]}}, Breach.DATABASE_NOT_IN_BACKUP, "it holds shop"),
        ({"databases": [{"name": "a"}, {"name": "b"}]}, {}, Breach.DATABASE_NOT_IN_BACKUP, "it holds a, b"),
    ],
)
async def test_what_will_not_come_is_refused(
    world: World, backup: dict[str, Any], options: dict[str, Any], breach: Breach, said: str
) -> None:
    world.backup = backup
    objection = (await world.plan("copy", **options)).objection
    assert objection is not None and objection.breach is breach and said in objection.message


async def test_of_a_record_that_lists_not_all_the_pod_finds_out(world: World) -> None:
    world.backup = {"databases": [{"name": "a"}, {"name": "b"}], "databasesTruncated": True}
    assert (await world.plan("copy", select={"databases": ["last"]})).objection is None


@pytest.mark.covers(
    "PostgresOperation.reason.BackupNotFound",
    "PostgresOperation.reason.BackupNotComplete",
    "PostgresOperation.reason.DestinationNotReady",
    "PostgresOperation.reason.IdentityMissing",
    "PostgresOperation.reason.ToolsImageMissing",
)
async def test_what_may_come_is_waited_for(world: World) -> None:
    assert (await world.waits(backup="later")).reason is R.BACKUP_NOT_FOUND
    world.backup = {"manifest": None, "finishedAt": None}
    assert (await world.waits()).reason is R.BACKUP_NOT_COMPLETE
    world.backup = {}
    world.destination = {"recipient": {"identity": None}}
    assert (await world.waits()).reason is R.IDENTITY_MISSING
    world.destination = {"conditions": [condition("Ready", "False")]}
    assert (await world.waits()).reason is R.DESTINATION_NOT_READY
    world.destination, world.majors = {}, frozenset({15})
    error = await world.waits()
    assert error.reason is R.TOOLS_IMAGE_MISSING and "tools.majors" in error.message
    world.majors, world.version = frozenset(), ""
    assert (await world.waits()).reason is R.WAITING_FOR_TARGET


@pytest.mark.covers("PostgresOperation.reason.CapabilityMissing")
async def test_a_target_without_the_credential_says_which(world: World) -> None:
    world.credential = False
    error = await world.waits()
    assert error.reason is TargetReason.CAPABILITY_MISSING and error.object == "credentials.restore"
    assert "init-sql --features restore" in error.message
