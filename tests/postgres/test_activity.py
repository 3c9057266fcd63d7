"""The judges of sessions, locks and pools on real servers: each fault is made, and the verdict names its offender."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.fixtures.pgbouncer import PgBouncer
from tests.fixtures.postgres import Login as Role
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.processes import ProcessRegistry

from pgtend.api.conditions import Verdict
from pgtend.api.postgrestarget import Pooler, TargetSpec
from pgtend.core.redaction import Sensitive
from pgtend.postgres.connect import connect
from pgtend.postgres.login import Address, Login
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.session import Session
from pgtend.targets.grading import Grades
from pgtend.targets.judge_pooler import judge_pooler
from pgtend.targets.judge_sessions import judge_sessions
from pgtend.targets.observe import read_member
from pgtend.targets.pooler import read_pooler


def spec(**thresholds: Any) -> TargetSpec:
    return TargetSpec.model_validate(
        {
            "members": [{"name": "a", "host": "unused"}],
            "credentials": {"monitor": {"password": {"secretRef": {"name": "m"}}}},
            "thresholds": thresholds,
        }
    )


@asynccontextmanager
async def probing(server: PostgresServer, *, see: bool = True) -> AsyncIterator[Session]:
    role = server.fresh_role("monitor", "IN ROLE pg_monitor" if see else "")
    session = await connect(
        address=Address(
            name="a",
            host=server.host,
            port=server.port,
            sslmode="verify-full",
            ca=Path(server.ca_path).read_text(),
        ),
        login=Login(user=role.user, password=Sensitive(role.password)),
        database="postgres",
        purpose=Purpose.PROBE,
        application_name="pgtend/test/probe/x",
    )
    try:
        yield session
    finally:
        await session.close()


async def verdicts(session: Session, wanted: TargetSpec, grades: Grades | None = None) -> dict[str, Verdict]:
    reading = await read_member(
        session,
        at=datetime.now(UTC),
        query_floor=wanted.thresholds.query_duration.floor,
        idle_floor=wanted.thresholds.idle_in_transaction.floor,
        own=wanted.credentials.roles,
    )
    found, trees = judge_sessions(spec=wanted, readings=[reading], grades=grades or Grades(), now=datetime.now(UTC))
    named = {verdict.type: verdict for verdict in found}
    named["trees"] = trees  # type: ignore[assignment]
    return named


@contextmanager
def running(server: PostgresServer, role: Role, statement: str) -> Iterator[int]:
    """A session that runs a statement in the background; gives its pid."""
    connection = server.connect(role)
    connection.autocommit = True
    pid = connection.info.backend_pid

    def work() -> None:
        with suppress(psycopg.Error):
            connection.execute(statement)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield pid
    finally:
        server.execute(f"SELECT pg_terminate_backend({pid})")
        thread.join(10)
        connection.close()


async def until(check: Callable[[], Any], seconds: float = 15.0) -> Any:
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        found = await check()
        if found:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("not seen in time")


@pytest.mark.covers(
    "PostgresTarget.spec.thresholds.queryDuration.warning",
    "PostgresTarget.spec.thresholds.queryDuration.critical",
    "PostgresTarget.reason.QueryDurationWarning",
    "PostgresTarget.reason.QueryDurationCritical",
)
async def test_a_long_statement_is_named_without_its_text(server: PostgresServer) -> None:
    role = server.fresh_role("report")
    wanted = spec(queryDuration={"warning": "1s", "critical": "3s"})
    grades = Grades()
    async with probing(server) as session:

        async def healthy() -> bool:
            # another test's session may be about to end, and so may ours be
            return (await verdicts(session, wanted, grades))["QueriesHealthy"].status == "True"

        await until(healthy)
        with running(server, role, "SELECT pg_sleep(60), 'a-secret-literal'") as pid:

            async def reason(name: str) -> Verdict | None:
                found = (await verdicts(session, wanted, grades))["QueriesHealthy"]
                return found if found.reason == name else None

            warned = await until(lambda: reason("QueryDurationWarning"))
            assert f"pid {pid} ({role.user} in postgres" in warned.message
            assert "secret-literal" not in warned.message
            assert warned.object == f"pid {pid}"
            await until(lambda: reason("QueryDurationCritical"))
        await until(healthy)


@pytest.mark.covers(
    "PostgresTarget.spec.thresholds.idleInTransaction.warning",
    "PostgresTarget.spec.thresholds.idleInTransaction.critical",
    "PostgresTarget.reason.IdleInTransactionWarning",
    "PostgresTarget.reason.IdleInTransactionCritical",
)
async def test_an_idle_transaction_is_named(server: PostgresServer) -> None:
    role = server.fresh_role("forgetful")
    with server.connect(role) as connection, connection.transaction():
        connection.execute("SELECT 1")
        async with probing(server) as session:
            for thresholds, reason in (
                ({"warning": "500ms"}, "IdleInTransactionWarning"),
                ({"warning": "200ms", "critical": "600ms"}, "IdleInTransactionCritical"),
            ):

                async def seen(thresholds: Any = thresholds, reason: str = reason) -> Verdict | None:
                    found = (await verdicts(session, spec(idleInTransaction=thresholds)))["QueriesHealthy"]
                    return found if found.reason == reason else None

                found = await until(seen)
                assert f"pid {connection.info.backend_pid} ({role.user}" in found.message


@pytest.mark.covers(
    "PostgresTarget.spec.thresholds.lockWait.warning",
    "PostgresTarget.spec.thresholds.lockWait.critical",
    "PostgresTarget.reason.LockWaitWarning",
    "PostgresTarget.reason.LockWaitCritical",
)
async def test_the_root_of_a_blocking_tree_is_named(server: PostgresServer) -> None:
    role = server.fresh_role("app")
    table = server.fresh_name("queue")
    with server.superuser_connect() as admin:
        admin.execute(f"CREATE TABLE public.{table} (id int)")
        admin.execute(f"ALTER TABLE public.{table} OWNER TO {role.user}")
    with server.connect(role) as root, root.transaction():
        root.execute(f"LOCK TABLE public.{table} IN ACCESS EXCLUSIVE MODE")
        statement = f"LOCK TABLE public.{table} IN ACCESS SHARE MODE"
        with (
            running(server, role, f"BEGIN; {statement}") as first,
            running(server, role, f"BEGIN; {statement}") as second,
        ):
            async with probing(server) as session:

                async def seen(limits: dict[str, str], reason: str) -> Any:
                    found = await verdicts(session, spec(lockWait=limits))
                    tree = found["trees"][0] if found["trees"] else None  # type: ignore[index]
                    ready = tree is not None and tree.blocked == 2
                    return (found["LocksHealthy"], tree) if found["LocksHealthy"].reason == reason and ready else None

                verdict, tree = await until(lambda: seen({"warning": "300ms"}, "LockWaitWarning"))
                pid = root.info.backend_pid
                assert tree.root.startswith(f"pid {pid} ({role.user}")
                assert tree.tree == f"{pid} <- ({min(first, second)}, {max(first, second)})"
                assert verdict.object == f"pid {pid}" and "blocks 2 sessions" in verdict.message
                await until(lambda: seen({"warning": "100ms", "critical": "300ms"}, "LockWaitCritical"))


@pytest.mark.covers(
    "PostgresTarget.spec.thresholds.connectionsUsed.warning",
    "PostgresTarget.spec.thresholds.connectionsUsed.critical",
    "PostgresTarget.spec.thresholds.connectionsUsed.for",
    "PostgresTarget.reason.ConnectionsUsedWarning",
    "PostgresTarget.reason.ConnectionsUsedCritical",
)
async def test_connections_are_counted_and_the_greedy_role_is_named(server: PostgresServer) -> None:
    role = server.fresh_role("greedy")
    async with probing(server) as session:
        calm = spec(connectionsUsed={"warning": "100%", "critical": "100%"})
        assert (await verdicts(session, calm))["ConnectionsHealthy"].status == "True"
        held = [server.connect(role) for _ in range(12)]
        try:
            used = spec(connectionsUsed={"warning": "5%", "critical": "90%"})
            found = (await verdicts(session, used))["ConnectionsHealthy"]
            assert found.reason == "ConnectionsUsedWarning" and f"{role.user} 12" in found.message
            critical = spec(connectionsUsed={"warning": "1%", "critical": "5%"})
            assert (await verdicts(session, critical))["ConnectionsHealthy"].reason == "ConnectionsUsedCritical"
            patient = spec(connectionsUsed={"warning": "5%", "for": "10m"})
            assert (await verdicts(session, patient))["ConnectionsHealthy"].status == "True"
        finally:
            for connection in held:
                connection.close()


@pytest.mark.covers(
    "PostgresTarget.spec.thresholds.queryDuration.for",
    "PostgresTarget.spec.thresholds.idleInTransaction.for",
    "PostgresTarget.spec.thresholds.lockWait.for",
)
async def test_what_is_over_its_limit_for_less_than_for_is_no_trouble_yet(server: PostgresServer) -> None:
    role = server.fresh_role("slow")
    table = server.fresh_name("held")
    server.execute(f"CREATE TABLE public.{table} (id int)")
    server.execute(f"ALTER TABLE public.{table} OWNER TO {role.user}")
    at_once = {"warning": "100ms", "for": "0s"}
    patient = {"warning": "100ms", "for": "10m"}
    with server.connect(role) as holder, holder.transaction():
        holder.execute(f"LOCK TABLE public.{table} IN ACCESS EXCLUSIVE MODE")
        with running(server, role, f"TABLE public.{table}"):
            async with probing(server) as session:
                for figure, condition in (
                    ("queryDuration", "QueriesHealthy"),
                    ("idleInTransaction", "QueriesHealthy"),
                    ("lockWait", "LocksHealthy"),
                ):

                    async def over(figure: str = figure, condition: str = condition) -> bool:
                        return (await verdicts(session, spec(**{figure: at_once})))[condition].status == "False"

                    await until(over)
                    assert (await verdicts(session, spec(**{figure: patient})))[condition].status == "True"


async def test_without_pg_monitor_nothing_is_claimed(server: PostgresServer) -> None:
    async with probing(server, see=False) as session:
        found = await verdicts(session, spec())
    for name in ("ConnectionsHealthy", "QueriesHealthy", "LocksHealthy"):
        assert (found[name].status, found[name].reason) == ("Unknown", "MissingPrivilege")
        assert "GRANT pg_monitor TO" in found[name].message


class Secrets:
    """What SecretReader gives, from a dict."""

    def __init__(self, **values: str) -> None:
        self._values = values

    async def get(self, namespace: str, name: str, *, fresh: bool = False) -> Any:
        from pgtend.kube.secrets import SecretData

        values = {"secret": Sensitive(self._values[name])}
        return SecretData(name=name, resource_version="1", values=values, annotations={})


@pytest.mark.covers(
    "PostgresTarget.spec.pooler.host",
    "PostgresTarget.spec.pooler.port",
    "PostgresTarget.spec.pooler.tls.mode",
    "PostgresTarget.spec.pooler.credential.username",
    "PostgresTarget.spec.pooler.credential.password.secretRef.name",
    "PostgresTarget.spec.thresholds.poolUsed.warning",
    "PostgresTarget.spec.thresholds.poolUsed.critical",
    "PostgresTarget.spec.thresholds.poolUsed.for",
    "PostgresTarget.spec.pooler.credential.password.secretRef.key",
    "PostgresTarget.spec.thresholds.poolWait.warning",
    "PostgresTarget.spec.thresholds.poolWait.critical",
    "PostgresTarget.spec.thresholds.poolWait.for",
    "PostgresTarget.reason.PoolUsedWarning",
    "PostgresTarget.reason.PoolUsedCritical",
    "PostgresTarget.reason.PoolWaitWarning",
    "PostgresTarget.reason.PoolWaitCritical",
    "PostgresTarget.reason.PoolerUnreachable",
    "PostgresTarget.reason.NotRequested",
)
async def test_a_pool_that_is_used_up_and_clients_that_wait(
    server: PostgresServer, process_registry: ProcessRegistry
) -> None:
    role = server.fresh_role("web")
    bouncer = PgBouncer(
        server,
        registry=process_registry,
        pool_mode="session",
        settings={"default_pool_size": "1", "stats_users": "console"},
    )
    body = {"host": bouncer.host, "port": bouncer.port, "tls": {"mode": "Require"}}
    body["credential"] = {
        "username": bouncer.console.user,
        "password": {"secretRef": {"name": "pool", "key": "secret"}},
    }
    secrets = Secrets(pool=bouncer.console.password)

    async def look(**thresholds: Any) -> Verdict:
        wanted = spec(**thresholds).model_copy(update={"pooler": Pooler.model_validate(body)})
        assert wanted.pooler is not None
        reading = await read_pooler(
            spec=wanted,
            pooler=wanted.pooler,
            secrets=secrets,  # type: ignore[arg-type]
            namespace="x",
            application_name="pgtend/test/probe/x",
        )
        return judge_pooler(spec=wanted, reading=reading, grades=Grades(), now=datetime.now(UTC))

    assert (await look()).status == "True"
    with bouncer.connect(role) as first:
        first.execute("SELECT 1")
        assert (await look()).reason == "PoolUsedWarning"
        assert (await look(poolUsed={"critical": "90%"})).reason == "PoolUsedCritical"
        assert (await look(poolUsed={"warning": "75%", "for": "10m"})).status == "True"

        def wait_in_line() -> None:
            with suppress(psycopg.Error), bouncer.connect(role) as second:
                second.execute("SELECT 1")

        waiting = threading.Thread(target=wait_in_line, daemon=True)
        waiting.start()

        async def reason(name: str, **limits: str) -> Verdict | None:
            found = await look(poolWait={"for": "0s", **limits})
            return found if found.reason == name else None

        found = await until(lambda: reason("PoolWaitCritical", critical="1s"))
        assert f"postgres/{role.user}" in found.message and "raise its pool_size (1)" in found.message
        await until(lambda: reason("PoolWaitWarning", warning="1s", critical="1h"))
        patient = await look(poolWait={"for": "10m", "critical": "1s"})
        assert patient.reason == "PoolUsedWarning"
    waiting.join(15)
    bouncer.stop()
    assert (await look()).reason == "PoolerUnreachable"
    nothing = judge_pooler(spec=spec(), reading=None, grades=Grades(), now=datetime.now(UTC))
    assert (nothing.status, nothing.reason) == ("Unknown", "NotRequested")
