"""PoolHealthy: saturation (clients wait) is trouble by itself; a pool that is nearly used up is a warning. Pure."""

from __future__ import annotations

from datetime import datetime

from pgtend.api.conditions import Verdict
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import TargetReason as R
from pgtend.api.types import format_duration
from pgtend.core.clock import rfc3339
from pgtend.targets.grading import Grades, Severity, grade
from pgtend.targets.reading import Pool, PoolerReading

NAME = "PoolHealthy"
_WAIT = {"Warning": R.POOL_WAIT_WARNING, "Critical": R.POOL_WAIT_CRITICAL}
_USED = {"Warning": R.POOL_USED_WARNING, "Critical": R.POOL_USED_CRITICAL}


def judge_pooler(*, spec: TargetSpec, reading: PoolerReading | None, grades: Grades, now: datetime) -> Verdict:
    """`reading` is None where the spec names no pooler."""
    if reading is None or spec.pooler is None:
        return Verdict(NAME, "Unknown", R.NOT_REQUESTED, "spec.pooler is not set", negligible=True)
    if reading.error is not None:
        text = f"the pooler does not answer: {reading.error.message}"
        return Verdict(NAME, "False", R.POOLER_UNREACHABLE, text, "pooler")
    waiting = _worst(reading, "poolWait", spec, grades, now)
    if waiting is not None:
        severity, pool = waiting
        limits = spec.thresholds.pool_wait
        limit = limits.critical if severity == "Critical" else limits.warning
        text = (
            f"{pool.waiting} clients of pool {_name(pool)} wait, the first for {format_duration(pool.wait)} at"
            f" {rfc3339(now)} (limit {limit}): raise its pool_size ({pool.size}), or look for long transactions"
        )
        return Verdict(NAME, "False", _WAIT[severity], text, _name(pool))
    used = _worst(reading, "poolUsed", spec, grades, now)
    if used is not None:
        severity, pool = used
        shares = spec.thresholds.pool_used
        share = shares.critical if severity == "Critical" else shares.warning
        text = (
            f"pool {_name(pool)} uses {pool.servers} of {pool.size} server connections at {rfc3339(now)}"
            f" (limit {share}): raise its pool_size, or look for long transactions"
        )
        return Verdict(NAME, "False", _USED[severity], text, _name(pool))
    return Verdict(NAME, "True", R.AS_EXPECTED, "no client waits beyond the limit, no pool is nearly used up")


def _worst(
    reading: PoolerReading, figure: str, spec: TargetSpec, grades: Grades, now: datetime
) -> tuple[Severity, Pool] | None:
    found: list[tuple[Severity, float, Pool]] = []
    names: set[str] = set()
    for pool in reading.pools:
        name = f"{figure}/{_name(pool)}"
        names.add(name)
        if figure == "poolWait":
            value = pool.wait if pool.waiting else 0.0
            severity = grade(grades, name, value, spec.thresholds.pool_wait, now)
        else:
            value = pool.servers / pool.size if pool.size else 0.0
            severity = grade(grades, name, value, spec.thresholds.pool_used, now)
        if severity:
            found.append((severity, -value, pool))
    grades.forget(f"{figure}/", names)
    if not found:
        return None
    severity, _, pool = min(found, key=lambda item: item[:2])
    return severity, pool


def _name(pool: Pool) -> str:
    return f"{pool.database}/{pool.user}"
