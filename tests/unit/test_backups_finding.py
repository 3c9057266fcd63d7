"""What a target is told of its backups: the worst of its policies, and nothing of anybody else's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pgtend.api.postgresbackuppolicy import POSTGRES_BACKUP_POLICY
from pgtend.api.reasons import TargetReason as R
from pgtend.backups.finding import backed_up
from pgtend.core.findings import ObjectKey
from pgtend.kube.index import Record, record_of

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
TARGET = ObjectKey("PostgresTarget", "databases", "orders")
GOOD = {"BackupCurrent": "True", "Verified": "True"}


def policy(name: str, conditions: dict[str, str], *, target: str = "orders", **meta: Any) -> Record:
    told = [{"type": t, "status": s, "reason": f"Why{t}", "message": f"{t} of {name}"} for t, s in conditions.items()]
    return record_of(
        POSTGRES_BACKUP_POLICY,
        {
            "metadata": {
                "name": name,
                "namespace": "databases",
                "uid": name,
                "resourceVersion": "1",
                "creationTimestamp": "2026-11-01T00:00:00Z",
                **meta,
            },
            "spec": {"targetRef": {"name": target}, "destinationRef": {"name": "s3"}},
            "status": {"conditions": told},
        },
    )


@pytest.mark.parametrize(
    ("policies", "status", "reason", "said"),
    [
        ([policy("a", GOOD)], "True", R.AS_EXPECTED, "policy a: BackupCurrent and Verified"),
        ([policy("b", GOOD), policy("a", GOOD)], "True", R.AS_EXPECTED, "policies a, b: BackupCurrent and Verified"),
        (
            [policy("a", GOOD), policy("b", {**GOOD, "BackupCurrent": "False"})],
            "False", R.NOT_BACKED_UP, "policy b: WhyBackupCurrent: BackupCurrent of b",
        ),
        (
            [policy("a", {**GOOD, "BackupCurrent": "Unknown"}), policy("b", {**GOOD, "Verified": "False"})],
            "False", R.BACKUP_NOT_VERIFIED, "policy b: WhyVerified: Verified of b",
        ),
        ([policy("a", {**GOOD, "Verified": "Unknown"})], "Unknown", R.BACKUP_NOT_KNOWN, "policy a: WhyVerified: "),
        ([policy("a", {})], "Unknown", R.BACKUP_NOT_KNOWN, "policy a: it was not judged yet"),
        ([policy("a", GOOD), policy("z", {"BackupCurrent": "False"}, target="other")], "True", R.AS_EXPECTED, "a"),
    ],
)  # fmt: skip
def test_the_worst_is_told(policies: list[Record], status: str, reason: R, said: str) -> None:
    found = backed_up(policies, TARGET, now=NOW)
    assert found is not None
    assert (found.condition, found.status, found.reason) == ("BackedUp", status, reason)
    assert said in found.message


def test_without_a_policy_of_its_own_nothing_is_told() -> None:
    assert backed_up([], TARGET, now=NOW) is None
    others = [
        policy("a", GOOD, target="other"),
        policy("b", GOOD, namespace="elsewhere"),
        policy("c", GOOD, deletionTimestamp="2026-11-22T00:00:00Z"),
    ]
    assert backed_up(others, TARGET, now=NOW) is None


def test_a_long_cause_is_cut() -> None:
    record = policy("a" * 1200, {**GOOD, "BackupCurrent": "False"})
    found = backed_up([record], TARGET, now=NOW)
    assert found is not None and len(found.message) == 1000
