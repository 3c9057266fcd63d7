"""Ages, archives and slots as figures, and what is said about them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import TargetReason as R
from pgtend.targets.grading import Grades
from pgtend.targets.judge import judge
from pgtend.targets.judge_upkeep import WRAPAROUND, judge_slots, judge_upkeep
from pgtend.targets.memory import Memory
from pgtend.targets.reading import Activity, Age, Archiver, Holder, Reading, Slot, Upkeep
from pgtend.targets.upkeep import wal_end

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
WELL = Archiver(mode="on", failing=None, failures=0, archived_age=10.0, waiting=0, segment=16 << 20)


def spec(**thresholds: Any) -> TargetSpec:
    return TargetSpec.model_validate(
        {
            "members": [{"name": "a", "host": "a.example.com"}],
            "credentials": {"monitor": {"password": {"secretRef": {"name": "m"}}}},
            "thresholds": thresholds,
        }
    )


def reading(**changes: Any) -> Reading:
    upkeep = Upkeep(ages=(Age(database="shop", xids=1000, multixacts=1),), holder=None, slots=(), slot_limit=None,
                    archiver=WELL)  # fmt: skip
    activity = Activity(limit=97, used=1, by_role=(), long_queries=(), idle=(), blocked=(), sessions={},
                        upkeep=replace(upkeep, **changes))  # fmt: skip
    return Reading(
        member="a", system_identifier="1", timeline=1, flush_lsn=1, started="t", version="18", activity=activity
    )


def told(one: Reading | None, wanted: TargetSpec | None = None) -> list[tuple[str, str]]:
    found = judge_upkeep(spec=wanted or spec(), primary=one, grades=Grades(), now=NOON)
    return [(v.status, str(v.reason)) for v in found]


def test_what_cannot_be_seen_is_unknown() -> None:
    assert told(None) == [("Unknown", "NotReached")] * 2
    assert told(replace(reading(), activity=None)) == [("Unknown", "ProbeFailed")] * 2
    assert told(replace(reading(), sees_stats=False)) == [("Unknown", "MissingPrivilege")] * 2
    assert told(reading()) == [("True", "AsExpected")] * 2


@given(st.integers(0, WRAPAROUND), st.integers(0, WRAPAROUND))
def test_the_older_of_both_counters_decides(xids: int, multixacts: int) -> None:
    share = max(xids, multixacts) / WRAPAROUND
    expected = "WraparoundAgeCritical" if share >= 0.75 else "WraparoundAgeWarning" if share >= 0.5 else "AsExpected"
    assert told(reading(ages=(Age(database="shop", xids=xids, multixacts=multixacts),)))[0][1] == expected


def test_only_who_holds_back_most_of_the_age_is_blamed() -> None:
    old = (Age(database="shop", xids=WRAPAROUND // 2, multixacts=1),)
    for xids, blamed in ((WRAPAROUND // 4, True), (WRAPAROUND // 4 - 1, False)):
        one = reading(ages=old, holder=Holder(what="pid 7 (app)", xids=xids))
        found = judge_upkeep(spec=spec(), primary=one, grades=Grades(), now=NOON)[0]
        assert ("pid 7 (app) keeps VACUUM from freezing" in found.message) is blamed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": "off"}, "ArchivingOff"),
        ({"failing": "000000010000000000000001"}, "ArchivingFailing"),
        ({"archived_age": 300.0, "waiting": 16 * (16 << 20)}, "ArchivingStalled"),
        ({"archived_age": 299.0, "waiting": 16 * (16 << 20)}, "AsExpected"),
        ({"archived_age": 1e6, "waiting": 16 * (16 << 20) - 1}, "AsExpected"),
        ({"archived_age": None, "waiting": None}, "AsExpected"),
    ],
)
def test_the_archive(changes: dict[str, Any], reason: str) -> None:
    assert told(reading(archiver=replace(WELL, **changes)))[1][1] == reason


def slot(name: str, retained: int | None, *, active: bool = False, lost: bool = False) -> Slot:
    return Slot(name=name, kind="physical", active=active, lost=lost, retained=retained)


def test_the_worst_slot_is_named_and_an_unlimited_one_is_not_graded() -> None:
    slots = (slot("a", 60), slot("b", 95), slot("c", 10))

    def verdict(**changes: Any) -> Any:
        return judge_slots(spec=spec(), readings=[reading(**changes)], grades=Grades(), now=NOON)

    found = verdict(slots=slots, slot_limit=100)
    assert (found.object, found.reason) == ("b", R.SLOT_RETAINED_CRITICAL)
    assert verdict(slots=slots, slot_limit=None) is None
    found = verdict(slots=(*slots, slot("d", None, lost=True)), slot_limit=None)
    assert (found.object, found.reason) == ("d", R.SLOT_LOST)
    assert "its consumer is connected" in verdict(slots=(slot("e", 99, active=True),), slot_limit=100).message


def test_a_slot_clears_five_points_below_and_one_that_is_gone_is_forgotten() -> None:
    grades = Grades()

    def verdict(*slots: Slot) -> Any:
        return judge_slots(spec=spec(), readings=[reading(slots=slots, slot_limit=100)], grades=grades, now=NOON)

    assert verdict(slot("a", 50)) is not None
    assert verdict(slot("a", 46)) is not None
    assert verdict(slot("a", 44)) is None
    assert verdict(slot("a", 50)) is not None
    assert verdict() is None
    assert (grades.standing, grades.since) == ({}, {})


def test_a_slot_counts_where_there_is_no_standby() -> None:
    one = reading(slots=(slot("a", 95),), slot_limit=100)
    judgement = judge(spec=spec(), readings=[one], memory=Memory(), now=NOON)
    (found,) = [v for v in judgement.verdicts if v.type == "ReplicationHealthy"]
    assert (found.status, found.reason) == ("False", R.SLOT_RETAINED_CRITICAL)


def test_names_of_wal_files() -> None:
    assert wal_end("000000010000000000000001", 16 << 20) == 2 * (16 << 20)
    assert wal_end("0000000300000002000000FF", 16 << 20) == 3 << 32
    for name in (
        None,
        "00000002.history",
        "000000010000000000000001.00000028.backup",
        "000000010000000000000001.partial",
    ):
        assert wal_end(name, 16 << 20) is None
