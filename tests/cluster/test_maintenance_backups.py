"""Disruptive work in a window, and the backups that win over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.backup_ground import Ground
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, wait
from tests.cluster.tasks_ground import ask, moment
from tests.cluster.windows_ground import (
    PASSWORD,
    WINDOW,
    condition,
    elsewhen,
    maintainer,
    runs,
    tables,
    tended,
    wait_run,
    window,
)
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.s3 import S3Server


def indexes(server: PostgresServer, database: str) -> dict[str, int]:
    """Which file each index is in."""
    rows = server.execute(
        "SELECT indexrelid::regclass::text, pg_relation_filenode(indexrelid) FROM pg_index"
        " WHERE indrelid IN (SELECT relid FROM pg_stat_user_tables)",
        dbname=database,
    )
    return dict(rows)


@pytest.mark.covers(
    "MaintenanceWindow.spec.tasks.reindex.*",
    "MaintenanceWindow.spec.tasks.reindex.select.*",
    "MaintenanceWindow.spec.tasks.reindex.select.exclude.*",
)
@pytest.mark.parametrize("major", [pytest.param(14, marks=pytest.mark.matrix), 18])
@pytest.mark.timeout(300)
def test_indexes_are_rebuilt_as_select_and_bloat_say(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, major: int
) -> None:
    server = postgres(major)
    space = tenant.namespace()
    operator([space])
    tended(cluster, space, server)
    database, other = server.fresh_database(), server.fresh_database()
    tables(server, database, ["orders", "order_lines", "audit"], rows=20000, dead=90)
    tables(server, database, ["orders_full"], rows=20000, dead=0)
    tables(server, database, ["orders"], schema="hidden", rows=20000, dead=90)
    tables(server, other, ["orders"])
    with server.superuser_connect(database) as connection:
        connection.execute("CREATE EXTENSION pgstattuple")
        connection.execute("GRANT EXECUTE ON FUNCTION pgstatindex(regclass) TO pgtend_maintenance")
        connection.execute("CREATE INDEX orders_note ON orders (note)")
        connection.execute("VACUUM")
    before = indexes(server, database)
    options = {
        "select": {
            "databases": [database, other],
            "schemas": ["public", "hidden"],
            "tables": ["order*", "audit"],
            "indexes": ["*_pkey", "orders_note"],
            "exclude": {
                "databases": [other], "schemas": ["hidden"], "tables": ["audit"], "indexes": ["orders_note"]
            },
        },
        "minBloat": "40%",
        "measure": "Exact",
    }  # fmt: skip
    cluster.apply(window(space, tasks=[{"type": "Reindex", "reindex": options}]))
    run = wait_run(cluster, space, "Ready", "Succeeded", seconds=90)
    after = indexes(server, database)
    assert {name for name in before if before[name] != after[name]} == {"orders_pkey", "order_lines_pkey"}
    for item in run["status"]["items"]:
        assert item["sql"].startswith("REINDEX INDEX CONCURRENTLY") and item["outcome"] == "Succeeded", item
        assert item["size"]["before"] != item["size"]["after"], item


@pytest.mark.covers(
    "MaintenanceWindow.spec.tasks.vacuumFull.*",
    "MaintenanceWindow.spec.tasks.vacuumFull.select.*",
    "MaintenanceWindow.spec.tasks.vacuumFull.select.exclude.*",
)
@pytest.mark.timeout(300)
def test_a_full_vacuum_needs_its_word_and_says_what_it_needs(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    operator([space])
    tended(cluster, space, server)
    database, other = server.fresh_database(), server.fresh_database()
    tables(server, database, ["orders", "audit", "customers"], rows=20000, dead=90)
    tables(server, database, ["orders_full"], rows=2000, dead=0)
    tables(server, database, ["orders"], schema="hidden", rows=2000, dead=90)
    tables(server, other, ["orders"], rows=2000, dead=90)
    for name in (database, other):
        server.execute("VACUUM ANALYZE", dbname=name)

    def files(name: str) -> dict[str, int]:
        return dict(
            server.execute(
                "SELECT relid::regclass::text, pg_relation_filenode(relid) FROM pg_stat_user_tables", dbname=name
            )
        )

    before, elsewhere = files(database), files(other)
    options = {
        "select": {
            "databases": [database, other],
            "schemas": ["public", "hidden"],
            "tables": ["orders*", "audit"],
            "exclude": {"databases": [other], "schemas": ["hidden"], "tables": ["audit"]},
        },
        "minBloat": "40%",
        "minReclaim": "100Ki",
    }  # fmt: skip

    def asked(name: str, **more: Any) -> dict[str, Any]:
        return window(space, name, tasks=[{"type": "VacuumFull", "vacuumFull": {**options, **more}}])

    cluster.apply(asked("now"))
    found = cluster.wait_condition(WINDOW, space, "now", "Accepted", "False", "NotPermitted")
    assert "VacuumFull is always listed word by word" in found["message"]
    entry = {
        "name": "own",
        "namespaces": {"names": [space]},
        "kinds": ["MaintenanceWindow"],
        "tasks": ["VacuumFull"],
    }
    patch = json.dumps({"spec": {"access": [entry]}})
    cluster.kubectl("patch", "pgt", "orders", "-n", space, "--type=merge", "-p", patch)
    found = cluster.wait_condition(WINDOW, space, "now", "Unblocked", "False", "TargetNotReady")
    assert "allowUnknownDisk" in found["message"]
    cluster.apply(asked("sure", allowUnknownDisk=True))
    run = wait_run(cluster, space, "Ready", "Succeeded", name="sure", seconds=90)
    after = files(database)
    assert {name for name in before if before[name] != after[name]} == {"orders"}, run["status"]["items"]
    assert files(other) == elsewhere
    assert run["status"]["items"][0]["sql"].startswith("VACUUM (FULL")


@pytest.mark.long
@pytest.mark.covers(
    "MaintenanceWindow.reason.WaitingForBackup",
    "MaintenanceWindow.reason.StarvedByBackup",
    "MaintenanceRun.reason.WaitingForBackup",
    "MaintenanceRun.reason.StarvedByBackup",
)
@pytest.mark.timeout(500)
def test_backups_win(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, s3: S3Server, tmp_path: Path
) -> None:
    server = postgres(18)
    ground = Ground(cluster=cluster, space=tenant.namespace(), server=server, s3=s3, folder=tmp_path)
    space = ground.space
    operator([space])
    maintainer(server)
    cluster.secret(space, "maintenance", {"password": PASSWORD})
    assert ground.role is not None
    ground.destination()
    ground.target(
        credentials={
            "monitor": {"password": {"secretRef": {"name": "monitor"}}},
            "backup": {"username": ground.role.user, "password": {"secretRef": {"name": "backup"}}},
            "maintenance": {"password": {"secretRef": {"name": "maintenance"}}},
        }
    )
    ground.policy()
    cluster.wait_condition("postgresbackuppolicy", space, "orders", "Ready", "True", "InForce", seconds=60)
    database = server.fresh_database()
    tables(server, database, ["orders"], rows=2000)
    before = indexes(server, database)
    ground.apply("PostgresBackup", "now", {"policyRef": {"name": "orders"}})
    cluster.wait_condition("postgresbackup", space, "now", "Complete", "Unknown", "Running", seconds=60)

    options = {"select": {"databases": [database]}, "minBloat": "0%"}
    cluster.apply(
        window(
            space, cron="* * * * *", duration="50s", closing={"lastStart": "10s", "cancel": "5s"},
            tasks=[{"type": "Reindex", "reindex": options}],
        )
    )  # fmt: skip
    run = wait_run(cluster, space, "Complete", "WaitingForBackup", seconds=90)
    assert "the dump of policy orders runs since" in condition(run, "Complete")["message"]
    found = cluster.wait_condition(WINDOW, space, "now", "Unblocked", "False", "WaitingForBackup")
    assert "policy orders" in found["message"]
    run = wait_run(cluster, space, "Complete", "StarvedByBackup", seconds=150)
    assert "dumps of policy orders took" in condition(run, "Complete")["message"]
    assert condition(run, "Ready")["status"] == "True"
    found = cluster.wait_condition(WINDOW, space, "now", "Unblocked", "False", seconds=60)
    assert found["reason"] in ("StarvedByBackup", "WaitingForBackup")
    wait(
        "between two windows it says so",
        lambda: (cluster.condition(WINDOW, space, "now", "Unblocked") or {}).get("reason") == "StarvedByBackup",
        seconds=150,
    )
    assert indexes(server, database) == before

    pod = wait("the dump's pod", lambda: ground.pods("now-dump"))[-1]
    ground.end_pod(pod["metadata"]["name"], pod["spec"]["containers"][0], status=1)

    def done() -> Any:
        return next((r for r in runs(cluster, space) if condition(r, "Complete")["reason"] == "Succeeded"), None)

    wait("a window without a dump", done, seconds=180)
    assert indexes(server, database) != before
    cluster.wait_condition(WINDOW, space, "now", "Unblocked", "True", "AsExpected", seconds=60)


@pytest.mark.timeout(400)
def test_an_operation_waits_for_a_window_across_a_restart(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    process = operator([space])
    tended(cluster, space, server)
    database = server.fresh_database()
    tables(server, database, ["orders"], rows=2000)
    before = indexes(server, database)
    options = {"select": {"databases": [database]}, "minBloat": "0%"}
    # as a tool applies both that does not know which comes first
    cluster.apply(ask(space, "waits", "Reindex", notAfter=moment(days=1), reindex=options))
    cluster.apply(window(space, "later", **elsewhen(3)))
    found = cluster.wait_condition("pgop", space, "waits", "Ready", "True", "Scheduled", seconds=60)
    assert f"window {space}/later opens" in found["message"]
    process.crash()
    cluster.kubectl("annotate", "pgop", "waits", "-n", space, "pgtend.dev/reconcile=1")
    cluster.wait_condition("postgrestarget", space, "orders", "Reachable", "True", seconds=60)
    assert (cluster.condition("pgop", space, "waits", "Ready") or {})["reason"] == "Scheduled"
    assert indexes(server, database) == before
    # the union of all windows counts: another one opens now
    cluster.apply(window(space, "now", tasks=[{"type": "VacuumAnalyze", "execution": "DryRun"}]))
    cluster.wait_condition("pgop", space, "waits", "Ready", "True", "Succeeded", seconds=120)
    assert indexes(server, database) != before
