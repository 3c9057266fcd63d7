"""Time and chance are handed in, never taken, so that a test can say what time it is."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds that only grow and go on while the machine is suspended."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        # BOOTTIME counts a suspended machine too: a Lease must not look fresh after a long sleep.
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class FakeClock:
    """A clock that stands still until told."""

    def __init__(self, now: datetime | None = None) -> None:
        self._now = now or datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds


def rfc3339(moment: datetime) -> str:
    """A moment as a status shows it: UTC, whole seconds, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str) -> datetime:
    """An aware datetime in UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)


class Randomness:
    """Jitter and back-off from one seedable source."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - spreads load, guards nothing

    def jitter(self, seconds: float, share: float = 0.1) -> float:
        """`seconds` moved by at most `share` either way."""
        return seconds * (1 + share * (2 * self._random.random() - 1))

    def backoff(self, failures: int, *, base: float = 1.0, limit: float = 300.0) -> float:
        """Seconds to wait after the given number of failures in a row: exponential with half of it random."""
        span = min(limit, base * 2.0 ** min(max(failures - 1, 0), 20))
        return span / 2 + span / 2 * self._random.random()
