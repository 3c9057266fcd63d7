"""The operator is killed or frozen at the worst moments; what it tends does not notice for long."""

from __future__ import annotations

import os
import signal
import time

import pytest
from tests.cluster.builders import target
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, OperatorProcess, wait, writes
from tests.cluster.users_ground import KIND as USER
from tests.cluster.users_ground import open_target, ready, user
from tests.fixtures.counters import LogLine, SqlCounter
from tests.fixtures.plugin import Postgres
from tests.postgres.users_ground import Shop

KIND = "postgrestarget"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("failpoint", ["kube.status.before_write", "kube.status.after_write"])
def test_killed_around_a_status_write_it_converges(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, failpoint: str
) -> None:
    space = tenant.namespace()
    process = operator([space], failpoints=f"{failpoint}=kill")
    target(cluster, space, postgres(18))
    process.killed(failpoint)
    written = cluster.condition(KIND, space, "orders", "Ready")
    assert (written is not None) == failpoint.endswith("after_write")
    process.start()
    wait("it leads again", lambda: process.log.count('"leading"') == 2)
    cluster.wait_condition(KIND, space, "orders", "Ready", "True", "Observing")


@pytest.mark.long
@pytest.mark.covers("PostgresTarget.reason.NotLeading")
@pytest.mark.timeout(240)
def test_a_frozen_leader_is_replaced_and_does_not_come_back(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    """SIGSTOP for 40 s, then SIGCONT: the old leader ends itself, and the API server has seen no write of its after
    the new one's first."""
    space = tenant.namespace()
    first = operator([space])
    target(cluster, space, postgres(18))
    cluster.wait_condition(KIND, space, "orders", "Ready", "True", "Observing")
    second = OperatorProcess(
        cluster,
        namespace=first.namespace,
        watched=[space],
        folder=first.log_path.parent,
        installation=first.installation,
    )
    second.start()
    try:
        time.sleep(4)
        assert '"leading"' not in second.log
        os.kill(first.pid, signal.SIGSTOP)
        frozen = time.monotonic()
        wait("the second replica leads", lambda: '"leading"' in second.log)
        print(f"taken over after {time.monotonic() - frozen:.1f} s")
        mark = cluster.audit_mark()
        cluster.kubectl("patch", KIND, "-n", space, "orders", "--type=merge", "-p", '{"spec":{"suspend":true}}')
        cluster.wait_condition(KIND, space, "orders", "Ready", "True", "Suspended")
        time.sleep(max(0.0, 40 - (time.monotonic() - frozen)))
        os.kill(first.pid, signal.SIGCONT)
        assert first.wait_exit() == 1
        time.sleep(2)
        # both have one ServiceAccount: exactly the new leader's two writes are there, and nothing of the old one's
        counted = writes(cluster.audited(since=mark, user=first.user))
        assert counted.get("patch postgrestargets/status") == 1, counted
        assert cluster.condition(KIND, space, "orders", "Ready")["reason"] == "Suspended"  # type: ignore[index]
    finally:
        if first.running:
            os.kill(first.pid, signal.SIGCONT)
        second.stop()
    assert "Traceback" not in second.log


# A GRANT of pgtend that takes two minutes, also against its statement_timeout, as long as there is a row in `slow`
SLOW = """
CREATE TABLE public.slow (); INSERT INTO public.slow DEFAULT VALUES;
CREATE FUNCTION public.dawdle() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  IF EXISTS (SELECT FROM public.slow) THEN
    BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(60); END;
  END IF; END $$;
CREATE EVENT TRIGGER dawdle ON ddl_command_start WHEN TAG IN ('GRANT') EXECUTE FUNCTION public.dawdle()"""
WRITES = ("GRANT", "REVOKE", "CREATE", "ALTER", "DROP", "DO $pgtend$", "COMMIT", "VACUUM", "REINDEX")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_frozen_leader_s_statement_ends_before_its_successor_writes(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    """SIGSTOP for 40 s in the middle of a GRANT, then SIGCONT: the server has ended that GRANT before the new leader's
    first write, and nothing of the old leader began after it."""
    server = postgres(18, fresh=True)
    shop = Shop.open(server)
    space = tenant.namespace()
    first = operator([space])
    open_target(cluster, space, server)
    server.execute(SLOW, dbname=shop.name)
    counter = SqlCounter(server, user="pgtend_users")
    cluster.apply(user(space, "app", grants=shop.trio()))

    def granting() -> list[int]:
        rows = server.execute("SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'GRANT%'")
        return [row[0] for row in rows]

    (slow,) = wait("it grants", granting, seconds=60)
    os.kill(first.pid, signal.SIGSTOP)
    frozen = time.monotonic()
    server.execute("DELETE FROM public.slow", dbname=shop.name)
    old = {line.pid for line in counter.lines()}
    assert slow in old
    second = OperatorProcess(
        cluster,
        namespace=first.namespace,
        watched=[space],
        folder=first.log_path.parent,
        installation=first.installation,
    )
    second.start()
    try:
        found = ready(cluster, space, ["app"], seconds=90)
        assert found["app"]["status"]["conditions"]
        time.sleep(max(0.0, 40 - (time.monotonic() - frozen)))
        os.kill(first.pid, signal.SIGCONT)
        assert first.wait_exit() == 1
        # something to write for the new leader, after the old one has had its chance
        cluster.kubectl("patch", USER, "-n", space, "app", "--type=merge", "-p", '{"spec":{"connectionLimit":3}}')
        wait("it is written", lambda: server.execute("SELECT 1 FROM pg_roles WHERE rolname='app' AND rolconnlimit=3"))
    finally:
        if first.running:
            os.kill(first.pid, signal.SIGCONT)
        second.stop()

    def began(line: LogLine) -> bool:
        text = line.text.partition(": ")[2]
        return line.text.startswith(("statement: ", "execute ")) and text.lstrip().startswith(WRITES)

    lines = counter.lines()
    ended = next(i for i, line in enumerate(lines) if line.pid == slow and "administrator command" in line.text)
    wrote = next(i for i, line in enumerate(lines) if line.pid not in old and began(line))
    assert ended < wrote
    assert not [line.text for line in lines[wrote:] if line.pid in old and began(line)]
    assert "sessions of an earlier leader ended" in second.log
    assert "Traceback" not in second.log


@pytest.mark.timeout(120)
def test_another_installation_id_is_refused(cluster: Cluster, tenant: Tenant, operator: StartOperator) -> None:
    space = tenant.namespace()
    process = operator([space])
    wait("it leads", lambda: '"leading"' in process.log)
    process.stop()
    process.installation = "another-one"
    process.start()
    assert process.wait_exit() == 2
    assert "records" in process.log and "another-one" in process.log
