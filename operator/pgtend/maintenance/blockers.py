"""What keeps a run from starting its next item now: the gate, its turn, and what `pauseWhile` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from pgtend.api.maintenancerun import RunSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import RunReason as R
from pgtend.core.clock import Clock, parse_rfc3339
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.gate.asking import Refusal, Request, State
from pgtend.gate.busy import Busy
from pgtend.gate.classes import RunPolicy
from pgtend.gate.decide import decide
from pgtend.gate.reasons import GateReason
from pgtend.kube.index import Index
from pgtend.maintenance.book import Book, begun, finished, target_of
from pgtend.maintenance.memory import Memory, Place
from pgtend.maintenance.observe import pressure, usable
from pgtend.server.registry import Registry
from pgtend.tasks.registry import type_of
from pgtend.tasks.runner import Runner, with_running

OVER = frozenset({GateReason.OUTSIDE_WINDOW, GateReason.WINDOW_CLOSING, GateReason.NOT_ENOUGH_TIME})
"""Refusals that no waiting within this window will change."""


class Blockers:
    """`memories` are those of the runs that this process has begun, `busy_of` tells of a target's dumps."""

    def __init__(
        self,
        *,
        index: Index,
        registry: Registry,
        book: Book,
        runner: Runner,
        memories: Mapping[ObjectKey, Memory],
        busy_of: Callable[[ObjectKey], Busy],
        braked: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._index, self._registry, self._book, self._runner = index, registry, book, runner
        self._memories, self._busy_of, self._braked, self._clock = memories, busy_of, braked, clock

    def state(self, target: ObjectKey, window: ObjectKey) -> State:
        """What the gate must know, at this moment."""
        record, known = self._index.get(target), self._book.get(window)
        spec = record.spec if record is not None and isinstance(record.spec, TargetSpec) else None
        served = known is not None and target in known.admitted and not known.spec.suspend
        enforced = spec is not None and spec.mode == "Enforce" and known is not None and known.spec.mode == "Enforce"
        return State(
            target=target,
            mode="Enforce" if enforced else "Observe",
            suspended=spec is None or spec.suspend or not served,
            brake=self._braked(),
            windows=self._book.of(target),
            busy=self._busy_of(target),
        )

    def ask(self, place: Place, type_: str, now: datetime) -> Refusal | None:
        """What keeps anything of this type from starting now, however short it is."""
        state = self.state(place.target, place.known.key)
        others = tuple(item for item in self._runner.busy(place.target) if item.holder != place.record.key)
        request = Request(
            target=place.target,
            type=type_of(type_),
            object=place.target.name,
            run_policy=policy_of(place),
            estimate=timedelta(0),
            timeout=max(timedelta(0), place.deadline - now),
            window=place.known.key if place.slot.in_window else None,
        )
        answer = decide(request, with_running(state, others), now)
        return answer if isinstance(answer, Refusal) else None

    async def pressed(self, place: Place) -> Refusal | None:
        """What `pauseWhile` names, or a primary that cannot be asked."""
        try:
            server = usable(self._registry.find(place.target), place.target, place.target_spec)
            return await pressure(server, place.known.spec.pause_while)
        except PgtendError as error:
            return Refusal(reason=GateReason.TARGET_BUSY, message=error.message, object=str(place.target))

    def turn(self, place: Place) -> Refusal | None:
        """Its turn among the windows of its target, and among the targets of its window."""
        return self._rarer(place) or self._siblings(place)

    def _rarer(self, place: Place) -> Refusal | None:
        known, now = place.known, self._clock.now()
        order = self._book.order(place.target)
        for window in order[: order.index(known.key)] if known.key in order else ():
            for other in self._book.runs(window, place.target):
                spec = other.parsed(RunSpec)
                opened = parse_rfc3339(spec.starts_at) <= now < parse_rfc3339(spec.ends_at)
                if opened and not finished(other):
                    text = f"window {window} is rarer and open too: MaintenanceRun {other.key} comes first"
                    return Refusal(reason=GateReason.TARGET_BUSY, message=text, object=str(other.key))
        return None

    def _siblings(self, place: Place) -> Refusal | None:
        known, mine = place.known, place.record.parsed(RunSpec)
        siblings = [
            other
            for other in self._book.runs(known.key)
            if other.key != place.record.key and other.parsed(RunSpec).starts_at == mine.starts_at
        ]
        failed = [other for other in siblings if other.reason("Complete") == R.FAILED]
        if len(failed) >= known.spec.stop_after_failures:
            names = ", ".join(sorted(str(target_of(other)) for other in failed)[:5])
            text = f"stopped after failures on {names} (stopAfterFailures {known.spec.stop_after_failures})"
            return Refusal(reason=GateReason.OUTSIDE_WINDOW, message=text)
        # claimed a moment ago and not written yet counts too
        claimed = {key for key, memory in self._memories.items() if memory.started_at is not None}
        busy = [other for other in siblings if (begun(other) or other.key in claimed) and not finished(other)]
        if len(busy) >= known.spec.max_concurrent_targets:
            text = f"{len(busy)} other targets are served (maxConcurrentTargets {known.spec.max_concurrent_targets})"
            return Refusal(reason=GateReason.TARGET_BUSY, message=text)
        return None


def policy_of(place: Place) -> RunPolicy:
    """A daily task asks for no window but where one is open at that very time."""
    return RunPolicy.IN_WINDOW if place.slot.in_window else RunPolicy.DAILY
