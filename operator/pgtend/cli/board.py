"""`pgtend status`: what is not well, worst first, from the statuses that the operator writes; and whether there is an
operator that writes them, since a board that nobody keeps looks as good as one on which all is well."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal

import click

from pgtend.api.base import CATEGORY, GROUP, VERSION
from pgtend.api.kinds import KINDS
from pgtend.api.types import format_duration
from pgtend.cli.options import printable
from pgtend.core.clock import parse_rfc3339, rfc3339
from pgtend.engine.lease import LEASE
from pgtend.kube.client import LEASES, ApiError, Forbidden, KubeClient, NotFound, Resource

SCHEMA = "pgtend.dev/status/v1"
SILENT = 60.0
"""Seconds without a renewal of the Lease after which its holder is taken for gone: four times what a Lease lasts, since
the clocks of two machines differ."""
Level = Literal["Critical", "Wrong", "Warning", "Unknown", "Working", "Well"]
LEVELS: tuple[Level, ...] = ("Critical", "Wrong", "Warning", "Unknown", "Working", "Well")
"""From the worst on."""
_COLOURS: Mapping[Level, str] = {"Critical": "red", "Wrong": "red", "Warning": "yellow", "Unknown": "magenta"}
_COLUMNS = ("KIND", "OBJECT", "READY", "HEALTH", "REASON", "SINCE", "MESSAGE")
_WIDE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One object as its status tells it: `condition` is the one to read first, `since` when that began."""

    kind: str
    namespace: str
    name: str
    level: Level
    ready: str
    health: str
    condition: str
    reason: str
    message: str
    since: datetime | None = None

    def document(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "level": self.level,
            "ready": self.ready,
            "health": self.health or None,
            "condition": self.condition or None,
            "reason": self.reason,
            "message": self.message,
            "since": rfc3339(self.since) if self.since is not None else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What the Lease says of the operator: `silent` are the seconds since its last renewal, None where nobody can tell,
    `why` then says why not."""

    holder: str = ""
    silent: float | None = None
    why: str = ""

    @property
    def gone(self) -> bool:
        return self.silent is not None and self.silent > SILENT

    @property
    def text(self) -> str:
        if self.silent is None:
            return f"operator: unknown ({self.why})"
        ago = f"its Lease was renewed {format_duration(max(self.silent, 0))} ago by {self.holder}"
        return f"operator: gone, what is below is old: {ago}" if self.gone else f"operator: alive, {ago}"


def row_of(kind: str, body: Mapping[str, Any]) -> Row:
    """Raises nothing: what an object lacks is not known yet."""
    meta, status = body["metadata"], body.get("status") or {}
    conditions = {str(c["type"]): c for c in status.get("conditions") or ()}
    ready = conditions.get("Ready")
    worst = status.get("worst") or {}
    first = conditions.get(worst.get("condition", "Ready"), ready)
    health = str(status.get("health") or "")
    row = partial(Row, kind=kind, namespace=str(meta["namespace"]), name=str(meta["name"]), health=health)
    if ready is None or first is None:
        text = "nobody has looked at it yet: is the operator running, and does it watch this namespace?"
        return row(level="Unknown", ready="", condition="", reason="NotLookedAt", message=text)
    since = worst.get("since") or first.get("lastTransitionTime")
    message = str(first.get("message") or "")
    if (meta.get("generation") or 0) > (status.get("observedGeneration") or 0):
        message = f"(of the spec before) {message}"
    return row(
        level=_level(conditions, first, health),
        ready=str(ready["status"]),
        condition=str(first["type"]),
        reason=str(first["reason"]),
        message=message,
        since=parse_rfc3339(str(since)) if since else None,
    )


def _level(conditions: Mapping[str, Mapping[str, Any]], first: Mapping[str, Any], health: str) -> Level:
    if health == "Critical":
        return "Critical"
    if "Reconciling" in conditions and "Stalled" not in conditions:
        return "Working"
    if health == "Warning":
        return "Warning"
    if first["status"] == "False":
        return "Wrong"
    return "Unknown" if first["status"] == "Unknown" else "Well"


def ordered(rows: Iterable[Row]) -> list[Row]:
    """The worst first, and of these what has been so the longest."""
    return sorted(
        rows,
        key=lambda r: (
            LEVELS.index(r.level),
            r.since.timestamp() if r.since else float("inf"),
            r.kind,
            r.namespace,
            r.name,
        ),
    )


async def read(client: KubeClient, namespace: str | None) -> list[Row]:
    """Everything that people wrote, in one namespace or in all. Raises ApiError."""
    rows = []
    for kind in KINDS:
        if kind.category != CATEGORY:
            continue
        try:
            async for body in client.list(Resource(GROUP, VERSION, kind.plural), namespace):
                rows.append(row_of(kind.name, body))
        except NotFound:
            continue  # a kind that this cluster does not have
    return ordered(rows)


async def life(client: KubeClient, namespace: str, now: datetime) -> Life:
    try:
        spec = (await client.get(LEASES, namespace, LEASE)).get("spec") or {}
    except NotFound:
        return Life(why=f"no Lease {namespace}/{LEASE}: give --operator-namespace")
    except Forbidden:
        return Life(why=f"you may not get the Lease {namespace}/{LEASE}")
    except ApiError as error:
        return Life(why=str(error))
    if not spec.get("renewTime"):
        return Life(why=f"nobody holds the Lease {namespace}/{LEASE}")
    seconds = (now - parse_rfc3339(str(spec["renewTime"]))).total_seconds()
    return Life(holder=str(spec.get("holderIdentity") or "nobody"), silent=seconds)


def document(rows: Sequence[Row], operator: Life, now: datetime) -> str:
    told = {"holder": operator.holder or None, "silentSeconds": operator.silent, "gone": operator.gone}
    return json.dumps(
        {
            "schema": SCHEMA,
            "at": rfc3339(now),
            "operator": told | {"why": operator.why or None},
            "objects": [row.document() for row in rows],
        },
        indent=2,
    )


def lines(rows: Sequence[Row], operator: Life, now: datetime, *, everything: bool, wide: bool) -> Iterator[str]:
    """For people, in colour; whoever prints it where there is none strips that."""
    yield click.style(operator.text, fg="red" if operator.gone else None)
    shown = [row for row in rows if everything or row.level != "Well"]
    if shown:
        table = [_COLUMNS, *(_cells(row, now, wide=wide) for row in shown)]
        widths = [max(len(cells[column]) for cells in table) for column in range(len(_COLUMNS) - 1)]
        for place, cells in enumerate(table):
            padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
            text = "  ".join([*padded, cells[-1]]).rstrip()
            yield click.style(text, fg=_COLOURS.get(shown[place - 1].level)) if place else click.style(text, bold=True)
    counts = Counter(row.level for row in rows)
    told = ", ".join(f"{counts[level]} {level.lower()}" for level in LEVELS if counts[level])
    yield f"{len(rows)} objects: {told}" if rows else "no objects of pgtend's kinds here"


def _cells(row: Row, now: datetime, *, wide: bool) -> tuple[str, ...]:
    since = format_duration(max((now - row.since).total_seconds(), 0)) if row.since is not None else ""
    message = row.message if wide or len(row.message) <= _WIDE else f"{row.message[: _WIDE - 1]}…"
    cells = (row.kind, f"{row.namespace}/{row.name}", row.ready, row.health, row.reason, since, message)
    return tuple(printable(cell) for cell in cells)
