"""From readings to verdicts, pure: the same input gives the same conditions, in a test as at 3 a.m."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pgtend.api.conditions import Verdict
from pgtend.api.postgrestarget import (
    Blocking,
    Lag,
    MemberStatus,
    MissingPrivilege,
    TargetSpec,
    TargetStatus,
)
from pgtend.api.reasons import TargetReason as R
from pgtend.api.types import format_bytes, format_duration
from pgtend.core.errors import PgtendError
from pgtend.core.findings import Finding
from pgtend.server.standing import Standing
from pgtend.targets.identity import IdentityVerdict, judge_identity
from pgtend.targets.judge_pooler import judge_pooler
from pgtend.targets.judge_replication import GRANT_MONITOR, judge_replication, lag_of
from pgtend.targets.judge_sessions import judge_sessions
from pgtend.targets.judge_upkeep import judge_slots, judge_upkeep
from pgtend.targets.memory import Memory, shown_identity
from pgtend.targets.reading import PoolerReading, Reading

HEALTH = (
    "ReplicationHealthy",
    "ConnectionsHealthy",
    "PoolHealthy",
    "QueriesHealthy",
    "LocksHealthy",
    "WraparoundSafe",
    "ArchivingHealthy",
    "BackedUp",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    status: TargetStatus
    verdicts: tuple[Verdict, ...]
    standing: Standing
    lags: Mapping[str, float]


def judge(
    *,
    spec: TargetSpec,
    readings: Sequence[Reading],
    memory: Memory,
    now: datetime,
    pooler: PoolerReading | None = None,
    refused: PgtendError | None = None,
    backups: Finding | None = None,
) -> Judgement:
    """One probe's verdicts. `refused` is why the target is not accepted (a duplicate); `backups` is what its policies
    say, None where it has none. Updates `memory`."""
    verdict = judge_identity(
        readings=readings, recorded=memory.recorded, token=memory.token, accepted=spec.accept_identity
    )
    memory.recorded, memory.token = verdict.recorded, verdict.token
    standing = verdict.standing
    primary = next((r for r in readings if r.member == standing.primary), None)
    if primary is not None:
        memory.saw(primary, now)
    lags = {
        r.member: lag_of(r, primary, memory, now)
        for r in readings
        if primary is not None and r.error is None and r.in_recovery
    }
    accepted = (
        Verdict("Accepted", "True", R.ACCEPTED, "spec is valid")
        if refused is None
        else Verdict("Accepted", "False", _reason(refused), refused.message, refused.object)
    )
    reachable = _reachable(spec, readings)
    replication = judge_replication(
        spec=spec, readings=readings, primary=primary, identity=verdict, lags=lags, memory=memory, now=now
    )
    slot = judge_slots(spec=spec, readings=readings, grades=memory.grades, now=now)
    if slot is not None and replication.status != "False":
        replication = slot
    ready = _ready(spec, readings, standing, refused, reachable)
    sessions, trees = judge_sessions(spec=spec, readings=readings, grades=memory.grades, now=now)
    pool = judge_pooler(spec=spec, reading=pooler, grades=memory.grades, now=now)
    connections, queries, locks = sessions
    wraparound, archiving = judge_upkeep(spec=spec, primary=primary, grades=memory.grades, now=now)
    verdicts = (
        accepted,
        reachable,
        replication,
        connections,
        pool,
        queries,
        locks,
        wraparound,
        archiving,
        _backed_up(backups),
        ready,
    )
    return Judgement(
        status=_status(spec, readings, verdict, lags, verdicts, trees),
        verdicts=verdicts,
        standing=standing if refused is None or spec.mode == "Observe" else _refuse(standing, refused),
        lags={name: seconds for name, (seconds, _) in lags.items()},
    )


def _refuse(standing: Standing, refusal: PgtendError) -> Standing:
    return Standing(primary=None, identity=standing.identity, refusal=refusal)


def suspended(spec: TargetSpec) -> tuple[Verdict, ...]:
    """The verdicts of a target that is not looked at."""
    text = "spec.suspend is true: not probed"
    return (
        Verdict("Accepted", "True", R.ACCEPTED, "spec is valid"),
        Verdict("Reachable", "Unknown", R.SUSPENDED, text, negligible=True),
        *(Verdict(name, "Unknown", R.SUSPENDED, text, negligible=True) for name in HEALTH),
        Verdict("Ready", "True", R.SUSPENDED, text),
    )


def invalid(problem: str) -> tuple[Verdict, ...]:
    """The verdicts of a spec that does not parse."""
    text = "not probed; see Accepted"
    return (
        Verdict("Accepted", "False", R.INVALID_SPEC, problem),
        Verdict("Reachable", "Unknown", R.NOT_PROBED, text, negligible=True),
        *(Verdict(name, "Unknown", R.NOT_PROBED, text, negligible=True) for name in HEALTH),
        Verdict("Ready", "False", R.INVALID_SPEC, "the spec does not parse; see Accepted"),
    )


def _backed_up(found: Finding | None) -> Verdict:
    if found is None:
        text = "no PostgresBackupPolicy names this target"
        return Verdict("BackedUp", "Unknown", R.NO_POLICY, text, negligible=True)
    return Verdict(found.condition, found.status, found.reason, found.message, found.object)


def _reachable(spec: TargetSpec, readings: Sequence[Reading]) -> Verdict:
    down = [r for r in readings if r.error is not None]
    total = len(readings)
    if not down:
        return Verdict("Reachable", "True", R.CONNECTED, f"{total} of {total} members answer")
    first = down[0]
    assert first.error is not None  # noqa: S101 - narrowed by the list above
    text = f"{total - len(down)} of {total} members answer: {first.error.message}"
    if len(down) > 1:
        text += f"; and {', '.join(r.member for r in down[1:])}"
    return Verdict("Reachable", "False", _reason(first.error), text, first.member)


def _ready(
    spec: TargetSpec,
    readings: Sequence[Reading],
    standing: Standing,
    refused: PgtendError | None,
    reachable: Verdict,
) -> Verdict:
    if refused is not None:
        return Verdict("Ready", "False", _reason(refused), "not tended; see Accepted", negligible=True)
    if standing.refusal is not None:
        error = standing.refusal
        all_down = all(r.error is not None for r in readings)
        if all_down:
            return Verdict("Ready", "False", reachable.reason, "no member is reached; see Reachable", negligible=True)
        return Verdict("Ready", "False", _reason(error), error.message, error.object)
    user = spec.credentials.monitor.username or "pgtend_monitor"
    text = f"primary {standing.primary} reached as {user}"
    if spec.mode == "Observe":
        return Verdict("Ready", "True", R.OBSERVING, f"{text}; nothing is written before spec.mode is Enforce")
    return Verdict("Ready", "True", R.IN_FORCE, text)


def _status(
    spec: TargetSpec,
    readings: Sequence[Reading],
    identity: IdentityVerdict,
    lags: Mapping[str, tuple[float, int]],
    verdicts: Sequence[Verdict],
    trees: tuple[Blocking, ...],
) -> TargetStatus:
    standing = identity.standing
    primary = next((r for r in readings if r.member == standing.primary), None)
    worst_lag = max((seconds for seconds, _ in lags.values()), default=None)
    user = spec.credentials.monitor.username or "pgtend_monitor"
    blind = any(r.error is None and not r.sees_stats for r in readings)
    return TargetStatus(
        health=health(verdicts),
        server_version=primary.version if primary else next((r.version for r in readings if r.version), None),
        identity_token=identity.token,
        identity=shown_identity(identity.recorded),
        primary=standing.primary,
        replication_lag=_shown(worst_lag) if worst_lag is not None else None,
        members=tuple(_member(r, standing.primary, lags.get(r.member)) for r in readings),
        blocking=trees,
        missing_privileges=(
            MissingPrivilege(
                credential="monitor", feature="Sessions and replication", sql=GRANT_MONITOR.format(user=user)
            ),
        )
        if blind
        else (),
    )


def _member(reading: Reading, primary: str | None, lag: tuple[float, int] | None) -> MemberStatus:
    if reading.error is not None:
        return MemberStatus(name=reading.member, role="Unknown")
    timeline = str(reading.timeline) if reading.timeline else None
    if not reading.in_recovery:
        state = None if reading.member == primary else "NotFollowed"
        return MemberStatus(name=reading.member, role="Primary", timeline=timeline, state=state)
    state = "Streaming" if reading.has_receiver else "NotStreaming"
    return MemberStatus(
        name=reading.member,
        role="Standby",
        timeline=timeline,
        state=state if reading.sees_stats else None,
        lag=Lag(time=_shown(lag[0]), size=format_bytes(lag[1])) if lag else None,
    )


def _shown(seconds: float) -> str:
    """Below one second it never moves."""
    return "<1s" if seconds < 1 else format_duration(seconds)


def health(verdicts: Sequence[Verdict]) -> Literal["Healthy", "Warning", "Critical", "Unknown"]:
    """One word for the board: the worst of all conditions but Accepted."""
    rest = [v for v in verdicts if v.type != "Accepted" and not v.negligible]
    bad = [v for v in rest if v.status == "False"]
    if any(not v.reason.endswith("Warning") for v in bad):
        return "Critical"
    if bad:
        return "Warning"
    return "Unknown" if any(v.status == "Unknown" for v in rest) else "Healthy"


def _reason(error: PgtendError) -> R:
    return R(error.reason)
