"""PostgresOperation on a real API server and real PostgreSQL: who is ended, who is not, and what the record says."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.cluster.builders import target
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, OperatorProcess, wait, writes
from tests.fixtures.counters import SqlCounter
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import Login, PostgresServer
from tests.fixtures.roles import init_roles

from pgtend.postgres.init_sql import init_sql

KIND = "postgresoperation"
PASSWORD = "maintenance-password-0123456789"
CONSENT = [
    {
        "name": "oncall",
        "namespaces": {"names": ["SPACE"]},
        "kinds": ["PostgresOperation"],
        "operations": ["TerminateQueries"],
    }
]


def enforced(cluster: Cluster, space: str, *servers: PostgresServer, asking: str = "", **spec: Any) -> None:
    """The target `orders` with the role of init-sql, in Enforce, with consent to TerminateQueries for `asking`."""
    primary = servers[0]
    init_roles(primary, init_sql(["maintenance"]))
    with primary.superuser_connect() as connection:
        connection.pgconn.change_password(b"pgtend_maintenance", PASSWORD.encode())
    cluster.secret(space, "orders-maintenance", {"password": PASSWORD})
    credentials = {name: {"password": {"secretRef": {"name": f"orders-{name}"}}} for name in ("monitor", "maintenance")}
    access = [{**entry, "namespaces": {"names": [asking or space]}} for entry in CONSENT]
    target(cluster, space, *servers, **{"mode": "Enforce", "credentials": credentials, "access": access, **spec})
    cluster.wait_condition("postgrestarget", space, "orders", "Reachable", "True")


def moment(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).strftime("%Y-%m-%dT%H:%M:%SZ")


def operation(space: str, name: str, login: Login, *, most: int = 10, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "pgtend.dev/v1alpha1",
        "kind": "PostgresOperation",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "targetRef": {"name": "orders"},
            "type": "TerminateQueries",
            "reason": "load, ticket 4711",
            "requestedBy": "oncall@example.com",
            "notAfter": moment(hours=1),
            "terminateQueries": {"select": {"users": [login.user], "longerThan": "0s"}, "maxVictims": most},
            **spec,
        },
    }


@contextmanager
def clients(server: PostgresServer, login: Login, count: int) -> Iterator[list[int]]:
    """So many sessions that run a long query; their pids."""
    open_ = [server.connect(login) for _ in range(count)]
    pids = [connection.info.backend_pid for connection in open_]
    try:
        for connection in open_:
            connection.pgconn.send_query(b"SELECT pg_sleep(3600)")
        wait("the queries run", lambda: len(active(server, pids)) == count)
        yield pids
    finally:
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY(%s)", [pids])
        for connection in open_:
            connection.close()


def active(server: PostgresServer, pids: list[int]) -> list[int]:
    rows = server.execute("SELECT pid FROM pg_stat_activity WHERE pid = ANY(%s) AND state = 'active'", [pids])
    return sorted(row[0] for row in rows)


def sent(seen: SqlCounter) -> list[str]:
    """What was looked up or ended over the session that is kept open for emergencies; by itself it is only opened and
    identified. A statement of several lines is one: its first line alone tells whose it is."""
    looked = re.compile(r"pg_terminate_backend|pg_stat_activity")
    return [
        line.text
        for line in seen.lines()
        if re.match(r"pgtend/[^/]+/signal/", line.application_name) and looked.search(line.text)
    ]


def status(cluster: Cluster, space: str, name: str) -> dict[str, Any]:
    return dict((cluster.get(KIND, space, name) or {}).get("status", {}))


@pytest.mark.covers(
    "PostgresOperation.spec.targetRef.name",
    "PostgresOperation.spec.type",
    "PostgresOperation.spec.execution",
    "PostgresOperation.spec.reason",
    "PostgresOperation.spec.requestedBy",
    "PostgresOperation.spec.notAfter",
    "PostgresOperation.spec.timeout",
    "PostgresOperation.spec.cancel",
    "PostgresTarget.spec.credentials.maintenance.password.secretRef.name",
    "PostgresTarget.spec.access[].operations",
    "PostgresOperation.reason.Succeeded",
    "PostgresOperation.reason.Accepted",
    "PostgresOperation.reason.DryRun",
    "PostgresOperation.reason.Expired",
    "PostgresOperation.reason.NotAfterTooFar",
    "PostgresOperation.reason.TooManyVictims",
    "PostgresOperation.reason.Refused",
    "PostgresOperation.reason.Cancelled",
)
@pytest.mark.parametrize("major", [14, 18])
@pytest.mark.timeout(300)
def test_exactly_the_named_end_and_the_record_says_so(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, major: int
) -> None:
    server = postgres(major)
    space = tenant.namespace()
    process = operator([space])
    enforced(cluster, space, server)
    report, shop = server.fresh_role("report"), server.fresh_role("shop")
    with clients(server, report, 3) as victims, clients(server, shop, 1) as bystanders:
        everybody = sorted(victims + bystanders)

        # what must not touch anybody
        cluster.apply(operation(space, "look", report, execution="DryRun"))
        found = cluster.wait_condition(KIND, space, "look", "Complete", "True", "DryRun")
        assert "3 items planned; nothing was changed" in found["message"]
        cluster.apply(operation(space, "many", report, most=2))
        found = cluster.wait_condition(KIND, space, "many", "Accepted", "False", "TooManyVictims")
        assert "3 sessions fit the selector, maxVictims is 2: nobody was touched" in found["message"]
        shown = status(cluster, space, "many")
        assert {item["object"] for item in shown["items"]} == {f"pid {pid}" for pid in victims}
        assert {item["outcome"] for item in shown["items"]} == {"Planned"}
        assert shown["worst"]["reason"] == "TooManyVictims"
        cluster.wait_condition(KIND, space, "many", "Stalled", "True", "Refused")
        cluster.apply(operation(space, "far", report, notAfter=moment(days=8)))
        cluster.wait_condition(KIND, space, "far", "Accepted", "False", "NotAfterTooFar")
        cluster.apply(operation(space, "gone", report, cancel=True))
        cluster.wait_condition(KIND, space, "gone", "Ready", "True", "Cancelled")
        seen = SqlCounter(server)
        cluster.apply(operation(space, "old", report, notAfter=moment(seconds=-1)))
        cluster.wait_condition(KIND, space, "old", "Ready", "True", "Expired")
        assert active(server, everybody) == everybody
        assert sent(seen) == [], "an expired one sends not one statement"

        mark = cluster.audit_mark()
        cluster.apply(operation(space, "kill", report))
        cluster.wait_condition(KIND, space, "kill", "Ready", "True", "Succeeded")
        assert active(server, everybody) == bystanders
        assert sent(seen), "the same look sees one that is carried out"
        shown = status(cluster, space, "kill")
        assert shown["progress"] == "3/3" and shown["changes"] == 3
        assert shown["plan"]["sql"] == ["pg_terminate_backend for 3 pids"] and shown["plan"]["lock"] == "None"
        assert shown["planHash"].startswith("sha256:")
        assert {(i["object"], i["user"], i["outcome"]) for i in shown["items"]} == {
            (f"pid {pid}", report.user, "Succeeded") for pid in victims
        }
        assert not shown["journal"].get("unfinished")
        row = cluster.kubectl("get", "pgop", "-n", space, "kill").splitlines()
        assert row[0].split() == ["NAME", "TARGET", "TYPE", "READY", "REASON", "PROGRESS", "BY", "AGE"]
        assert row[1].split()[:7] == [
            "kill", "orders", "TerminateQueries", "True", "Succeeded", "3/3", "oncall@example.com",
        ]  # fmt: skip
        counted = writes(cluster.audited(since=mark, user=process.user))
        assert counted["patch postgresoperations/status"] == 2, "the claim and the end"

        # finished means finished: not even after a restart
        with clients(server, report, 1) as later:
            mark = cluster.audit_mark()
            process.crash()
            time.sleep(3)
            assert active(server, later) == later
            counted = writes(cluster.audited(since=mark, user=process.user))
            assert "patch postgresoperations/status" not in counted


@pytest.mark.covers("PostgresOperation.reason.NotPermitted", "PostgresOperation.spec.targetRef.namespace")
@pytest.mark.timeout(240)
def test_the_word_is_needed_in_the_own_namespace_too(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space, other = tenant.namespace(), tenant.namespace()
    operator([space, other])
    login = server.fresh_role("safe")
    enforced(cluster, space, server, asking=other)
    with clients(server, login, 1) as pids:
        cluster.apply(operation(space, "own", login))
        found = cluster.wait_condition(KIND, space, "own", "Accepted", "False", "NotPermitted")
        assert "no access entry" in found["message"] and "[TerminateQueries]" in found["message"]
        assert active(server, pids) == pids
        reference = {"name": "orders", "namespace": space}
        cluster.apply(operation(other, "admitted", login, targetRef=reference))
        cluster.wait_condition(KIND, other, "admitted", "Ready", "True", "Succeeded")
        assert active(server, pids) == []
    star = [{**CONSENT[0], "namespaces": {"names": [other]}, "kinds": ["*"], "operations": ["*"]}]
    cluster.kubectl("patch", "pgt", "orders", "-n", space, "--type=merge", "-p", json.dumps({"spec": {"access": star}}))
    cluster.wait_condition("postgrestarget", space, "orders", "Accepted", "True")
    cluster.apply(operation(other, "starred", login, targetRef=reference))
    found = cluster.wait_condition(KIND, other, "starred", "Accepted", "False", "NotPermitted")
    assert "does not admit operation TerminateQueries" in found["message"]


@pytest.mark.covers(
    "PostgresOperation.reason.Observing",
    "PostgresOperation.reason.TargetNotFound",
    "PostgresOperation.reason.WaitingForTarget",
    "PostgresOperation.reason.CapabilityMissing",
)
@pytest.mark.timeout(240)
def test_observe_a_missing_target_and_a_missing_credential(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    operator([space])
    login = server.fresh_role("seen")
    with clients(server, login, 1) as pids:
        cluster.apply(operation(space, "early", login))
        found = cluster.wait_condition(KIND, space, "early", "Ready", "False", "TargetNotFound")
        assert "tried again until" in found["message"]
        cluster.wait_condition(KIND, space, "early", "Reconciling", "True", "TargetNotFound")
        monitor = {"monitor": {"password": {"secretRef": {"name": "orders-monitor"}}}}
        enforced(cluster, space, server, mode="Observe", credentials=monitor)
        # the one that waited sees the target come, and its mode
        cluster.wait_condition(KIND, space, "early", "Ready", "True", "Observing", seconds=60)
        found = cluster.wait_condition(KIND, space, "early", "Complete", "True", "DryRun")
        assert "1 item planned" in found["message"]
        cluster.kubectl("patch", "pgt", "orders", "-n", space, "--type=merge", "-p", '{"spec":{"mode":"Enforce"}}')
        cluster.wait_condition("postgrestarget", space, "orders", "Ready", "True", "InForce")
        cluster.apply(operation(space, "bare", login))
        found = cluster.wait_condition(KIND, space, "bare", "Accepted", "False", "CapabilityMissing")
        assert "credentials.maintenance" in found["message"]
        assert active(server, pids) == pids
        server_away = operation(space, "away", login)
        cluster.kubectl("patch", "pgt", "orders", "-n", space, "--type=merge", "-p", '{"spec":{"suspend":true}}')
        cluster.wait_condition("postgrestarget", space, "orders", "Ready", "True", "Suspended")
        cluster.apply(server_away)
        cluster.wait_condition(KIND, space, "away", "Ready", "False", "WaitingForTarget")


def refused_edit(cluster: Cluster, space: str, name: str, patch: str) -> str:
    said = cluster.kubectl("patch", "pgop", name, "-n", space, "--type=merge", "-p", patch, check=False)
    assert "patched" not in said, said
    return said


@pytest.mark.timeout(120)
def test_admission_says_what_is_wrong(cluster: Cluster, tenant: Tenant) -> None:
    space = tenant.namespace()
    login = Login(user="anybody", password="x")
    good = operation(space, "good", login)
    cluster.apply(good)
    for patch, field in (
        ('{"spec":{"reason":"another"}}', "reason"),
        ('{"spec":{"timeout":"1h"}}', "timeout"),
        ('{"spec":{"notAfter":"2030-01-01T00:00:00Z"}}', "notAfter"),
        ('{"spec":{"requestedBy":null}}', "requestedBy"),
        ('{"spec":{"execution":"DryRun"}}', "execution"),
        ('{"spec":{"terminateQueries":{"maxVictims":50}}}', "terminateQueries"),
    ):
        assert f"{field} is immutable, as all but cancel" in refused_edit(cluster, space, "good", patch)
    cluster.kubectl("patch", "pgop", "good", "-n", space, "--type=merge", "-p", '{"spec":{"cancel":true}}')
    assert "cancel cannot be taken back" in refused_edit(cluster, space, "good", '{"spec":{"cancel":false}}')
    for wrong, said in (
        ({"notAfter": None}, "notAfter"),
        ({"reason": None}, "reason"),
        ({"type": "DropEverything"}, "Unsupported value"),
        ({"terminateQueries": None}, "comes with terminateQueries"),
        ({"terminateQueries": {"maxVictims": 51}}, "maxVictims"),
        ({"terminateQueries": {}}, "maxVictims"),
    ):
        body = operation(space, "bad", login)
        body["spec"] = {k: v for k, v in {**body["spec"], **wrong}.items() if v is not None}
        assert said in cluster.refused(body)


CRASHES = {
    # failpoint -> (Ready's reason afterwards, whether the victim is gone)
    "operations.before_claim": ("Succeeded", True),
    "operations.claimed": ("Interrupted", False),
    "tasks.terminate.before_signal": ("Interrupted", False),
    "tasks.terminate.after_signal": ("Succeeded", True),
    "tasks.run.ended": ("Succeeded", True),
    "operations.before_end": ("Succeeded", True),
    "operations.ended": ("Succeeded", True),
}


@pytest.mark.long
@pytest.mark.covers("PostgresOperation.reason.Interrupted")
@pytest.mark.timeout(600)
def test_killed_at_every_step_and_nobody_is_ended_twice(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    process: OperatorProcess = operator([space], run=False)
    enforced_later = False
    for number, (place, (reason, gone)) in enumerate(CRASHES.items()):
        process.start(failpoints=f"{place}=kill")
        if not enforced_later:
            enforced(cluster, space, server)
            enforced_later = True
        login = server.fresh_role("crash")
        name = f"crash-{number}"
        with clients(server, login, 1) as pids:
            cluster.apply(operation(space, name, login))
            process.killed(place)
            process.start()
            shown = cluster.wait_condition(KIND, space, name, "Ready", "True" if gone else "False", reason, seconds=60)
            assert (active(server, pids) == []) is gone, place
            if not gone:
                assert "left alone" in shown["message"], shown
                time.sleep(2)
                assert active(server, pids) == pids, "it is never repeated"
        process.kill9()


@pytest.mark.timeout(240)
def test_a_status_from_elsewhere_proves_nothing(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    """A status that says Succeeded, or claimed, but carries another object's mark is ignored."""
    server = postgres(18)
    space = tenant.namespace()
    process = operator([space])
    enforced(cluster, space, server)
    process.kill9()
    login = server.fresh_role("forged")
    with clients(server, login, 1) as pids:
        cluster.apply(operation(space, "restored", login))
        forged = (
            '{"status":{"finishedAt":"2026-01-01T00:00:00Z","startedAt":"2026-01-01T00:00:00Z",'
            '"journal":{"mark":"tests/another-uid","claimedAt":"2026-01-01T00:00:00Z"}}}'
        )
        cluster.kubectl("patch", "pgop", "restored", "-n", space, "--type=merge", "--subresource=status", "-p", forged)
        process.start()
        cluster.wait_condition(KIND, space, "restored", "Ready", "True", "Succeeded", seconds=60)
        assert active(server, pids) == []
