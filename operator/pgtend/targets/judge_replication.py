"""ReplicationHealthy: who streams, who is late and since when, who does not answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pgtend.api.conditions import Verdict
from pgtend.api.postgrestarget import LagThreshold, TargetSpec
from pgtend.api.reasons import TargetReason as R
from pgtend.api.types import format_bytes, format_duration
from pgtend.core.clock import rfc3339
from pgtend.targets.identity import IdentityVerdict
from pgtend.targets.memory import Memory
from pgtend.targets.reading import Reading

GRANT_MONITOR = "GRANT pg_monitor TO {user}"


def judge_replication(
    *,
    spec: TargetSpec,
    readings: Sequence[Reading],
    primary: Reading | None,
    identity: IdentityVerdict,
    lags: Mapping[str, tuple[float, int]],
    memory: Memory,
    now: datetime,
) -> Verdict:
    """Worst first: stale primaries, standbys that do not answer, lag, receivers that are gone."""
    name = "ReplicationHealthy"
    if len(spec.members) == 1:
        return Verdict(name, "True", R.NO_STANDBY, "one member: there is nothing to replicate to")
    if identity.stale:
        who = identity.stale[0]
        return Verdict(name, "False", R.STALE_MEMBER, f"{who}: {R.STALE_MEMBER.meaning} {R.STALE_MEMBER.remedy}", who)
    if primary is None:
        return Verdict(name, "Unknown", R.NOT_REACHED, "no primary is known; see Ready", negligible=True)
    problems: list[tuple[int, Verdict]] = []
    seen = {r.member: r for r in readings}
    for member in spec.members:
        if member.name == primary.member:
            continue
        reading = seen[member.name]
        if reading.error is not None:
            text = f"standby {member.name} does not answer: {reading.error.message}"
            problems.append((2, Verdict(name, "False", R.STANDBY_UNREACHABLE, text, member.name)))
            memory.behind_since.pop(member.name, None)
            continue
        problem = _standby(spec.thresholds.replication_lag, reading, primary, lags[member.name], memory, now)
        if problem is not None:
            problems.append(problem)
    if problems:
        return min(problems, key=lambda item: item[0])[1]
    blind = next((r for r in readings if r.error is None and r.in_recovery and not r.sees_stats), None)
    if blind is not None:
        user = spec.credentials.monitor.username or "pgtend_monitor"
        grant = GRANT_MONITOR.format(user=user)
        text = f"{user} cannot see the WAL receiver of {blind.member}: as an administrator run {grant}"
        return Verdict(name, "Unknown", R.MISSING_PRIVILEGE, text, blind.member)
    count = len(spec.members) - 1
    limit = spec.thresholds.replication_lag.critical or spec.thresholds.replication_lag.warning
    below = f", lag below {limit}" if limit else ""
    return Verdict(name, "True", R.AS_EXPECTED, f"{count} of {count} standbys stream{below}")


def _standby(
    limits: LagThreshold,
    reading: Reading,
    primary: Reading,
    lag: tuple[float, int],
    memory: Memory,
    now: datetime,
) -> tuple[int, Verdict] | None:
    seconds, size = lag
    who = reading.member
    gone = reading.sees_stats and not reading.has_receiver
    warning = limits.warning.seconds if limits.warning else None
    critical = limits.critical.seconds if limits.critical else None
    floor = min((x for x in (warning, critical) if x is not None), default=None)
    late = floor is not None and seconds >= floor
    if not late and not gone:
        memory.behind_since.pop(who, None)
        return None
    since = memory.behind_since.setdefault(who, now)
    if (now - since).total_seconds() < limits.for_.seconds:
        return None
    hint = "its WAL receiver is gone" if gone else "it receives but replays late"
    if not reading.sees_stats:
        hint = "whether it receives cannot be seen without pg_monitor"
    next_step = (
        f"On {who} check the network, primary_conninfo and the log"
        if gone
        else f"On {who} check disk, load and long queries"
    )
    limit, reason, rank = (
        (critical, R.REPLICATION_LAG_CRITICAL, 0)
        if critical is not None and seconds >= critical
        else (warning, R.REPLICATION_LAG_WARNING, 4)
    )
    if late and limit is not None:
        text = (
            f"standby {who} is behind primary {primary.member} since {rfc3339(since)} ({format_duration(seconds)},"
            f" {format_bytes(size)} at {rfc3339(now)}; limit {format_duration(limit)}): {hint}. {next_step}"
        )
        return rank, Verdict("ReplicationHealthy", "False", reason, text, who)
    text = f"standby {who} has no WAL receiver since {rfc3339(since)}: {next_step}"
    return 3, Verdict("ReplicationHealthy", "False", R.NOT_STREAMING, text, who)


def lag_of(reading: Reading, primary: Reading, memory: Memory, now: datetime) -> tuple[float, int]:
    """(seconds, bytes) behind the primary. An idle primary makes nobody late: seconds count from the moment at which
    the primary was first seen beyond what is replayed."""
    if primary.flush_lsn is None or reading.replay_lsn is None:
        return 0.0, 0
    size = max(0, primary.flush_lsn - reading.replay_lsn)
    if size == 0:
        return 0.0, 0
    beyond = next((at for at, lsn in memory.primary_lsns if lsn > reading.replay_lsn), now)
    seen = (now - beyond).total_seconds()
    reaches_back = bool(memory.primary_lsns) and memory.primary_lsns[0][1] <= reading.replay_lsn
    if reaches_back or reading.replay_age is None:
        return seen, size
    # our own history is too short to tell: the age of the last replayed commit is the bound
    return max(seen, reading.replay_age), size
