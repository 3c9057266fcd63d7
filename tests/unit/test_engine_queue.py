"""The queue hands out each key once, as early as anybody asked, never two batches of one lane, and lanes take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.thorough import cases

from pgtend.core.clock import FakeClock
from pgtend.core.findings import ObjectKey
from pgtend.engine.queue import BATCH, Batch, WorkQueue


def key(name: str, *, kind: str = "User", lane: str = "n") -> ObjectKey:
    return ObjectKey(kind, lane, name)


def queue(*, batch: int = BATCH) -> tuple[WorkQueue, FakeClock]:
    clock = FakeClock()
    return WorkQueue(clock=clock, lane_of=lambda k: k.namespace, batch=batch), clock


def taken(made: WorkQueue) -> Batch:
    batch = made.poll()
    assert batch is not None
    return batch


def test_a_key_asked_for_twice_runs_once() -> None:
    work, _ = queue()
    work.add(key("a"))
    work.add(key("a"))
    batch = taken(work)
    assert batch.keys == (key("a"),)
    work.done(batch, {})
    assert work.poll() is None
    assert len(work) == 0


@pytest.mark.parametrize(("first", "second"), [(10.0, 3.0), (3.0, 10.0)])
def test_the_earliest_wins_and_runs_once(first: float, second: float) -> None:
    work, clock = queue()
    work.add(key("a"), first)
    work.add(key("a"), second)
    clock.advance(2.9)
    assert work.poll() is None
    clock.advance(0.1)
    work.done(taken(work), {})
    clock.advance(60)
    assert work.poll() is None


def test_lateness_counts_from_the_due_time() -> None:
    work, clock = queue()
    work.add(key("a"), 5)
    clock.advance(7)
    assert taken(work).late == pytest.approx(2)


def test_a_busy_lane_gathers_and_others_go_on() -> None:
    work, _ = queue()
    work.add(key("a"))
    first = taken(work)
    for name in "bcd":
        work.add(key(name))
    work.add(key("x", lane="other"))
    assert taken(work).lane == "other"
    assert work.poll() is None, "the first lane is still busy"
    work.done(first, {})
    assert taken(work).keys == (key("b"), key("c"), key("d"))


def test_kinds_of_one_lane_do_not_run_together_and_take_turns() -> None:
    work, _ = queue(batch=2)
    for n in range(4):
        work.add(key(f"u{n}"))
    work.add(key("p", kind="Policy"))
    kinds = []
    for _ in range(3):
        batch = taken(work)
        assert {k.kind for k in batch.keys} == {batch.kind}
        assert work.poll() is None
        kinds.append(batch.kind)
        work.done(batch, {})
    assert kinds == ["User", "Policy", "User"]


def test_a_batch_has_at_most_a_hundred_keys_and_they_come_in_order() -> None:
    work, _ = queue()
    wanted = [key(f"{n:03}") for n in range(250)]
    for one in wanted:
        work.add(one)
    sizes, seen = [], []
    while (batch := work.poll()) is not None:
        sizes.append(len(batch.keys))
        seen += batch.keys
        work.done(batch, {})
    assert sizes == [100, 100, 50]
    assert seen == wanted


def test_a_flood_in_one_lane_starves_no_other() -> None:
    work, _ = queue(batch=1)
    for n in range(50):
        work.add(key(f"flood{n}"))
    work.add(key("quiet", lane="quiet"))
    lanes = []
    for _ in range(2):
        batch = taken(work)
        lanes.append(batch.lane)
        work.done(batch, {})
        work.add(key("flood", lane="n"))
    assert "quiet" in lanes


def test_what_is_asked_for_while_it_runs_runs_again() -> None:
    work, clock = queue()
    work.add(key("a"))
    batch = taken(work)
    work.add(key("a"))
    assert work.poll() is None
    work.done(batch, {key("a"): 300.0})
    again = taken(work)
    assert again.keys == (key("a"),)
    work.done(again, {key("a"): 300.0})
    clock.advance(299)
    assert work.poll() is None
    clock.advance(1)
    assert taken(work).keys == (key("a"),)


def test_a_later_wish_while_it_runs_does_not_delay_the_outcome() -> None:
    work, clock = queue()
    work.add(key("a"))
    batch = taken(work)
    work.add(key("a"), 100)
    work.done(batch, {key("a"): 5.0})
    clock.advance(5)
    assert taken(work).keys == (key("a"),)


@pytest.mark.parametrize("delay", [0.0, 5.0])
def test_a_dropped_key_is_forgotten(delay: float) -> None:
    work, clock = queue()
    work.add(key("a"), delay)
    work.add(key("b"), delay)
    if not delay:
        assert work._queued == {}
        work._promote(clock.monotonic())
    work.drop(key("a"))
    clock.advance(10)
    assert taken(work).keys == (key("b"),)
    assert work.poll() is None
    work.add(key("a"))
    assert len(work) == 2


def test_dropping_the_only_key_of_a_lane_leaves_nothing_behind() -> None:
    work, clock = queue()
    work.add(key("a"))
    work._promote(clock.monotonic())
    work.drop(key("a"))
    assert work.poll() is None
    assert (work._ready, list(work._turn)) == ({}, [])


def test_a_dropped_kind_does_not_cost_another_kind_of_its_lane_the_turn() -> None:
    work, _ = queue()
    work.add(ObjectKey("User", "m", "a"))
    work.add(ObjectKey("Policy", "n", "a"))
    assert work.poll() is not None
    work.drop(ObjectKey("Policy", "n", "a"))
    work.add(ObjectKey("User", "n", "a"))
    batch = work.poll()
    assert batch is not None
    assert batch.keys == (ObjectKey("User", "n", "a"),)


async def test_next_waits_for_the_due_time_and_is_woken_by_what_comes_earlier() -> None:
    class Real:
        def now(self) -> None: ...

        def monotonic(self) -> float:
            return asyncio.get_running_loop().time()

    work = WorkQueue(clock=Real(), lane_of=lambda k: k.namespace)  # type: ignore[arg-type]
    work.add(key("later"), 30)
    waiting = asyncio.create_task(work.next())
    await asyncio.sleep(0)
    work.add(key("soon"), 0.01)
    async with asyncio.timeout(5):
        batch = await waiting
    assert batch.keys == (key("soon"),)


async def test_next_is_woken_when_a_lane_becomes_free() -> None:
    work, _ = queue()
    work.add(key("a"))
    first = await work.next()
    work.add(key("b"))
    waiting = asyncio.create_task(work.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    work.done(first, {})
    async with asyncio.timeout(5):
        assert (await waiting).keys == (key("b"),)


KEYS = [ObjectKey(kind, lane, name) for kind in ("User", "Policy") for lane in ("n", "m") for name in "abc"]


class Machine(RuleBasedStateMachine):
    """Against a model: when each key is due at the latest."""

    def __init__(self) -> None:
        super().__init__()
        self.work, self.clock = queue(batch=2)
        self.due: dict[ObjectKey, float] = {}
        self.running: dict[str, Batch] = {}
        self.asked: dict[ObjectKey, float] = {}

    def _merge(self, where: dict[ObjectKey, float], one: ObjectKey, when: float) -> None:
        where[one] = min(when, where.get(one, when))

    @rule(one=st.sampled_from(KEYS), delay=st.sampled_from([0.0, 1.0, 5.0, 60.0]))
    def add(self, one: ObjectKey, delay: float) -> None:
        self.work.add(one, delay)
        running = any(one in batch.keys for batch in self.running.values())
        self._merge(self.asked if running else self.due, one, self.clock.monotonic() + delay)

    @rule(one=st.sampled_from(KEYS))
    def drop(self, one: ObjectKey) -> None:
        self.work.drop(one)
        self.due.pop(one, None)
        self.asked.pop(one, None)

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def take(self) -> None:
        now = self.clock.monotonic()
        free = {k for k, when in self.due.items() if when <= now and k.namespace not in self.running}
        batch = self.work.poll()
        if batch is None:
            assert not free
            return
        assert batch.lane not in self.running
        assert set(batch.keys) <= free
        assert 0 < len(batch.keys) == len(set(batch.keys)) <= 2
        for one in batch.keys:
            assert (one.kind, one.namespace) == (batch.kind, batch.lane)
            del self.due[one]
        self.running[batch.lane] = batch

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        batch = self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
        again = {k: data.draw(st.sampled_from([0.0, 3.0, 300.0])) for k in batch.keys if data.draw(st.booleans())}
        self.work.done(batch, again)
        for one, delay in again.items():
            self._merge(self.due, one, self.clock.monotonic() + delay)
        for one in batch.keys:
            if one in self.asked:
                self._merge(self.due, one, self.asked.pop(one))

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.work) == len(self.due) + sum(len(b.keys) for b in self.running.values())

    def teardown(self) -> None:
        for batch in self.running.values():
            self.work.done(batch, {})
        self.due |= dict.fromkeys(self.asked, 0.0)
        self.clock.advance(10_000)
        seen: set[ObjectKey] = set()
        while (batch := self.work.poll()) is not None:
            seen |= set(batch.keys)
            self.work.done(batch, {})
        assert seen == set(self.due)


Machine.TestCase.settings = settings(cases(60), stateful_step_count=30)
TestMachine: Callable[..., object] = Machine.TestCase
