"""What the gate permits and what it refuses, rule by rule, and what no permit may ever be."""

from __future__ import annotations

import copy
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.thorough import cases

from pgtend.api.conditions import Reason
from pgtend.api.schedule import Schedule
from pgtend.core.findings import ObjectKey
from pgtend.gate.asking import Refusal, Request, State, TargetWindow
from pgtend.gate.busy import ActiveDump, Busy, DumpPlan, RunningItem
from pgtend.gate.classes import RunPolicy, TaskClass, TaskType
from pgtend.gate.decide import DUMP_MARGIN, Permit, decide, recheck
from pgtend.gate.reasons import GateReason
from pgtend.gate.windows import Calendar, Exclusion, calendar

TARGET = ObjectKey("PostgresTarget", "databases", "orders")
WEEKLY = ObjectKey("MaintenanceWindow", "databases", "weekly")
MONTHLY = ObjectKey("MaintenanceWindow", "databases", "monthly")
POLICY = ObjectKey("PostgresBackupPolicy", "databases", "orders")
RUN = ObjectKey("MaintenanceRun", "databases", "weekly-orders-20261122-0200")
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    """`22T02:00` of November 2026."""
    return datetime.fromisoformat(f"2026-11-{text}").replace(tzinfo=UTC)


SALE = Exclusion(name="sale", starts_at=utc("27T00:00"), ends_at=utc("30T00:00"), reason="peak week")


def _calendar(spec: dict[str, Any], hours: int) -> Calendar:
    schedule = Schedule.model_validate(spec)
    return calendar(schedule=schedule, time_zone="Etc/UTC", duration=timedelta(hours=hours), now=utc("01T00:00"))


CALENDARS = {
    WEEKLY: _calendar({"weekly": {"days": ["Sunday"], "at": "02:00"}}, 2),
    MONTHLY: _calendar({"monthly": {"week": "Last", "days": ["Sunday"], "at": "02:00"}}, 4),
}


def window(key: ObjectKey = WEEKLY, *, exclusions: tuple[Exclusion, ...] = (), suspended: bool = False) -> TargetWindow:
    return TargetWindow(
        key=key, calendar=dataclasses.replace(CALENDARS[key], exclusions=exclusions), suspended=suspended
    )


def state(**given: Any) -> State:
    return State(**{"target": TARGET, "mode": "Enforce", "windows": (window(),), **given})


def request(
    type: TaskType = TaskType.REINDEX, policy: RunPolicy = RunPolicy.IN_WINDOW, minutes: float = 10, **more: Any
) -> Request:
    return Request(
        target=TARGET,
        type=type,
        object="orders.shop.audit",
        run_policy=policy,
        estimate=timedelta(minutes=minutes),
        **more,
    )


def permitted(asked: Request, known: State, now: str) -> Permit:
    decision = decide(asked, known, utc(now))
    assert isinstance(decision, Permit), decision
    return decision


def refused(asked: Request, known: State, now: str) -> Refusal:
    decision = decide(asked, known, utc(now))
    assert isinstance(decision, Refusal), decision
    return decision


def due(*starts: str) -> Busy:
    return Busy(dump_plans=(DumpPlan(policy=POLICY, due=tuple(utc(start) for start in starts)),))


ACTIVE = Busy(active_dumps=(ActiveDump(policy=POLICY, job="orders-1", started_at=utc("22T02:00")),))
OTHER = Busy(
    running=(RunningItem(holder=RUN, type="Reindex", object="orders.shop.orders_pkey", since=utc("22T02:12")),)
)


class TestPermit:
    def test_nobody_else_makes_one(self) -> None:
        given = permitted(request(), state(), "22T02:00")
        fields = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
        for token in (None, object(), "token"):
            with pytest.raises(TypeError, match="comes from gate"):
                Permit(**fields, token=token)
        with pytest.raises(TypeError, match="token"):
            Permit(**fields)
        with pytest.raises(ValueError, match="token"):
            dataclasses.replace(given, deadline=utc("30T00:00"))
        with pytest.raises(dataclasses.FrozenInstanceError):
            given.deadline = utc("30T00:00")  # type: ignore[misc]
        assert copy.copy(given) == given

    def test_it_tells_what_why_and_until_when(self) -> None:
        given = permitted(request(), state(), "22T02:00")
        assert (given.target, given.type, given.task_class) == (TARGET, TaskType.REINDEX, TaskClass.DISRUPTIVE)
        assert given.object == "orders.shop.audit"
        assert given.window == WEEKLY
        assert given.reason == "window databases/weekly is open"
        assert given.granted_at == utc("22T02:00")
        assert given.deadline == utc("22T03:55")

    def test_its_moments_are_utc_wherever_now_was_said(self) -> None:
        now = utc("22T02:00").astimezone(ZoneInfo("Asia/Kolkata"))
        decision = decide(request(), state(), now)
        assert isinstance(decision, Permit)
        assert decision.granted_at.tzinfo is UTC
        assert decision.deadline.tzinfo is UTC


class TestWindow:
    def test_closed(self) -> None:
        no = refused(request(), state(), "22T01:59:59")
        assert no.reason is GateReason.OUTSIDE_WINDOW
        assert no.message == "window databases/weekly opens 2026-11-22T02:00:00Z"
        assert no.retry_at == utc("22T02:00")

    def test_waiting_says_the_same_as_long_as_it_waits(self) -> None:
        assert refused(request(), state(), "23T00:00") == refused(request(), state(), "28T23:59")

    def test_asked_for_at_once_it_says_how_to_ask(self) -> None:
        no = refused(request(TaskType.VACUUM_FULL, RunPolicy.IMMEDIATELY), state(), "22T14:12:07")
        assert no.reason is GateReason.OUTSIDE_WINDOW
        assert no.message == (
            "VacuumFull locks orders.shop.audit and no window of orders is open at 14:12:07Z: create it with runPolicy"
            " InWindow (next 2026-11-29T02:00:00Z) or OverrideWindow"
        )

    def test_asked_for_at_once_in_an_open_window(self) -> None:
        assert permitted(request(policy=RunPolicy.IMMEDIATELY), state(), "22T02:00").window == WEEKLY

    def test_daily_does_not_free_disruptive_work(self) -> None:
        assert refused(request(policy=RunPolicy.DAILY), state(), "22T14:00").reason is GateReason.OUTSIDE_WINDOW

    def test_no_window_at_all(self) -> None:
        no = refused(request(), state(windows=()), "22T02:00")
        assert no.reason is GateReason.OUTSIDE_WINDOW
        assert "create a MaintenanceWindow" in no.message
        assert no.retry_at is None
        assert (
            "when there is a window"
            in refused(request(policy=RunPolicy.IMMEDIATELY), state(windows=()), "22T02:00").message
        )

    def test_the_end_is_excluded(self) -> None:
        assert refused(request(minutes=0), state(), "22T04:00").reason is GateReason.OUTSIDE_WINDOW

    def test_nothing_starts_in_the_last_minutes(self) -> None:
        assert permitted(request(minutes=1), state(), "22T03:39:59")
        no = refused(request(minutes=1), state(), "22T03:40")
        assert no.reason is GateReason.WINDOW_CLOSING
        assert no.message == (
            "window databases/weekly ends 2026-11-22T04:00:00Z and nothing starts in its last 20m: goes on"
            " 2026-11-29T02:00:00Z in window databases/weekly"
        )
        assert no.retry_at == utc("29T02:00")

    def test_the_estimate_ends_before_the_cancel_margin(self) -> None:
        assert permitted(request(minutes=55), state(), "22T03:00").deadline == utc("22T03:55")
        no = refused(request(minutes=55.1), state(), "22T03:00")
        assert no.reason is GateReason.NOT_ENOUGH_TIME
        assert "would not end before 2026-11-22T03:55:00Z" in no.message
        assert no.retry_at == utc("29T02:00")

    def test_what_fits_no_window_says_so(self) -> None:
        no = refused(request(minutes=116), state(), "22T02:00")
        assert no.reason is GateReason.NOT_ENOUGH_TIME
        assert "it fits no window of 2h" in no.message
        assert no.retry_at is None

    def test_a_timeout_is_a_limit_too(self) -> None:
        assert permitted(request(timeout=30 * MINUTE), state(), "22T02:00").deadline == utc("22T02:30")
        no = refused(request(timeout=9 * MINUTE), state(), "22T02:00")
        assert no.reason is GateReason.NOT_ENOUGH_TIME
        assert "raise timeout" in no.message

    def test_of_two_open_windows_the_longer_serves(self) -> None:
        both = state(windows=(window(), window(MONTHLY)))
        given = permitted(request(minutes=120), both, "29T02:30")
        assert (given.window, given.deadline) == (MONTHLY, utc("29T05:55"))

    def test_a_run_uses_its_own_window_only(self) -> None:
        both = state(windows=(window(), window(MONTHLY)))
        assert permitted(request(window=WEEKLY), both, "29T02:30").deadline == utc("29T03:55")
        assert refused(request(window=WEEKLY, minutes=120), both, "29T02:30").reason is GateReason.NOT_ENOUGH_TIME
        assert refused(request(window=MONTHLY), both, "22T02:30").reason is GateReason.OUTSIDE_WINDOW

    def test_a_closing_window_beside_an_open_one(self) -> None:
        both = state(windows=(window(), window(MONTHLY)))
        assert permitted(request(), both, "29T03:45").window == MONTHLY

    def test_a_suspended_window_is_none(self) -> None:
        known = state(windows=(window(suspended=True),))
        assert refused(request(), known, "22T02:00").reason is GateReason.OUTSIDE_WINDOW
        no = refused(request(window=WEEKLY), known, "22T02:00")
        assert (no.reason, no.object) == (GateReason.SUSPENDED, "databases/weekly")


class TestOverride:
    OVERRIDE = request(TaskType.VACUUM_FULL, RunPolicy.OVERRIDE_WINDOW)

    def test_it_needs_no_window(self) -> None:
        given = permitted(self.OVERRIDE, state(windows=()), "22T14:00")
        assert (given.window, given.reason) == (None, "runPolicy OverrideWindow")
        assert given.deadline == utc("22T15:00")

    def test_its_timeout(self) -> None:
        override = request(policy=RunPolicy.OVERRIDE_WINDOW, timeout=3 * 60 * MINUTE, minutes=120)
        assert permitted(override, state(), "22T14:00").deadline == utc("22T17:00")
        assert refused(request(policy=RunPolicy.OVERRIDE_WINDOW, minutes=61), state(), "22T14:00").reason is (
            GateReason.NOT_ENOUGH_TIME
        )

    @pytest.mark.parametrize(
        ("known", "now", "reason"),
        [
            ({"brake": True}, "22T14:00", GateReason.BRAKE_ON),
            ({"suspended": True}, "22T14:00", GateReason.SUSPENDED),
            ({"mode": "Observe"}, "22T14:00", GateReason.OBSERVING),
            ({"busy": ACTIVE}, "22T14:00", GateReason.WAITING_FOR_BACKUP),
            ({"busy": OTHER}, "22T14:00", GateReason.TARGET_BUSY),
            ({"busy": due("22T14:05")}, "22T14:00", GateReason.BACKUP_DUE),
            ({"windows": (window(exclusions=(SALE,)),)}, "27T14:00", GateReason.EXCLUSION_ACTIVE),
        ],
    )
    def test_all_but_the_window_still_holds(self, known: dict[str, Any], now: str, reason: GateReason) -> None:
        assert refused(self.OVERRIDE, state(**known), now).reason is reason


class TestExclusion:
    KNOWN = state(windows=(window(exclusions=(SALE,)), window(MONTHLY)))

    def test_it_beats_every_window_of_the_target(self) -> None:
        no = refused(request(window=MONTHLY), self.KNOWN, "29T03:00")
        assert no.reason is GateReason.EXCLUSION_ACTIVE
        assert no.message == (
            "exclusion sale (peak week) of window databases/weekly holds until 2026-11-30T00:00:00Z: wait, or change it"
            " there"
        )
        assert (no.object, no.retry_at) == ("databases/weekly", utc("30T00:00"))

    def test_one_of_a_suspended_window_counts_for_nothing(self) -> None:
        known = state(windows=(window(exclusions=(SALE,), suspended=True), window(MONTHLY)))
        assert permitted(request(), known, "29T03:00")

    def test_work_ends_before_it_begins(self) -> None:
        override = request(policy=RunPolicy.OVERRIDE_WINDOW, minutes=30)
        assert permitted(override, self.KNOWN, "26T23:20").deadline == utc("26T23:55")
        no = refused(override, self.KNOWN, "26T23:30")
        assert no.reason is GateReason.NOT_ENOUGH_TIME
        assert "exclusion sale of window databases/weekly begins at 2026-11-27T00:00:00Z" in no.message

    def test_it_leaves_online_work_alone(self) -> None:
        assert permitted(request(TaskType.VACUUM_ANALYZE, RunPolicy.DAILY), self.KNOWN, "29T03:00")


class TestBackupsWin:
    def test_a_dump_runs(self) -> None:
        no = refused(request(), state(busy=ACTIVE), "22T02:05")
        assert no.reason is GateReason.WAITING_FOR_BACKUP
        assert no.message == "the dump of policy orders runs since 2026-11-22T02:00:00Z"
        assert no.object == "orders"

    def test_a_dump_is_late(self) -> None:
        no = refused(request(), state(busy=due("22T02:00", "23T02:00")), "22T02:00")
        assert no.reason is GateReason.WAITING_FOR_BACKUP
        assert "was due 2026-11-22T02:00:00Z" in no.message

    def test_the_estimate_ends_a_minute_before_the_next(self) -> None:
        known = state(busy=due("22T02:31"))
        assert permitted(request(minutes=30), known, "22T02:00").deadline == utc("22T02:30")
        no = refused(request(minutes=30.1), known, "22T02:00")
        assert no.reason is GateReason.BACKUP_DUE
        assert "60s before the dump of policy orders at 2026-11-22T02:31:00Z" in no.message

    def test_the_first_of_all_policies_counts(self) -> None:
        other = ObjectKey("PostgresBackupPolicy", "databases", "hourly")
        busy = Busy(
            dump_plans=(
                DumpPlan(policy=POLICY, due=(utc("23T02:00"),)),
                DumpPlan(policy=other, due=(utc("22T02:06"), utc("22T03:00"))),
            )
        )
        assert refused(request(), state(busy=busy), "22T02:00").object == "hourly"

    def test_a_dump_after_the_window_changes_nothing(self) -> None:
        assert permitted(request(), state(busy=due("23T02:00")), "22T02:00").deadline == utc("22T03:55")

    @pytest.mark.parametrize("type", [TaskType.VACUUM_ANALYZE, TaskType.TERMINATE_QUERIES])
    def test_what_is_not_disruptive_goes_beside_a_dump(self, type: TaskType) -> None:
        assert permitted(request(type, RunPolicy.IMMEDIATELY), state(busy=ACTIVE), "22T02:05")


class TestClasses:
    def test_the_types_of_the_api(self) -> None:
        assert {str(t): t.task_class.value for t in TaskType} == {
            "VacuumAnalyze": "Online",
            "Reindex": "Disruptive",
            "VacuumFull": "Disruptive",
            "TerminateQueries": "Emergency",
            "EndSessions": "Emergency",
            "Restore": "Data",
        }
        assert TaskType("Reindex") is TaskType.REINDEX
        assert {p.value for p in RunPolicy} == {"Immediately", "Daily", "InWindow", "OverrideWindow"}

    @pytest.mark.parametrize("type", [TaskType.VACUUM_ANALYZE, TaskType.TERMINATE_QUERIES, TaskType.RESTORE])
    def test_online_and_emergency_work_goes_at_once(self, type: TaskType) -> None:
        given = permitted(request(type, RunPolicy.IMMEDIATELY), state(windows=(), busy=OTHER), "22T14:00")
        assert given.window is None
        assert given.deadline == utc("22T15:00")
        assert given.reason == f"{type.task_class.value} work runs at any time"

    def test_online_work_may_be_longer_than_its_timeout(self) -> None:
        asked = request(TaskType.VACUUM_ANALYZE, RunPolicy.DAILY, minutes=600, timeout=10 * MINUTE)
        assert permitted(asked, state(), "22T14:00").deadline == utc("22T14:10")

    def test_online_work_in_a_window_if_asked_for(self) -> None:
        asked = request(TaskType.VACUUM_ANALYZE, RunPolicy.IN_WINDOW)
        assert refused(asked, state(), "22T14:00").reason is GateReason.OUTSIDE_WINDOW
        assert refused(asked, state(), "22T03:50").reason is GateReason.WINDOW_CLOSING
        assert permitted(asked, state(busy=OTHER), "22T02:00").deadline == utc("22T03:55")

    @pytest.mark.parametrize("type", list(TaskType))
    @pytest.mark.parametrize("policy", list(RunPolicy))
    @pytest.mark.parametrize(
        ("known", "reason"),
        [
            ({"brake": True, "mode": "Observe"}, GateReason.BRAKE_ON),
            ({"suspended": True}, GateReason.SUSPENDED),
            ({"mode": "Observe"}, GateReason.OBSERVING),
        ],
    )
    def test_nothing_goes_against_brake_suspension_and_observe(
        self, type: TaskType, policy: RunPolicy, known: dict[str, Any], reason: GateReason
    ) -> None:
        assert refused(request(type, policy), state(**known), "22T02:00").reason is reason

    def test_the_objects_own_observe_counts_too(self) -> None:
        no = refused(request(object_mode="Observe"), state(), "22T02:00")
        assert no.reason is GateReason.OBSERVING
        assert no.message.startswith("the object is in mode Observe")

    def test_one_disruptive_task_per_target(self) -> None:
        no = refused(request(), state(busy=OTHER), "22T02:30")
        assert no.reason is GateReason.TARGET_BUSY
        assert no.message == (
            "Reindex of orders.shop.orders_pkey runs since 2026-11-22T02:12:00Z for MaintenanceRun"
            " databases/weekly-orders-20261122-0200"
        )


class TestMisuse:
    def test_another_target(self) -> None:
        elsewhere = state(target=ObjectKey("PostgresTarget", "databases", "other"))
        with pytest.raises(ValueError, match="asked about databases/orders, told about databases/other"):
            decide(request(), elsewhere, utc("22T02:00"))
        with pytest.raises(ValueError, match="asked about"):
            recheck(permitted(request(), state(), "22T02:00"), elsewhere, utc("22T02:00"))

    def test_no_zone_and_negative_estimate(self) -> None:
        with pytest.raises(ValueError, match="zone"):
            decide(request(), state(), utc("22T02:00").replace(tzinfo=None))
        with pytest.raises(ValueError, match="negative"):
            decide(request(minutes=-1), state(), utc("22T02:00"))


class TestRecheck:
    PERMIT = permitted(request(), state(), "22T02:00")
    OVERRIDE = permitted(request(policy=RunPolicy.OVERRIDE_WINDOW), state(), "22T14:00")
    ONLINE = permitted(request(TaskType.VACUUM_ANALYZE, RunPolicy.DAILY), state(), "22T14:00")

    def test_all_is_well(self) -> None:
        assert recheck(self.PERMIT, state(busy=OTHER), utc("22T02:30")) is None
        assert recheck(self.OVERRIDE, state(windows=()), utc("22T14:30")) is None
        assert recheck(self.ONLINE, state(busy=ACTIVE, windows=()), utc("22T14:30")) is None

    @pytest.mark.parametrize(
        ("known", "reason"),
        [
            ({"brake": True}, GateReason.BRAKE_ON),
            ({"suspended": True}, GateReason.SUSPENDED),
            ({"mode": "Observe"}, GateReason.OBSERVING),
            ({"windows": ()}, GateReason.OUTSIDE_WINDOW),
            ({"windows": (window(suspended=True),)}, GateReason.OUTSIDE_WINDOW),
            ({"windows": (window(MONTHLY),)}, GateReason.OUTSIDE_WINDOW),
            ({"busy": ACTIVE}, GateReason.WAITING_FOR_BACKUP),
            ({"busy": due("22T02:31")}, GateReason.BACKUP_DUE),
        ],
    )
    def test_what_people_change_meanwhile_stops_it(self, known: dict[str, Any], reason: GateReason) -> None:
        stop = recheck(self.PERMIT, state(**known), utc("22T02:30"))
        assert stop is not None
        assert stop.reason is reason

    def test_an_exclusion_added_meanwhile(self) -> None:
        now = Exclusion(name="incident", starts_at=utc("22T14:10"), ends_at=utc("22T18:00"))
        stop = recheck(self.OVERRIDE, state(windows=(window(exclusions=(now,)),)), utc("22T14:30"))
        assert stop is not None
        assert stop.reason is GateReason.EXCLUSION_ACTIVE

    def test_the_brake_stops_online_work(self) -> None:
        stop = recheck(self.ONLINE, state(brake=True), utc("22T14:30"))
        assert stop is not None
        assert stop.reason is GateReason.BRAKE_ON


BEGIN = utc("20T00:00")
minutes = st.integers(0, 15 * 24 * 60)
moments = minutes.map(lambda n: BEGIN + n * MINUTE)


@st.composite
def exclusions(draw: st.DrawFn) -> tuple[Exclusion, ...]:
    spans = draw(st.lists(st.tuples(moments, st.integers(1, 3000)), max_size=2))
    return tuple(
        Exclusion(name=f"e{index}", starts_at=begin, ends_at=begin + length * MINUTE)
        for index, (begin, length) in enumerate(spans)
    )


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Request, State, datetime]:
    # Most interesting moments are near a Sunday's window.
    now = draw(st.one_of(moments, st.integers(0, 300).map(lambda n: utc("29T01:00") + n * MINUTE)))
    asked = request(
        draw(st.sampled_from(list(TaskType))),
        draw(st.sampled_from(list(RunPolicy))),
        draw(st.integers(0, 400)),
        timeout=draw(st.none() | st.integers(1, 300).map(lambda n: n * MINUTE)),
        window=draw(st.sampled_from([None, WEEKLY, MONTHLY])),
        object_mode=draw(st.sampled_from(["Enforce", "Enforce", "Enforce", "Observe"])),
    )
    windows = [
        window(WEEKLY, exclusions=draw(exclusions()), suspended=draw(st.booleans())),
        window(MONTHLY, exclusions=draw(exclusions())),
    ]
    starts = draw(st.lists(st.integers(-30, 600), max_size=2))
    busy = Busy(
        dump_plans=(DumpPlan(policy=POLICY, due=tuple(now + n * MINUTE for n in starts)),),
        active_dumps=ACTIVE.active_dumps if draw(st.integers(0, 4)) == 0 else (),
        running=OTHER.running if draw(st.integers(0, 4)) == 0 else (),
    )
    known = state(
        mode=draw(st.sampled_from(["Enforce", "Enforce", "Enforce", "Observe"])),
        brake=draw(st.integers(0, 5)) == 0,
        suspended=draw(st.integers(0, 5)) == 0,
        windows=tuple(draw(st.permutations(windows))[: draw(st.integers(0, 2))]),
        busy=busy,
    )
    return asked, known, now


@cases(400)
@given(worlds())
def test_no_permit_breaks_a_rule(world: tuple[Request, State, datetime]) -> None:
    """The rules once more, written the other way round."""
    asked, known, now = world
    decision = decide(asked, known, now)
    assert decision == decide(asked, known, now)
    if isinstance(decision, Refusal):
        assert isinstance(decision.reason, GateReason)
        assert decision.message
        assert decision.retry_at is None or decision.retry_at > now
        return
    assert not known.brake
    assert not known.suspended
    assert (known.mode, asked.object_mode) == ("Enforce", "Enforce")
    assert now < decision.deadline
    assert asked.timeout is None or decision.deadline <= now + asked.timeout
    if decision.window is not None:
        (serving,) = (w for w in known.windows if w.key == decision.window)
        assert asked.window in (None, serving.key)
        assert not serving.suspended
        opened = serving.calendar.window_at(now)
        assert opened is not None
        assert now < opened.ends_at - serving.calendar.closing.last_start
        assert decision.deadline <= opened.ends_at - serving.calendar.closing.cancel
    if asked.run_policy is RunPolicy.IN_WINDOW:
        assert decision.window is not None
    if asked.type.task_class is not TaskClass.DISRUPTIVE:
        return
    assert decision.window is not None or asked.run_policy is RunPolicy.OVERRIDE_WINDOW
    assert now + asked.estimate <= decision.deadline
    assert not known.busy.active_dumps
    assert not known.busy.running
    for plan in known.busy.dump_plans:
        assert all(start > now and decision.deadline <= start - DUMP_MARGIN for start in plan.due)
    for each in known.windows:
        if not each.suspended:
            for excluded in each.calendar.exclusions:
                assert excluded.ends_at <= now or decision.deadline <= excluded.starts_at
    assert recheck(decision, known, now) is None


@pytest.mark.parametrize("type", list(TaskType))
@pytest.mark.parametrize("policy", list(RunPolicy))
def test_what_is_free_of_obstacles_is_permitted(type: TaskType, policy: RunPolicy) -> None:
    """The gate does not refuse for want of courage: with nothing in the way and time enough the answer is yes."""
    assert permitted(request(type, policy, minutes=1), state(), "22T02:30")


def test_each_reason_says_what_it_means_and_what_to_do() -> None:
    for reason in GateReason:
        assert isinstance(reason, Reason)
        assert reason.meaning.endswith(".")
        assert reason.remedy.endswith(".")
    assert len({reason.meaning for reason in GateReason}) == len(GateReason)
