"""Which backups stay because they stand for a day, a week, a month or a year. Pure.

Periods are of the policy's time zone and are counted back from the newest that has a backup, so that a pause in the
backups ages nothing away. A period is stood for by its newest backup that was read back, and by its newest where none
was.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from datetime import datetime, timedelta, tzinfo

from pgtend.api.postgresbackuppolicy import Keep, Retention
from pgtend.backups.catalog import Backup

_PERIODS: dict[str, tuple[Callable[[datetime], Hashable], timedelta]] = {
    "daily": (lambda moment: moment.date(), timedelta(days=1)),
    "weekly": (lambda moment: moment.isocalendar()[:2], timedelta(weeks=1)),
    "monthly": (lambda moment: (moment.year, moment.month), timedelta(days=31)),
    "yearly": (lambda moment: moment.year, timedelta(days=366)),
}


def standing(backups: Sequence[Backup], *, keep: Keep, zone: tzinfo) -> frozenset[str]:
    """The manifest keys of those that stay. `backups` are oldest first."""
    found: set[str] = set()
    for name, (period_of, _) in _PERIODS.items():
        left: int = getattr(keep, name)
        if not left:
            continue
        periods: dict[Hashable, Backup] = {}
        for backup in reversed(backups):
            period = period_of(backup.manifest.started_at.astimezone(zone))
            held = periods.get(period)
            if held is None and len(periods) == left:
                continue
            if held is None or (backup.verified and not held.verified):
                periods[period] = backup
        found.update(backup.run.location.manifest for backup in periods.values())
    return frozenset(found)


def longest(retention: Retention) -> timedelta:
    """How old a backup becomes at most by its policy, as long as backups come regularly."""
    spans: list[timedelta] = [getattr(retention.keep, name) * length for name, (_, length) in _PERIODS.items()]
    return max(retention.keep_for.timedelta, *spans)
