"""THE status writer: merges conditions, decides whether anything is worth a write, and writes once or not at all.

A status is written on transitions, else at most every ten minutes and only where a printed figure moved by more than a
tenth (api.md). The patch carries the resourceVersion that the verdict was computed from, so a stale verdict is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pgtend.api.base import GROUP, VERSION, Kind
from pgtend.api.conditions import BaseStatus, Verdict, Worst, merge, worst_of
from pgtend.api.types import Timestamp
from pgtend.core.clock import Clock, parse_rfc3339, rfc3339
from pgtend.core.failpoints import failpoint
from pgtend.kube.client import KubeClient, NotFound, Resource
from pgtend.kube.compact import Packed
from pgtend.kube.events import EventRecorder
from pgtend.kube.index import Index, Record

FIGURES_EVERY = 600.0
MOVED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A status as a controller wants it.

    `figures` names the fields (camelCase) that alone are worth no transition; `members.lag` is the field of each item.
    """

    status: BaseStatus
    verdicts: Sequence[Verdict]
    figures: frozenset[str] = frozenset()


class StatusWriter:
    """Counts what it did in `writes` and `skipped`."""

    def __init__(self, *, client: KubeClient, index: Index, events: EventRecorder, clock: Clock) -> None:
        self._client, self._index, self._events, self._clock = client, index, events, clock
        self.writes = 0
        self.skipped = 0

    async def write(self, kind: Kind, record: Record, draft: Draft) -> Record:
        """Bring the object's status to the draft. Returns the record as it stands afterwards.

        Raises kube.client.Conflict where the object has changed since `record`, NotFound where it is gone.
        """
        now = rfc3339(self._clock.now())
        wanted = compose(previous=record.status, draft=draft, generation=record.generation, now=now)
        if not worth_writing(record.status, wanted, draft.figures, now):
            self.skipped += 1
            return record
        patch = {"status": _with_removals(record.status, wanted)}
        failpoint("kube.status.before_write")
        try:
            answer = await self._client.merge_patch(
                Resource(GROUP, VERSION, kind.plural),
                record.key.namespace,
                record.key.name,
                patch,
                sub="status",
                resource_version=record.resource_version,
            )
        except NotFound:
            # deleted while no watch was open, so nobody told us
            if self._stands(record):
                self._index.drop(record.key)
            raise
        failpoint("kube.status.after_write")
        self.writes += 1
        written = replace(
            record, resource_version=answer["metadata"]["resourceVersion"], status=Packed(answer.get("status") or {})
        )
        if self._stands(record, written.resource_version):
            self._index.put(written)
        await self._events.transition(record, before=record.status, after=wanted)
        return written

    def _stands(self, record: Record, *versions: str) -> bool:
        """Whether the index still has the object as it was: the watch may have seen a newer version, or its end, while
        we waited for the answer, and must not be put back to ours."""
        known = self._index.get(record.key)
        return known is not None and known.resource_version in (record.resource_version, *versions)


def compose(*, previous: Mapping[str, Any], draft: Draft, generation: int, now: str) -> dict[str, Any]:
    """The whole status as it would be stored. Pure."""
    conditions = merge(
        previous=previous.get("conditions") or (), verdicts=draft.verdicts, generation=generation, now=now
    )
    worst: Worst = worst_of(previous=previous, verdicts=draft.verdicts, conditions=conditions, now=now)
    status = draft.status.model_copy(
        update={
            "observed_generation": generation,
            "observed_at": Timestamp(now),
            "worst": worst,
            "conditions": tuple(conditions),
        }
    )
    return {name: value for name, value in status.to_wire().items() if value != []}


def worth_writing(old: Mapping[str, Any], new: Mapping[str, Any], figures: frozenset[str], now: str) -> bool:
    """Whether `new` says something that `old` does not. Messages do not count while verdict and reason stand."""
    skip = {"observedAt", *figures}
    if _comparable(old, skip) != _comparable(new, skip):
        return True
    if not any(_moved(_figure(old, name), _figure(new, name)) for name in figures):
        return False
    written = old.get("observedAt")
    return written is None or (parse_rfc3339(now) - parse_rfc3339(written)).total_seconds() >= FIGURES_EVERY


def _comparable(status: Mapping[str, Any], skip: set[str]) -> dict[str, Any]:
    plain = {k: v for k, v in status.items() if k not in skip and v not in (None, [], {})}
    for name in skip:
        parent, _, child = name.partition(".")
        if child and isinstance(plain.get(parent), list):
            plain[parent] = [{k: v for k, v in item.items() if k != child} for item in plain[parent]]
    plain["conditions"] = {
        c["type"]: (c["status"], c["reason"], c.get("observedGeneration")) for c in status.get("conditions") or ()
    }
    return plain


def _figure(status: Mapping[str, Any], name: str) -> Any:
    parent, _, child = name.partition(".")
    value = status.get(parent)
    return [item.get(child) for item in value] if child and isinstance(value, list) else value


_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def _moved(old: Any, new: Any) -> bool:
    """Whether any number inside moved by more than a tenth, or the structure differs. LSNs are no figures."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if old.keys() != new.keys():
            return True
        return any(_moved(old[k], new[k]) for k in old if k != "lsn")
    if isinstance(old, list) and isinstance(new, list):
        return len(old) != len(new) or any(_moved(a, b) for a, b in zip(old, new, strict=True))
    if isinstance(old, str) and isinstance(new, str):
        if _NUMBER.sub("#", old) != _NUMBER.sub("#", new):
            return True
        pairs = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
        return any(_far(float(a), float(b)) for a, b in pairs)
    if isinstance(old, int | float) and isinstance(new, int | float) and not isinstance(old, bool):
        return _far(old, new)
    return bool(old != new)


def _far(old: float, new: float) -> bool:
    return abs(new - old) > MOVED * max(abs(old), abs(new))


def _with_removals(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A merge patch that leaves exactly `new`: what is no longer said becomes null, at every level of maps."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        nested = isinstance(value, Mapping) and isinstance(before, Mapping)
        patch[name] = _with_removals(before or {}, value) if nested else value
    return patch
