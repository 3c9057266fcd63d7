"""Verdicts on what sessions do: ConnectionsHealthy, QueriesHealthy, LocksHealthy, each with a named offender. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pgtend.api.conditions import Verdict
from pgtend.api.postgrestarget import Blocking, DurationThreshold, ShareThreshold, TargetSpec
from pgtend.api.reasons import TargetReason as R
from pgtend.api.types import format_duration
from pgtend.core.clock import rfc3339
from pgtend.targets.grading import Grades, Severity, grade
from pgtend.targets.reading import Activity, Reading, SessionInfo

CONDITIONS = ("ConnectionsHealthy", "QueriesHealthy", "LocksHealthy")
_REASONS: Mapping[tuple[str, Severity], R] = {
    ("connectionsUsed", "Warning"): R.CONNECTIONS_USED_WARNING,
    ("connectionsUsed", "Critical"): R.CONNECTIONS_USED_CRITICAL,
    ("queryDuration", "Warning"): R.QUERY_DURATION_WARNING,
    ("queryDuration", "Critical"): R.QUERY_DURATION_CRITICAL,
    ("idleInTransaction", "Warning"): R.IDLE_IN_TRANSACTION_WARNING,
    ("idleInTransaction", "Critical"): R.IDLE_IN_TRANSACTION_CRITICAL,
    ("lockWait", "Warning"): R.LOCK_WAIT_WARNING,
    ("lockWait", "Critical"): R.LOCK_WAIT_CRITICAL,
}


def judge_sessions(
    *, spec: TargetSpec, readings: Sequence[Reading], grades: Grades, now: datetime
) -> tuple[tuple[Verdict, ...], tuple[Blocking, ...]]:
    """The three verdicts over all members that answer, and who blocks whom."""
    answering = [r for r in readings if r.error is None]
    if not answering:
        text = "no member answers; see Reachable"
        return tuple(Verdict(name, "Unknown", R.NOT_REACHED, text, negligible=True) for name in CONDITIONS), ()
    blind = next((r for r in answering if not r.sees_stats), None)
    if blind is not None:
        user = spec.credentials.monitor.username or "pgtend_monitor"
        text = (
            f"{user} cannot see other roles' sessions on {blind.member}: as an administrator run"
            f" GRANT pg_monitor TO {user}"
        )
        return tuple(Verdict(name, "Unknown", R.MISSING_PRIVILEGE, text, blind.member) for name in CONDITIONS), ()
    seen = [(r.member, r.activity) for r in answering if r.activity is not None]
    if len(seen) < len(answering):
        text = "the sessions of a member could not be read within the deadline; it is tried again with the next probe"
        return tuple(Verdict(name, "Unknown", R.PROBE_FAILED, text) for name in CONDITIONS), ()
    verdicts = (
        _connections(spec.thresholds.connections_used, seen, grades, now),
        _queries(spec, seen, grades, now),
        _locks(spec.thresholds.lock_wait, seen, grades, now),
    )
    return verdicts, tuple(tree for _, activity in seen for tree in blocking(activity))[:10]


def _connections(
    limits: ShareThreshold, seen: Sequence[tuple[str, Activity]], grades: Grades, now: datetime
) -> Verdict:
    name = "ConnectionsHealthy"
    found: list[tuple[Severity, str, Activity]] = []
    for member, activity in seen:
        share = activity.used / max(activity.limit, 1)
        severity = grade(grades, f"connectionsUsed/{member}", share, limits, now)
        if severity:
            found.append((severity, member, activity))
    if not found:
        text = "; ".join(f"{member}: below {limits.warning or limits.critical or 'no limit'}" for member, _ in seen)
        return Verdict(name, "True", R.AS_EXPECTED, f"connections of max_connections less reserved: {text}")
    severity, member, activity = min(found, key=lambda item: item[0])
    limit = limits.critical if severity == "Critical" else limits.warning
    most = ", ".join(f"{role} {count}" for role, count in activity.by_role)
    text = (
        f"{member} has {activity.used} of {activity.limit} connections in use at {rfc3339(now)} (limit {limit}); most:"
        f" {most}. Lower the pools of these roles, or use a pooler"
    )
    return Verdict(name, "False", _REASONS["connectionsUsed", severity], text, member)


def _queries(spec: TargetSpec, seen: Sequence[tuple[str, Activity]], grades: Grades, now: datetime) -> Verdict:
    name = "QueriesHealthy"
    found: list[tuple[Severity, str, str, SessionInfo, DurationThreshold]] = []
    for member, activity in seen:
        families: tuple[tuple[str, DurationThreshold, tuple[SessionInfo, ...]], ...] = (
            ("queryDuration", spec.thresholds.query_duration, activity.long_queries),
            ("idleInTransaction", spec.thresholds.idle_in_transaction, activity.idle),
        )
        for figure, limits, sessions in families:
            longest = max(sessions, key=lambda s: s.seconds, default=None)
            severity = grade(grades, f"{figure}/{member}", longest.seconds if longest else 0.0, limits, now)
            if severity and longest:
                found.append((severity, figure, member, longest, limits))
    if not found:
        return Verdict(name, "True", R.AS_EXPECTED, "no statement and no idle transaction is over its limit")
    severity, figure, member, session, limits = min(found, key=lambda item: (item[0], -item[3].seconds))
    limit = limits.critical if severity == "Critical" else limits.warning
    what = "runs a statement" if figure == "queryDuration" else "is idle in a transaction"
    step = (
        "look at it in pg_stat_activity and cancel it if it is not wanted"
        if figure == "queryDuration"
        else "end it, and set idle_in_transaction_session_timeout for its role"
    )
    text = f"{session} on {member} {what} for {format_duration(session.seconds)} at {rfc3339(now)} (limit {limit})"
    others = sum(1 for item in found if item is not found[0])
    more = f"; {others} more" if others else ""
    return Verdict(name, "False", _REASONS[figure, severity], f"{text}{more}: {step}", f"pid {session.pid}")


def _locks(limits: DurationThreshold, seen: Sequence[tuple[str, Activity]], grades: Grades, now: datetime) -> Verdict:
    name = "LocksHealthy"
    worst: tuple[Severity, str, Blocking] | None = None
    for member, activity in seen:
        longest = max((b.seconds for b in activity.blocked), default=0.0)
        severity = grade(grades, f"lockWait/{member}", longest, limits, now)
        trees = blocking(activity)
        if severity and trees and (worst is None or severity < worst[0]):
            worst = (severity, member, trees[0])
    if worst is None:
        return Verdict(name, "True", R.AS_EXPECTED, "nobody waits for a lock beyond the limit")
    severity, member, tree = worst
    limit = limits.critical if severity == "Critical" else limits.warning
    text = (
        f"{tree.root} on {member} blocks {tree.blocked} session{'s' if tree.blocked != 1 else ''} for up to"
        f" {tree.waiting_for} at {rfc3339(now)} (limit {limit}): look at what it does, end it if it is not wanted"
    )
    return Verdict(name, "False", _REASONS["lockWait", severity], text, tree.root.split(" (")[0])


def blocking(activity: Activity) -> tuple[Blocking, ...]:
    """One tree per session that blocks others and waits for nobody, the longest wait first. In a cycle the session
    with the smallest pid stands for the root."""
    waits = {b.session.pid: b for b in activity.blocked}
    children: dict[int, list[int]] = {}
    for pid, blocked in waits.items():
        for blocker in set(blocked.blockers):
            children.setdefault(blocker, []).append(pid)
    roots = [pid for pid in children if pid not in waits] or sorted(children)[:1]
    trees = []
    for root in roots:
        below = _below(root, children)
        longest = max((waits[pid].seconds for pid in below if pid in waits), default=0.0)
        trees.append((longest, root, below))
    return tuple(
        Blocking(
            root=str(activity.sessions[root])[:160] if root in activity.sessions else f"pid {root}",
            blocked=len(below),
            waiting_for=format_duration(longest),
            tree=_draw(root, children)[:1024],
        )
        for longest, root, below in sorted(trees, reverse=True)
    )


def _below(root: int, children: Mapping[int, list[int]]) -> set[int]:
    found: set[int] = set()
    stack = list(children.get(root, ()))
    while stack:
        pid = stack.pop()
        if pid not in found and pid != root:
            found.add(pid)
            stack += children.get(pid, ())
    return found


def _draw(root: int, children: Mapping[int, list[int]]) -> str:
    """`1 <- (2 <- (3), 4)`: the arrow reads "is waited for by"."""
    drawn: set[int] = set()

    def draw(pid: int) -> str:
        drawn.add(pid)
        below = [child for child in sorted(children.get(pid, ())) if child not in drawn]
        return f"{pid} <- ({', '.join(draw(child) for child in below)})" if below else str(pid)

    return draw(root)
