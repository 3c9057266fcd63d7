"""What could not be undone in the outside world when its object was deleted, so that it is neither forgotten nor holds
the object back: entries in the operator's own ConfigMap, counted by the metric pgtend_abandoned."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields

from pgtend.core.findings import ObjectKey
from pgtend.kube.client import CONFIG_MAPS, Conflict, KubeClient, NotFound
from pgtend.telemetry.metrics import METRICS

log = logging.getLogger(__name__)
NAME = "pgtend-ledger"
KEY = "abandoned.json"
MOST_BYTES = 900_000
"""A ConfigMap holds a MiB; where one more entry did not fit, no object that leaves something behind would ever go."""
UNREADABLE = "abandoned-unreadable.json"
"""Where a text goes that somebody has spoilt: it may be all that is known of what remains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned:
    """One thing that remains. `remains` says what, `sql` how a person undoes it, `retry` whether pgtend goes on trying:
    not where the object was not ours to act on (Observe, NotPermitted)."""

    kind: str
    namespace: str
    name: str
    target: str
    role: str
    policy: str
    remains: str
    sql: str
    reason: str
    since: str
    retry: bool
    heir: str | None = None
    """Who gets what the role owns."""
    sessions: str = "Refuse"
    system: str | None = None
    """The system identifier of the server where it remains: a target of the same name may be another server. None where
    nobody knew it."""
    lived: bool = False
    """Nobody had deleted the object yet when pgtend was uninstalled: it may come back."""

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.kind, self.namespace, self.name)

    @property
    def target_key(self) -> ObjectKey:
        namespace, _, name = self.target.partition("/")
        return ObjectKey("PostgresTarget", namespace, name)


class Ledger:
    """In memory what the ConfigMap holds; every change is written through. `namespace` is the operator's own."""

    def __init__(self, *, client: KubeClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._entries: dict[ObjectKey, Abandoned] = {}
        self._writing = asyncio.Lock()

    def get(self, key: ObjectKey) -> Abandoned | None:
        return self._entries.get(key)

    def entries(self) -> tuple[Abandoned, ...]:
        return tuple(self._entries.values())

    async def load(self) -> None:
        """Take up what an earlier process left."""
        try:
            found = await self._client.get(CONFIG_MAPS, self._namespace, NAME)
        except NotFound:
            return
        self._entries = _parse((found.get("data") or {}).get(KEY))
        self._count()

    async def add(self, *entries: Abandoned) -> None:
        if entries:
            await self._change(lambda known: known.update({entry.key: entry for entry in entries}))

    async def remove(self, *keys: ObjectKey) -> None:
        gone = [key for key in keys if key in self._entries]
        if gone:
            await self._change(lambda entries: [entries.pop(key, None) for key in gone])

    async def _change(self, change: Callable[[dict[ObjectKey, Abandoned]], object]) -> None:
        """Read, change, write; again where somebody else wrote in between."""
        async with self._writing:
            for attempt in range(5):
                found = await self._client.get(CONFIG_MAPS, self._namespace, NAME)
                old = (found.get("data") or {}).get(KEY)
                entries = _parse(old)
                change(entries)
                spoilt = old if old and not _readable(old) else None
                left_out = crowded_out(entries, MOST_BYTES - len(spoilt or ""))
                entries = {key: entry for key, entry in entries.items() if key not in left_out}
                data = {KEY: json.dumps([_wire(entry) for entry in entries.values()], indent=1)}
                if spoilt:
                    data[UNREADABLE] = spoilt
                version = found["metadata"]["resourceVersion"]
                try:
                    await self._client.merge_patch(
                        CONFIG_MAPS, self._namespace, NAME, {"data": data}, resource_version=version
                    )
                except Conflict:
                    if attempt == 4:
                        raise
                    continue
                self._entries = entries
                self._count()
                for entry in left_out.values():
                    log.error(
                        "the ledger is full, so that this stands in the log alone",
                        extra={"object": str(entry.key), "remains": entry.remains, "sql": entry.sql},
                    )
                return

    def _count(self) -> None:
        METRICS.abandoned.set(len(self._entries))


def crowded_out(entries: Mapping[ObjectKey, Abandoned], room: int) -> dict[ObjectKey, Abandoned]:
    """What does not fit: of the namespace that takes most room, so that nobody crowds out others; there the oldest, and
    what is only listed before what is tried again."""
    sizes = {key: len(json.dumps(_wire(entry), indent=1)) + 50 for key, entry in entries.items()}
    by_namespace: Counter[str] = Counter()
    for key, size in sizes.items():
        by_namespace[key.namespace] += size
    found: dict[ObjectKey, Abandoned] = {}
    while by_namespace.total() > room and len(found) < len(entries):
        fullest = by_namespace.most_common(1)[0][0]
        mine = (entry for key, entry in entries.items() if key.namespace == fullest and key not in found)
        first = min(mine, key=lambda entry: (entry.retry, entry.since, entry.name))
        found[first.key] = first
        by_namespace[fullest] -= sizes[first.key]
    return found


def _wire(entry: Abandoned) -> dict[str, object]:
    """Without what is as by default: an earlier version of pgtend can read it still."""
    optional = {"heir": None, "sessions": "Refuse", "system": None, "lived": False}
    return {name: value for name, value in asdict(entry).items() if name not in optional or value != optional[name]}


def _parse(text: str | None) -> dict[ObjectKey, Abandoned]:
    if text and not _readable(text):
        log.error("what was abandoned cannot be read; it is kept beside", extra={"key": UNREADABLE})
        return {}
    found = [_entry(item) for item in json.loads(text or "[]")]
    return {entry.key: entry for entry in found}


def _entry(item: dict[str, object]) -> Abandoned:
    """What a later version has added is left out. Raises TypeError."""
    known = {field.name for field in fields(Abandoned)}
    return Abandoned(**{name: value for name, value in dict(item).items() if name in known})  # type: ignore[arg-type]


def _readable(text: str) -> bool:
    try:
        return all(_entry(item) for item in json.loads(text))
    except (TypeError, ValueError):
        return False
