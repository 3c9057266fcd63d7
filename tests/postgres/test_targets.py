"""A target's life on real servers: failover, crash, rollback, a stranger behind the address; what is said and refused.

Driven through the controller itself; only the writing of the status to Kubernetes is replaced, by the same composition
kept in memory.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from tests.fixtures.plugin import Poolers, Postgres, Proxies
from tests.fixtures.postgres import Login as Role
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.tls import CertificateAuthority
from tests.postgres.server_kit import KEY, Endpoint, Policy, ca_of, monitor, secrets_for, spec_for

from pgtend.api.base import Kind
from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.clock import Clock, FakeClock, SystemClock, rfc3339
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.kube.index import Index, Record
from pgtend.kube.status import Draft, compose, worth_writing
from pgtend.postgres import purposes
from pgtend.postgres.purposes import Limits, Purpose
from pgtend.server.registry import Registry
from pgtend.server.server import Server
from pgtend.targets import controller as module
from pgtend.targets.controller import TargetController


class Board:
    """The status as Kubernetes would keep it. `writes` counts what was worth one."""

    def __init__(self, index: Index, clock: Clock) -> None:
        self.index, self.clock, self.writes = index, clock, 0

    async def write(self, kind: Kind, record: Record, draft: Draft) -> Record:
        now = rfc3339(self.clock.now())
        wanted = compose(previous=record.status, draft=draft, generation=record.generation, now=now)
        if not worth_writing(record.status, wanted, draft.figures, now):
            return record
        self.writes += 1
        written = replace(record, status=wanted)
        self.index.put(written)
        return written


class Tended:
    """One target under the controller. `probe()` is one reconcile."""

    def __init__(self, spec: TargetSpec, secrets: Any, *, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.index = Index()
        self.board = Board(self.index, self.clock)
        self.secrets = secrets
        self.changes: list[ObjectKey] = []
        self.record(spec)
        self.start()

    def start(self) -> None:
        """A new process: what it knows comes from the status."""
        self.registry = Registry(secrets=self.secrets, policy=Policy().made(), installation="tests", clock=self.clock)
        self.controller = TargetController(
            client=cast(Any, None),  # nobody needs a finalizer here
            index=self.index,
            registry=self.registry,
            status=self.board,  # type: ignore[arg-type]
            secrets=self.secrets,
            installation="tests",
            clock=self.clock,
            standing_changed=self.changes.append,
            holders=lambda key: (),
            braked=lambda: False,
            backups=lambda key: None,
        )

    def record(self, spec: TargetSpec | None, *, error: str | None = None, uid: str = "u") -> None:
        before = self.index.get(KEY)
        kept = before.status if before is not None and before.uid == uid else {}
        self.index.put(
            Record(
                key=KEY, uid=uid, generation=1, resource_version="1", created=datetime(2026, 1, 1, tzinfo=UTC),
                deleting=False, finalizers=(), labels={}, annotations={}, owners=(), spec=spec, spec_error=error,
                status=kept,
            )
        )  # fmt: skip

    async def probe(self) -> dict[str, Any]:
        outcome = (await self.controller.reconcile([KEY]))[KEY]
        self.again = outcome.again
        return self.status

    @property
    def status(self) -> dict[str, Any]:
        record = self.index.get(KEY)
        assert record is not None
        return dict(record.status)

    @property
    def server(self) -> Server:
        found = self.registry.find(KEY)
        assert found is not None
        return found

    def told(self, condition: str) -> tuple[str, str]:
        (found,) = [c for c in self.status["conditions"] if c["type"] == condition]
        return found["status"], found["reason"]

    def message(self, condition: str) -> str:
        (found,) = [c for c in self.status["conditions"] if c["type"] == condition]
        return str(found["message"])

    def refused(self) -> str | None:
        """Why nothing may be written now, or None."""
        try:
            self.server.writable()
        except PgtendError as error:
            return str(error.reason)
        return None

    async def until(self, check: Callable[[], bool], seconds: float = 20.0) -> float:
        """Probe as often as the controller wants, each second at most, until it holds; how long it took."""
        started = time.monotonic()
        while True:
            await self.probe()
            if check():
                return time.monotonic() - started
            assert time.monotonic() - started < seconds, self.status
            await asyncio.sleep(min(self.again or 1.0, 1.0))


@asynccontextmanager
async def tending(
    members: dict[str, Endpoint],
    of: PostgresServer,
    *,
    role: Role | None = None,
    clock: Clock | None = None,
    **fields: Any,
) -> AsyncIterator[Tended]:
    """`of` is where the monitor's role is made; it must have reached the other members before the first probe."""
    role = role or monitor(of)
    spec = spec_for(members, monitor=role.user, **{"mode": "Enforce", **fields})
    made = Tended(spec, secrets_for(of, role), clock=clock)
    try:
        yield made
    finally:
        await made.registry.close()


def pair(postgres: Postgres, major: int) -> tuple[PostgresServer, PostgresServer, Role]:
    """A primary and its standby for this test alone, and a monitor that both know."""
    standby = postgres(major, role="standby", fresh=True)
    primary = standby.primary
    assert primary is not None
    role = monitor(primary)
    primary.wait_replayed(standby)
    return primary, standby, role


def advance(server: PostgresServer) -> None:
    """Write some WAL, so that the LSN has certainly moved on."""
    server.execute("CREATE TABLE IF NOT EXISTS public.filler (t text)")
    server.execute("INSERT INTO public.filler SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
    server.execute("CHECKPOINT")


# Two targets of one server


def elder(tended: Tended, key: ObjectKey, spec: TargetSpec, system: str | None) -> None:
    """An older target that this process has not looked at yet. `system` is what its status records."""
    mine = tended.index.get(KEY)
    assert mine is not None
    identity = {"identity": {"systemIdentifier": system, "timeline": "1", "lsn": "0/1"}} if system else {}
    tended.index.put(replace(mine, key=key, created=datetime(2025, 1, 1, tzinfo=UTC), spec=spec, status=identity))


@pytest.mark.parametrize("recorded", [True, False], ids=["by its record", "by host and port"])
async def test_after_a_restart_the_younger_of_two_writes_nothing_before_the_older_was_probed(
    server: PostgresServer, recorded: bool
) -> None:
    other = ObjectKey("PostgresTarget", "db", "elder")
    async with tending({"a": server}, server) as tended:
        spec = tended.index.get(KEY).spec  # type: ignore[union-attr]
        elder(tended, other, spec, str(server.system_identifier) if recorded else None)
        await tended.probe()
        reason = "DuplicateServer" if recorded else "NotProbed"
        assert tended.refused() == reason and tended.told("Accepted") == ("False", reason)
        assert "elder" in tended.message("Accepted") and (tended.again or 9) <= 1.0
        await tended.controller.reconcile([other])
        await tended.probe()
        assert tended.refused() == "DuplicateServer" and tended.told("Accepted") == ("False", "DuplicateServer")
        tended.index.drop(other)
        await tended.controller.reconcile([other])
        await tended.probe()
        assert tended.refused() is None


async def test_an_older_target_of_something_else_holds_nobody_up(server: PostgresServer) -> None:
    """Its record names another system; or it is at another place; or it sleeps; or nobody answers there."""
    other = ObjectKey("PostgresTarget", "db", "elder")
    async with tending({"a": server}, server) as tended:
        spec = tended.index.get(KEY).spec  # type: ignore[union-attr]
        elsewhere = spec.model_copy(update={"members": (spec.members[0].model_copy(update={"port": 1}),)})
        asleep = spec.model_copy(update={"suspend": True})
        for theirs, system in ((spec, "1"), (elsewhere, None), (asleep, str(server.system_identifier))):
            elder(tended, other, theirs, system)
            await tended.probe()
            assert tended.refused() is None and (tended.again or 0) > 1.0
        elder(tended, other, elsewhere, str(server.system_identifier))
        await tended.probe()
        assert tended.refused() == "DuplicateServer"
        await tended.controller.reconcile([other])
        await tended.probe()
        assert tended.refused() is None, "it was looked for, and is not there"


# Failover

# seconds: 5 are promised, a busy machine gets half as much again; each prints what it took
LIMIT = 7.5


@pytest.mark.covers(
    "PostgresTarget.reason.NoPrimary",
    "PostgresTarget.reason.NotReached",
    "PostgresTarget.reason.StaleMember",
)
@pytest.mark.parametrize("major", [14, 18])
async def test_after_an_asynchronous_failover_writes_go_on_and_the_old_primary_is_stale(
    postgres: Postgres, major: int
) -> None:
    primary, standby, role = pair(postgres, major)
    async with tending({"a": primary, "b": standby}, primary, role=role) as target:
        await target.until(lambda: target.told("ReplicationHealthy") == ("True", "AsExpected"))
        assert target.server.writable().primary == "a"
        assert (target.told("Ready"), target.again) == (("True", "InForce"), 15.0)

        primary.kill9()
        await target.probe()
        assert target.told("Ready") == ("False", "NoPrimary")
        assert target.told("ReplicationHealthy") == ("Unknown", "NotReached")
        assert target.refused() == "NoPrimary"
        assert "replicationLag" not in target.status
        assert target.again == 1.0, "a standby may be promoted at any moment"

        standby.promote()
        took = await target.until(lambda: target.refused() is None)
        print(f"writable again {took:.1f} s after the promotion")
        assert took < LIMIT
        assert target.server.writable().primary == "b"
        assert target.status["identity"]["timeline"] == "2"

        primary.start()
        await target.probe()
        assert target.told("ReplicationHealthy") == ("False", "StaleMember")
        assert target.status["worst"]["object"] == "a"
        assert target.told("Ready") == ("True", "InForce"), "nothing freezes while another qualifies"
        assert (target.refused(), target.server.writable().primary) == (None, "b")

        standby.stop("immediate")
        await target.probe()
        assert (target.told("Ready"), target.refused()) == (("False", "StaleMember"), "StaleMember")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first probe of a member that falls silent takes 8 s; the tests of what comes then need not wait for it."""
    limits = Limits(statement=2_000, lock=200, idle_in_transaction=5_000, deadline=1.0)
    monkeypatch.setitem(purposes._LIMITS, Purpose.PROBE, limits)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.5)


@pytest.mark.usefixtures("hurried")
async def test_a_primary_that_becomes_a_black_hole_does_not_hold_up_its_successor(
    postgres: Postgres, proxy: Proxies
) -> None:
    primary, standby, role = pair(postgres, 18)
    through = proxy(primary)
    async with tending({"a": through, "b": standby}, primary, role=role) as target:
        await target.probe()
        through.black_hole()
        await target.probe()
        assert target.told("Reachable") == ("False", "TimedOut")
        assert target.refused() == "NoPrimary"
        await target.probe()
        standby.promote()
        took = await target.until(lambda: target.refused() is None)
        print(f"writable again {took:.1f} s after the promotion")
        assert took < 5.0, "a silent member is waited for"


@pytest.mark.covers("PostgresTarget.reason.NoStandby")
@pytest.mark.parametrize("major", [14, 18])
async def test_a_crash_and_a_restart_change_nothing(postgres: Postgres, major: int) -> None:
    server = postgres(major, fresh=True)
    async with tending({"a": server}, server) as target:
        await target.probe()
        assert target.told("ReplicationHealthy") == ("True", "NoStandby")
        before = target.status
        advance(server)
        server.kill9()
        await target.probe()
        assert target.told("Ready") == ("False", "ConnectionRefused")
        server.start()
        await target.until(lambda: target.refused() is None)
        assert target.told("Ready") == ("True", "InForce")
        assert target.status["identity"]["systemIdentifier"] == before["identity"]["systemIdentifier"]
        assert target.status["identityToken"] == before["identityToken"]


@pytest.mark.covers("PostgresTarget.reason.SplitBrain")
@pytest.mark.parametrize("major", [14, 18])
async def test_two_primaries_on_one_timeline_freeze(postgres: Postgres, major: int) -> None:
    primary, standby, role = pair(postgres, major)
    async with tending({"a": primary, "b": standby}, primary, role=role) as target:
        await target.probe()
        standby.stop()
        (standby.data / "standby.signal").unlink()  # somebody starts it without promoting it
        standby.start()
        assert not standby.in_recovery()
        await target.probe()
        assert (target.told("Ready"), target.refused()) == (("False", "SplitBrain"), "SplitBrain")
        assert target.status["worst"]["object"] == "a and b"
        standby.stop()
        await target.probe()
        assert target.refused() is None, "stopping one of them is enough"


# Another server in its place


def copy_of(server: PostgresServer) -> Callable[[], None]:
    """Take a copy of the data folder of a server that is down; what is returned puts it back in its place."""
    kept = server.data.with_name(f"copy-{time.monotonic_ns()}")
    subprocess.run(["cp", "-a", server.data, kept], check=True)

    def put_back() -> None:
        shutil.rmtree(server.data)
        subprocess.run(["cp", "-a", kept, server.data], check=True)

    return put_back


@pytest.mark.covers("PostgresTarget.reason.IdentityChanged", "PostgresTarget.spec.acceptIdentity")
@pytest.mark.parametrize("major", [14, 18])
async def test_a_snapshot_rolled_back_freezes_until_it_is_accepted_and_each_time_anew(
    postgres: Postgres, major: int
) -> None:
    server = postgres(major, fresh=True)
    role = monitor(server)
    server.stop()
    roll_back = copy_of(server)
    server.start()
    async with tending({"a": server}, server, role=role) as target:
        advance(server)
        await target.probe()
        assert target.refused() is None

        async def back_again() -> str:
            server.stop()
            roll_back()
            server.start()
            await target.until(lambda: target.told("Reachable")[0] == "True")
            assert (target.told("Ready"), target.refused()) == (("False", "IdentityChanged"), "IdentityChanged")
            return str(target.status["identityToken"])

        recorded = target.status["identity"]
        token = await back_again()
        assert token in target.message("Ready")
        assert target.status["identity"] == recorded, "what was recorded stays on record"
        await target.registry.close()
        target.start()
        await target.probe()
        assert target.refused() == "IdentityChanged", "a restart forgets nothing"
        assert target.status["identityToken"] == token

        spec = spec_for({"a": server}, monitor=role.user, mode="Enforce", acceptIdentity=token)
        target.record(spec)
        await target.probe()
        assert (target.told("Ready"), target.refused()) == (("True", "InForce"), None)
        advance(server)
        await target.probe()
        assert target.refused() is None, "and it stays accepted while the server goes on"

        again = await back_again()
        assert again != token, "the acceptance of that change accepts no other"


@pytest.mark.parametrize("major", [14, 18])
async def test_another_cluster_behind_the_same_address_freezes_until_the_known_one_is_back(
    postgres: Postgres, proxy: Proxies, major: int
) -> None:
    server, other = postgres(major, fresh=True), postgres(major)
    role = monitor(server)
    other.execute(f"CREATE ROLE {role.user} LOGIN PASSWORD '{role.password}' IN ROLE pg_monitor")
    through = proxy((server.host, server.port))
    async with tending({"a": through}, server, role=role) as target:
        await target.probe()
        assert target.refused() is None

        def repoint(to: PostgresServer) -> None:
            through._target = (to.host, to.port)
            through.cut()

        repoint(other)
        await target.probe()
        assert target.refused() == "IdentityChanged"
        assert str(other.system_identifier) in target.message("Ready")
        assert target.told("Reachable") == ("True", "Connected")
        repoint(server)
        await target.probe()
        assert target.refused() is None


@pytest.mark.covers(
    "PostgresTarget.spec.suspend", "PostgresTarget.reason.InvalidSpec", "PostgresTarget.reason.Suspended"
)
async def test_an_invalid_spec_and_a_pause_keep_the_identity_on_record(postgres: Postgres, proxy: Proxies) -> None:
    """Else another server could take the place while nobody looked."""
    server, other = postgres(18, fresh=True), postgres(18)
    role = monitor(server)
    other.execute(f"CREATE ROLE {role.user} LOGIN PASSWORD '{role.password}' IN ROLE pg_monitor")
    through = proxy((server.host, server.port))
    for paused in (None, spec_for({"a": through}, monitor=role.user, mode="Enforce", suspend=True)):
        async with tending({"a": through}, server, role=role) as target:
            spec = target.index.get(KEY)
            assert spec is not None
            await target.probe()
            target.changes.clear()
            target.record(paused, error=None if paused else "spec.mode: wrong")
            await target.probe()
            assert target.registry.find(KEY) is None
            assert target.changes == [KEY], "its dependents are told"
            assert target.told("Ready")[1] == ("Suspended" if paused else "InvalidSpec")
            wrote = target.board.writes
            await target.probe()
            assert target.board.writes == wrote
            through._target = (other.host, other.port)
            target.start()
            target.record(spec.spec)
            await target.probe()
            assert target.refused() == "IdentityChanged"
            through._target = (server.host, server.port)


async def test_an_object_made_again_under_the_same_name_is_another_target(postgres: Postgres) -> None:
    first, second = postgres(18), postgres(14)
    role = monitor(first)
    second.execute(f"CREATE ROLE {role.user} LOGIN PASSWORD '{role.password}' IN ROLE pg_monitor")
    async with tending({"a": first}, first, role=role) as target:
        await target.probe()
        target.record(spec_for({"a": second}, monitor=role.user, mode="Enforce"), uid="another")
        await target.probe()
        assert target.refused() is None
        assert target.status["identity"]["systemIdentifier"] == str(second.system_identifier)


# What is seen of replication


@pytest.mark.covers("PostgresTarget.reason.MissingPrivilege")
@pytest.mark.parametrize("major", [14, 18])
async def test_without_pg_monitor_it_is_unknown_and_the_given_sql_cures_it(postgres: Postgres, major: int) -> None:
    standby = postgres(major, role="standby")
    primary = standby.primary
    assert primary is not None
    role = monitor(primary, see=False)
    primary.wait_replayed(standby)
    async with tending({"a": primary, "b": standby}, primary, role=role) as target:
        await target.probe()
        for condition in ("ReplicationHealthy", "ConnectionsHealthy", "QueriesHealthy", "LocksHealthy"):
            assert target.told(condition) == ("Unknown", "MissingPrivilege")
        assert target.told("Ready") == ("True", "InForce")
        (missing,) = target.status["missingPrivileges"]
        assert missing["sql"] == f"GRANT pg_monitor TO {role.user}"
        primary.execute(missing["sql"])
        primary.wait_replayed(standby)
        await target.until(lambda: target.told("ReplicationHealthy") == ("True", "AsExpected"))
        assert "missingPrivileges" not in target.status


@pytest.mark.covers(
    "PostgresTarget.reason.ReplicationLagWarning",
    "PostgresTarget.reason.ReplicationLagCritical",
    "PostgresTarget.spec.thresholds.replicationLag.warning",
    "PostgresTarget.spec.thresholds.replicationLag.critical",
    "PostgresTarget.spec.thresholds.replicationLag.for",
)
@pytest.mark.parametrize("major", [14, 18])
async def test_a_delayed_standby_is_late_and_an_idle_primary_makes_nobody_late(postgres: Postgres, major: int) -> None:
    primary, standby, role = pair(postgres, major)
    clock = FakeClock(datetime.now(UTC))
    limits = {"replicationLag": {"warning": "30s", "critical": "5m", "for": "45s"}}
    async with tending({"a": primary, "b": standby}, primary, role=role, clock=clock, thresholds=limits) as target:
        await target.until(lambda: target.told("ReplicationHealthy") == ("True", "AsExpected"))
        for _ in range(6):
            clock.advance(600)
            await target.probe()
            assert target.told("ReplicationHealthy") == ("True", "AsExpected")
            assert target.status["replicationLag"] == "<1s", "an hour of idleness is no lag"
        wrote = target.board.writes

        standby.configure(recovery_min_apply_delay="1h")
        primary.execute("CREATE TABLE public.delayed AS SELECT 1 AS i")
        primary.execute("CHECKPOINT")  # flushed, for what is not has not happened yet
        found = []
        for _ in range(24):
            clock.advance(15)
            await target.probe()
            found.append(target.told("ReplicationHealthy")[1])
        # seen at 15 s, beyond 30 s from 45 s on, which must last for 45 s
        assert found == ["AsExpected"] * 5 + ["ReplicationLagWarning"] * 15 + ["ReplicationLagCritical"] * 4, found
        assert target.board.writes == wrote + 3, "the figure that had stood for an hour, then two transitions"
        assert "standby b is behind primary a" in target.message("ReplicationHealthy")
        assert target.status["members"][1]["lag"]["time"] == "5m"

        standby.configure(recovery_min_apply_delay="0")
        await target.until(lambda: target.told("ReplicationHealthy") == ("True", "AsExpected"))


@pytest.mark.covers("PostgresTarget.reason.NotStreaming")
async def test_a_standby_without_receiver(postgres: Postgres) -> None:
    primary, standby, role = pair(postgres, 18)
    clock = FakeClock(datetime.now(UTC))
    async with tending({"a": primary, "b": standby}, primary, role=role, clock=clock) as target:
        await target.until(lambda: target.told("ReplicationHealthy") == ("True", "AsExpected"))
        standby.configure(primary_conninfo="host=/nowhere user=nobody")
        for _ in range(100):
            if not standby.execute("SELECT 1 FROM pg_stat_wal_receiver"):
                break
            await asyncio.sleep(0.05)
        await target.probe()
        clock.advance(50)
        await target.probe()
        assert target.told("ReplicationHealthy") == ("False", "NotStreaming")
        assert "no WAL receiver since" in target.message("ReplicationHealthy")


# Probing


@pytest.mark.covers("PostgresTarget.reason.ProbeFailed", "PostgresTarget.spec.maintenanceDatabase")
async def test_a_member_that_lets_us_in_but_tells_nothing(server: PostgresServer) -> None:
    database = server.fresh_database()
    server.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC, pg_monitor", dbname=database)
    async with tending({"a": server}, server, maintenanceDatabase=database) as target:
        await target.probe()
        assert target.told("Reachable") == ("False", "ProbeFailed")
        assert "pg_control_system" in target.message("Reachable")
        assert target.refused() is not None
        server.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC", dbname=database)
        await target.probe()
        assert target.refused() is None


async def test_a_steady_probe_is_two_round_trips_and_no_connection(server: PostgresServer, proxy: Proxies) -> None:
    through = proxy(server)
    async with tending({"a": through}, server) as target:
        await target.probe()
        mark, wrote = through.counts(), target.board.writes
        for _ in range(5):
            await target.probe()
        passed = through.counts() - mark
        assert (passed.connections, passed.round_trips) == (0, 10)
        assert target.board.writes == wrote


async def test_a_dead_session_is_replaced_within_the_probe(server: PostgresServer) -> None:
    role = monitor(server)
    async with tending({"a": server}, server, role=role) as target:
        await target.probe()
        wrote = target.board.writes
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role.user])
        await target.probe()
        assert target.told("Reachable") == ("True", "Connected")
        assert target.board.writes == wrote, "nobody need know"


@pytest.mark.usefixtures("hurried")
async def test_a_frozen_standby_does_not_hide_its_primary(postgres: Postgres) -> None:
    primary, standby, role = pair(postgres, 18)
    async with tending({"a": primary, "b": standby}, primary, role=role) as target:
        await target.probe()
        with standby.frozen():
            await target.probe()
            assert target.told("Reachable") == ("False", "TimedOut")
            assert target.told("ReplicationHealthy") == ("False", "StandbyUnreachable")
            assert [m["role"] for m in target.status["members"]] == ["Primary", "Unknown"], "told at once"
            assert target.refused() is None
        await target.until(lambda: target.told("ReplicationHealthy") == ("True", "AsExpected"))


@pytest.mark.covers(
    "PostgresTarget.spec.pooler.tls.ca.secretRef.name", "PostgresTarget.spec.pooler.tls.ca.secretRef.key"
)
async def test_a_pooler_is_read_over_its_own_tls(postgres: Postgres, pgbouncer: Poolers, tmp_path: Path) -> None:
    server = postgres(18)
    pooler = pgbouncer(server)
    role = monitor(server)
    how = {
        "host": pooler.host,
        "port": pooler.port,
        "tls": {"ca": {"secretRef": {"name": "pool", "key": "root.pem"}}},
        "credential": {"username": pooler.console.user, "password": {"secretRef": {"name": "console"}}},
    }
    async with tending({"a": server}, server, role=role, pooler=how) as target:
        target.secrets.put("console", password=pooler.console.password)
        target.secrets.put("pool", root_pem=CertificateAuthority(tmp_path).path.read_text())
        await target.probe()
        assert target.told("PoolHealthy") == ("False", "PoolerUnreachable")
        assert "certificate" in target.message("PoolHealthy")
        target.secrets.put("pool", root_pem=ca_of(server))
        await target.probe()
        assert target.told("PoolHealthy") == ("True", "AsExpected")
        assert target.told("Ready") == ("True", "InForce"), "health does not feed Ready"
