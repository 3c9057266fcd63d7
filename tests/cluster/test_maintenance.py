"""MaintenanceWindow and MaintenanceRun on a real API server and real PostgreSQL: what runs when, what is left alone,
and what the records say."""

from __future__ import annotations

import calendar
import json
import re
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, wait, writes
from tests.cluster.windows_ground import (
    RUN,
    WINDOW,
    condition,
    elsewhen,
    runs,
    tables,
    tended,
    vacuums,
    wait_run,
    window,
)
from tests.fixtures.plugin import Postgres

STEADY = ("patch maintenancewindows/status", "patch maintenanceruns/status", "create maintenanceruns")


@pytest.mark.covers(
    "MaintenanceWindow.spec.targetRefs.name",
    "MaintenanceWindow.spec.schedule.cron",
    "MaintenanceWindow.spec.duration",
    "MaintenanceWindow.spec.tasks.type",
    "MaintenanceWindow.spec.tasks.vacuumAnalyze.*",
    "MaintenanceWindow.spec.tasks.vacuumAnalyze.select.*",
    "MaintenanceWindow.spec.tasks.vacuumAnalyze.select.exclude.*",
    "MaintenanceWindow.reason.WindowOpen",
    "MaintenanceWindow.reason.InForce",
    "MaintenanceWindow.reason.Accepted",
    "MaintenanceWindow.reason.AsExpected",
    "MaintenanceRun.spec.*",
    "MaintenanceRun.spec.windowRef.name",
    "MaintenanceRun.spec.targetRef.name",
    "MaintenanceRun.reason.Succeeded",
    "MaintenanceRun.reason.Accepted",
)
@pytest.mark.parametrize("major", [pytest.param(14, marks=pytest.mark.matrix), 18])
@pytest.mark.timeout(300)
def test_an_open_window_does_what_select_names_and_nothing_else(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, major: int
) -> None:
    server = postgres(major)
    space = tenant.namespace()
    process = operator([space])
    tended(cluster, space, server)
    database, other = server.fresh_database(), server.fresh_database()
    tables(server, database, ["orders", "order_lines", "audit", "customers"])
    tables(server, database, ["order_hidden"], schema="hidden")
    tables(server, database, ["order_clean"], dead=10)
    tables(server, other, ["orders"])
    select = {
        "databases": [database, other],
        "schemas": ["public", "hid*"],
        "tables": ["order*", "audit"],
        "exclude": {"databases": [other], "schemas": ["hidden"], "tables": ["audit"]},
    }
    options = {"select": select, "minDeadTuples": "40%"}
    mark = cluster.audit_mark()
    cluster.apply(window(space, tasks=[{"type": "VacuumAnalyze", "vacuumAnalyze": options}]))
    run = wait_run(cluster, space, "Ready", "Succeeded")
    assert vacuums(server, database) == {
        "orders": 1, "order_lines": 1, "audit": 0, "customers": 0, "order_hidden": 0, "order_clean": 0
    }  # fmt: skip
    assert vacuums(server, other) == {"orders": 0}
    status = run["status"]
    assert status["progress"] == "2/2" and status["counts"] == {
        "succeeded": 2, "deferred": 0, "cancelled": 0, "failed": 0
    }  # fmt: skip
    assert [item["object"] for item in status["items"]] == [
        f"{database}.public.order_lines",
        f"{database}.public.orders",
    ]
    for item in status["items"]:
        assert item["outcome"] == "Succeeded" and item["sql"].startswith("VACUUM (ANALYZE")
        assert item["estimate"] and item["actual"] and item["size"]["before"] and item["size"]["after"]
    spec = run["spec"]
    assert spec["windowRef"] == {"name": "now"} and spec["targetRef"] == {"name": "orders"}
    assert spec["planHash"].startswith("sha256:") and spec["startsAt"] < status["startedAt"] < spec["endsAt"]
    assert run["metadata"].get("ownerReferences") is None

    shown = wait("the window tells", lambda: _told(cluster, space, "now", "lastRun"))
    assert shown["lastRun"]["succeeded"] == 2 and shown["targets"] == {"matched": 1, "running": 0, "failed": 0}
    assert shown["current"]["endsAt"] == spec["endsAt"] and len(shown["upcoming"]) == 3
    assert {c["type"]: c["reason"] for c in shown["conditions"]} == {
        "Ready": "InForce", "Accepted": "Accepted", "Active": "WindowOpen", "Unblocked": "AsExpected"
    }  # fmt: skip
    row = cluster.kubectl("get", "pgmw", "-n", space).splitlines()
    assert row[0].split() == ["NAME", "READY", "ACTIVE", "UNBLOCKED", "REASON", "SINCE", "TARGETS", "NEXT", "AGE"]
    assert row[1].split()[:5] == ["now", "True", "True", "True", "InForce"] and row[1].split()[6] == "1"
    row = cluster.kubectl("get", "pgmr", "-n", space, run["metadata"]["name"]).splitlines()
    assert row[0].split() == ["NAME", "WINDOW", "TARGET", "READY", "REASON", "PROGRESS", "FINISHED", "AGE"]
    assert row[1].split()[1:6] == ["now", "orders", "True", "Succeeded", "2/2"]
    assert "immutable" in (said := _patched(cluster, space, run, '{"spec":{"endsAt":"2030-01-01T00:00:00Z"}}')) or (
        "is a record" in said
    )

    # the next one is written as soon as there is a plan, and then all is still
    following = wait_run(cluster, space, "Ready", "Scheduled")
    assert following["spec"]["startsAt"] == shown["nextAt"]
    counted = writes(cluster.audited(since=mark, user=process.user))
    assert counted["patch maintenanceruns/status"] <= 6 and counted["create maintenanceruns"] == 2, counted
    mark = cluster.audit_mark()
    process.crash()
    time.sleep(8)
    counted = writes(cluster.audited(since=mark, user=process.user))
    assert not [name for name in counted if "maintenance" in name], counted
    assert vacuums(server, database)["orders"] == 1


def _told(cluster: Cluster, space: str, name: str, field: str) -> dict[str, Any] | None:
    status = (cluster.get(WINDOW, space, name) or {}).get("status", {})
    return dict(status) if status.get(field) else None


def _patched(cluster: Cluster, space: str, run: dict[str, Any], patch: str) -> str:
    return cluster.kubectl("patch", RUN, run["metadata"]["name"], "-n", space, "--type=merge", "-p", patch, check=False)


def _last_sunday(after: datetime, zone: ZoneInfo, hour: int) -> datetime:
    """By the calendar module, not by ours."""
    year, month = after.year, after.month
    while True:
        day = max(week[calendar.SUNDAY] for week in calendar.monthcalendar(year, month))
        start = datetime.combine(date(year, month, day), datetime.min.time(), zone).replace(hour=hour)
        if start.astimezone(UTC) > after:
            return start.astimezone(UTC)
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)


@pytest.mark.covers(
    "MaintenanceWindow.spec.schedule.*.at",
    "MaintenanceWindow.spec.schedule.weekly.days",
    "MaintenanceWindow.spec.schedule.monthly.week",
    "MaintenanceWindow.spec.schedule.monthly.days",
    "MaintenanceWindow.spec.schedule.monthly.dayOfMonth",
    "MaintenanceWindow.spec.schedule.rrule",
    "MaintenanceWindow.spec.timeZone",
    "MaintenanceWindow.spec.suspend",
    "MaintenanceWindow.spec.mode",
    "MaintenanceWindow.spec.exclusions.*",
    "MaintenanceWindow.spec.targetSelector.matchLabels",
    "MaintenanceWindow.spec.tasks.execution",
    "MaintenanceWindow.spec.tasks.runPolicy",
    "MaintenanceWindow.reason.OutsideWindow",
    "MaintenanceWindow.reason.ExclusionActive",
    "MaintenanceWindow.reason.Suspended",
    "MaintenanceWindow.reason.Observing",
    "MaintenanceWindow.reason.NoTargets",
    "MaintenanceRun.reason.Scheduled",
    "MaintenanceRun.reason.DryRun",
    "MaintenanceRun.reason.Observing",
)
@pytest.mark.timeout(300)
def test_a_window_that_is_not_open_touches_nothing(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    operator([space])
    tended(cluster, space, server)
    database = server.fresh_database()
    tables(server, database, ["orders"])
    berlin = ZoneInfo("Europe/Berlin")
    now = datetime.now(UTC)
    tasks = [{"type": "VacuumAnalyze", "vacuumAnalyze": {"select": {"databases": [database]}}}]
    soon = (now + timedelta(days=2)).date()
    ruled = (now + timedelta(hours=6)).replace(minute=0, second=0, microsecond=0)
    exclusion = {
        "name": "sale",
        "from": f"{now - timedelta(days=1):%Y-%m-%dT00:00:00Z}",
        "to": f"{now + timedelta(days=3):%Y-%m-%dT00:00:00Z}",
        "reason": "peak week",
    }
    cluster.apply(
        window(space, "later", tasks=tasks, **elsewhen()),
        window(
            # it may be the last Sunday today
            space, "last-sunday", tasks=[{**tasks[0], "execution": "DryRun"}], timeZone="Europe/Berlin", duration="4h",
            schedule={"monthly": {"week": "Last", "days": ["Sunday"], "at": "02:00"}},
        ),
        window(
            space, "weekly", tasks=tasks, timeZone="Europe/Berlin",
            schedule={"weekly": {"days": [soon.strftime("%A")], "at": "03:00"}},
        ),
        window(space, "fixed", tasks=tasks, schedule={"monthly": {"dayOfMonth": soon.day, "at": "04:00"}}),
        window(
            space, "rule", tasks=tasks, duration="1h",
            schedule={"rrule": f"FREQ=DAILY;BYHOUR={ruled:%H};BYMINUTE=0"},
        ),
        window(space, "excluded", cron="0 0,12 * * *", tasks=tasks, exclusions=[exclusion]),
        window(space, "suspended", tasks=tasks, suspend=True),
        window(space, "watching", tasks=tasks, mode="Observe"),
        window(space, "dry", tasks=[{**tasks[0], "execution": "DryRun"}]),
        window(space, "nobody", tasks=tasks, targetRefs=None, targetSelector={"matchLabels": {"tier": "gold"}}),
    )  # fmt: skip
    run = wait_run(cluster, space, "Ready", "Scheduled", name="later")
    assert "1 item planned" in condition(run, "Ready")["message"] and run["status"]["progress"] == "0/1"
    cluster.wait_condition(WINDOW, space, "later", "Active", "False", "OutsideWindow")
    cluster.wait_condition(WINDOW, space, "nobody", "Accepted", "False", "NoTargets")
    found = cluster.wait_condition(WINDOW, space, "excluded", "Active", "False", "ExclusionActive")
    assert "exclusion sale (peak week) until" in found["message"]
    cluster.wait_condition(WINDOW, space, "suspended", "Ready", "True", "Suspended")
    cluster.wait_condition(WINDOW, space, "watching", "Ready", "True", "Observing")
    run = wait_run(cluster, space, "Ready", "Observing", name="watching")
    assert condition(run, "Complete")["reason"] == "DryRun"
    run = wait_run(cluster, space, "Ready", "DryRun", name="dry")
    found = [(i["object"], i["outcome"]) for i in run["status"].get("items", ())]
    assert found == [(f"{database}.public.orders", "Planned")], run["status"]

    def next_of(name: str) -> datetime:
        return datetime.fromisoformat(_told(cluster, space, name, "nextAt")["nextAt"])  # type: ignore[index]

    assert next_of("last-sunday") == _last_sunday(now, berlin, 2)
    assert next_of("weekly") == datetime.combine(soon, datetime.min.time(), berlin).replace(hour=3)
    assert next_of("fixed") == datetime.combine(soon, datetime.min.time(), UTC).replace(hour=4)
    assert next_of("rule") == ruled
    assert next_of("excluded") == datetime.fromisoformat(exclusion["to"])
    assert vacuums(server, database) == {"orders": 0}, "nothing has touched it"

    # a label is enough to be selected, and the word to be served
    cluster.kubectl("label", "pgt", "orders", "-n", space, "tier=gold")
    wait_run(cluster, space, "Ready", "Succeeded", name="nobody")
    assert vacuums(server, database) == {"orders": 1}
    cluster.kubectl("label", "pgt", "orders", "-n", space, "tier-")
    cluster.wait_condition(WINDOW, space, "nobody", "Accepted", "False", "NoTargets")

    # on another day of the week the daily task runs all the same
    with server.superuser_connect(database) as connection:
        connection.execute("UPDATE orders SET note = 'again'")
    other_day = (now + timedelta(days=3)).strftime("%A")
    began = now - timedelta(minutes=5)
    cluster.apply(
        window(
            space, "daily", duration="23h", schedule={"weekly": {"days": [other_day], "at": f"{began:%H:%M}"}},
            tasks=[{**tasks[0], "runPolicy": "Daily"}],
        )
    )  # fmt: skip
    run = wait_run(cluster, space, "Ready", "Succeeded", name="daily")
    assert run["spec"]["startsAt"] == f"{began:%Y-%m-%dT%H:%M:00Z}"
    assert vacuums(server, database) == {"orders": 2}
    cluster.wait_condition(WINDOW, space, "daily", "Active", "False", "OutsideWindow")


@pytest.mark.covers(
    "MaintenanceWindow.reason.InvalidSchedule",
    "MaintenanceWindow.reason.InvalidSpec",
    "MaintenanceWindow.reason.TargetNotFound",
    "MaintenanceWindow.reason.TargetNotReady",
    "MaintenanceWindow.reason.NotAccepted",
    "MaintenanceWindow.spec.closing.*",
)
@pytest.mark.timeout(240)
def test_what_is_wrong_is_told_within_ten_seconds(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    operator([space])
    tended(cluster, space, server)
    wrong: dict[str, tuple[dict[str, Any], str, str]] = {
        "zone": ({"timeZone": "Europe/Berlim"}, "InvalidSchedule", "did you mean Europe/Berlin?"),
        "cron": ({"schedule": {"cron": "0 25 * * *"}}, "InvalidSchedule", "cron"),
        "overlap": ({"duration": "13h"}, "InvalidSchedule", "reaches into the next start"),
        "closing": (
            {"closing": {"lastStart": "1m", "cancel": "2m"}},
            "InvalidSchedule",
            "cancel (2m) at most lastStart",
        ),
        "absent": ({"targetRefs": [{"name": "nowhere"}]}, "TargetNotFound", "does not exist: create it"),
    }
    cluster.apply(*(window(space, name, **fields) for name, (fields, _, _) in wrong.items()))
    for name, (_, reason, text) in wrong.items():
        found = cluster.wait_condition(WINDOW, space, name, "Accepted", "False", reason)
        assert text in found["message"], found
        assert condition(cluster.get(WINDOW, space, name) or {}, "Ready")["status"] == "False"
    assert condition(cluster.get(WINDOW, space, "zone") or {}, "Active")["reason"] == "NotAccepted"
    assert runs(cluster, space, "zone") == []
    # corrected, it is in force
    cluster.apply(window(space, "zone", timeZone="Europe/Berlin"))
    cluster.wait_condition(WINDOW, space, "zone", "Ready", "True", "InForce")

    # a target that lacks the credential
    monitor = {"monitor": {"password": {"secretRef": {"name": "orders-monitor"}}}}
    patch = json.dumps({"spec": {"credentials": {"maintenance": None, **monitor}}})
    cluster.kubectl("patch", "pgt", "orders", "-n", space, "--type=merge", "-p", patch)
    cluster.wait_condition("postgrestarget", space, "orders", "Reachable", "True")
    cluster.apply(window(space, "bare"))
    found = cluster.wait_condition(WINDOW, space, "bare", "Unblocked", "False", "TargetNotReady")
    assert "credentials.maintenance" in found["message"]

    good = window(space, "good")
    for fields, said in (
        ({"targetSelector": {"matchLabels": {"a": "b"}}}, "exactly one of targetRefs and targetSelector"),
        ({"targetRefs": None}, "exactly one of targetRefs and targetSelector"),
        ({"tasks": []}, "tasks"),
        ({"tasks": [{"type": "DropEverything"}]}, "Unsupported value"),
        ({"tasks": [{"type": "VacuumAnalyze"}, {"type": "VacuumAnalyze"}]}, "Duplicate"),
        ({"tasks": [{"type": "VacuumAnalyze", "execution": "AfterApproval"}]}, "Unsupported value"),
        ({"schedule": {"cron": "* * * * *", "daily": {"at": "02:00"}}}, "exactly one"),
        ({"duration": "forever"}, "duration"),
        ({"exclusions": [{"name": "a", "from": "tomorrow", "to": "2030-01-01T00:00:00Z"}]}, "from"),
    ):
        body = {**good, "spec": {k: v for k, v in {**good["spec"], **fields}.items() if v is not None}}
        assert said in cluster.refused(body), fields
    # what the schema lets through and the model does not
    huge = window(
        space, "huge", exclusions=[{"name": "a", "from": "9999-12-31T23:59:59-10:00", "to": "9999-12-31T23:59:59Z"}]
    )
    cluster.apply(huge)
    cluster.wait_condition(WINDOW, space, "huge", "Accepted", "False", "InvalidSpec")


@pytest.mark.covers(
    "MaintenanceWindow.spec.targetRefs.namespace",
    "MaintenanceRun.spec.windowRef.namespace",
    "PostgresTarget.spec.access.tasks",
    "MaintenanceWindow.reason.NotPermitted",
    "MaintenanceRun.reason.NotPermitted",
    "MaintenanceRun.reason.Cancelled",
)
@pytest.mark.timeout(300)
def test_consent_is_word_by_word_and_its_end_stops_what_runs(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space, other = tenant.namespace(), tenant.namespace()
    operator([space, other])
    tended(cluster, space, server)
    database = server.fresh_database()
    tables(server, database, ["big"], rows=20000)
    select = {"select": {"databases": [database]}}
    reference = [{"name": "orders", "namespace": space}]
    asked = window(other, targetRefs=reference, tasks=[{"type": "VacuumAnalyze", "vacuumAnalyze": select}])
    cluster.apply(asked)
    found = cluster.wait_condition(WINDOW, other, "now", "Accepted", "False", "NotPermitted")
    assert "no access entry admits namespace" in found["message"]
    entry = {"name": "ops", "namespaces": {"names": [other]}, "kinds": ["MaintenanceWindow"], "tasks": []}

    def allow(tasks: list[str]) -> None:
        patch = json.dumps({"spec": {"access": [{**entry, "tasks": tasks}]}})
        cluster.kubectl("patch", "pgt", "orders", "-n", space, "--type=merge", "-p", patch)

    allow([])

    def said() -> str:
        return str((cluster.condition(WINDOW, other, "now", "Accepted") or {}).get("message", ""))

    wait("the word is missing", lambda: re.search("(does not admit|lists) task VacuumAnalyze", said()))
    assert vacuums(server, database) == {"big": 0}
    with slow(server):
        allow(["VacuumAnalyze"])
        wait("it vacuums", lambda: vacuuming(server, database), seconds=60)
        run = runs(cluster, space)[0]
        assert run["spec"]["windowRef"] == {"name": "now", "namespace": other}, (
            "the record is in the target's namespace"
        )
        allow([])
        wait("it has stopped", lambda: not vacuuming(server, database))
    run = wait_run(cluster, space, "Ready", "Cancelled")
    assert condition(run, "Accepted")["reason"] == "NotPermitted"
    assert [item["outcome"] for item in run["status"]["items"]] == ["Cancelled"]
    assert vacuums(server, database) == {"big": 0}


class slow:  # noqa: N801 - reads as a word of the test
    """VACUUM of the maintenance role takes about a second per twenty pages."""

    def __init__(self, server: Any) -> None:
        self.server = server

    def __enter__(self) -> None:
        self.server.execute("ALTER ROLE pgtend_maintenance SET vacuum_cost_delay = '50ms'")
        self.server.execute("ALTER ROLE pgtend_maintenance SET vacuum_cost_limit = 1")
        self.end_warm_sessions()

    def end_warm_sessions(self) -> None:
        self.server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = 'pgtend_maintenance' AND split_part(application_name, '/', 3) = 'work'"
        )

    def __exit__(self, *_: object) -> None:
        self.server.execute("ALTER ROLE pgtend_maintenance RESET vacuum_cost_delay")
        self.server.execute("ALTER ROLE pgtend_maintenance RESET vacuum_cost_limit")
        self.end_warm_sessions()


def vacuuming(server: Any, database: str) -> list[int]:
    rows = server.execute("SELECT pid FROM pg_stat_progress_vacuum WHERE datname = %s", [database])
    return [row[0] for row in rows]


@pytest.mark.long
@pytest.mark.covers("MaintenanceWindow.spec.closing.lastStart", "MaintenanceWindow.spec.closing.cancel")
@pytest.mark.timeout(400)
def test_work_stops_before_the_end_and_the_next_window_goes_on_there(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    operator([space])
    tended(cluster, space, server)
    database = server.fresh_database()
    tables(server, database, ["a_small"])
    tables(server, database, ["b_big"], rows=60000)
    tables(server, database, ["c_small"])
    tasks = [{"type": "VacuumAnalyze", "vacuumAnalyze": {"select": {"databases": [database]}}}]
    with slow(server):
        cluster.apply(
            window(
                space, cron="* * * * *", duration="50s", closing={"lastStart": "22s", "cancel": "20s"}, tasks=tasks
            )
        )  # fmt: skip

        def cut() -> Any:
            for run in runs(cluster, space):
                outcomes = {i["object"].split(".")[-1]: i["outcome"] for i in run.get("status", {}).get("items", [])}
                if run.get("status", {}).get("finishedAt") and outcomes.get("b_big") == "Cancelled":
                    return run
            return None

        run = wait("a window ends in the middle of b_big", cut, seconds=200)
        ends = datetime.fromisoformat(run["spec"]["endsAt"])
        ended = datetime.fromisoformat(run["status"]["finishedAt"])
        assert timedelta(0) < ends - ended <= timedelta(seconds=20), "after cancel, before the end"
        assert vacuuming(server, database) == []
    outcomes = {i["object"].split(".")[-1]: i["outcome"] for i in run["status"]["items"]}
    assert outcomes["c_small"] == "DeferredNoTime", outcomes
    assert run["status"]["resumeFrom"] == {"type": "VacuumAnalyze", "object": f"{database}.public.b_big"}
    assert condition(run, "Ready")["status"] == "True" and "go" in condition(run, "Ready")["message"]

    def later() -> Any:
        found = [r for r in runs(cluster, space) if r["spec"]["startsAt"] > run["spec"]["startsAt"]]
        return next((r for r in found if condition(r, "Complete")["reason"] == "Succeeded"), None)

    following = wait("the next window does the rest", later, seconds=150)
    names = [item["object"].split(".")[-1] for item in following["status"]["items"]]
    assert names[:2] == ["b_big", "c_small"], "it goes on where the last one stopped"
    done = vacuums(server, database)
    assert done["b_big"] >= 1 and done["c_small"] >= 1


@pytest.mark.covers(
    "MaintenanceWindow.spec.maxConcurrentTargets",
    "MaintenanceWindow.spec.stopAfterFailures",
    "MaintenanceRun.reason.Failed",
    "MaintenanceRun.reason.Skipped",
)
@pytest.mark.timeout(300)
def test_a_failure_on_one_target_spares_the_others(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    space = tenant.namespace()
    operator([space])
    first, second = postgres(14), postgres(18)
    databases = []
    for name, server in (("first", first), ("second", second)):
        tended(cluster, space, server, name=name)
        database = server.fresh_database()
        tables(server, database, ["orders"])
        databases.append(database)
        # nobody who may vacuum: not the owner, and without pg_maintain
        server.execute("ALTER TABLE orders OWNER TO postgres", dbname=database)
        if server.major >= 17:
            server.execute("REVOKE pg_maintain FROM pgtend_maintenance")
    try:
        references = [{"name": "first"}, {"name": "second"}]
        tasks = [{"type": "VacuumAnalyze", "vacuumAnalyze": {"select": {"databases": databases}}}]
        cluster.apply(window(space, targetRefs=references, maxConcurrentTargets=1, tasks=tasks))
        failed = wait_run(cluster, space, "Ready", "Failed")
        skipped = wait_run(cluster, space, "Ready", "Skipped")
    finally:
        second.execute("GRANT pg_maintain TO pgtend_maintenance")
    found = condition(failed, "Complete")
    assert "42501" in found["message"] and condition(failed, "Stalled")["status"] == "True"
    assert "stopped after failures on" in condition(skipped, "Ready")["message"]
    assert condition(skipped, "Ready")["status"] == "True"
    shown = wait("the window tells", lambda: _told(cluster, space, "now", "lastRun"))
    assert shown["targets"]["matched"] == 2
    wait("one failed", lambda: (_told(cluster, space, "now", "targets") or {}).get("targets", {}).get("failed") == 1)
    for server, database in zip((first, second), databases, strict=True):
        assert vacuums(server, database) == {"orders": 0}


@pytest.mark.covers(
    "MaintenanceWindow.spec.pauseWhile.*",
    "MaintenanceWindow.reason.Paused",
    "MaintenanceWindow.reason.Waiting",
    "MaintenanceRun.reason.Paused",
    "MaintenanceRun.reason.Waiting",
)
@pytest.mark.timeout(300)
def test_it_pauses_for_an_old_transaction_a_late_standby_and_the_brake(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    primary, standby = postgres(18), postgres(18, role="standby")
    space = tenant.namespace()
    process = operator([space])
    tended(cluster, space, primary, standby)
    database = primary.fresh_database()
    tables(primary, database, ["orders"])
    tasks = [{"type": "VacuumAnalyze", "vacuumAnalyze": {"select": {"databases": [database]}}}]
    limits = {"transactionAge": "2s", "replicationLag": "2s"}
    login = primary.fresh_role("reader")
    with primary.connect(login) as connection:
        connection.autocommit = False
        connection.execute("SELECT 1")
        time.sleep(2.5)
        cluster.apply(window(space, tasks=tasks, pauseWhile=limits))
        run = wait_run(cluster, space, "Complete", "Paused")
        assert "pauseWhile.transactionAge 2s" in condition(run, "Complete")["message"]
        found = cluster.wait_condition(WINDOW, space, "now", "Unblocked", "False", "Paused")
        assert "transaction is open since" in found["message"]
        assert vacuums(primary, database) == {"orders": 0}
        connection.rollback()
    wait_run(cluster, space, "Ready", "Succeeded")
    assert vacuums(primary, database) == {"orders": 1}
    cluster.wait_condition(WINDOW, space, "now", "Unblocked", "True", "AsExpected")

    # late until it is told otherwise
    standby.execute("ALTER SYSTEM SET recovery_min_apply_delay = '10min'")
    standby.execute("SELECT pg_reload_conf()")
    try:
        primary.execute("CREATE TABLE lagging AS SELECT 1 AS n", dbname=database)
        wait(
            "the standby is late",
            lambda: primary.execute("SELECT 1 FROM pg_stat_replication WHERE replay_lag > interval '3 s'"),
            seconds=60,
        )
        tables(primary, database, ["lines"])
        cluster.apply(window(space, "late", tasks=tasks, pauseWhile=limits))
        run = wait_run(cluster, space, "Complete", "Paused", name="late")
        assert "pauseWhile.replicationLag 2s" in condition(run, "Complete")["message"]
    finally:
        standby.execute("ALTER SYSTEM RESET recovery_min_apply_delay")
        standby.execute("SELECT pg_reload_conf()")
    wait_run(cluster, space, "Ready", "Succeeded", name="late", seconds=90)

    # the brake, by hand
    cluster.kubectl("create", "configmap", "-n", process.namespace, "pgtend-brake", "--from-literal=paused=true")
    wait("the brake is seen", lambda: '"brake", "on": true' in process.log)
    cluster.apply(
        window(
            space,
            "braked",
            tasks=[
                {"type": "VacuumAnalyze", "vacuumAnalyze": {"minDeadTuples": "0%", "select": {"databases": [database]}}}
            ],
        )
    )
    run = wait_run(cluster, space, "Complete", "Waiting", name="braked")
    assert "brake" in condition(run, "Complete")["message"]
    cluster.wait_condition(WINDOW, space, "braked", "Unblocked", "False", "Waiting")
    cluster.kubectl("delete", "configmap", "-n", process.namespace, "pgtend-brake")
    wait_run(cluster, space, "Ready", "Succeeded", name="braked")


@pytest.mark.covers("MaintenanceWindow.spec.tasks.timeout")
@pytest.mark.timeout(300)
def test_a_tasks_timeout_and_a_suspended_window(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    operator([space])
    tended(cluster, space, server)
    database = server.fresh_database()
    tables(server, database, ["a_big", "b_big"], rows=60000)
    options = {"type": "VacuumAnalyze", "vacuumAnalyze": {"select": {"databases": [database]}}}
    with slow(server):
        cluster.apply(window(space, "bounded", tasks=[{**options, "timeout": "10s"}]))
        run = wait_run(cluster, space, "Ready", "Skipped", name="bounded")
        outcomes = [item["outcome"] for item in run["status"]["items"]]
        assert outcomes == ["Cancelled", "DeferredNoTime"]
        cluster.kubectl("delete", WINDOW, "bounded", "-n", space)

        cluster.apply(window(space, "stopped", tasks=[options]))
        wait("it vacuums", lambda: vacuuming(server, database), seconds=60)
        cluster.kubectl("patch", WINDOW, "stopped", "-n", space, "--type=merge", "-p", '{"spec":{"suspend":true}}')
        wait("it has stopped", lambda: not vacuuming(server, database))
        run = wait_run(cluster, space, "Ready", "Cancelled", name="stopped")
        assert "spec.suspend: true" in condition(run, "Ready")["message"]
    assert vacuums(server, database) == {"a_big": 0, "b_big": 0}


@pytest.mark.timeout(240)
def test_many_items_are_in_a_configmap(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    operator([space])
    tended(cluster, space, server)
    database = server.fresh_database()
    names = [f"t{number:02}" for number in range(60)]
    tables(server, database, names, rows=20)
    tasks = [{"type": "VacuumAnalyze", "vacuumAnalyze": {"select": {"databases": [database]}}}]
    mark = time.monotonic()
    cluster.apply(window(space, tasks=tasks))
    run = wait_run(cluster, space, "Ready", "Succeeded", seconds=90)
    print(f"60 tables in {time.monotonic() - mark:.1f} s")
    status = run["status"]
    assert status["progress"] == "60/60" and len(status["items"]) == 50 and status["truncated"] is True
    stored = cluster.get("configmap", space, status["itemsConfigMap"])
    assert stored is not None
    rows = json.loads(stored["data"]["items.json"])
    assert [row["object"] for row in rows] == [f"{database}.public.{name}" for name in names]
    assert stored["metadata"]["ownerReferences"][0]["uid"] == run["metadata"]["uid"]
    assert len(json.dumps(status)) < 32 << 10
