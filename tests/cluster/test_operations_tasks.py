"""Maintenance by PostgresOperation: VacuumAnalyze, Reindex, VacuumFull; when they may run, and what a crash leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, wait
from tests.cluster.tasks_ground import ask, file_of, invalid, neglected, tended
from tests.cluster.test_operations import moment
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer

KIND = "postgresoperation"


def status(cluster: Cluster, space: str, name: str) -> dict[str, Any]:
    return dict((cluster.get(KIND, space, name) or {}).get("status", {}))


def ended(cluster: Cluster, space: str, name: str, status_: str, reason: str) -> dict[str, Any]:
    found = cluster.wait_condition(KIND, space, name, "Ready", status_, reason, seconds=90)
    return {**status(cluster, space, name), "said": found["message"]}


@pytest.mark.covers(
    "PostgresOperation.spec.runPolicy",
    "PostgresOperation.spec.reindex.select.databases",
    "PostgresOperation.spec.reindex.select.schemas",
    "PostgresOperation.spec.reindex.select.tables",
    "PostgresOperation.spec.reindex.select.indexes",
    "PostgresOperation.spec.reindex.select.exclude.databases",
    "PostgresOperation.spec.reindex.select.exclude.schemas",
    "PostgresOperation.spec.reindex.select.exclude.tables",
    "PostgresOperation.spec.reindex.select.exclude.indexes",
    "PostgresOperation.spec.reindex.minBloat",
    "PostgresOperation.spec.reindex.measure",
    "PostgresOperation.reason.ExtensionMissing",
    "PostgresOperation.reason.NoWindowBeforeExpiry",
    "PostgresOperation.reason.OutsideWindow",
)
@pytest.mark.parametrize("major", [pytest.param(14, marks=pytest.mark.matrix), 18])
@pytest.mark.timeout(300)
def test_reindex(cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, major: int) -> None:
    server = postgres(major)
    space = tenant.namespace()
    operator([space])
    name, other = neglected(server), neglected(server)
    tended(cluster, space, server)
    select = {"databases": [name], "schemas": ["shop"]}
    before = file_of(server, name, "shop.shop_items_pkey")

    # no window selects the target: what waits for one is refused at once, and so is what does not wait
    cluster.apply(ask(space, "waits", "Reindex", reindex={"select": select}))
    cluster.wait_condition(KIND, space, "waits", "Accepted", "False", "NoWindowBeforeExpiry")
    cluster.apply(ask(space, "hasty", "Reindex", runPolicy="Immediately", reindex={"select": select}))
    found = cluster.wait_condition(KIND, space, "hasty", "Accepted", "False", "OutsideWindow")
    assert f"Reindex rebuilds {name}.shop.shop_" in found["message"]
    assert "create it with runPolicy InWindow" in found["message"]
    assert status(cluster, space, "hasty")["progress"] == "0/2"
    exact = {"select": select, "measure": "Exact"}
    cluster.apply(ask(space, "exact", "Reindex", runPolicy="OverrideWindow", reindex=exact))
    found = cluster.wait_condition(KIND, space, "exact", "Accepted", "False", "ExtensionMissing")
    assert "CREATE EXTENSION pgstattuple" in found["message"]
    assert file_of(server, name, "shop.shop_items_pkey") == before, "and nothing was touched"

    # what is selected, and nothing that is left out; a dry run shows it first
    narrow = {
        "select": {
            "databases": [f"{name[:-2]}*", other],
            "tables": ["items", "orders"],
            "indexes": ["*_pkey"],
            "exclude": {
                "databases": [other],
                "schemas": ["scratch"],
                "tables": ["nothing"],
                "indexes": ["shop_orders_*"],
            },
        },
        "minBloat": "50%",
        "measure": "Estimate",
    }
    cluster.apply(ask(space, "look", "Reindex", execution="DryRun", reindex=narrow))
    cluster.wait_condition(KIND, space, "look", "Complete", "True", "DryRun")
    planned = status(cluster, space, "look")
    assert [item["object"] for item in planned["items"]] == [f"{name}.shop.shop_items_pkey"]
    cluster.apply(ask(space, "now", "Reindex", runPolicy="OverrideWindow", reindex=narrow))
    shown = ended(cluster, space, "now", "True", "Succeeded")
    assert shown["planHash"] == planned["planHash"]
    assert shown["plan"]["lock"] == "ShareUpdateExclusive"
    assert shown["plan"]["sql"] == ["REINDEX INDEX CONCURRENTLY shop.shop_items_pkey"]
    (item,) = shown["items"]
    assert item["outcome"] == "Succeeded" and item["sql"] == "REINDEX INDEX CONCURRENTLY shop.shop_items_pkey"
    assert {"before", "after"} == item["size"].keys() and item["size"]["before"] != item["size"]["after"]
    assert file_of(server, name, "shop.shop_items_pkey") != before
    assert invalid(server, name) == []
    lines = cluster.kubectl("get", "pgop", "-n", space, "now", "hasty").splitlines()
    assert lines[0].split() == ["NAME", "TARGET", "TYPE", "READY", "REASON", "PROGRESS", "BY", "AGE"]
    assert lines[1].split()[:7] == ["now", "orders", "Reindex", "True", "Succeeded", "1/1", "dba@example.com"]
    assert lines[2].split()[:7] == ["hasty", "orders", "Reindex", "False", "OutsideWindow", "0/2", "dba@example.com"]


@pytest.mark.covers(
    "PostgresOperation.spec.vacuumFull.select.databases",
    "PostgresOperation.spec.vacuumFull.select.schemas",
    "PostgresOperation.spec.vacuumFull.select.tables",
    "PostgresOperation.spec.vacuumFull.select.exclude.databases",
    "PostgresOperation.spec.vacuumFull.select.exclude.schemas",
    "PostgresOperation.spec.vacuumFull.select.exclude.tables",
    "PostgresOperation.spec.vacuumFull.minBloat",
    "PostgresOperation.spec.vacuumFull.minReclaim",
    "PostgresOperation.spec.vacuumFull.allowUnknownDisk",
    "PostgresOperation.spec.vacuumAnalyze.select.databases",
    "PostgresOperation.spec.vacuumAnalyze.select.schemas",
    "PostgresOperation.spec.vacuumAnalyze.select.tables",
    "PostgresOperation.spec.vacuumAnalyze.select.exclude.databases",
    "PostgresOperation.spec.vacuumAnalyze.select.exclude.schemas",
    "PostgresOperation.spec.vacuumAnalyze.select.exclude.tables",
    "PostgresOperation.spec.vacuumAnalyze.minDeadTuples",
    "PostgresOperation.reason.DiskUnknown",
    "PostgresOperation.reason.InvalidSpec",
)
@pytest.mark.timeout(300)
def test_vacuum_full_is_asked_for_word_by_word(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    operator([space])
    name, other = neglected(server), neglected(server)
    tended(cluster, space, server, words=["*"])
    options = {
        "select": {
            "databases": [f"{name[:-2]}*", other],
            "schemas": ["shop", "scratch"],
            "tables": ["items", "orders"],
            "exclude": {"databases": [other], "schemas": ["scratch"], "tables": ["orders"]},
        },
        "minBloat": "60%",
        "minReclaim": "256Ki",
    }
    before = file_of(server, name, "shop.items")
    cluster.apply(ask(space, "word", "VacuumFull", runPolicy="OverrideWindow", vacuumFull=options))
    found = cluster.wait_condition(KIND, space, "word", "Accepted", "False", "NotPermitted")
    assert "VacuumFull" in found["message"]
    entry = {"name": "own", "namespaces": {"names": [space]}, "kinds": ["*"], "operations": ["*", "VacuumFull"]}
    patch = json.dumps({"spec": {"access": [entry]}})
    cluster.kubectl("patch", "pgt", "orders", "-n", space, "--type=merge", "-p", patch)
    cluster.wait_condition("postgrestarget", space, "orders", "Ready", "True", "InForce")
    cluster.apply(ask(space, "disk", "VacuumFull", runPolicy="OverrideWindow", vacuumFull=options))
    found = cluster.wait_condition(KIND, space, "disk", "Accepted", "False", "DiskUnknown")
    assert f"VACUUM FULL of {name}.shop.items" in found["message"]
    allowed = {**options, "allowUnknownDisk": True}
    cluster.apply(ask(space, "window", "VacuumFull", runPolicy="InWindow", vacuumFull=allowed))
    cluster.wait_condition(KIND, space, "window", "Accepted", "False", "NoWindowBeforeExpiry")
    large = {"select": {"databases": [name]}, "allowUnknownDisk": True}
    cluster.apply(ask(space, "large", "VacuumFull", runPolicy="OverrideWindow", vacuumFull=large))
    assert "nothing was to be done" in ended(cluster, space, "large", "True", "Succeeded")["said"], "5Gi by default"
    cluster.apply(ask(space, "wrong", "VacuumFull", timeout="99999d", vacuumFull=allowed))
    found = cluster.wait_condition(KIND, space, "wrong", "Accepted", "False", "InvalidSpec")
    assert "timeout" in found["message"]
    assert file_of(server, name, "shop.items") == before

    cluster.apply(ask(space, "full", "VacuumFull", runPolicy="OverrideWindow", vacuumFull=allowed))
    shown = ended(cluster, space, "full", "True", "Succeeded")
    assert [item["object"] for item in shown["items"]] == [f"{name}.shop.items"]
    assert shown["plan"]["lock"] == "AccessExclusive"
    assert file_of(server, name, "shop.items") != before

    dead = {
        "minDeadTuples": "10%",
        "select": {
            "databases": [f"{name[:-2]}*", other],
            "schemas": ["shop", "scratch"],
            "tables": ["orders", "items"],
            "exclude": {"databases": [other], "schemas": ["scratch"], "tables": ["items"]},
        },
    }
    cluster.apply(ask(space, "vacuum", "VacuumAnalyze", vacuumAnalyze=dead))
    shown = ended(cluster, space, "vacuum", "True", "Succeeded")
    assert [item["object"] for item in shown["items"]] == [f"{name}.shop.orders"], "at once: it needs no window"


@pytest.mark.long
@pytest.mark.covers(
    "PostgresOperation.reason.Deferred",
    "PostgresOperation.reason.Failed",
    "PostgresOperation.reason.TimedOut",
    "PostgresOperation.reason.Stopped",
    "PostgresOperation.reason.Running",
    "PostgresOperation.reason.Scheduled",
)
@pytest.mark.timeout(300)
def test_how_it_can_end(cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres) -> None:
    server = postgres(18)
    space = tenant.namespace()
    operator([space])
    name, foreign = neglected(server), neglected(server, mine=False)
    server.execute("REVOKE pg_maintain FROM pgtend_maintenance")
    tended(cluster, space, server)

    def reindex(op: str, database: str = name, **spec: Any) -> None:
        options = {"select": {"databases": [database], "schemas": ["shop"], "indexes": ["shop_items_pkey"]}}
        cluster.apply(ask(space, op, "Reindex", runPolicy="OverrideWindow", reindex=options, **spec))

    reindex("failed", foreign)
    shown = ended(cluster, space, "failed", "False", "Failed")
    assert "GRANT MAINTAIN ON shop.items TO pgtend_maintenance" in shown["said"]
    assert shown["items"][0]["sqlState"] == "42501"
    with server.superuser_connect(name) as holder, holder.transaction():
        holder.execute("LOCK TABLE shop.items IN SHARE UPDATE EXCLUSIVE MODE")
        reindex("busy")
        shown = ended(cluster, space, "busy", "False", "Deferred")
        assert f"1 put off: {name}.shop.shop_items_pkey: pid {holder.info.backend_pid} works on" in shown["said"]
    with server.superuser_connect(name) as writer, writer.transaction():
        writer.execute("UPDATE shop.items SET t = 'y' WHERE id = 10")
        reindex("late", timeout="15s")
        wait("its copy is there", lambda: invalid(server, name) != [], seconds=60)
        wait("its time is over", lambda: building(server) == [], seconds=60)
    # dropping the copy waits for the writer too
    shown = ended(cluster, space, "late", "False", "TimedOut")
    assert "dropped the leftover shop.shop_items_pkey_ccnew" in json.dumps(shown)
    assert invalid(server, name) == []
    with server.superuser_connect(name) as writer, writer.transaction():
        writer.execute("UPDATE shop.items SET t = 'y' WHERE id = 10")
        reindex("withdrawn", timeout="5m")
        cluster.wait_condition(KIND, space, "withdrawn", "Ready", "False", "Running")
        wait("it works", lambda: invalid(server, name) != [], seconds=60)
        # one at a time: the second waits for the first
        reindex("second", timeout="5m")
        found = cluster.wait_condition(KIND, space, "second", "Ready", "True", "Scheduled")
        assert "Reindex of" in found["message"] and "withdrawn" in found["message"]
        cluster.kubectl("patch", "pgop", "second", "-n", space, "--type=merge", "-p", '{"spec":{"cancel":true}}')
        cluster.wait_condition(KIND, space, "second", "Ready", "True", "Cancelled")
        entry = {"name": "own", "namespaces": {"names": [space]}, "kinds": ["PostgresOperation"], "operations": []}
        patch = json.dumps({"spec": {"access": [entry]}})
        cluster.kubectl("patch", "pgt", "orders", "-n", space, "--type=merge", "-p", patch)
        wait("it has ended", lambda: building(server) == [], seconds=60)
    ended(cluster, space, "withdrawn", "False", "Stopped")
    assert invalid(server, name) == []


def building(server: PostgresServer) -> list[int]:
    return [row[0] for row in server.execute("SELECT pid FROM pg_stat_progress_create_index")]


@pytest.mark.covers("PostgresOperation.reason.ConfigMapNotOwned")
@pytest.mark.timeout(300)
def test_more_items_than_a_status_holds(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    process = operator([space], run=False)
    process.start()
    name = neglected(server, more=53)
    tended(cluster, space, server)
    options = {"minDeadTuples": "0%", "select": {"databases": [name], "schemas": ["shop"]}}
    cluster.apply(ask(space, "look", "VacuumAnalyze", execution="DryRun", vacuumAnalyze=options))
    cluster.wait_condition(KIND, space, "look", "Complete", "True", "DryRun")
    hash_ = status(cluster, space, "look")["planHash"].removeprefix("sha256:")[:8]
    cluster.kubectl("create", "configmap", f"taken-plan-{hash_}", "-n", space)
    cluster.apply(ask(space, "taken", "VacuumAnalyze", vacuumAnalyze=options))
    cluster.wait_condition(KIND, space, "taken", "Accepted", "False", "ConfigMapNotOwned")

    # killed after the first of 55: the next one knows them all, and goes on
    process.kill9()
    process.start(failpoints="tasks.vacuum.after=kill")
    cluster.apply(ask(space, "many", "VacuumAnalyze", vacuumAnalyze=options))
    process.killed("tasks.vacuum.after")
    process.start()
    shown = ended(cluster, space, "many", "True", "Succeeded")
    assert (shown["progress"], shown["truncated"], len(shown["items"])) == ("55/55", True, 50)
    assert "the operator ended in between" in shown["said"]
    kept = json.loads(cluster.kubectl("get", "configmap", shown["itemsConfigMap"], "-n", space, "-o", "json"))
    rows = json.loads(kept["data"]["items.json"])
    assert len(rows) == 55 and {row["outcome"] for row in rows} == {"Succeeded"}
    assert kept["metadata"]["ownerReferences"][0]["name"] == "many" and kept["immutable"] is True
    counts = server.execute("SELECT min(vacuum_count), max(vacuum_count) FROM pg_stat_user_tables"
        " WHERE schemaname = 'shop' AND relname LIKE 'many%%'", dbname=name)  # fmt: skip
    assert counts[0][0] >= 1 and counts[0][1] <= 2
    cluster.kubectl("delete", "pgop", "many", "-n", space)


CRASHES = (
    "operations.before_claim",
    "operations.claimed",
    "tasks.reindex.before",
    "tasks.reindex.after",
    "tasks.run.ended",
    "operations.before_end",
    "operations.ended",
)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_at_every_step_it_goes_on_and_rebuilds_nothing_twice(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    process = operator([space], run=False)
    names = [neglected(server) for _ in (*CRASHES, "middle")]
    for number, place in enumerate(CRASHES):
        process.start(failpoints=f"{place}=kill")
        if number == 0:
            tended(cluster, space, server)
        name = names[number]
        options = {"select": {"databases": [name], "schemas": ["shop"]}, "minBloat": "0%"}
        cluster.apply(ask(space, f"crash-{number}", "Reindex", runPolicy="OverrideWindow", reindex=options))
        process.killed(place)
        offset = len(server.log_text())
        done = {x: file_of(server, name, f"shop.shop_{x}_pkey") for x in ("items", "orders")}
        process.start()
        shown = ended(cluster, space, f"crash-{number}", "True", "Succeeded")
        assert shown["progress"] == "2/2", place
        assert {item["outcome"] for item in shown["items"]} == {"Succeeded"}, place
        assert invalid(server, name) == [], place
        if place in ("tasks.run.ended", "operations.before_end", "operations.ended"):
            assert done == {x: file_of(server, name, f"shop.shop_{x}_pkey") for x in done}, place
            assert "REINDEX INDEX CONCURRENTLY" not in server.log_text()[offset:], place
        process.kill9()
    # in the middle of the statement: its copy is swept, and it is done again
    name = names[-1]
    process.start()
    before = file_of(server, name, "shop.shop_items_pkey")
    options = {"select": {"databases": [name], "schemas": ["shop"], "indexes": ["shop_items_pkey"]}}
    with server.superuser_connect(name) as writer, writer.transaction():
        # it waits for this transaction's end before it exchanges the two
        writer.execute("UPDATE shop.items SET t = 'y' WHERE id = 10")
        cluster.apply(ask(space, "middle", "Reindex", runPolicy="OverrideWindow", timeout="5m", reindex=options))
        wait("its copy is there", lambda: invalid(server, name) != [])
        process.kill9()
        process.start()
        # the one that it left at work is ended before anything else is written
        wait("the new one has looked", lambda: building(server) == [])
    shown = ended(cluster, space, "middle", "True", "Succeeded")
    assert invalid(server, name) == []
    assert file_of(server, name, "shop.shop_items_pkey") != before
    assert moment() > shown["startedAt"]
