"""The work queue: each key once, delays in one heap, lanes as locks, batches per lane and kind.

A lane is what must not run twice at the same time: one target's SQL work, one target's probe. While a lane is busy its
keys gather, so that the next batch takes up to a hundred of them at once: a thousand users mean ten snapshots.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pgtend.core.clock import Clock
from pgtend.core.findings import ObjectKey

Lane = str
BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Keys of one kind and lane. `late` is how many seconds the oldest waited beyond its due time."""

    lane: Lane
    kind: str
    keys: tuple[ObjectKey, ...]
    late: float


class WorkQueue:
    """Single-threaded; `next` hands out batches, `done` gives their lanes free."""

    def __init__(self, *, clock: Clock, lane_of: Callable[[ObjectKey], Lane], batch: int = BATCH) -> None:
        self._clock, self._lane_of, self._batch = clock, lane_of, batch
        self._due: dict[ObjectKey, float] = {}
        self._heap: list[tuple[float, int, ObjectKey]] = []
        self._count = 0
        # lane -> kind -> key -> when it was due
        self._ready: dict[Lane, OrderedDict[str, OrderedDict[ObjectKey, float]]] = {}
        self._turn: deque[Lane] = deque()
        self._queued: dict[ObjectKey, Lane] = {}
        self._running: dict[ObjectKey, Lane] = {}
        self._again: dict[ObjectKey, float] = {}
        self._busy: set[Lane] = set()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Keys that are due, waiting for their time, or running."""
        return len(self._due) + len(self._queued) + len(self._running)

    def add(self, key: ObjectKey, delay: float = 0.0) -> None:
        """Have the key reconciled in `delay` seconds, or earlier if that was asked before."""
        when = self._clock.monotonic() + delay
        if key in self._running:
            self._again[key] = min(when, self._again.get(key, when))
        elif key not in self._queued and self._due.get(key, when + 1) > when:
            self._due[key] = when
            self._count += 1
            heapq.heappush(self._heap, (when, self._count, key))
            self._wake.set()

    def drop(self, key: ObjectKey) -> None:
        """Forget what is planned for the key; what runs, runs."""
        self._due.pop(key, None)
        self._again.pop(key, None)
        lane = self._queued.pop(key, None)
        if lane is None:
            return
        # nothing empty stays behind: a lane's turn must not be spent on it
        kinds = self._ready[lane]
        del kinds[key.kind][key]
        if not kinds[key.kind]:
            del kinds[key.kind]

    async def next(self) -> Batch:
        """The next batch, when there is one. Lanes take turns."""
        while True:
            batch = self.poll()
            if batch is not None:
                return batch
            self._wake.clear()
            pause = max(0.0, self._heap[0][0] - self._clock.monotonic()) if self._heap else None
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def poll(self) -> Batch | None:
        """The next batch if one is due now."""
        now = self._clock.monotonic()
        self._promote(now)
        for _ in range(len(self._turn)):
            lane = self._turn.popleft()
            kinds = self._ready.get(lane)
            if not kinds:
                self._ready.pop(lane, None)
                continue
            if lane in self._busy:
                self._turn.append(lane)
                continue
            return self._take(lane, kinds, now)
        return None

    def done(self, batch: Batch, again: Mapping[ObjectKey, float]) -> None:
        """Free the lane; `again` gives seconds until each key is due once more, absent keys are done with."""
        self._busy.discard(batch.lane)
        now = self._clock.monotonic()
        for key in batch.keys:
            self._running.pop(key, None)
            asked = self._again.pop(key, None)
            wanted = [t for t in (asked, now + again[key] if key in again else None) if t is not None]
            if wanted:
                self.add(key, max(0.0, min(wanted) - now))
        self._wake.set()

    def _promote(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            if self._due.get(key) != when:
                continue  # moved to an earlier time, or dropped
            del self._due[key]
            lane = self._lane_of(key)
            kinds = self._ready.get(lane)
            if kinds is None:
                kinds = self._ready[lane] = OrderedDict()
                self._turn.append(lane)
            kinds.setdefault(key.kind, OrderedDict())[key] = when
            self._queued[key] = lane

    def _take(self, lane: Lane, kinds: OrderedDict[str, OrderedDict[ObjectKey, float]], now: float) -> Batch:
        kind, waiting = kinds.popitem(last=False)
        taken = [waiting.popitem(last=False) for _ in range(min(self._batch, len(waiting)))]
        if waiting:
            kinds[kind] = waiting
        if kinds:
            self._turn.append(lane)
        else:
            del self._ready[lane]
        for key, _ in taken:
            self._queued.pop(key, None)
            self._running[key] = lane
        self._busy.add(lane)
        late = max(0.0, now - min(when for _, when in taken))
        return Batch(lane=lane, kind=kind, keys=tuple(key for key, _ in taken), late=late)
