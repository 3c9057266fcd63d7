"""What two hundred users cost the API server and PostgreSQL, and that a crash anywhere ends well: an operator each."""

from __future__ import annotations

import collections
import time
from pathlib import Path

import psycopg
import pytest
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import ROOT, Cluster, wait, writes
from tests.cluster.users_ground import KIND, open_target, ready, secret, touch, user
from tests.fixtures.counters import SqlCounter
from tests.fixtures.plugin import Postgres
from tests.postgres.users_ground import Shop

from pgtend.core.failpoints import names as failpoint_names

COUNT = 200
EVERYDAY = ["users.apply.after_secret", "users.apply.after_sql", "users.finalize.after_sql"]
# those of a rotation are passed in test_users_rotation.py
ROTATION = "users.rotation."
FAILPOINTS = [
    name
    for name in failpoint_names(ROOT / "operator" / "pgtend")
    if name.startswith("users.") and not name.startswith(ROTATION)
]


@pytest.mark.timeout(300)
def test_two_hundred_users_at_once(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    shop, space = Shop.open(server), tenant.namespace()
    process = operator([space])
    open_target(cluster, space, server)
    names = [f"{server.fresh_name('many').replace('_', '-')}" for _ in range(COUNT)]
    process.stop()
    # all are there when it starts: at once is at once, however slow kubectl is
    bodies = [
        user(space, name, grants=shop.trio("Select"), deletionPolicy="Drop" if number % 4 == 0 else "Retain")
        for number, name in enumerate(names)
    ]
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": bodies})
    seen = SqlCounter(server, user="pgtend_users")
    mark, started = cluster.audit_mark(), time.monotonic()
    process.start()
    ready(cluster, space, names, seconds=120)
    print(f"{COUNT} users in force {time.monotonic() - started:.1f} s after the operator's start")

    counted = writes(cluster.audited(since=mark, user=process.user))
    print(counted, f"{len(seen.statements())} statements, {seen.connections()} connections")
    assert counted.pop("create secrets") == COUNT
    assert counted.pop("patch databaseusers") == COUNT // 4, "the finalizer, only where something is undone"
    assert counted.pop("patch postgrestargets", 0) <= 1, "of all of them together"
    assert counted.pop("patch databaseusers/status") == COUNT
    assert counted.pop("create events") <= COUNT + 2
    # the target was down for a moment, as seen from the new process
    counted.pop("patch postgrestargets/status", 0)
    assert counted == {}
    verbs = collections.Counter(s.split()[0] for s in seen.statements())
    assert verbs["CREATE"] == verbs["COMMENT"] == COUNT
    # three grants for a batch of a hundred, not for each user
    assert verbs["GRANT"] <= 3 * 4
    assert seen.connections() <= 3

    # an operator that starts again, and goes on, writes nothing
    process.stop()
    seen.mark()
    mark = cluster.audit_mark()
    process.start()
    wait("all were looked at", lambda: len([s for s in seen.statements() if "pg_shdepend" in s]) >= 6, seconds=60)
    time.sleep(10)
    assert writes(cluster.audited(since=mark, user=process.user)) == {}
    verbs = collections.Counter(s.split()[0] for s in seen.statements())
    assert not verbs.keys() & {"CREATE", "ALTER", "GRANT", "REVOKE", "COMMENT", "BEGIN", "DO"}, verbs


def test_every_failpoint_is_known() -> None:
    assert {"users.apply.before_secret", "users.apply.after_secret", "users.apply.before_sql"} <= set(FAILPOINTS)
    assert {"users.apply.after_sql", "users.finalize.before_sql", "users.finalize.after_sql"} <= set(FAILPOINTS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "points",
    [
        pytest.param(EVERYDAY, id="everyday"),
        pytest.param(sorted(set(FAILPOINTS) - set(EVERYDAY)), id="others", marks=pytest.mark.matrix),
    ],
)
def test_killed_at_each_failpoint_it_converges(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, points: list[str]
) -> None:
    server = postgres(18)
    shop, space = Shop.open(server), tenant.namespace()
    process = operator([space])
    open_target(cluster, space, server)
    for point in points:
        name = server.fresh_name("crash").replace("_", "-")
        process.stop()
        process.start(failpoints=f"{point}=kill")
        body = user(space, name, grants=shop.trio("Select"), deletionPolicy="Drop")
        cluster.apply(body)
        if "finalize" in point:
            ready(cluster, space, [name])
            cluster.kubectl("delete", "--wait=false", KIND, "-n", space, name)
        process.killed(point)
        told = secret(cluster, space, name)
        process.start()
        if "finalize" in point:
            wait(f"{name} is gone", lambda n=name: cluster.get(KIND, space, n) is None, seconds=60)
            assert not server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
            assert secret(cluster, space, name) == {}
        else:
            ready(cluster, space, [name])
            now = secret(cluster, space, name)
            assert not told or told == now, f"{point}: what was published stays"
            psycopg.connect(now["uri"]).close()
        print(f"{point}: converged")
        touch_all(cluster, space)


def touch_all(cluster: Cluster, space: str) -> None:
    """Whoever is left is still as it should be."""
    listed = cluster.list(KIND, space)
    for item in listed:
        touch(cluster, space, item["metadata"]["name"])
    if listed:
        ready(cluster, space)


@pytest.mark.timeout(180)
def test_no_secret_shows_anywhere(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    shop, space = Shop.open(server), tenant.namespace()
    process = operator([space])
    open_target(cluster, space, server)
    mark, audit = server.log_mark(), cluster.audit_mark()
    names = [server.fresh_name("hush").replace("_", "-") for _ in range(3)]
    cluster.apply(*(user(space, name, grants=shop.trio("Select")) for name in names))
    ready(cluster, space, names)
    server.execute(f'ALTER ROLE "{names[0]}" PASSWORD NULL')
    server.execute(f'ALTER ROLE "{names[1]}" SUPERUSER')
    for name in names[:2]:
        touch(cluster, space, name)
    cluster.wait_condition(KIND, space, names[1], "Ready", "False", "MissingPrivilege")
    server.execute(f'ALTER ROLE "{names[1]}" NOSUPERUSER')
    passwords = [secret(cluster, space, name)["password"] for name in names]
    shown = {
        "the server's log": server.log_since(mark),
        "the operator's log": process.log,
        "objects": cluster.kubectl("get", "dbu,pgt,events,configmaps", "-n", space, "-o", "yaml"),
        "the operator's namespace": cluster.kubectl("get", "configmaps", "-n", process.namespace, "-o", "yaml"),
        "its environment": Path(f"/proc/{process.pid}/environ").read_text()
        + Path(f"/proc/{process.pid}/cmdline").read_text(),
    }
    if cluster.audit is not None:
        with cluster.audit.open("rb") as log:
            log.seek(audit)
            shown["the audit log"] = log.read().decode(errors="replace")
    for where, text in shown.items():
        for password in passwords:
            assert password not in text, where
        if "log" not in where or "operator" in where:
            assert "SCRAM-SHA-256$" not in text, where
