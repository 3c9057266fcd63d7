"""Transition times mean what they say, and the worst condition is the one to read first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.api.conditions import MESSAGE_LIMIT, Condition, Reason, Status, Verdict, merge, worst_of

NOON = "2026-11-22T12:00:00Z"
LATER = "2026-11-22T12:05:00Z"
LAST = "2026-11-22T12:10:00Z"


class R(Reason):
    IN_FORCE = "InForce", "well", "nothing"
    AS_EXPECTED = "AsExpected", "well", "nothing"
    NOT_READY = "NotReady", "down", "look"
    REFUSED = "Refused", "down", "look"
    TIMED_OUT = "TimedOut", "down", "look"
    LAG_WARNING = "LagWarning", "slow", "look"
    LAG_CRITICAL = "LagCritical", "slower", "look"
    NOT_PROBED = "NotProbed", "unknown", "wait"
    NOT_REQUESTED = "NotRequested", "not asked for", "nothing"


def verdict(
    type_: str, status: Status, reason: R, *, object_: str | None = None, negligible: bool = False, message: str = "m"
) -> Verdict:
    return Verdict(type=type_, status=status, reason=reason, message=message, object=object_, negligible=negligible)


READY = verdict("Ready", "True", R.IN_FORCE)


def stored(conditions: list[Condition]) -> list[dict[str, Any]]:
    return [condition.to_wire() for condition in conditions]


def status_after(previous: dict[str, Any], verdicts: list[Verdict], now: str) -> dict[str, Any]:
    """A status as the writer would store it."""
    conditions = merge(previous=previous.get("conditions", ()), verdicts=verdicts, generation=1, now=now)
    worst = worst_of(previous=previous, verdicts=verdicts, conditions=conditions, now=now)
    return {"conditions": stored(conditions), "worst": worst.to_wire()}


def test_first_merge_is_now() -> None:
    (made,) = merge(previous=[], verdicts=[READY], generation=3, now=NOON)
    assert made.to_wire() == {
        "type": "Ready",
        "status": "True",
        "reason": "InForce",
        "message": "m",
        "lastTransitionTime": NOON,
        "observedGeneration": 3,
    }


def test_transition_time_moves_with_the_status_only() -> None:
    first = stored(merge(previous=[], verdicts=[verdict("Reachable", "False", R.REFUSED)], generation=1, now=NOON))
    same_status = merge(
        previous=first, verdicts=[verdict("Reachable", "False", R.TIMED_OUT, message="x")], generation=2, now=LATER
    )
    assert (same_status[0].last_transition_time, same_status[0].reason) == (NOON, "TimedOut")
    assert (same_status[0].message, same_status[0].observed_generation) == ("x", 2)
    flipped = merge(previous=first, verdicts=[verdict("Reachable", "True", R.AS_EXPECTED)], generation=2, now=LATER)
    assert flipped[0].last_transition_time == LATER


def test_what_is_not_given_is_dropped_and_order_is_that_of_the_verdicts() -> None:
    first = merge(
        previous=[],
        verdicts=[READY, verdict("Reconciling", "True", R.NOT_PROBED), verdict("Reachable", "Unknown", R.NOT_PROBED)],
        generation=1,
        now=NOON,
    )
    second = merge(
        previous=stored(first),
        verdicts=[verdict("Reachable", "Unknown", R.NOT_PROBED), READY],
        generation=1,
        now=LATER,
    )
    assert [(c.type, c.last_transition_time) for c in second] == [("Reachable", NOON), ("Ready", NOON)]


@given(st.text(max_size=3000))
def test_message_fits_its_field(text: str) -> None:
    (made,) = merge(previous=[], verdicts=[verdict("Ready", "True", R.IN_FORCE, message=text)], generation=1, now=NOON)
    assert len(made.message) <= MESSAGE_LIMIT
    if len(text) <= MESSAGE_LIMIT:
        assert made.message == text
    else:
        assert made.message[:-1] == text[: MESSAGE_LIMIT - 1]
        assert made.message[-1] == "…"


types = st.sampled_from(["Ready", "Accepted", "Reachable", "ReplicationHealthy"])
moments = st.lists(
    st.dictionaries(types, st.tuples(st.sampled_from(["True", "False", "Unknown"]), st.sampled_from(list(R)))),
    max_size=6,
)


@given(moments)
def test_a_transition_time_is_when_the_status_became_what_it_is(history: list[dict[str, tuple[Status, R]]]) -> None:
    previous: list[dict[str, Any]] = []
    since: dict[str, tuple[str, str]] = {}
    for minute, moment in enumerate(history):
        now = f"2026-11-22T12:{minute:02d}:00Z"
        verdicts = [verdict(type_, status, reason) for type_, (status, reason) in moment.items()]
        previous = stored(merge(previous=previous, verdicts=verdicts, generation=1, now=now))
        since = {
            type_: since[type_] if since.get(type_, ("",))[0] == status else (status, now)
            for type_, (status, _) in moment.items()
        }
        assert {c["type"]: (c["status"], c["lastTransitionTime"]) for c in previous} == since


@given(moments)
def test_merging_the_same_again_changes_nothing(history: list[dict[str, tuple[Status, R]]]) -> None:
    status: dict[str, Any] = {}
    for moment in history:
        verdicts = [READY, *(verdict(t, s, r) for t, (s, r) in moment.items() if t != "Ready")]
        status = status_after(status, verdicts, NOON)
        assert status_after(status, verdicts, LATER) == status


BROKEN_READY = verdict("Ready", "False", R.NOT_READY)


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ([READY, verdict("Reachable", "True", R.AS_EXPECTED)], ("Ready", "InForce")),
        (
            [READY, verdict("A", "False", R.REFUSED), verdict("B", "False", R.LAG_CRITICAL)],
            ("B", "LagCritical"),
        ),
        ([READY, verdict("A", "False", R.LAG_WARNING), verdict("B", "False", R.REFUSED)], ("B", "Refused")),
        ([READY, verdict("A", "Unknown", R.NOT_PROBED), verdict("B", "False", R.LAG_WARNING)], ("B", "LagWarning")),
        ([READY, verdict("A", "False", R.REFUSED), verdict("B", "False", R.TIMED_OUT)], ("A", "Refused")),
        ([BROKEN_READY, verdict("A", "False", R.REFUSED)], ("A", "Refused")),
        ([BROKEN_READY, verdict("A", "Unknown", R.NOT_PROBED)], ("Ready", "NotReady")),
        ([READY, verdict("A", "Unknown", R.NOT_REQUESTED, negligible=True)], ("Ready", "InForce")),
        ([verdict("Stalled", "True", R.REFUSED), BROKEN_READY], ("Ready", "NotReady")),
        ([verdict("Reconciling", "True", R.NOT_PROBED), READY], ("Ready", "InForce")),
        ([verdict("Reconciling", "Unknown", R.NOT_PROBED), READY], ("Ready", "InForce")),
    ],
)
def test_which_is_the_worst(verdicts: list[Verdict], worst: tuple[str, str]) -> None:
    chosen = status_after({}, verdicts, NOON)["worst"]
    assert (chosen["condition"], chosen["reason"]) == worst


def test_the_offender_is_named_only_where_something_is_wrong() -> None:
    wrong = status_after({}, [READY, verdict("A", "False", R.REFUSED, object_="b" * 300)], NOON)["worst"]
    assert wrong["object"] == "b" * 256
    well = status_after({}, [verdict("Ready", "True", R.IN_FORCE, object_="a")], NOON)["worst"]
    assert "object" not in well


def test_since_restarts_when_the_reason_changes_though_the_status_stands() -> None:
    first = status_after({}, [READY, verdict("Lag", "False", R.LAG_WARNING)], NOON)
    second = status_after(first, [READY, verdict("Lag", "False", R.LAG_CRITICAL)], LATER)
    assert second["worst"]["since"] == LATER
    assert second["conditions"][1]["lastTransitionTime"] == NOON
    third = status_after(second, [READY, verdict("Lag", "False", R.LAG_CRITICAL)], LAST)
    assert third["worst"]["since"] == LATER


def test_since_of_a_condition_that_comes_to_the_fore_is_its_own() -> None:
    both = [READY, verdict("Lag", "False", R.LAG_CRITICAL), verdict("Pool", "False", R.REFUSED)]
    first = status_after({}, both, NOON)
    second = status_after(
        first, [READY, verdict("Lag", "True", R.AS_EXPECTED), verdict("Pool", "False", R.REFUSED)], LATER
    )
    assert (second["worst"]["condition"], second["worst"]["since"]) == ("Pool", NOON)


def test_since_of_well_is_when_ready_became_so() -> None:
    first = status_after({}, [verdict("Ready", "False", R.NOT_READY)], NOON)
    second = status_after(first, [READY], LATER)
    third = status_after(second, [READY, verdict("Lag", "False", R.LAG_WARNING)], LAST)
    fourth = status_after(third, [READY, verdict("Lag", "True", R.AS_EXPECTED)], "2026-11-22T12:15:00Z")
    assert (second["worst"]["since"], fourth["worst"]["since"]) == (LATER, LATER)


def test_a_reason_carries_its_page() -> None:
    assert R.REFUSED.value == "Refused"
    assert f"{R.REFUSED}" == "Refused"
    assert (R.REFUSED.meaning, R.REFUSED.remedy) == ("down", "look")
    assert R("Refused") is R.REFUSED
