"""In which order items are served, what fits, and where the next window goes on. Pure.

Fairness before cleverness: the order is that of the spec's tasks and, within a task, that of its plan; a run begins
where the last one had to stop and goes round. So what a short window never reached is served first in the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Key(NamedTuple):
    """One item of a run: a type and an object."""

    type: str
    object: str


class Weighed(NamedTuple):
    """An item with its estimate in seconds, None where nothing is known."""

    key: Key
    estimate: float | None


def served_from(keys: Sequence[Key], resume: Key | None) -> tuple[int, ...]:
    """Positions of `keys` in the order in which they are served, from `resume` on and round. Where that one is not due
    any more, it goes on with the type's next by name, else with the type after it."""
    if resume is None or not keys:
        return tuple(range(len(keys)))
    start = next((i for i, key in enumerate(keys) if key == resume), None)
    if start is None:
        start = next((i for i, key in enumerate(keys) if key.type == resume.type and key.object > resume.object), None)
    if start is None:
        last = max((i for i, key in enumerate(keys) if key.type == resume.type), default=-1)
        start = (last + 1) % len(keys)
    return (*range(start, len(keys)), *range(start))


def stages(keys: Sequence[Key]) -> tuple[tuple[Key, ...], ...]:
    """Runs of the same type that follow each other."""
    found: list[list[Key]] = []
    for key in keys:
        if found and found[-1][0].type == key.type:
            found[-1].append(key)
        else:
            found.append([key])
    return tuple(tuple(stage) for stage in found)


def fitting(items: Iterable[Weighed], seconds: float) -> int:
    """How many items fit one after the other; one that does not is passed over, as the run does. An unknown estimate
    counts as nothing."""
    count = 0
    for item in items:
        if (item.estimate or 0.0) <= seconds:
            seconds -= item.estimate or 0.0
            count += 1
    return count


def resume_point(left: Iterable[Weighed], longest: float) -> Key | None:
    """The first item that was left undone and that fits into a window of `longest` seconds at all: one that never fits
    must not hold the place for ever."""
    return next((item.key for item in left if (item.estimate or 0.0) <= longest), None)
