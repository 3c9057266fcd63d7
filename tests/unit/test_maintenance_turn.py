"""Where two windows of one target are open at a time, the rarer is served first, and the other waits for its end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from pgtend.api.maintenancerun import MAINTENANCE_RUN
from pgtend.api.maintenancewindow import WindowSpec
from pgtend.core.clock import FakeClock
from pgtend.core.findings import ObjectKey
from pgtend.gate.recurrence import starts_per_year
from pgtend.kube.index import Index, Record, record_of
from pgtend.maintenance.blockers import Blockers
from pgtend.maintenance.book import Book, Known
from pgtend.maintenance.memory import Memory, Place
from pgtend.maintenance.plan import run_name, timetable

SPACE = "databases"
TARGET = ObjectKey("PostgresTarget", SPACE, "orders")
# the last Sunday of November: both are open
NOW = datetime(2026, 11, 29, 2, 30, tzinfo=UTC)
SCHEDULES: dict[str, dict[str, Any]] = {
    "weekly": {"weekly": {"days": ["Sunday"], "at": "02:00"}},
    "monthly": {"monthly": {"week": "Last", "days": ["Sunday"], "at": "02:00"}},
}


class World:
    def __init__(self) -> None:
        self.index = Index()
        self.book = Book(self.index)
        self.clock = FakeClock(NOW)
        self.places: dict[str, Place] = {}
        self.blockers = Blockers(
            index=self.index,
            registry=cast(Any, None),
            book=self.book,
            runner=cast(Any, None),
            memories={},
            busy_of=cast(Any, None),
            braked=lambda: False,
            clock=self.clock,
        )
        for name, schedule in SCHEDULES.items():
            self._window(name, schedule)

    def _window(self, name: str, schedule: dict[str, Any]) -> None:
        key = ObjectKey("MaintenanceWindow", SPACE, name)
        spec = WindowSpec.model_validate(
            {
                "targetRefs": [{"name": "orders"}],
                "schedule": schedule,
                "duration": "2h",
                "tasks": [{"type": "VacuumAnalyze"}],
            }
        )
        known = Known(
            key=key,
            uid=name,
            generation=1,
            spec=spec,
            timetable=timetable(spec, NOW),
            rate=starts_per_year(spec.schedule),
            admitted=frozenset({TARGET}),
            refused={},
        )
        self.book.put(known)
        slot = known.timetable.slot_at(NOW)
        assert slot is not None
        run = self.run(name, key, slot.starts_at, slot.ends_at)
        self.places[name] = Place(
            record=run, target=TARGET, target_spec=cast(Any, None), known=known, slot=slot, memory=Memory(uid=name)
        )

    def run(self, name: str, window: ObjectKey, starts: datetime, ends: datetime, **status: Any) -> Record:
        body = {
            "metadata": {
                "name": run_name(window=window, target=TARGET, starts_at=starts),
                "namespace": SPACE,
                "uid": name,
                "resourceVersion": "1",
                "creationTimestamp": "2026-11-22T10:00:00Z",
            },
            "spec": {
                "windowRef": {"name": window.name},
                "targetRef": {"name": TARGET.name},
                "planHash": "sha256:" + "0" * 64,
                "startsAt": f"{starts:%Y-%m-%dT%H:%M:%SZ}",
                "endsAt": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
            },
            "status": status,
        }
        record = record_of(MAINTENANCE_RUN, body)
        assert record.spec_error is None, record.spec_error
        self.index.put(record)
        return record

    def finish(self, name: str) -> None:
        place = self.places[name]
        self.run(name, place.known.key, place.slot.starts_at, place.slot.ends_at, finishedAt="2026-11-29T02:40:00Z")


def test_the_weekly_window_waits_for_the_monthly_one() -> None:
    world = World()
    refusal = world.blockers.turn(world.places["weekly"])
    assert refusal is not None and "monthly is rarer and open too" in refusal.message
    assert world.blockers.turn(world.places["monthly"]) is None, "and the rarer for nobody"


def test_its_turn_comes_when_the_other_has_ended_or_closed() -> None:
    world = World()
    world.finish("monthly")
    assert world.blockers.turn(world.places["weekly"]) is None
    world = World()
    world.clock.advance(2 * 3600)
    assert world.blockers.turn(world.places["weekly"]) is None
