"""The engine turns outcomes into the next time, failures into back-off, and ends what it started."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from pgtend.core.clock import FakeClock, Randomness
from pgtend.core.errors import StaleObject
from pgtend.core.findings import ObjectKey
from pgtend.engine.dependents import Dependents
from pgtend.engine.loop import LONG, SOON, Controller, Engine, Outcome
from pgtend.engine.queue import WorkQueue
from pgtend.kube.client import Conflict, NotFound, Unavailable

A, B = ObjectKey("User", "n", "a"), ObjectKey("User", "n", "b")


class Steps:
    """An engine whose batches are run one by one by hand."""

    def __init__(self, controller: Controller, *, deadline: float = 60.0) -> None:
        self.clock = FakeClock()
        self.queue = WorkQueue(clock=self.clock, lane_of=lambda k: k.namespace)
        self.engine = Engine(
            queue=self.queue,
            controllers={"User": controller},
            clock=self.clock,
            randomness=Randomness(1),
            deadline=deadline,
        )

    async def step(self) -> None:
        batch = self.queue.poll()
        assert batch is not None
        await self.engine._one(batch)

    def next_due(self, key: ObjectKey) -> float | None:
        when = self.queue._due.get(key)
        return None if when is None else when - self.clock.monotonic()

    async def waits(self, rounds: int, key: ObjectKey = A) -> list[float]:
        found = []
        self.queue.add(key)
        for _ in range(rounds):
            await self.step()
            wait = self.next_due(key)
            assert wait is not None
            found.append(wait)
            self.clock.advance(wait)
        return found


def always(outcome: Outcome | BaseException) -> Controller:
    async def controller(keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        if isinstance(outcome, BaseException):
            raise outcome
        return dict.fromkeys(keys, outcome)

    return controller


async def test_again_is_jittered_and_none_is_done_with() -> None:
    steps = Steps(always(Outcome(again=300.0)))
    found = await steps.waits(20)
    assert all(270 <= wait <= 330 for wait in found)
    assert len(set(found)) > 10
    done = Steps(always(Outcome()))
    done.queue.add(A)
    await done.step()
    assert len(done.queue) == 0


async def test_without_jitter_the_time_is_exact() -> None:
    steps = Steps(always(Outcome(again=7.0, jitter=False)))
    assert await steps.waits(1) == [pytest.approx(7.0)]


async def test_failures_back_off_and_success_clears_them() -> None:
    outcomes = [Outcome(failed=True)] * 4 + [Outcome(again=0.0)] + [Outcome(failed=True)]

    async def controller(keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        return {keys[0]: outcomes.pop(0)}

    found = await Steps(controller).waits(6)
    for wait, span in zip(found, (1, 2, 4, 8, 0, 1), strict=True):
        assert span / 2 <= wait <= span


async def test_back_off_has_a_limit_and_an_earlier_wish_of_the_controller_wins() -> None:
    assert max(await Steps(always(RuntimeError("x"))).waits(14)) <= LONG
    assert max(await Steps(always(Outcome(failed=True, again=5.0))).waits(14)) <= 5.0


async def test_an_absent_api_server_is_expected_and_leaves_nobody_asleep(caplog: pytest.LogCaptureFixture) -> None:
    found = await Steps(always(Unavailable(0, "Unreachable", "no route"))).waits(12)
    assert max(found) <= SOON
    assert len({round(wait, 3) for wait in found[-4:]}) > 1, "not all at the same moment"
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert all(record.exc_info is None for record in caplog.records)


@pytest.mark.parametrize("error", [Conflict(409, "Conflict", ""), StaleObject(), NotFound(404, "NotFound", "")])
async def test_a_moved_object_is_looked_at_again_soon_but_never_in_a_spin(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    found = await Steps(always(error)).waits(10)
    assert found[0] <= 0.4
    assert sum(found) > 60
    assert caplog.records == []


async def test_one_failing_batch_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    await Steps(always(RuntimeError("the cause"))).waits(1)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


async def test_each_key_has_its_own_outcome() -> None:
    async def controller(keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        assert set(keys) == {A, B}
        return {A: Outcome(again=100.0, jitter=False), B: Outcome(failed=True)}

    steps = Steps(controller)
    steps.queue.add(A)
    steps.queue.add(B)
    await steps.step()
    assert steps.next_due(A) == pytest.approx(100)
    wait = steps.next_due(B)
    assert wait is not None and wait <= 1.0


async def test_the_deadline_ends_a_batch_and_frees_its_lane(caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    async def controller(keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        raise AssertionError

    steps = Steps(controller, deadline=0.01)
    steps.queue.add(A)
    await steps.step()
    assert ended.is_set()
    assert steps.next_due(A) is not None
    steps.queue.add(B)
    assert steps.queue.poll() is not None, "the lane is free"
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


@asynccontextmanager
async def running(controller: Controller, *, parallel: int = 8) -> AsyncIterator[WorkQueue]:
    clock = FakeClock()
    queue = WorkQueue(clock=clock, lane_of=lambda k: k.name)
    engine = Engine(
        queue=queue, controllers={"User": controller}, clock=clock, randomness=Randomness(1), parallel=parallel
    )
    task = asyncio.create_task(engine.run())
    try:
        yield queue
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_cancellation_ends_what_is_under_way_before_it_returns() -> None:
    started, ended = asyncio.Event(), []

    async def controller(keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)  # what has to be put in order takes a moment
            ended.append(keys)
        raise AssertionError

    async with running(controller) as queue:
        queue.add(A)
        await started.wait()
    assert ended == [(A,)]
    assert len(queue) == 0


async def test_at_most_so_many_batches_at_once() -> None:
    now = most = count = 0
    enough = asyncio.Event()

    async def controller(keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        nonlocal now, most, count
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        count += 1
        if count == 20:
            enough.set()
        return {}

    async with running(controller, parallel=3) as queue:
        for n in range(20):
            queue.add(ObjectKey("User", "n", f"{n}"))
        async with asyncio.timeout(10):
            await enough.wait()
    assert most == 3


def test_dependents_go_both_ways() -> None:
    target, other = ObjectKey("Target", "n", "t"), ObjectKey("Target", "n", "o")
    known = Dependents()
    known.set(B, [target])
    known.set(A, [target, other])
    assert known.of(target) == (A, B)
    known.set(A, [other])
    assert known.of(target) == (B,)
    assert known.of(other) == (A,)
    known.drop(A)
    known.drop(B)
    known.drop(B)
    assert known.of(target) == known.of(other) == ()
    assert (known._on, dict(known._of)) == ({}, {})
