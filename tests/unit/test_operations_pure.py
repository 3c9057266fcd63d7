"""When an operation may start, and what becomes of one that another process began."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from pgtend.api.postgresoperation import ItemStatus, OperationSpec, OperationStatus, PlanStatus
from pgtend.api.reasons import OperationReason as R
from pgtend.api.schedule import Schedule
from pgtend.core.findings import ObjectKey
from pgtend.core.journal import Claimed
from pgtend.gate.asking import State, TargetWindow
from pgtend.gate.busy import Busy, RunningItem
from pgtend.gate.classes import RunPolicy, TaskType
from pgtend.gate.windows import calendar
from pgtend.operations.admission import No
from pgtend.operations.recovery import Begun, rest_of
from pgtend.operations.telling import Ended
from pgtend.operations.timing import Later, policy_of, when
from pgtend.tasks.protocol import Item, ItemResult, Outcome, TaskPlan
from pgtend.tasks.runner import Ending

NOW = datetime(2026, 11, 22, 14, 12, 7, tzinfo=UTC)  # a Sunday
TARGET = ObjectKey("PostgresTarget", "databases", "orders")


def spec(type_: str = "VacuumFull", **rest: Any) -> OperationSpec:
    body = {"targetRef": {"name": "orders"}, "type": type_, "reason": "x", "notAfter": "2026-11-22T20:00:00Z", **rest}
    return OperationSpec.model_validate(body)


def window(at: str, *, day: str = "Sunday", hours: int = 2) -> TargetWindow:
    made = calendar(
        schedule=Schedule.model_validate({"weekly": {"days": [day], "at": at}}),
        time_zone="Etc/UTC",
        duration=timedelta(hours=hours),
        now=NOW,
    )
    return TargetWindow(key=ObjectKey("MaintenanceWindow", "databases", "weekly"), calendar=made)


def asked(given: OperationSpec, *windows: TargetWindow, busy: Busy | None = None, type_: TaskType) -> Later | No | None:
    state = State(target=TARGET, mode="Enforce", windows=windows, busy=busy or Busy())
    return when(spec=given, type_=type_, object="orders.shop.audit", state=state, now=NOW)


def test_the_policy_that_is_not_written_follows_the_class() -> None:
    assert policy_of(spec("Reindex"), TaskType.REINDEX) is RunPolicy.IN_WINDOW
    assert policy_of(spec("VacuumAnalyze"), TaskType.VACUUM_ANALYZE) is RunPolicy.IMMEDIATELY
    assert policy_of(spec(runPolicy="OverrideWindow"), TaskType.VACUUM_FULL) is RunPolicy.OVERRIDE_WINDOW


def test_no_window_at_all_is_refused_at_once() -> None:
    answer = asked(spec(), type_=TaskType.VACUUM_FULL)
    assert isinstance(answer, No) and answer.reason is R.NO_WINDOW_BEFORE_EXPIRY
    assert "no window selects orders" in answer.message and "notAfter is 2026-11-22T20:00:00Z" in answer.message


def test_a_window_after_notafter_is_refused_at_once() -> None:
    answer = asked(spec(), window("21:00"), type_=TaskType.VACUUM_FULL)
    assert isinstance(answer, No) and answer.reason is R.NO_WINDOW_BEFORE_EXPIRY
    assert "opens 2026-11-22T21:00:00Z" in answer.message


def test_a_window_before_notafter_is_waited_for() -> None:
    answer = asked(spec(), window("18:00"), type_=TaskType.VACUUM_FULL)
    assert isinstance(answer, Later)
    assert answer.next_at == datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
    assert "window databases/weekly opens 2026-11-22T18:00:00Z" in answer.message


def test_in_an_open_window_it_starts_and_at_its_end_it_waits_for_the_next() -> None:
    assert asked(spec(), window("14:00"), type_=TaskType.VACUUM_FULL) is None
    answer = asked(spec(), window("12:30"), type_=TaskType.VACUUM_FULL)  # ends 14:30, nothing starts after 14:10
    assert isinstance(answer, No) and answer.reason is R.NO_WINDOW_BEFORE_EXPIRY


def test_immediately_outside_of_a_window_is_refused_with_what_to_write() -> None:
    answer = asked(spec(runPolicy="Immediately"), window("18:00"), type_=TaskType.VACUUM_FULL)
    assert isinstance(answer, No) and answer.reason is R.OUTSIDE_WINDOW
    assert answer.message == (
        "VacuumFull locks orders.shop.audit and no window of orders is open at 14:12:07Z: create it with runPolicy"
        " InWindow (next 2026-11-22T18:00:00Z) or OverrideWindow"
    )


def test_override_needs_no_window_but_gives_way_to_other_work() -> None:
    given = spec(runPolicy="OverrideWindow")
    assert asked(given, type_=TaskType.VACUUM_FULL) is None
    other = RunningItem(holder=TARGET, type="Reindex", object="orders.shop.a", since=NOW)
    answer = asked(given, busy=Busy(running=(other,)), type_=TaskType.VACUUM_FULL)
    assert isinstance(answer, Later) and answer.next_at is None


def test_what_is_online_runs_at_once_and_in_a_window_if_asked_to() -> None:
    assert asked(spec("VacuumAnalyze"), type_=TaskType.VACUUM_ANALYZE) is None
    waits = asked(spec("VacuumAnalyze", runPolicy="InWindow"), window("18:00"), type_=TaskType.VACUUM_ANALYZE)
    assert isinstance(waits, Later)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"type_": "VacuumAnalyze", "runPolicy": "OverrideWindow"}, "OverrideWindow is for types"),
        ({"type_": "VacuumFull", "reindex": {}}, "a type takes no options but those of its own name"),
        ({"type_": "TerminateQueries"}, "comes with terminateQueries"),
        ({"type_": "Reindex", "terminateQueries": {"maxVictims": 1}}, "comes with terminateQueries"),
        (
            {"type_": "TerminateQueries", "terminateQueries": {"maxVictims": 1}, "runPolicy": "InWindow"},
            "TerminateQueries runs at once",
        ),
    ],
)
def test_contradictions_do_not_parse(body: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        spec(**body)


def row(name: str, outcome: str = "Planned") -> ItemStatus:
    return ItemStatus(type="Reindex", object=name, outcome=outcome)


def item(name: str, horizon: str) -> Item:
    facts = {"horizon": horizon}
    return Item(type=TaskType.REINDEX, object=name, verb="reindex", sql=f"REINDEX {name}", facts=facts)


def test_after_a_restart_the_rest_is_done_and_nothing_else() -> None:
    begun = Begun(
        before=OperationStatus(plan_hash="sha256:claimed", plan=PlanStatus(items=4, lock="None", sql=("one",))),
        rows=(row("done", "Succeeded"), row("found"), row("open"), row("gone")),
        claimed=tuple(Claimed(object=name, facts={"horizon": "700"}) for name in ("found", "open", "gone")),
    )
    fresh = TaskPlan(
        type=TaskType.REINDEX,
        items=(item("new", "900"), item("open", "900"), item("done", "900")),
        plan_hash="sha256:fresh",
        sql=(),
    )
    assert [one.object for one in begun.open(TaskType.REINDEX)] == ["found", "open", "gone"]
    found = {"found": ItemResult(outcome=Outcome.SUCCEEDED, size_after=1)}
    rest = rest_of(type_=TaskType.REINDEX, begun=begun, found=found, fresh=fresh)
    assert [one.object for one in rest.plan.items] == ["done", "found", "open", "gone"], "as planned, nothing new"
    assert rest.plan.plan_hash == "sha256:claimed"
    assert {name: one.outcome for name, one in rest.done.items()} == {
        "done": Outcome.SUCCEEDED,
        "found": Outcome.SUCCEEDED,
        "gone": Outcome.SUCCEEDED,
    }
    # what the first try has left is older than the new look
    assert next(one for one in rest.plan.items if one.object == "open").facts == {"horizon": "700"}


@pytest.mark.parametrize(
    ("type_", "outcome", "reason"),
    [
        (TaskType.REINDEX, Outcome.SUCCEEDED, R.SUCCEEDED),
        (TaskType.REINDEX, Outcome.DEFERRED_LOCKED, R.DEFERRED),
        (TaskType.REINDEX, Outcome.CANCELLED, R.DEFERRED),
        (TaskType.TERMINATE_QUERIES, Outcome.CANCELLED, R.SUCCEEDED),
        (TaskType.REINDEX, Outcome.FAILED, R.FAILED),
    ],
)
def test_how_it_ended(type_: TaskType, outcome: Outcome, reason: R) -> None:
    ended = Ended(
        type=type_,
        outcomes={"a": ItemResult(outcome=outcome)},
        ending=Ending.DONE,
        message="",
        started_at=NOW,
        finished_at=NOW,
    )
    assert ended.reason is reason
