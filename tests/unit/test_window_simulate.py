"""`pgtend window simulate` on the production examples, and on windows that meet clocks, exclusions and each other."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pgtend.__main__ import main
from pgtend.api.maintenancewindow import MAINTENANCE_WINDOW
from pgtend.api.postgrestarget import POSTGRES_TARGET
from pgtend.cli.simulate import Plan, lines, simulate
from pgtend.kube.index import Record, record_of
from pgtend.maintenance.plan import timetable

EXAMPLES = Path(__file__).parents[2] / "examples" / "production"
START = datetime(2027, 1, 1, tzinfo=UTC)


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["window", "simulate", "--from", "2027-01-01", *words])


def examples(*words: str) -> Result:
    files = [word for name in ("30-backups", "40-maintenance") for word in ("-f", str(EXAMPLES / f"{name}.yaml"))]
    return run(*files, *words)


def body(kind: str, name: str, spec: dict[str, Any], **labels: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "databases", "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
    meta |= {"uid": name, "resourceVersion": "1"}
    return {"apiVersion": "pgtend.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}


def window(name: str = "weekly", **spec: Any) -> Record:
    base = {"targetRefs": [{"name": "orders"}], "tasks": [{"type": "Reindex"}]}
    given = {key: value for key, value in (base | spec).items() if value is not None}
    record = record_of(MAINTENANCE_WINDOW, body("MaintenanceWindow", name, given))
    assert record.spec_error is None, record.spec_error
    return record


def plan(*windows: Record, days: int = 365, **more: Any) -> Plan:
    return simulate(windows, start=START, end=START + timedelta(days=days), **more)


def test_the_production_examples_for_a_year() -> None:
    done = examples()
    assert done.exit_code == 0, done.output
    text = done.output.splitlines()
    last = text.index("Sun 2027-01-31 02:00+0000 to Sun 06:00+0000  databases/monthly  Reindex")
    assert text[last + 1] == "    databases/weekly is open too, and served after it"
    dump = "    the dump of databases/orders starts at 02:00: disruptive work ends before it, or waits for its end"
    assert text[last + 2] == dump
    assert text[-2:] == [
        "databases/weekly: 52 openings, 4d8h in all, 52 with a dump in them",
        "databases/monthly: 12 openings, 2d in all, 12 with a dump in them",
    ]
    assert "daily tasks only" not in done.output and "daily tasks only" in examples("--daily").output


def test_the_same_for_programs() -> None:
    told = json.loads(examples("-o", "json", "--days", "31", "--window", "monthly").stdout)
    [opening] = told["openings"]
    assert opening["startsAt"] == "2027-01-31T02:00:00Z" and opening["tasks"] == ["Reindex"]
    assert opening["beside"] == [{"window": "databases/weekly", "servedFirst": False}]
    assert opening["dumps"] == [{"policy": "databases/orders", "at": "2027-01-31T02:00:00Z"}]


def test_it_opens_when_the_operator_would() -> None:
    one = window(schedule={"rrule": "FREQ=MONTHLY;BYDAY=2TU,-1FR;BYHOUR=22;BYMINUTE=30"}, timeZone="Europe/Berlin")
    found = plan(one).openings
    table = timetable(one.spec, START)
    assert len(found) == 24
    for opening in found:
        assert table.window.window_at(opening.slot.starts_at) is not None
        assert table.window.window_at(opening.slot.starts_at - timedelta(seconds=1)) is None


def test_the_clock_that_changes_is_told() -> None:
    night = window(schedule={"daily": {"at": "01:30"}}, timeZone="Europe/Berlin", duration="2h")
    [text] = [t for t in lines(plan(night), {night.key: "Europe/Berlin"}, daily=False) if "2027-03-28" in t]
    # two hours have passed at 04:30 by a clock that was put on
    assert text == "Sun 2027-03-28 01:30+0100 to Sun 04:30+0200  databases/weekly  Reindex"


def test_exclusions_are_counted_with_what_they_take() -> None:
    freeze = [{"name": "freeze", "from": "2027-12-01T00:00:00Z", "to": "2027-12-31T00:00:00Z"}]
    found = plan(window(exclusions=freeze))
    assert len(found.openings) == 52 - 4 and dict(found.lost) == {(window().key, "freeze"): 4}
    short = [{"name": "short", "from": "2027-01-03T03:00:00Z", "to": "2027-01-03T03:30:00Z"}]
    found = plan(window(exclusions=short), days=7)
    assert [one.slot.ends_at - one.slot.starts_at for one in found.openings] == [
        timedelta(hours=1),
        timedelta(minutes=30),
    ]
    assert found.lost[window().key, "short"] == 1


def test_only_windows_of_one_target_meet() -> None:
    apart = window("other", targetRefs=[{"name": "customers"}])
    assert not any(one.beside for one in plan(window(), apart).openings)
    labels = {"targetRefs": None, "targetSelector": {"matchLabels": {"tier": "one"}}}
    members = [{"name": "a", "host": "a.example.com"}]
    spec = {"members": members, "credentials": {"monitor": {"password": {"secretRef": {"name": "m"}}}}}
    target = record_of(POSTGRES_TARGET, body("PostgresTarget", "orders", spec, tier="one"))
    both = plan(window(), window("chosen", **labels), targets=[target])
    assert all(len(one.beside) == 1 for one in both.openings) and not both.unresolved
    assert [key.name for key in plan(window("chosen", **labels)).unresolved] == ["chosen"]
    resting = plan(window(suspend=True))
    assert not resting.openings and [key.name for key in resting.idle] == ["weekly"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: Pod\napiVersion: v1\n", "there is no MaintenanceWindow"),
        (json.dumps(body("MaintenanceWindow", "w", {"tasks": []})), "MaintenanceWindow databases/w: "),
        (
            json.dumps(
                body(
                    "MaintenanceWindow",
                    "w",
                    {
                        "targetRefs": [{"name": "a"}],
                        "tasks": [{"type": "Reindex"}],
                        "schedule": {"cron": "0 2 * * *"},
                        "duration": "30h",
                    },
                )
            ),
            "reaches into the next start",
        ),
    ],
)
def test_what_makes_no_sense_is_told(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(text)
    done = run("-f", str(tmp_path / "w.yaml"))
    assert done.exit_code == 1 and told in done.output
