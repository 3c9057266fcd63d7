"""How large the parts of an upload are and how many of them are in memory at once.

A store allows so many parts per object (10,000, some 1,000) and we do not know in advance how long a dump is. Parts
of one size either waste memory or end too early, so they start small and grow: a fifth of all parts has the first
size, then each hundredth is larger than the one before by the same factor, chosen such that all parts together
reach the largest object. As parts grow, fewer are in flight, so that memory stays within the budget as long as
possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

MIB = 1 << 20
FIRST = 8 * MIB
LARGEST = 5 << 30
BUDGET = 96 * MIB
MOST_IN_FLIGHT = 4


def plan_for(*, parts: int, object_size: int, expected: int | None) -> PartPlan:
    """The plan for an object of about `expected` bytes: four times that and 64 GiB still fit, if the store lets it.

    A plan for the store's own limit would grow its parts, and with them memory, sooner than this object needs.
    """
    if expected is None:
        return PartPlan(parts, object_size)
    return PartPlan(parts, min(object_size, 4 * expected + (64 << 30)))


@dataclass(frozen=True)
class PartPlan:
    """Sizes by index, for a store with these limits. All sizes in bytes, indexes from 1."""

    parts: int = 10_000
    object_size: int = 5 << 40

    def size(self, index: int) -> int:
        """The size of the part with this index. Raises ValueError beyond the last."""
        if not 1 <= index <= self.parts:
            raise ValueError(f"part {index} of at most {self.parts}")
        return self._size(index, self._factor)

    def in_flight(self, index: int) -> int:
        """How many parts of this index's size may be on their way while the next one is filled."""
        return max(1, min(MOST_IN_FLIGHT, BUDGET // self.size(index) - 1))

    def capacity(self) -> int:
        """Bytes of all parts together. Below `object_size` where the store has too few parts for it."""
        return self._total(self._factor)

    def memory_for(self, stored: int) -> int:
        """Bytes that buffers take at most while an object of `stored` bytes is written. Controllers size pods by it."""
        done = most = 0
        for first, count in self._groups():
            size = self.size(first)
            most = max(most, size * (self.in_flight(first) + 1))
            done += size * count
            if done >= stored:
                break
        return most

    def _groups(self) -> Iterator[tuple[int, int]]:
        """(first index, number of parts) of each run of parts of one size."""
        flat, step = max(1, self.parts // 5), max(1, self.parts // 100)
        yield 1, flat
        for first in range(flat + 1, self.parts + 1, step):
            yield first, min(step, self.parts + 1 - first)

    def _size(self, index: int, factor: float) -> int:
        flat, step = max(1, self.parts // 5), max(1, self.parts // 100)
        steps = 0 if index <= flat else (index - flat - 1) // step + 1
        grown = min(float(LARGEST), FIRST * factor**steps)
        return -(-int(grown) // MIB) * MIB

    def _total(self, factor: float) -> int:
        return sum(self._size(first, factor) * count for first, count in self._groups())

    @cached_property
    def _factor(self) -> float:
        low = high = 1.0
        while self._total(high) < self.object_size:
            high *= 1.1
            if high > 3:  # then all but the first steps have the largest size: more cannot be had
                return high
        if high == 1.0:
            return high
        for _ in range(24):
            middle = (low + high) / 2
            low, high = (middle, high) if self._total(middle) < self.object_size else (low, middle)
        return high
