"""Has a run's plans made in the background: a look at a server may take minutes, and nothing waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from pgtend.core.clock import Clock
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.gate.asking import Refusal
from pgtend.gate.reasons import GateReason
from pgtend.maintenance.memory import Place
from pgtend.maintenance.observe import Background, Looked, look, tasks_for, usable
from pgtend.server.member import MemberSessions
from pgtend.server.registry import Registry
from pgtend.tasks.protocol import Ground, Item

STALE = timedelta(minutes=10)


class Lookout:
    """`wake` has a run reconciled when its look is done."""

    def __init__(
        self, *, registry: Registry, members: MemberSessions, wake: Callable[[ObjectKey], None], clock: Clock
    ) -> None:
        self._registry, self._members, self._clock = registry, members, clock
        self._background = Background(wake)

    async def close(self) -> None:
        await self._background.close()

    def forget(self, run: ObjectKey) -> None:
        self._background.forget(run)

    def ground(self, target: ObjectKey) -> Ground | None:
        """As it is now: a target whose spec is edited meanwhile gets another server."""
        server = self._registry.find(target)
        return Ground(server=server, members=self._members) if server is not None else None

    def look(
        self,
        place: Place,
        name: str,
        *,
        since: datetime | None = None,
        now: datetime | None = None,
        sweep: Sequence[Item] | None = None,
    ) -> Looked | Refusal | None:
        """The plans of the slot's tasks; None while they are made. With `since` not older than that, nor stale."""
        memory, spec = place.memory, place.known.spec
        if memory.looked is not None and memory.looked_at is not None and sweep is None:
            fresh = since is None or (memory.looked_at >= since and now is not None and now - memory.looked_at < STALE)
            if fresh:
                return memory.looked
        if place.target_spec.suspend:
            text = f"target {place.target} has spec.suspend: true"
            return Refusal(reason=GateReason.SUSPENDED, message=text, object=str(place.target))
        try:
            found = self._registry.find(place.target)
            server = usable(found, place.target, place.target_spec, acting=not place.observing)
            tasks = tasks_for(spec, place.slot.types(spec))
            ground = Ground(server=server, members=self._members)
            looked = self._background.take(place.record.key, name, lambda: look(ground, tasks, sweep=sweep))
        except PgtendError as error:
            return Refusal(reason=GateReason.TARGET_BUSY, message=error.message, object=str(place.target))
        if looked is not None:
            memory.looked, memory.looked_at = looked, self._clock.now()
        return looked
