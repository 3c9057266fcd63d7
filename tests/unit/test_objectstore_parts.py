"""Parts grow so that the largest object fits and memory stays small for the usual ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.objectstore.parts import BUDGET, FIRST, LARGEST, MOST_IN_FLIGHT, PartPlan, plan_for

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
limits = st.tuples(st.integers(1, 10_000), st.integers(5 * MIB, 50 * TIB))


@given(limits)
def test_sizes_never_shrink_and_keep_the_rules_of_s3(limit: tuple[int, int]) -> None:
    plan = PartPlan(*limit)
    sizes = [plan.size(i) for i in range(1, plan.parts + 1, max(1, plan.parts // 50))]
    assert sizes == sorted(sizes)
    assert all(5 * MIB <= s <= LARGEST for s in sizes)


@given(limits)
def test_all_parts_together_reach_the_limit_unless_the_store_has_too_few(limit: tuple[int, int]) -> None:
    plan = PartPlan(*limit)
    total = sum(plan.size(i) for i in range(1, plan.parts + 1))
    assert total == plan.capacity()
    assert total >= plan.object_size or plan.size(plan.parts) == LARGEST or plan.parts < 100


def test_the_usual_limits_carry_five_tebibytes() -> None:
    assert PartPlan(10_000, 5 * TIB).capacity() >= 5 * TIB


@given(limits, st.integers(1, 10_000))
def test_memory_stays_within_the_budget_as_long_as_two_parts_fit_it(limit: tuple[int, int], index: int) -> None:
    plan = PartPlan(*limit)
    index = min(index, plan.parts)
    size, flight = plan.size(index), plan.in_flight(index)
    assert 1 <= flight <= MOST_IN_FLIGHT
    assert size * (flight + 1) <= BUDGET or flight == 1


@given(limits, st.integers(0, 10 * TIB), st.integers(0, 10 * TIB))
def test_memory_for_more_is_not_less(limit: tuple[int, int], a: int, b: int) -> None:
    plan = PartPlan(*limit)
    low, high = sorted((a, b))
    assert plan.memory_for(low) <= plan.memory_for(high)


def test_small_dumps_need_five_small_buffers() -> None:
    assert PartPlan().memory_for(2 * GIB) == 5 * FIRST
    assert plan_for(parts=10_000, object_size=5 * TIB, expected=100 * GIB).memory_for(100 * GIB) <= BUDGET


def test_a_plan_for_an_expected_size_leaves_room_for_four_times_as_much() -> None:
    assert plan_for(parts=10_000, object_size=5 * TIB, expected=100 * GIB).capacity() >= 400 * GIB
    assert plan_for(parts=10_000, object_size=TIB, expected=TIB).object_size == TIB
    assert plan_for(parts=10_000, object_size=TIB, expected=None) == PartPlan(10_000, TIB)


@pytest.mark.parametrize("index", [0, 10_001])
def test_there_is_no_part_beyond_the_last(index: int) -> None:
    with pytest.raises(ValueError, match="at most 10000"):
        PartPlan().size(index)
