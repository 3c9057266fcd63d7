"""PostgresTarget's controller: probe, judge, remember, write. Thin: what is decided is decided in judge.py."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from pgtend.api.base import GROUP, VERSION
from pgtend.api.conditions import Verdict
from pgtend.api.postgrestarget import POSTGRES_TARGET, Member, TargetSpec
from pgtend.api.reasons import TargetReason
from pgtend.core.clock import Clock
from pgtend.core.errors import PgtendError
from pgtend.core.findings import Finding, ObjectKey
from pgtend.core.names import application_name
from pgtend.engine.loop import Outcome
from pgtend.kube.client import ApiError, KubeClient, Resource
from pgtend.kube.index import Index, Record, record_of
from pgtend.kube.secrets import SecretReader
from pgtend.kube.status import Draft, StatusWriter
from pgtend.postgres.purposes import Purpose
from pgtend.server.registry import Registry
from pgtend.server.server import Server
from pgtend.server.standing import Standing
from pgtend.targets import judge as judges
from pgtend.targets.hold import FINALIZER, finalizers, holds, without
from pgtend.targets.judge import Judgement
from pgtend.targets.memory import Memory, memory_from, on_record
from pgtend.targets.observe import read_member
from pgtend.targets.pace import IMPATIENT, Pace
from pgtend.targets.pooler import read_pooler
from pgtend.targets.reading import PoolerReading, Reading
from pgtend.telemetry.metrics import METRICS

log = logging.getLogger(__name__)
# a member's role is no figure: who is primary and who is down is told at once
FIGURES = frozenset({"identity", "replicationLag", "members.lag", "members.state", "members.timeline", "blocking"})
# seconds for the second try, after a session turned out to be dead
RETRY_SECONDS = 3.0
# seconds between two looks at a target that is being deleted, and at who needs it still
GOING = 3.0
TARGETS = Resource(GROUP, VERSION, POSTGRES_TARGET.plural)


class TargetController:
    """`standing_changed` is called with the target's key when what its dependents may do has changed. `holders` gives
    the objects with a finalizer of their own that need a target to undo what they made, `backups` what a target's
    backups say of it."""

    def __init__(
        self,
        *,
        client: KubeClient,
        index: Index,
        registry: Registry,
        status: StatusWriter,
        secrets: SecretReader,
        installation: str,
        clock: Clock,
        standing_changed: Callable[[ObjectKey], None],
        holders: Callable[[ObjectKey], Sequence[Record]],
        braked: Callable[[], bool],
        backups: Callable[[ObjectKey], Finding | None],
    ) -> None:
        self._client, self._holders, self._braked, self._backups = client, holders, braked, backups
        # of each that is being deleted and held: since when we know of it
        self._going: dict[ObjectKey, float] = {}
        self._index, self._registry, self._status, self._clock = index, registry, status, clock
        self._secrets, self._installation = secrets, installation
        self._changed = standing_changed
        # with the uid: an object made again under the same name is another one
        self._memory: dict[ObjectKey, tuple[str, Memory]] = {}
        self._pace: defaultdict[ObjectKey, Pace] = defaultdict(Pace)
        self._lagging: dict[ObjectKey, frozenset[str]] = {}
        # (system identifier, start of the primary) -> targets that have it, and the other way round
        self._servers: dict[tuple[str, str], set[ObjectKey]] = {}
        self._server_of: dict[ObjectKey, tuple[tuple[str, str], ...]] = {}
        # whom this process has looked at, and who waits for an older one that it has not
        self._probed: set[ObjectKey] = set()
        self._waiting: set[ObjectKey] = set()

    async def reconcile(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        return {key: await self._one(key) for key in keys}

    async def _one(self, key: ObjectKey) -> Outcome:
        record = self._index.get(key)
        if record is None or (record.deleting and not await self._held(record)):
            await self._forget(key)
            return Outcome()
        if not record.deleting:
            return await self._look(await self._finalized(record))
        outcome = await self._look(record)
        return Outcome(again=min(outcome.again or GOING, GOING), jitter=False)

    async def _look(self, record: Record) -> Outcome:
        if record.spec_error is not None:
            return await self._rest(record, judges.invalid(record.spec_error))
        spec = record.parsed(TargetSpec)
        if spec.suspend:
            return await self._rest(record, judges.suspended(spec))
        return await self._probe(record, spec)

    async def _held(self, record: Record) -> bool:
        """Whether a target that is being deleted stays for those who have something to undo there; else it is let go.
        Raises ApiError."""
        if FINALIZER not in record.finalizers:
            return False
        now = self._clock.monotonic()
        if holds(self._holders(record.key), waited=now - self._going.setdefault(record.key, now)):
            self._registry.going(record.key)
            return True
        await self._set(record, without(record))
        return False

    async def _finalized(self, record: Record) -> Record:
        """With a finalizer where it is needed, without where it is not. It is no reason not to look at the target: what
        fails is tried again with the next probe."""
        wanted = finalizers(record, self._holders(record.key))
        # under the brake none is put back that an uninstallation has just released
        if wanted == record.finalizers or (self._braked() and FINALIZER in wanted):
            return record
        try:
            return await self._set(record, wanted)
        except ApiError as error:
            log.warning("finalizer not set", extra={"object": str(record.key), "cause": str(error)})
            return record

    async def _set(self, record: Record, wanted: tuple[str, ...]) -> Record:
        """A record that changed under us is refused by its version. Raises ApiError."""
        body = {"metadata": {"finalizers": list(wanted), "resourceVersion": record.resource_version}}
        answer = await self._client.merge_patch(TARGETS, record.key.namespace, record.key.name, body)
        made = record_of(POSTGRES_TARGET, answer)
        if not record.deleting:
            self._index.put(made)
        return made

    async def _rest(self, record: Record, verdicts: Sequence[Verdict]) -> Outcome:
        """Nobody looks. Identity and token stay on record, else another server could take the place unnoticed."""
        key = record.key
        memory = self._recall(record)
        if self._registry.find(key) is not None:
            await self._registry.rest(key)
            self._changed(key)
        status = on_record(memory, record.status)
        self._measure(key, verdicts, {})
        await self._status.write(POSTGRES_TARGET, record, Draft(status=status, verdicts=verdicts))
        return Outcome()

    def _recall(self, record: Record) -> Memory:
        uid, memory = self._memory.get(record.key, ("", None))
        if memory is None or uid != record.uid:
            memory = memory_from(record.status)
            self._memory[record.key] = (record.uid, memory)
        return memory

    async def _probe(self, record: Record, spec: TargetSpec) -> Outcome:
        key = record.key
        server = await self._registry.server(key, spec)
        memory = self._recall(record)
        readings, pooler = await asyncio.gather(
            asyncio.gather(*(self._read(server, member) for member in spec.members)), self._pooler(key, spec)
        )
        judgement = judges.judge(
            spec=spec,
            readings=readings,
            memory=memory,
            pooler=pooler,
            now=self._clock.now(),
            refused=self._duplicate(record, spec, readings),
            backups=self._backups(key),
        )
        self._settle(server, judgement)
        await self._registry.keep(key)
        draft = Draft(status=judgement.status, verdicts=judgement.verdicts, figures=FIGURES)
        self._measure(key, judgement.verdicts, judgement.lags)
        await self._status.write(POSTGRES_TARGET, record, draft)
        again = self._pace[key].next(
            primary=judgement.standing.primary,
            readings=readings,
            interval=spec.probe_interval.seconds,
            now=self._clock.monotonic(),
        )
        return Outcome(again=min(again, IMPATIENT) if key in self._waiting else again)

    async def _read(self, server: Server, member: Member) -> Reading:
        """Read one member; a session that turns out to be dead is replaced once, so that the reading tells why."""
        seconds = self._pace[server.key].patience(member.name)
        reading = await self._try(server, member, seconds)
        if reading.error is not None and reading.error.reason is TargetReason.PROBE_FAILED:
            return await self._try(server, member, min(seconds, RETRY_SECONDS))
        return reading

    async def _try(self, server: Server, member: Member, seconds: float) -> Reading:
        credential = server.spec.credentials.monitor
        try:
            async with (
                asyncio.timeout(seconds),
                server.session(member, purpose=Purpose.PROBE, role="monitor", credential=credential) as session,
            ):
                thresholds = server.spec.thresholds
                return await read_member(
                    session,
                    at=self._clock.now(),
                    query_floor=thresholds.query_duration.floor,
                    idle_floor=thresholds.idle_in_transaction.floor,
                    own=server.spec.credentials.roles,
                )
        except PgtendError as error:
            return Reading(member=member.name, error=error)
        except TimeoutError:
            text = f"{member.name} ({member.host}:{member.port}) does not answer: check network, firewall and load"
            return Reading(member=member.name, error=PgtendError(TargetReason.TIMED_OUT, text))

    async def _pooler(self, key: ObjectKey, spec: TargetSpec) -> PoolerReading | None:
        if spec.pooler is None:
            return None
        name = application_name(
            installation=self._installation, purpose="probe", namespace=key.namespace, name=key.name
        )
        return await read_pooler(
            spec=spec, pooler=spec.pooler, secrets=self._secrets, namespace=key.namespace, application_name=name
        )

    def _duplicate(self, record: Record, spec: TargetSpec, readings: Sequence[Reading]) -> PgtendError | None:
        """The younger of two targets of one server is refused, unless it only observes."""
        mine = tuple((r.system_identifier, r.started) for r in readings if r.writable)
        self._found(record.key, mine)
        self._probed.add(record.key)
        self._waiting.discard(record.key)
        if spec.mode == "Observe":
            return None
        for server in mine:
            for other_key in sorted(self._servers[server] - {record.key}):
                other = self._index.get(other_key)
                if other is None or (other.created, other.key) > (record.created, record.key):
                    continue
                return _is_younger(other_key, server[0])
        return self._unseen(record, spec, frozenset(system for system, _ in mine))

    def _unseen(self, record: Record, spec: TargetSpec, systems: frozenset[str]) -> PgtendError | None:
        """After a start the younger may be probed before the older, and must not write meanwhile: an older target waits
        to be looked at whose record names this system or, where it has none, whose members are at the same place."""
        places = {(member.host, member.port) for member in spec.members}
        for other in self._index.of_kind(record.key.kind) if systems else ():
            if other.key in self._probed or (other.created, other.key) >= (record.created, record.key):
                continue
            if other.deleting or other.spec_error is not None:
                continue
            theirs = other.parsed(TargetSpec)
            if theirs.suspend:
                continue
            identity = memory_from(other.status).recorded
            if identity is not None and identity.system_identifier in systems:
                self._waiting.add(record.key)
                return _is_younger(other.key, identity.system_identifier)
            if identity is None and places & {(member.host, member.port) for member in theirs.members}:
                self._waiting.add(record.key)
                text = f"PostgresTarget {other.key} is older, names the same host and port, and is still to be probed"
                return PgtendError(TargetReason.NOT_PROBED, text, object=str(other.key))
        return None

    def _settle(self, server: Server, judgement: Judgement) -> None:
        before, after = server.standing, judgement.standing
        server.standing = after
        if _what_matters(before) != _what_matters(after):
            self._changed(server.key)

    def _found(self, key: ObjectKey, servers: tuple[tuple[str, str], ...]) -> None:
        for server in self._server_of.pop(key, ()):
            self._servers[server].discard(key)
            if not self._servers[server]:
                del self._servers[server]
        for server in servers:
            self._servers.setdefault(server, set()).add(key)
        if servers:
            self._server_of[key] = tuple(dict.fromkeys(servers))

    def _measure(self, key: ObjectKey, verdicts: Sequence[Verdict], lags: Mapping[str, float]) -> None:
        METRICS.conditions.tell(key, verdicts)
        for member in self._lagging.get(key, frozenset()) - lags.keys():
            # what is not known any more must not stand there as the last known
            METRICS.lag.remove(key.namespace, key.name, member)
        for member, seconds in lags.items():
            METRICS.lag.labels(key.namespace, key.name, member).set(seconds)
        self._lagging[key] = frozenset(lags)

    async def _forget(self, key: ObjectKey) -> None:
        self._memory.pop(key, None)
        self._pace.pop(key, None)
        self._lagging.pop(key, None)
        self._probed.discard(key)
        self._waiting.discard(key)
        self._going.pop(key, None)
        self._found(key, ())
        await self._registry.retire(key)
        METRICS.forget(key)
        self._changed(key)


def _is_younger(older: ObjectKey, system: str) -> PgtendError:
    text = (
        f"PostgresTarget {older} is older and tends the same server (system {system}): delete one of the two, or set"
        " mode: Observe here"
    )
    return PgtendError(TargetReason.DUPLICATE_SERVER, text, object=str(older), transient=False)


def _what_matters(standing: Standing | None) -> tuple[object, ...]:
    """What of a standing its dependents act on."""
    if standing is None:
        return ()
    refusal = standing.refusal.reason if standing.refusal else None
    identity = (standing.identity.system_identifier, standing.identity.timeline) if standing.identity else None
    return (standing.primary, identity, refusal, standing.primary_started)
