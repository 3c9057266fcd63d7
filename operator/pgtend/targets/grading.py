"""A figure against its threshold: how long it must be exceeded (`for`), and how far it must fall to clear (hysteresis).

Shared by every family of conditions, so that "80 % for 1m" means the same everywhere. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pgtend.api.postgrestarget import DurationThreshold, ShareThreshold

Severity = Literal["Warning", "Critical"]
# a share clears five points below its threshold (examples.md, thresholds)
CLEARS = 0.05


@dataclass(slots=True)
class Grades:
    """What is remembered between probes, by name of the figure."""

    since: dict[tuple[str, Severity], datetime] = field(default_factory=dict)
    standing: dict[str, Severity] = field(default_factory=dict)

    def grade(
        self,
        name: str,
        value: float,
        *,
        warning: float | None,
        critical: float | None,
        wait: float,
        now: datetime,
        margin: float = 0.0,
    ) -> Severity | None:
        """The severity of `value`, once it has been that bad for `wait` seconds; `margin` keeps it until it has fallen
        that far below the threshold."""
        found: Severity | None = None
        before = self.standing.get(name)
        limits: tuple[tuple[Severity, float | None], ...] = (("Critical", critical), ("Warning", warning))
        for severity, limit in limits:
            if limit is None:
                continue
            held = before == severity or (before == "Critical" and severity == "Warning")
            exceeded = value >= (limit - margin if held else limit)
            key = (name, severity)
            if not exceeded:
                self.since.pop(key, None)
                continue
            since = self.since.setdefault(key, now)
            if found is None and (held or (now - since).total_seconds() >= wait):
                found = severity
        if found is None:
            self.standing.pop(name, None)
        else:
            self.standing[name] = found
        return found

    def began(self, name: str, severity: Severity) -> datetime | None:
        """Since when the figure has been that bad."""
        return self.since.get((name, severity))

    def forget(self, prefix: str, keep: set[str]) -> None:
        """Drop what belongs to offenders that are gone, so that memory stays bounded."""
        for name in [n for n in self.standing if n.startswith(prefix) and n not in keep]:
            del self.standing[name]
        for key in [k for k in self.since if k[0].startswith(prefix) and k[0] not in keep]:
            del self.since[key]


def grade(
    grades: Grades, name: str, value: float, limits: ShareThreshold | DurationThreshold, now: datetime
) -> Severity | None:
    """`value` is a share (0 to 1) or seconds, as the limits are."""
    if isinstance(limits, ShareThreshold):
        warning = limits.warning.fraction if limits.warning else None
        critical = limits.critical.fraction if limits.critical else None
        margin = CLEARS
    else:
        warning = limits.warning.seconds if limits.warning else None
        critical = limits.critical.seconds if limits.critical else None
        margin = 0.0
    return grades.grade(
        name, value, warning=warning, critical=critical, wait=limits.for_.seconds, now=now, margin=margin
    )
