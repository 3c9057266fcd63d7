"""From the wall clock of a zone to moments, so that a change of the clock has one meaning everywhere.

- In spring a start that the clock skips happens at the first moment after the gap.
- In autumn a start that the clock shows twice happens once, when it is shown first.
- What follows a start (a duration) is elapsed time, whatever the clock does meanwhile.
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from pgtend.core.errors import PgtendError
from pgtend.gate.reasons import GateReason


class ScheduleError(PgtendError):
    """A schedule without usable meaning. The message says what to write instead. Waiting does not help."""

    def __init__(self, message: str) -> None:
        super().__init__(GateReason.INVALID_SCHEDULE, message, transient=False)


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(available_timezones()) - {"localtime", "Factory"}


@lru_cache(maxsize=256)
def load_zone(name: str) -> ZoneInfo:
    """The zone of an IANA name. Raises ScheduleError, with a likely name where there is one.

    Only names of the IANA list: the machine's own `localtime` means something else on each machine, and `right/` zones
    count leap seconds.
    """
    if name in _names():
        return ZoneInfo(name)
    by_folded = {known.casefold(): known for known in _names()}
    likely = [by_folded[n] for n in difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.75)]
    proposal = f"did you mean {likely[0]}?" if likely else "write an IANA name such as Etc/UTC or Europe/Berlin"
    raise ScheduleError(f"timeZone {name!r} is unknown: {proposal}")


def wall(year: int, month: int = 1, day: int = 1, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    """A wall time: what a clock shows, naive on purpose."""
    return datetime(year, month, day, hour, minute, second)  # noqa: DTZ001


def wall_of(moment: datetime, zone: ZoneInfo) -> datetime:
    """What a clock in the zone shows: naive, with `fold` of the second showing removed."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def moment_of(shown: datetime, zone: ZoneInfo) -> datetime:
    """The moment, in UTC, at which something planned for this (naive) wall time starts; see the module's rules."""
    moments = moments_of(shown, zone)
    return moments[0] if moments else _end_of_gap(shown, zone)


def moments_of(shown: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """Every moment, in UTC and in order, at which the clock shows this: one; none in a gap; two in a fold."""
    candidates = {shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return tuple(sorted(moment for moment in candidates if wall_of(moment, zone) == shown))


def _end_of_gap(shown: datetime, zone: ZoneInfo) -> datetime:
    # Within a gap, fold=1 counts from the later offset and lies before the change, fold=0 after it (PEP 495).
    before = shown.replace(tzinfo=zone, fold=1).astimezone(UTC)
    after = shown.replace(tzinfo=zone, fold=0).astimezone(UTC)
    offset = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle <= before:
            middle = before + timedelta(seconds=1)
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after
