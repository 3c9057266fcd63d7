"""DatabaseUser's controller: who is admitted to which target, then one pass per target, then the statuses. Thin."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from pgtend.api.databaseuser import DATABASE_USER, UserSpec
from pgtend.api.reasons import TargetReason
from pgtend.api.reasons import UserReason as R
from pgtend.core.clock import Clock
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.engine.loop import Outcome
from pgtend.kube.client import ApiError, Conflict, Invalid, KubeClient, NotFound
from pgtend.kube.events import EventRecorder
from pgtend.kube.index import Index, Record
from pgtend.kube.secrets import SecretReader
from pgtend.kube.status import Draft, StatusWriter
from pgtend.server.ledger import Abandoned, Ledger
from pgtend.server.registry import Registry
from pgtend.server.server import Server
from pgtend.telemetry.metrics import METRICS
from pgtend.users import judge as judges
from pgtend.users.admission import Admitted, Refusal
from pgtend.users.case import Case
from pgtend.users.departures import Departures
from pgtend.users.door import Door, Labels, Target, problem_of
from pgtend.users.finalize import Finisher
from pgtend.users.judge import Judged
from pgtend.users.keeper import Keeper
from pgtend.users.pace import Pace
from pgtend.users.rotation import schedule_problem
from pgtend.users.state import Problem
from pgtend.users.tend import Tender, at_once
from pgtend.users.wanted import role_name, target_key, wanted
from pgtend.users.withdrawal import Withdrawer

log = logging.getLogger(__name__)
FIGURES = frozenset({"remainingSessions", "effective"})
INTERVAL = 300.0
PATIENCE = 30.0
"""Seconds for which a target that fails is not yet a reason to say so on users that were well: a failover is shorter,
and each of a thousand users would be written twice."""
FIRST_PROBE = 15.0
SOON = 0.2
BRAKED = 5.0
ROTATING = 0.5
ANOTHER_TURN = 30.0

MEASURED = frozenset({"Ready", "InSync", "RotationCurrent"})
"""Conditions that people alert on; there are many users."""


class UserController:
    """`watched` are the namespaces that the operator sees (none: all); `labels_of` gives the labels of one (None where
    they may not be read). `depend` is told what a user depends on, and `wake` what is due at once."""

    def __init__(
        self,
        *,
        client: KubeClient,
        index: Index,
        registry: Registry,
        status: StatusWriter,
        events: EventRecorder,
        secrets: SecretReader,
        ledger: Ledger,
        installation: str,
        labels_of: Labels,
        watched: frozenset[str],
        clock: Clock,
        braked: Callable[[], bool],
        depend: Callable[[ObjectKey, Iterable[ObjectKey]], None],
        wake: Callable[[ObjectKey], None],
    ) -> None:
        self._index, self._registry = index, registry
        self._status, self._events = status, events
        self._clock, self._depend, self._wake = clock, depend, wake
        self._door = Door(index=index, registry=registry, labels_of=labels_of, watched=watched)
        keeper = Keeper(client=client, secrets=secrets, installation=installation, clock=clock)
        self._installation = installation
        self._pace = Pace(clock)
        self._tender = Tender(
            client=client, index=index, keeper=keeper, installation=installation, clock=clock, pace=self._pace
        )
        self._withdrawer = Withdrawer(
            looker=self._tender.looker, events=events, installation=installation, clock=clock, pace=self._pace
        )
        finisher = Finisher(
            client=client,
            keeper=keeper,
            ledger=ledger,
            status=status,
            looker=self._tender.looker,
            installation=installation,
            clock=clock,
            pace=self._pace,
        )
        self._departures = Departures(
            door=self._door,
            finisher=finisher,
            ledger=ledger,
            clock=clock,
            braked=braked,
            depend=depend,
            wake=wake,
        )
        self._troubled: dict[ObjectKey, float] = {}
        self._stumbled: set[ObjectKey] = set()
        # what a user was when it was last judged, and when the wheel brings it round again
        self._planned: dict[ObjectKey, tuple[str, float]] = {}

    async def start(self) -> None:
        """Take up what earlier objects left behind."""
        await self._departures.start()

    async def reconcile(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        """Raises kube.client.ApiError where the API server is away."""
        outcomes: dict[ObjectKey, Outcome] = {}
        groups: dict[ObjectKey, list[Record]] = {}
        lacks: list[Abandoned] = []
        lives: list[ObjectKey] = []
        for key in keys:
            record = self._index.get(key)
            if record is None:
                outcomes[key] = await self._gone(key, lacks)
            elif record.spec_error is not None:
                outcomes[key] = await self._invalid(record, record.spec_error)
            else:
                target = target_key(key, record.parsed(UserSpec))
                self._depend(key, [target])
                if not record.deleting:
                    lives.append(key)
                groups.setdefault(target, []).append(record)
        await self._departures.settled(lives=lives, lacks=lacks)
        for target, records in groups.items():
            outcomes |= await self._on_target(self._door.target(target), records)
        await self._registry.settle()
        return outcomes

    async def _on_target(self, target: Target, records: Sequence[Record]) -> dict[ObjectKey, Outcome]:
        outcomes: dict[ObjectKey, Outcome] = {}
        judged: list[tuple[Record, Judged, Outcome]] = []
        cases: list[Case] = []
        withdrawn: list[tuple[Record, Refusal]] = []
        tick = self._tick(target.key)
        if target.refusal is not None:
            self._tender.forget(target.key)
        for record in records:
            spec = record.parsed(UserSpec)
            role, status = role_name(record.key, spec), record.status
            if record.deleting:
                outcomes[record.key] = await self._finish(record, spec, target)
                continue
            admitted = await self._door.admit(record, spec, target)
            if isinstance(admitted, Admitted) and (wrong := schedule_problem(spec, self._clock.now())) is not None:
                admitted = Refusal(reason=R.INVALID_SCHEDULE, about="rotation", what=wrong, next_step="correct it")
            if isinstance(admitted, Refusal) and admitted.withdrawn:
                withdrawn.append((record, admitted))
            elif spec.suspend:
                judged.append((record, judges.suspended(role=role, previous=status), Outcome()))
            elif isinstance(admitted, Refusal):
                verdict = judges.refused(admitted, role=role, previous=status, now=self._clock.now())
                judged.append((record, verdict, Outcome(again=tick, jitter=False)))
            elif target.problem is not None or target.server is None:
                outcomes[record.key] = self._in_trouble(target, record, admitted, judged)
            else:
                cases.append(self._case(record, spec, target, admitted))
        if withdrawn:
            await self._withdrawn(target, withdrawn, judged, tick)
        if cases and target.server is not None:
            await self._tend(target, target.server, cases, judged, outcomes, tick)
        done = await at_once(self._write(record, verdict, outcome) for record, verdict, outcome in judged)
        for (record, _, _), outcome in zip(judged, done, strict=True):
            outcomes[record.key] = outcome
        return outcomes

    async def _withdrawn(
        self,
        target: Target,
        refused: Sequence[tuple[Record, Refusal]],
        judged: list[tuple[Record, Judged, Outcome]],
        tick: float,
    ) -> None:
        """Whom the target does not admit any more."""
        for done in await self._withdrawer.settle(target, refused):
            outcome = Outcome(again=min(tick, done.due) if done.due is not None else tick, jitter=False)
            if done.problem is not None:
                outcome = self._next([done.problem], target.key, tick)
            judged.append((done.record, done.judged, outcome))

    async def _tend(
        self,
        target: Target,
        server: Server,
        cases: list[Case],
        judged: list[tuple[Record, Judged, Outcome]],
        outcomes: dict[ObjectKey, Outcome],
        tick: float,
    ) -> None:
        names = {case.key: (case.wanted.role, *case.others) for case in cases}
        rivals = await self._door.rivals(target, {role for roles in names.values() for role in roles})
        for case in cases:
            case.rivals = {role: tuple(r for r in rivals[role] if r.key != case.key) for role in names[case.key]}
            case.lives = partial(self._door.lives, role=case.wanted.role, target=target.key)
        steady = all(case.steady for case in cases)
        try:
            await self._tender.tend(
                server, cases, everybody=(lambda: self._door.everybody(target.key)) if steady else None
            )
        except PgtendError as error:
            broken = Target(key=target.key, spec=target.spec, problem=problem_of(error))
            self._wake(target.key)
            for case in cases:
                outcomes[case.key] = self._in_trouble(broken, case.record, case.admitted, judged)
            return
        self._troubled.pop(target.key, None)
        now = self._clock.monotonic()
        for case in cases:
            if case.error is not None:
                outcomes[case.key] = _after(case.error)
                continue
            trouble = case.trouble
            if any(p.reason is TargetReason.NOT_LEADING for p in trouble) or self._stumbles(case):
                outcomes[case.key] = Outcome(failed=True)
                continue
            if case.failed is not None and case.failed.transient:
                self._wake(target.key)
            assert case.judged is not None  # noqa: S101 - every case ends in a verdict or an error
            # whose login was not reached in its turn of the wheel has another
            turn = min(tick, ANOTHER_TURN) if case.left else tick
            wait = turn if case.again is None else max(ROTATING, min(turn, case.again))
            judged.append((case.record, case.judged, self._next(trouble, target.key, wait)))
            self._planned[case.key] = (case.record.resource_version, now + turn)
            await self._tell(case)

    def _stumbles(self, case: Case) -> bool:
        """Whether it failed for the first time in a way that may pass by itself (a lock, a deadlock, a session that was
        ended): that is tried again before anybody is told."""
        if case.failed is None or case.failed.reason != R.WRITE_FAILED:
            self._stumbled.discard(case.key)
            return False
        first = case.key not in self._stumbled
        self._stumbled.add(case.key)
        return first

    async def _write(self, record: Record, judged: Judged, outcome: Outcome) -> Outcome:
        try:
            draft = Draft(status=judged.status, verdicts=judged.verdicts, figures=FIGURES)
            written = await self._status.write(DATABASE_USER, record, draft)
        except Conflict:
            return Outcome(again=SOON, jitter=False)
        except NotFound:
            return Outcome()
        except ApiError as error:
            log.warning("status not written", extra={"object": str(record.key), "cause": str(error)})
            return Outcome(failed=True)
        planned = self._planned.get(record.key)
        if planned is not None:
            self._planned[record.key] = (written.resource_version, planned[1])
        METRICS.conditions.tell(record.key, (v for v in judged.verdicts if v.type in MEASURED))
        return outcome

    async def _tell(self, case: Case) -> None:
        """Events for what a status that says that all is well does not show: an adoption, a drift set right."""
        if case.adopted is not None:
            await self._events.say(case.record, reason="RoleAdopted", note=case.adopted.message, warning=False)
            log.info("role adopted", extra={"object": str(case.key), "role": case.wanted.role})
            return
        if case.spec.source == "Generate" and (case.rotated or case.refused is not None):
            await self._tell_rotation(case)
        if case.corrected and case.record.status.get("observedGeneration") == case.record.generation:
            shown = "; ".join(case.corrected[:5])
            note = f"{judges.number(len(case.corrected), 'difference')} set right: {shown}"
            await self._events.say(case.record, reason="DriftCorrected", note=note, warning=False)
            log.info("drift corrected", extra={"object": str(case.key), "differences": len(case.corrected)})

    async def _tell_rotation(self, case: Case) -> None:
        strategy = case.spec.rotation.strategy if case.spec.rotation is not None else "InPlace"
        METRICS.rotations.labels(strategy, "refused" if case.refused is not None else "done").inc()
        if case.refused is not None or case.kept is None:
            return  # a condition, whose transition is an event
        note = f"Secret {case.kept.name} has another password since {case.kept.changed_at}, of login {case.kept.login}"
        await self._events.say(case.record, reason="PasswordRotated", note=note, warning=False)
        log.info("password rotated", extra={"object": str(case.key), "login": case.kept.login})

    def _case(self, record: Record, spec: UserSpec, target: Target, admitted: Admitted) -> Case:
        observing = "this object" if spec.mode == "Observe" else None
        if target.spec is not None and target.spec.mode == "Observe":
            observing = f"target {target.key}"
        return Case(
            record=record,
            spec=spec,
            wanted=wanted(record.key, spec, installation=self._installation),
            admitted=admitted,
            steady=self._is_steady(record),
            observing=observing,
        )

    # When not all is well

    def _in_trouble(
        self,
        target: Target,
        record: Record,
        admitted: Admitted,
        judged: list[tuple[Record, Judged, Outcome]],
    ) -> Outcome:
        """A target that fails for a moment is waited for; then each of its users says so."""
        problem = target.problem
        assert problem is not None  # noqa: S101 - that is why we are here
        now = self._clock.monotonic()
        lasted = now - self._troubled.setdefault(target.key, now)
        was_well = any(c["type"] == "Ready" and c["status"] == "True" for c in record.status.get("conditions") or ())
        patience = FIRST_PROBE if target.waiting else PATIENCE if was_well else 0.0
        outcome = Outcome(again=60.0)
        if lasted < patience:
            return Outcome(again=min(5.0, patience - lasted + 0.5), jitter=False)
        verdict = judges.unreachable(
            problem,
            admitted,
            target=str(target.key),
            role=role_name(record.key, record.parsed(UserSpec)),
            previous=record.status,
        )
        judged.append((record, verdict, outcome))
        return outcome

    async def _invalid(self, record: Record, problem: str) -> Outcome:
        if record.deleting:
            return await self._departures.let_go(record)
        return await self._write(record, judges.invalid(problem, previous=record.status), Outcome())

    async def _finish(self, record: Record, spec: UserSpec, target: Target) -> Outcome:
        try:
            return await self._departures.finish(record, spec, target)
        except (Conflict, Invalid) as error:
            return _after(error)

    async def _gone(self, key: ObjectKey, lacks: list[Abandoned]) -> Outcome:
        """The object is no more; what it left behind may still be there."""
        self._tender.forget(key)
        self._planned.pop(key, None)
        self._stumbled.discard(key)
        METRICS.forget(key)
        return await self._departures.gone(key, lacks)

    # The wheel

    def _tick(self, target: ObjectKey) -> float:
        """Seconds until the users of this target are due again: all at once, so that one look serves them, and each
        target at a moment of its own."""
        phase = zlib.crc32(str(target).encode()) % INTERVAL
        wait = INTERVAL - (self._clock.monotonic() + phase) % INTERVAL
        return wait if wait > 30.0 else wait + INTERVAL

    def _next(self, trouble: Sequence[Problem], target: ObjectKey, tick: float) -> Outcome:
        """When to look again: at the wheel's turn, soon while the brake is on or a turn is waited for, with growing
        pauses where that may help."""
        if any(p.reason is R.TOO_MANY_AT_ONCE for p in trouble):
            return Outcome(again=self._pace.wait(target), jitter=False)
        if any(p.reason is TargetReason.BRAKE_ON for p in trouble):
            return Outcome(again=BRAKED)
        return Outcome(failed=True) if any(p.transient for p in trouble) else Outcome(again=tick, jitter=False)

    def _is_steady(self, record: Record) -> bool:
        """Whether it is due by the clock alone: nobody has touched it since it was judged."""
        planned = self._planned.get(record.key)
        return (
            planned is not None
            and planned[0] == record.resource_version
            and self._clock.monotonic() >= planned[1] - 1.0
        )


def _after(error: ApiError) -> Outcome:
    """An object that changed under us is looked at again at once; after anything else there are pauses."""
    again = isinstance(error, Conflict | NotFound)
    return Outcome(again=SOON, jitter=False) if again else Outcome(failed=True)
