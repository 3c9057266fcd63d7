"""A whole pass over many users, from the first look to the verdict, with Secrets kept in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

import psycopg
import pytest
from tests.fixtures.counters import SqlCounter
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import INSTALLATION, Shop, initialize, reached

from pgtend.api.databaseuser import DATABASE_USER, UserSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.clock import SystemClock
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.kube.index import Index, record_of
from pgtend.postgres.locks import LOCK_CLASS, Lock
from pgtend.server.server import Server
from pgtend.users.admission import Admitted
from pgtend.users.case import Case
from pgtend.users.keeper import Keeper
from pgtend.users.look import ask_for
from pgtend.users.pace import Pace
from pgtend.users.rotation import Kept
from pgtend.users.tend import Tender
from pgtend.users.wanted import role_name, wanted


class MemoryKeeper:
    """Keeps passwords as the Secrets would."""

    def __init__(self) -> None:
        self.kept: dict[ObjectKey, Kept] = {}

    async def look(self, key: ObjectKey, spec: UserSpec, *, status: Mapping[str, Any]) -> Kept:
        return self.kept.get(key) or Kept(name=key.name, source="Generate", login=role_name(key, spec))

    def forget(self, key: ObjectKey) -> None:
        pass

    async def keep(
        self,
        key: ObjectKey,
        spec: UserSpec,
        target: TargetSpec,
        *,
        role_exists: bool,
        status: Mapping[str, Any],
        alterable: bool = True,
        write: bool = True,
    ) -> Kept:
        made = Kept(
            name=key.name,
            source="Generate",
            login=role_name(key, spec),
            password=Sensitive(f"password of {key.name}"),
            changed_at="2026-11-22T10:00:00Z",
            written=True,
        )
        return self.kept.setdefault(key, made)


class Ground:
    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        initialize(server)
        self.keeper = MemoryKeeper()
        self.tender = Tender(
            client=cast(Any, None),  # asked for finalizers only, which nobody here wants
            index=Index(),
            keeper=cast(Keeper, self.keeper),
            installation=INSTALLATION,
            clock=SystemClock(),
            pace=Pace(SystemClock()),
        )

    def case(self, name: str, *, status: dict[str, Any] | None = None, **spec: Any) -> Case:
        body = {
            "metadata": {
                "name": name,
                "namespace": "shop",
                "uid": name,
                "resourceVersion": "1",
                "creationTimestamp": "2026-11-22T10:00:00Z",
            },
            "spec": {"targetRef": {"name": "orders"}, **spec},
            "status": status or {},
        }
        record = record_of(DATABASE_USER, body)
        parsed = record.parsed(UserSpec)
        return Case(
            record=record,
            spec=parsed,
            wanted=wanted(record.key, parsed, installation=INSTALLATION),
            admitted=Admitted(by="the test"),
        )

    def name(self) -> str:
        return self.server.fresh_name("app").replace("_", "-")


def conditions(case: Case) -> dict[str, tuple[str, str]]:
    assert case.judged is not None
    return {v.type: (v.status, str(v.reason)) for v in case.judged.verdicts}


def again(ground: Ground, case: Case, **spec: Any) -> Case:
    """The same object with the status that the case ended in."""
    assert case.judged is not None
    body = case.spec.model_dump(mode="json", by_alias=True, exclude_none=True) | spec
    return ground.case(case.key.name, status=case.judged.status.to_wire(), **body)


async def test_a_new_user_is_in_force_and_then_left_alone(server: PostgresServer) -> None:
    ground, shop = Ground(server), Shop.open(server)
    async with reached(server) as target:
        case = ground.case(ground.name(), grants=shop.trio())
        await ground.tender.tend(target, [case])
        assert conditions(case)["Ready"] == ("True", "InForce")
        assert case.judged is not None and case.judged.status.password is not None
        assert case.judged.status.password.changed_at == "2026-11-22T10:00:00Z"
        seen = SqlCounter(server, user="pgtend_users")
        case = again(ground, case)
        await ground.tender.tend(target, [case])
        assert conditions(case)["Ready"] == ("True", "InForce")
        assert not [s for s in seen.statements() if not s.lstrip().startswith(("SELECT", "WITH"))]
    with server.connect(case.key.name, shop.name, password=f"password of {case.key.name}"):
        pass


async def test_what_one_user_asks_for_does_not_hold_up_the_others(server: PostgresServer) -> None:
    """A thousand patterns against hundreds of tables: matched beside the loop, which goes on."""
    ground, shop = Ground(server), Shop.open(server)
    with server.superuser_connect(shop.name) as connection:
        connection.execute(
            "DO $$ BEGIN FOR i IN 1..400 LOOP EXECUTE format('CREATE TABLE shop.many_%s (id int)', i); END LOOP; END $$"
        )
    many = [
        {
            "database": shop.name,
            "kind": "Table",
            "schema": "shop",
            "names": [f"*m*{number}*{other}*x" for other in range(64)],
            "privileges": ["Select"],
        }
        for number in range(20)
    ]
    async with reached(server) as target:
        case = ground.case(ground.name(), grants=many)
        in_loop, in_all = time.thread_time(), time.process_time()
        await ground.tender.tend(target, [case])
        in_loop, in_all = time.thread_time() - in_loop, time.process_time() - in_all
    print(f"{in_loop:.2f} s of CPU in the loop of {in_all:.2f} s")
    assert conditions(case)["Ready"] == ("True", "InForce")
    assert in_loop < in_all / 2


async def test_one_turn_of_the_wheel_is_one_look_for_all_batches(server: PostgresServer) -> None:
    ground, shop = Ground(server), Shop.open(server)
    async with reached(server) as target:
        cases = [ground.case(ground.name(), grants=shop.trio()) for _ in range(90)]
        await ground.tender.tend(target, cases)
        cases = [again(ground, case) for case in cases]
        everybody = ask_for((case.wanted.role, case.spec) for case in cases)
        seen = SqlCounter(server, user="pgtend_users")
        for start in (0, 30, 60):
            await ground.tender.tend(target, cases[start : start + 30], everybody=lambda: everybody)
        assert all(conditions(case)["Ready"] == ("True", "InForce") for case in cases)
        # two queries for the server, one for the database: the bar of a steady interval
        assert len(seen.statements()) == 3, [s[:60] for s in seen.statements()]
        # whom somebody has touched is looked at anew
        server.execute(f'ALTER ROLE "{cases[0].key.name}" CONNECTION LIMIT 3')
        await ground.tender.tend(target, [cases[0]])
        assert cases[0].corrected == ("connectionLimit is 3, not unlimited",)


@pytest.mark.covers("DatabaseUser.reason.WriteFailed")
async def test_a_lock_that_is_held_is_told_as_such(server: PostgresServer) -> None:
    ground = Ground(server)
    with server.superuser_connect() as holder:
        holder.execute("SELECT pg_advisory_lock(%s, %s)", [LOCK_CLASS, Lock.SHARED.value])
        async with reached(server) as target:
            case = ground.case(ground.name())
            await ground.tender.tend(target, [case])
            assert conditions(case)["Ready"] == ("False", "WriteFailed")
            assert conditions(case)["CredentialsReady"] == ("False", "WriteFailed")
            assert case.failed is not None and case.failed.transient
            assert "55P03" in case.failed.message
            holder.execute("SELECT pg_advisory_unlock_all()")
            case = again(ground, case)
            await ground.tender.tend(target, [case])
            assert conditions(case)["Ready"] == ("True", "InForce")


REVERT = """
CREATE FUNCTION public.revert() RETURNS event_trigger LANGUAGE plpgsql AS $$ DECLARE g record; BEGIN
  FOR g IN SELECT grantee::regrole AS who FROM pg_class, aclexplode(relacl)
           WHERE relname = 'items' AND grantee <> relowner LOOP
    EXECUTE format('REVOKE SELECT ON shop.items FROM %s', g.who);
  END LOOP;
END $$;
CREATE EVENT TRIGGER revert ON ddl_command_end WHEN TAG IN ('GRANT') EXECUTE FUNCTION public.revert();
"""


@pytest.mark.covers("DatabaseUser.reason.Diverged")
async def test_who_takes_away_what_we_grant_is_noticed(server: PostgresServer) -> None:
    ground, shop = Ground(server), Shop.open(server)
    server.execute(REVERT, dbname=shop.name)
    async with reached(server) as target:
        case = ground.case(ground.name(), grants=shop.trio())
        await ground.tender.tend(target, [case])
    found = conditions(case)
    assert found["PrivilegesInSync"] == found["InSync"] == found["Ready"] == ("False", "Diverged")
    assert case.judged is not None and case.judged.status.drift is not None
    assert case.judged.status.drift.differences == (f"Select on table shop.items of database {shop.name} is missing",)


async def test_in_observe_nothing_but_monitor_connects(server: PostgresServer) -> None:
    ground, shop = Ground(server), Shop.open(server)
    seen = SqlCounter(server)
    async with reached(server, mode="Observe") as target:
        case = ground.case(ground.name(), grants=shop.trio())
        case.observing = "target databases/orders"
        await ground.tender.tend(target, [case])
    assert conditions(case)["Ready"] == ("True", "Observing")
    assert conditions(case)["InSync"] == ("False", "Drifted")
    assert ground.keeper.kept == {}
    statements = seen.statements()
    assert statements and not [s for s in statements if not s.lstrip().startswith(("SELECT", "WITH"))]
    assert {line.user for line in seen.lines() if line.text.startswith("connection auth")} == {"pgtend_monitor"}


async def test_without_a_credential_for_users_nothing_is_written(server: PostgresServer) -> None:
    ground, shop = Ground(server), Shop.open(server)
    async with reached(server) as target:
        spec = target.spec.model_copy(
            update={"credentials": target.spec.credentials.model_copy(update={"users": None})}
        )
        bare = _like(target, spec)
        case = ground.case(ground.name(), grants=shop.trio())
        await ground.tender.tend(bare, [case])
        await bare.close()
    assert conditions(case)["Ready"] == ("False", "CapabilityMissing")
    assert case.failed is not None
    assert "has no credentials.users" in case.failed.message
    with pytest.raises(psycopg.OperationalError):
        server.connect(case.key.name, password=f"password of {case.key.name}")


def _like(server: Server, spec: TargetSpec) -> Server:
    made = Server(
        key=server.key,
        spec=spec,
        secrets=server._secrets,
        policy=server._policy,
        installation=INSTALLATION,
        clock=SystemClock(),
    )
    made.standing = server.standing
    return made


async def test_a_login_that_is_off_counts_its_sessions(server: PostgresServer) -> None:
    ground, shop = Ground(server), Shop.open(server)
    async with reached(server) as target:
        case = ground.case(ground.name(), grants=shop.trio())
        await ground.tender.tend(target, [case])
        with server.connect(case.key.name, shop.name, password=f"password of {case.key.name}"):
            off = again(ground, case, login=False)
            await ground.tender.tend(target, [off])
            assert off.judged is not None
            assert off.judged.status.remaining_sessions == 1
            assert conditions(off)["Ready"] == ("True", "InForce")
