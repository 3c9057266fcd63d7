"""The board of `pgtend status` and the texts of `pgtend explain`, from bodies as the API server gives them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pgtend.__main__ import main
from pgtend.api.kinds import BY_NAME, KINDS
from pgtend.cli import explain
from pgtend.cli.board import LEVELS, SILENT, Life, Row, document, lines, ordered, row_of
from pgtend.core.clock import rfc3339

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def condition(type_: str, status: str, reason: str, message: str = "", *, minutes: int = 5) -> dict[str, Any]:
    moment = rfc3339(NOW - timedelta(minutes=minutes))
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": moment}


def body(name: str = "orders", *conditions: dict[str, Any], worst: str | None = None, **status: Any) -> dict[str, Any]:
    meta = {"namespace": "databases", "name": name, "generation": 2}
    told = {"observedGeneration": 2, "conditions": list(conditions), **status}
    if worst is not None:
        told["worst"] = {"condition": worst, "reason": "x", "since": rfc3339(NOW - timedelta(hours=2))}
    return {"metadata": meta, "status": told}


READY = condition("Ready", "True", "InForce", "primary a reached")


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (body("a", READY, worst="Ready", health="Healthy"), "Well"),
        (
            body("a", READY, condition("LocksHealthy", "False", "Blocked"), worst="LocksHealthy", health="Critical"),
            "Critical",
        ),
        (
            body("a", READY, condition("PoolHealthy", "True", "PoolFilling"), worst="PoolHealthy", health="Warning"),
            "Warning",
        ),
        (body("a", READY, condition("InSync", "False", "Drifted"), worst="InSync"), "Wrong"),
        (body("a", READY, condition("DiskHealthy", "Unknown", "NoSource"), worst="DiskHealthy"), "Unknown"),
        (
            body("a", condition("Ready", "False", "Running"), condition("Reconciling", "True", "Running")),
            "Working",
        ),
        (
            body(
                "a",
                condition("Ready", "False", "Failed"),
                condition("Reconciling", "True", "Failed"),
                condition("Stalled", "True", "Failed"),
            ),
            "Wrong",
        ),
    ],
)
def test_how_bad_it_is(found: dict[str, Any], level: str) -> None:
    assert row_of("PostgresTarget", found).level == level


def test_the_row_tells_the_condition_to_read_first() -> None:
    locks = condition("LocksHealthy", "False", "Blocked", "pid 5 waits")
    row = row_of("PostgresTarget", body("a", READY, locks, worst="LocksHealthy"))
    assert (row.condition, row.reason, row.message) == ("LocksHealthy", "Blocked", "pid 5 waits")
    assert row.since == NOW - timedelta(hours=2), "since when that is the worst, not since the condition turned"
    stale = body("a", READY)
    stale["metadata"]["generation"] = 3
    assert row_of("DatabaseUser", stale).message == "(of the spec before) primary a reached"
    nobody = row_of("DatabaseUser", {"metadata": {"namespace": "n", "name": "a"}})
    assert (nobody.level, nobody.reason) == ("Unknown", "NotLookedAt")


def rows() -> list[Row]:
    return [
        row_of("PostgresTarget", body("well", READY, worst="Ready")),
        row_of("DatabaseUser", body("app", READY, condition("InSync", "False", "Drifted", "m" * 300), worst="InSync")),
        row_of("DatabaseUser", {"metadata": {"namespace": "databases", "name": "new"}}),
    ]


def test_the_worst_comes_first_and_what_is_well_is_counted() -> None:
    found = ordered(rows())
    assert [LEVELS.index(row.level) for row in found] == sorted(LEVELS.index(row.level) for row in found)
    alive = Life(holder="pgtend-1", silent=3.0)
    text = [click.unstyle(line) for line in lines(found, alive, NOW, everything=False, wide=False)]
    assert text[0] == "operator: alive, its Lease was renewed 3s ago by pgtend-1"
    assert text[1].split() == ["KIND", "OBJECT", "READY", "HEALTH", "REASON", "SINCE", "MESSAGE"]
    assert text[2].startswith("DatabaseUser  databases/app  True") and "Drifted" in text[2] and "2h" in text[2]
    assert text[2].endswith("m…") and len(text) == 5
    assert text[-1] == "3 objects: 1 wrong, 1 unknown, 1 well"
    full = "\n".join(lines(found, alive, NOW, everything=True, wide=True))
    assert "m" * 300 in full and "databases/well" in full


def test_what_a_status_says_cannot_steer_the_terminal() -> None:
    evil = row_of("DatabaseUser", body("a", condition("Ready", "False", "Failed", "\x1b[2Jgone\nOBJECT")))
    shown = [click.unstyle(line) for line in lines([evil], Life(why="x"), NOW, everything=True, wide=True)]
    assert len(shown) == 4 and "\\x1b[2Jgone\\x0aOBJECT" in shown[2]


def test_a_silent_operator_is_told_before_anything_else() -> None:
    gone = Life(holder="pgtend-1", silent=SILENT + 1)
    first = click.unstyle(next(lines(rows(), gone, NOW, everything=False, wide=False)))
    assert first.startswith("operator: gone, what is below is old")
    assert not Life(holder="p", silent=-5.0).gone, "another clock is ahead of ours"
    told = json.loads(document(ordered(rows()), gone, NOW))
    assert told["operator"]["gone"] is True and len(told["objects"]) == 3
    assert told["objects"][0]["since"] == "2026-03-01T10:00:00Z"


def test_every_reason_is_explained() -> None:
    for kind in KINDS:
        for reason in kind.own_reasons:
            text = "\n".join(explain.reasons(str(reason), kind))
            assert reason.meaning.split()[0] in text, (kind.name, reason)


def test_a_reason_without_a_cluster() -> None:
    done = CliRunner().invoke(main, ["explain", "brakeon", "--kind", "pgt"])
    assert done.exit_code == 0 and done.output.startswith("BrakeOn (PostgresTarget)\n  Meaning: The brake")
    done = CliRunner().invoke(main, ["explain", "TooManyAtOnc"])
    assert done.exit_code == 1 and "did you mean TooManyAtOnce" in done.output
    assert (
        "no kind nothing: there are PostgresTarget,"
        in CliRunner().invoke(main, ["explain", "x", "--kind", "nothing"]).output
    )
    assert CliRunner().invoke(main, ["explain", "BrakeOn", "Ready"]).exit_code == 2


def test_an_objects_conditions() -> None:
    kind = BY_NAME["PostgresTarget"]
    locks = condition("LocksHealthy", "False", "LockWaitCritical", "pid 5 waits for pid 4")
    working = condition("Reconciling", "True", "Running")
    text = [click.unstyle(line) for line in explain.conditions(kind, body("a", READY, locks, working), None)]
    assert text[0] == "LocksHealthy=False/LockWaitCritical since 2026-03-01T11:55:00Z" and "pid 5" in text[1]
    assert any(line.startswith("Reconciling=True") for line in text) and not any("Ready=True" in line for line in text)
    unasked = condition("PoolHealthy", "Unknown", "NotRequested", "spec.pooler is not set")
    assert list(explain.conditions(kind, body("a", READY, unasked), None)) == ["all is as it should be"]
    assert "55:00Z" in next(explain.conditions(kind, body("a", READY, unasked), "PoolHealthy"))
    [head, message, *_] = explain.conditions(kind, body("a", READY, locks), "ready")
    assert "Ready=True/InForce" in head and "primary a reached" in message
    assert list(explain.conditions(kind, body("a", READY), None)) == ["all is as it should be"]
    [told] = explain.conditions(kind, {"metadata": {}}, None)
    assert told.startswith("nobody has looked at it yet")
    with pytest.raises(ValueError, match="no condition Disk there: Ready"):
        list(explain.conditions(kind, body("a", READY), "Disk"))
