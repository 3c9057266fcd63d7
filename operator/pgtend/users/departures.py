"""Users whose object is being deleted or is gone: where the target is to them, and what of the ledger is to be tried.

The work on a server has a lane of its own, which is the target's: what an object left behind moves to another lane
where it can be undone by another target of that server than it was made by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from pgtend.api.databaseuser import UserSpec
from pgtend.api.reasons import UserReason as R
from pgtend.core.clock import Clock
from pgtend.core.findings import ObjectKey
from pgtend.engine.loop import Outcome
from pgtend.kube.index import Record
from pgtend.server.ledger import Abandoned, Ledger
from pgtend.users.admission import Admitted, Refusal
from pgtend.users.door import Door, Target
from pgtend.users.finalize import Finisher, Situation
from pgtend.users.state import Problem
from pgtend.users.undoing import lacking

SOON = 0.2
RETURN_SECONDS = 600.0
"""For how long after a start an object that lived when pgtend was uninstalled is waited for: whoever installs anew may
bring back his objects after the operator."""
LACKING = 15.0
"""Seconds between two looks, into memory only, for a target of a server on which something is left."""


class Departures:
    """`depend` is told what a user depends on, and `wake` what is due at once."""

    def __init__(
        self,
        *,
        door: Door,
        finisher: Finisher,
        ledger: Ledger,
        clock: Clock,
        braked: Callable[[], bool],
        depend: Callable[[ObjectKey, Iterable[ObjectKey]], None],
        wake: Callable[[ObjectKey], None],
    ) -> None:
        self._door, self._finisher, self._ledger = door, finisher, ledger
        self._depend, self._wake, self._clock, self._braked = depend, wake, clock, braked
        self._began = clock.monotonic()
        # what was left behind and can be undone by another target than it was made by
        self._moved: dict[ObjectKey, ObjectKey] = {}

    async def start(self) -> None:
        """Take up what earlier objects left behind."""
        self._began = self._clock.monotonic()
        await self._ledger.load()
        for entry in self._ledger.entries():
            self._depend(entry.key, [entry.target_key])
            if entry.retry:
                self._wake(entry.key)

    async def finish(self, record: Record, spec: UserSpec, target: Target) -> Outcome:
        """One step towards the end of an object that is being deleted. Raises kube.client.ApiError."""
        last = self._door.last(target)
        admitted = await self._door.admit(record, spec, last)
        situation = _situation(spec, last, admitted)
        return await self._finisher.finish(record, spec, replace(situation, system=self._door.system(last)))

    async def let_go(self, record: Record) -> Outcome:
        """One whose spec does not parse."""
        return await self._finisher.let_go(record)

    async def gone(self, key: ObjectKey, lacks: list[Abandoned]) -> Outcome:
        """The object is no more; what it left behind may still be there. What lacks a credential joins `lacks`."""
        entry = self._ledger.get(key)
        if entry is None:
            self._depend(key, ())
            self._moved.pop(key, None)
            return Outcome()
        early = RETURN_SECONDS - (self._clock.monotonic() - self._began)
        if entry.lived and entry.retry and early > 0:
            return Outcome(again=early, jitter=False)
        target, lacking_one = self._door.where(entry) if entry.retry else (None, False)
        place = target.key if target is not None else entry.target_key
        if self._moved.get(key, entry.target_key) != place:
            # the work on a target has a lane of its own
            self._moved[key] = place
            self._depend(key, [place])
            return Outcome(again=SOON, jitter=False)
        if lacking_one:
            lacks.append(entry)
        if target is None:
            return Outcome(again=LACKING if entry.retry else None)
        situation = Situation(target=target.key, server=target.server, trouble=target.problem)
        return await self._finisher.retry(entry, situation)

    async def settled(self, *, lives: Iterable[ObjectKey], lacks: Iterable[Abandoned]) -> None:
        """Who lives has left nothing behind; what lacks a credential says so. Under the brake nothing is taken out:
        what an uninstallation has just written is for after it."""
        if not self._braked():
            await self._ledger.remove(*lives)
        await self._ledger.add(*(told for entry in lacks if (told := lacking(entry)) != entry))


def _situation(spec: UserSpec, target: Target, admitted: Admitted | Refusal) -> Situation:
    if target.refusal is not None:
        why = Problem(reason=target.refusal.reason, message=target.refusal.what)
        return Situation(target=target.key, trouble=why, gone=True)
    if isinstance(admitted, Refusal):
        return Situation(target=target.key, never=Problem(reason=admitted.reason, message=admitted.what))
    if spec.mode == "Observe" or (target.spec is not None and target.spec.mode == "Observe"):
        return Situation(target=target.key, never=Problem(reason=R.OBSERVING, message="mode is Observe"))
    return Situation(target=target.key, server=target.server, trouble=target.problem)
