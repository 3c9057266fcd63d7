"""Carries a plan out in the background, under a deadline, with the gate asked before each item and every second.

Whoever holds the run (an operation, a window's run) claims it in its journal first, gives callables for what may change
meanwhile, is told of every change, and writes it down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum

import psycopg

from pgtend.api.reasons import TargetReason
from pgtend.core.actions import Repeat
from pgtend.core.clock import Clock
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.gate.asking import Refusal, Request, State
from pgtend.gate.busy import RunningItem
from pgtend.gate.classes import RunPolicy, TaskClass
from pgtend.gate.decide import Permit, decide, recheck
from pgtend.gate.reasons import GateReason
from pgtend.tasks.protocol import Ground, Item, ItemResult, Outcome, Outliving, Staying, Task

log = logging.getLogger(__name__)
LOOK_EVERY = 1.0
TIDY_PAUSES = (1.0, 2.0, 5.0, 10.0)
"""Seconds between two tries to tidy up: a target that was just edited is probed first."""
_SAID_NO = frozenset({TargetReason.OBSERVING, TargetReason.BRAKE_ON, TargetReason.NOT_LEADING})
_NO_TIME = frozenset({GateReason.NOT_ENOUGH_TIME, GateReason.WINDOW_CLOSING, GateReason.BACKUP_DUE})


class Ending(Enum):
    """How a run as a whole ended. STOPPED: the gate or the target said no in the middle; BROKEN: a fault of ours."""

    DONE = "Done"
    CANCELLED = "Cancelled"
    TIMED_OUT = "TimedOut"
    STOPPED = "Stopped"
    BROKEN = "Broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to run. `deadline` is absolute; `state` tells what is known about the target at the moment of asking. Of
    what another process had begun, `done` is what it had finished and `started_at` when; its leftovers are swept
    first. `hold` is asked before each item begins, for what takes a look at the server: a refusal stops the run
    there."""

    holder: ObjectKey
    uid: str
    task: Task
    ground: Ground
    items: tuple[Item, ...]
    run_policy: RunPolicy
    deadline: datetime
    window: ObjectKey | None = None
    state: Callable[[], State]
    latest: Callable[[], Ground | None] = lambda: None
    """The ground as it is now: a target whose spec is edited meanwhile gets another server."""
    hold: Callable[[], Awaitable[Refusal | None]] | None = None
    done: Mapping[str, ItemResult] = field(default_factory=dict)
    started_at: datetime | None = None

    @property
    def here(self) -> Ground:
        return self.latest() or self.ground


@dataclass(slots=True, kw_only=True)
class Run:
    """A run as it stands. `results` by object; `ending` None while it goes on; `swept` tells of leftovers removed.
    `refusal` is the gate's where that stopped it, `deferred` the gate's for each item that there was no time for."""

    order: Order
    started_at: datetime
    finished_at: datetime | None = None
    results: dict[str, ItemResult] = field(default_factory=dict)
    ending: Ending | None = None
    message: str = ""
    swept: tuple[str, ...] = ()
    permit: Permit | None = None
    current: str | None = None
    refusal: Refusal | None = None
    deferred: dict[str, Refusal] = field(default_factory=dict)

    @property
    def unfinished(self) -> tuple[Item, ...]:
        return tuple(item for item in self.order.items if item.object not in self.results)

    @property
    def traceable(self) -> tuple[Item, ...]:
        """The items that can be found again: all, but those that an earlier process had finished."""
        return tuple(item for item in self.order.items if item.facts)


class _Stop(Exception):
    def __init__(self, ending: Ending, message: str, refusal: Refusal | None = None) -> None:
        super().__init__(message)
        self.ending, self.message, self.refusal = ending, message, refusal


class Runner:
    """`changed` is called with the holder's key whenever a run has something to tell."""

    def __init__(self, *, clock: Clock, changed: Callable[[ObjectKey], None]) -> None:
        self._clock, self._changed = clock, changed
        self._runs: dict[ObjectKey, Run] = {}
        self._work: dict[ObjectKey, asyncio.Task[None]] = {}
        self._stops: dict[ObjectKey, _Stop] = {}

    def find(self, holder: ObjectKey) -> Run | None:
        return self._runs.get(holder)

    def busy(self, target: ObjectKey) -> tuple[RunningItem, ...]:
        """The disruptive work on a target that goes on."""
        return tuple(
            RunningItem(
                holder=run.order.holder,
                type=str(run.order.task.type),
                object=run.current or run.order.items[0].object,
                since=run.started_at,
            )
            for run in self._runs.values()
            if run.ending is None
            and run.order.ground.server.key == target
            and run.order.task.type.task_class is TaskClass.DISRUPTIVE
        )

    def start(self, order: Order) -> Run:
        """Begin in the background. The holder has claimed it."""
        run = Run(order=order, started_at=order.started_at or self._clock.now(), results=dict(order.done))
        self._runs[order.holder] = run
        work = asyncio.create_task(self._supervise(run), name=f"{order.task.type} for {order.holder}")
        self._work[order.holder] = work
        return run

    def stop(self, holder: ObjectKey, ending: Ending, message: str) -> None:
        """Have a run end within about a second; the first to say so says why."""
        if holder in self._runs and self._runs[holder].ending is None:
            self._stops.setdefault(holder, _Stop(ending, message))

    def forget(self, holder: ObjectKey) -> None:
        """The holder has written down how it ended."""
        self._runs.pop(holder, None)
        self._work.pop(holder, None)
        self._stops.pop(holder, None)

    async def close(self) -> None:
        """Cancel all work and wait for it; nothing of it goes on in a database."""
        for work in self._work.values():
            work.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)

    async def _supervise(self, run: Run) -> None:
        order = run.order
        work = asyncio.create_task(self._carry_out(run))
        try:
            stop: _Stop | None = None
            while stop is None:
                done, _ = await asyncio.wait({work}, timeout=LOOK_EVERY)
                if done:
                    break
                stop = self._stops.get(order.holder) or self._overdue(run)
            if stop is not None:
                await _cancelled(work)
                run.ending, run.message, run.refusal = stop.ending, stop.message, stop.refusal
            else:
                run.ending = Ending.DONE
                work.result()
                if self._cut_off(run):
                    run.ending, run.message = Ending.TIMED_OUT, "its time is over"
        except _Stop as said:
            run.ending, run.message, run.refusal = said.ending, said.message, said.refusal
        except PgtendError as error:
            run.ending, run.message = Ending.STOPPED, error.message
        except (psycopg.Error, TimeoutError, OSError) as error:
            run.ending, run.message = Ending.STOPPED, str(error).strip() or type(error).__name__
        except asyncio.CancelledError:
            await _cancelled(work)
            raise
        except Exception as error:
            log.exception("a task broke", extra={"type": str(order.task.type), "object": str(order.holder)})
            run.ending, run.message = Ending.BROKEN, f"{type(error).__name__}: see the operator's log"
        await self._tidy(run)
        run.finished_at = self._clock.now()
        failpoint("tasks.run.ended")
        self._changed(order.holder)

    async def _carry_out(self, run: Run) -> None:
        order = run.order
        if order.started_at is not None and order.task.repeat is Repeat.IDEMPOTENT:
            run.swept = await order.task.sweep(order.here, run.traceable)
        for chunk in [run.unfinished] if order.task.together else [(item,) for item in run.unfinished]:
            if order.hold is not None and (held := await order.hold()) is not None:
                raise _Stop(Ending.STOPPED, held.message, held)
            granted = self._ask(run, chunk)
            if isinstance(granted, Refusal):
                if granted.reason in _NO_TIME:
                    for item in chunk:
                        run.deferred[item.object] = granted
                        run.results[item.object] = ItemResult(
                            outcome=Outcome.DEFERRED_NO_TIME, message=granted.message[:256]
                        )
                    continue
                raise _Stop(Ending.STOPPED, granted.message, granted)
            run.permit, run.current = granted, chunk[0].object
            async with aclosing(order.task.run(order.here, granted, chunk)) as results:  # type: ignore[type-var]
                async for item, result in results:
                    run.results[item.object] = result
                    self._changed(order.holder)

    def _ask(self, run: Run, chunk: Sequence[Item]) -> Permit | Refusal:
        order = run.order
        now = self._clock.now()
        if now >= order.deadline:
            raise _Stop(Ending.TIMED_OUT, "its time is over")
        known = order.state()
        others = tuple(item for item in self.busy(known.target) if item.holder != order.holder)
        request = Request(
            target=known.target,
            type=order.task.type,
            object=chunk[0].object,
            run_policy=order.run_policy,
            estimate=timedelta(seconds=sum(item.estimate or 0.0 for item in chunk)),
            timeout=order.deadline - now,
            window=order.window,
        )
        return decide(request, with_running(known, others), now)

    def _overdue(self, run: Run) -> _Stop | None:
        now = self._clock.now()
        if now >= run.order.deadline or (run.permit is not None and now >= run.permit.deadline):
            return _Stop(Ending.TIMED_OUT, "its time is over")
        if run.permit is not None:
            refusal = recheck(run.permit, run.order.state(), now)
            if refusal is not None:
                return _Stop(Ending.STOPPED, refusal.message, refusal)
        return None

    def _cut_off(self, run: Run) -> bool:
        """Whether the server ended the last statement because the time was over, a moment before we would have."""
        over = self._clock.now() >= run.order.deadline - timedelta(seconds=LOOK_EVERY)
        return over and any(
            result.outcome is Outcome.CANCELLED and result.sql_state == "57014" for result in run.results.values()
        )

    async def _tidy(self, run: Run) -> None:
        """Say of every item what came of it, and remove what an aborted one has left."""
        order = run.order
        open_ = run.unfinished
        idempotent, mine = order.task.repeat is Repeat.IDEMPOTENT, run.traceable
        if run.ending is Ending.DONE and not open_:
            # what was aborted in the middle may have left what could not be taken away there and then
            mine = tuple(i for i in mine if run.results[i.object].outcome is not Outcome.SUCCEEDED)
            if not (idempotent and mine):
                return
        for pause in (*TIDY_PAUSES, None):
            try:
                run.results.update(await order.task.find(order.here, open_))
                if isinstance(order.task, Outliving):
                    run.swept += await order.task.halt(run.unfinished)
                if idempotent:
                    swept = await order.task.sweep(order.here, mine)
                    if pause is not None and any(isinstance(line, Staying) for line in swept):
                        await asyncio.sleep(pause)
                        continue
                    run.swept += swept
                break
            except (PgtendError, psycopg.Error, TimeoutError, OSError) as error:
                text = error.message if isinstance(error, PgtendError) else str(error).strip() or type(error).__name__
                if pause is not None and not (isinstance(error, PgtendError) and error.reason in _SAID_NO):
                    await asyncio.sleep(pause)
                    continue
                log.warning("leftovers not looked for", extra={"object": str(order.holder), "cause": text})
                if idempotent:
                    run.swept += (f"leftovers not looked for: {text}",)
                break
        for item in run.unfinished:
            run.results[item.object] = ItemResult(outcome=Outcome.CANCELLED, message=run.message[:256])


def with_running(state: State, others: tuple[RunningItem, ...]) -> State:
    """The state with work of our own added to what is busy."""
    return replace(state, busy=replace(state.busy, running=(*state.busy.running, *others)))


async def _cancelled(work: asyncio.Task[None]) -> None:
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
