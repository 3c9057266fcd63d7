"""Runs batches: hands each to its kind's controller under a deadline, and turns failures into back-off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from pgtend.core.clock import Clock, Randomness
from pgtend.core.errors import StaleObject
from pgtend.core.findings import ObjectKey
from pgtend.engine.queue import Batch, WorkQueue
from pgtend.kube.client import Conflict, NotFound, Unavailable
from pgtend.telemetry.metrics import METRICS

log = logging.getLogger(__name__)
# seconds: the longest back-off, and the longest while the API server is away
LONG = 300.0
SOON = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one key. `again` is in how many seconds it is due once more (None: only when something changes);
    `failed` makes the engine back off instead."""

    again: float | None = None
    failed: bool = False
    jitter: bool = True


Controller = Callable[[Sequence[ObjectKey]], Awaitable[Mapping[ObjectKey, Outcome]]]


class Engine:
    """`controllers` by kind. At most `parallel` batches run; each ends within `deadline` seconds."""

    def __init__(
        self,
        *,
        queue: WorkQueue,
        controllers: Mapping[str, Controller],
        clock: Clock,
        randomness: Randomness,
        parallel: int = 256,
        deadline: float = 60.0,
    ) -> None:
        self._queue, self._controllers = queue, controllers
        self._clock, self._random, self._deadline = clock, randomness, deadline
        self._slots = asyncio.Semaphore(parallel)
        self._failures: dict[ObjectKey, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled; then what is under way is cancelled too and waited for."""
        try:
            while True:
                await self._slots.acquire()
                batch = await self._queue.next()
                task = asyncio.create_task(self._one(batch), name=f"{batch.kind} {batch.lane}")
                self._tasks.add(task)
                task.add_done_callback(self._ended)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _one(self, batch: Batch) -> None:
        started = self._clock.monotonic()
        again: dict[ObjectKey, float] = {}
        METRICS.lateness.labels(batch.kind).observe(batch.late)
        try:
            async with asyncio.timeout(self._deadline):
                outcomes = await self._controllers[batch.kind](batch.keys)
            for key in batch.keys:
                outcome = outcomes.get(key, Outcome())
                self._settle(key, outcome, again)
        except (Conflict, StaleObject, NotFound):
            # the object changed or went under us: its new version is on its way or here already; a watch that lags
            # behind must not make us spin
            again = {key: self._wait(key, base=0.4) for key in batch.keys}
        except Exception as error:
            expected = isinstance(error, TimeoutError | Unavailable)
            log.log(
                logging.WARNING if expected else logging.ERROR,
                "reconciling failed",
                exc_info=None if expected else error,
                extra={
                    "kind": batch.kind,
                    "lane": batch.lane,
                    "keys": len(batch.keys),
                    "cause": str(error) or type(error).__name__,
                },
            )
            METRICS.failures.labels(batch.kind).inc(len(batch.keys))
            # an API server that comes back must not find everybody asleep for minutes
            most = SOON if isinstance(error, Unavailable) else LONG
            again = {key: self._wait(key, limit=most) for key in batch.keys}
        finally:
            METRICS.reconciles.labels(batch.kind).inc(len(batch.keys))
            METRICS.seconds.labels(batch.kind).observe(self._clock.monotonic() - started)
            self._queue.done(batch, again)

    def _settle(self, key: ObjectKey, outcome: Outcome, again: dict[ObjectKey, float]) -> None:
        if outcome.failed:
            METRICS.failures.labels(key.kind).inc()
            wait = self._wait(key)
            again[key] = wait if outcome.again is None else min(wait, outcome.again)
            return
        self._failures.pop(key, None)
        if outcome.again is not None:
            again[key] = self._random.jitter(outcome.again) if outcome.jitter else outcome.again

    def _wait(self, key: ObjectKey, *, base: float = 1.0, limit: float = LONG) -> float:
        """Seconds to wait after one more failure in a row."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return self._random.backoff(failures, base=base, limit=limit)
