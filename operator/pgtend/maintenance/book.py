"""What is known of every window, in one place: its times and the targets that admit it. The window's controller writes
it; the runs, the operations and the gate read it. What is not in it is closed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pgtend.api.maintenancerun import RunSpec
from pgtend.api.maintenancewindow import WindowSpec
from pgtend.core.findings import ObjectKey
from pgtend.gate.asking import TargetWindow
from pgtend.kube.index import Index, Record
from pgtend.maintenance.plan import Timetable

RUN = "MaintenanceRun"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One accepted window. `rate` is how often a year it opens, `refused` says of targets that it names why they do not
    admit it."""

    key: ObjectKey
    uid: str
    generation: int
    spec: WindowSpec
    timetable: Timetable
    rate: float
    admitted: frozenset[ObjectKey]
    refused: dict[ObjectKey, str]


class Book:
    def __init__(self, index: Index) -> None:
        self._index = index
        self._known: dict[ObjectKey, Known] = {}

    def put(self, known: Known) -> None:
        self._known[known.key] = known

    def drop(self, key: ObjectKey) -> None:
        self._known.pop(key, None)

    def get(self, key: ObjectKey) -> Known | None:
        return self._known.get(key)

    def of(self, target: ObjectKey) -> tuple[TargetWindow, ...]:
        """The windows that serve a target, for the gate. One that only observes opens for nobody."""
        return tuple(
            TargetWindow(
                key=known.key,
                calendar=known.timetable.window,
                suspended=known.spec.suspend or known.spec.mode == "Observe",
            )
            for known in self._known.values()
            if target in known.admitted
        )

    def order(self, target: ObjectKey) -> tuple[ObjectKey, ...]:
        """The windows of a target in the order in which they are served where they overlap: the rarer first."""
        mine = [known for known in self._known.values() if target in known.admitted]
        return tuple(known.key for known in sorted(mine, key=lambda known: (known.rate, str(known.key))))

    def runs(self, window: ObjectKey, target: ObjectKey | None = None) -> Iterator[Record]:
        """The runs of a window, on one target or on all."""
        for record in self._index.of_kind(RUN):
            if record.spec_error is None and window_of(record) == window and target in (None, target_of(record)):
                yield record


def window_of(record: Record) -> ObjectKey:
    ref = record.parsed(RunSpec).window_ref
    return ObjectKey("MaintenanceWindow", ref.namespace or record.key.namespace, ref.name)


def target_of(record: Record) -> ObjectKey:
    return ObjectKey("PostgresTarget", record.key.namespace, record.parsed(RunSpec).target_ref.name)


def finished(record: Record) -> bool:
    return bool(record.status.get("finishedAt"))


def begun(record: Record) -> bool:
    return bool((record.status.get("journal") or {}).get("claimedAt"))
