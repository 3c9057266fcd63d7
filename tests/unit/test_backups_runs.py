"""What a pod said, or did not live to say, becomes the reason that both kinds show; and when a backup is read again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.reasons import BackupReason as R
from pgtend.api.reasons import TargetReason
from pgtend.backups import judge_record
from pgtend.backups.attempts import Attempts
from pgtend.backups.jobs.config import JobReason, Termination
from pgtend.backups.judge import Fact, Summary, Tried, Trouble, View, judge
from pgtend.backups.plan import timetable
from pgtend.backups.readback import again_after, attempt_of
from pgtend.backups.runs import Run, failure_of
from pgtend.objectstore.errors import StoreReason
from pgtend.objectstore.pipe import PipeReason

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
SPEC = PolicySpec.model_validate({"targetRef": {"name": "orders"}, "destinationRef": {"name": "s3"}})
SUCCESSES = {"Committed", "Verified"}
NEVER = {"CredentialsMissing"}  # of the platform's own identity, which no pod is given
TOLD = sorted({str(r) for r in (*JobReason, *StoreReason, *PipeReason)} - SUCCESSES - NEVER) + sorted(
    {str(r) for r in TargetReason} & {str(r) for r in R} - {str(r) for r in JobReason}
    - {"Accepted", "AsExpected", "Observing", "Suspended", "InForce"}
)  # fmt: skip


def run(uid: str = "1", *, kind: str = "dump", ended: bool = True, **more: Any) -> Run:
    return Run(
        job=f"job-{uid}", uid=uid, kind=kind, backup=None,  # type: ignore[arg-type]
        created=NOW - timedelta(hours=1) + timedelta(minutes=int(uid)),
        ended=NOW + timedelta(minutes=int(uid)) if ended else None, succeeded=False,
        **more,
    )  # fmt: skip


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "pod"}, "spec": {"containers": [{"name": "dump"}]}, "status": status}


def terminated(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "dump", "state": {"terminated": state}}]


@pytest.mark.parametrize("reason", TOLD)
def test_what_a_pod_told_is_what_backup_and_policy_show(reason: str) -> None:
    told = Termination(kind="Dump", outcome="Failed", reason=reason, message="why", object="shop.orders", phases={})
    failure = failure_of(run(termination=told), pod(containerStatuses=terminated(exitCode=1)))
    assert failure.reason == R(reason)
    shown = judge_record.not_there(failure.reason, failure.message, object=failure.object, stalled=True)
    assert {(v.status, v.reason, v.object) for v in shown if v.type == "Complete"} == {("False", reason, "shop.orders")}
    attempts = Attempts(runs=(replace(run(termination=told), failure=failure),))
    view = View(
        now=NOW, created=NOW, spec=SPEC, timetable=timetable(SPEC), summary=Summary(), dump=attempts.tried("dump")
    )
    (current,) = (v for v in judge(view).verdicts if v.type == "BackupCurrent")
    assert (current.status, current.reason, current.object) == ("False", reason, "shop.orders")


INTERRUPTED = Termination(kind="Dump", outcome="Failed", reason="Interrupted", message="told to stop", phases={})
LOST = [
    ({"said": "DeadlineExceeded"}, None, R.DEADLINE_EXCEEDED),
    ({}, None, R.WORKER_LOST),
    ({}, pod(), R.WORKER_LOST),
    ({}, pod(containerStatuses=terminated(exitCode=137)), R.WORKER_LOST),
    ({}, pod(containerStatuses=terminated(exitCode=137, reason="OOMKilled")), R.OUT_OF_MEMORY),
    ({"termination": INTERRUPTED}, pod(reason="Evicted", message="low"), R.EVICTED),
    ({"termination": INTERRUPTED}, pod(containerStatuses=terminated(exitCode=1)), R.INTERRUPTED),
    ({}, pod(containerStatuses=terminated(exitCode=2)), R.POD_FAILED),
]


@pytest.mark.parametrize(("given", "last", "reason"), LOST)
def test_a_pod_that_told_nothing_has_a_reason_too(given: dict[str, Any], last: Any, reason: R) -> None:
    assert failure_of(run(**given), last).reason is reason


def test_a_failure_stands_until_another_run_succeeds() -> None:
    failed = replace(run("1"), failure=failure_of(run("1"), None))
    going = run("2", ended=False)
    tried = Attempts(runs=(failed, going)).tried("dump")
    assert tried is not None and tried.active and tried.failure is not None
    assert (tried.started, tried.failed_at) == (going.created, failed.created)
    assert tried.failed_after(going.created) is None, "a newer backup is there"
    assert tried.failed_after(failed.created - timedelta(minutes=1)) is tried.failure
    good = replace(run("3"), succeeded=True)
    tried = Attempts(runs=(failed, good)).tried("dump")
    assert tried is not None and tried.failure is None


def test_reading_another_backup_says_nothing_of_this_one() -> None:
    failed = replace(run("1", kind="verify"), backup="a", failure=failure_of(run("1"), None))
    tried = Attempts(runs=(failed, replace(run("2", kind="verify", ended=False), backup="b"))).tried("verify")
    assert tried is not None and tried.name == "b" and tried.failure is None
    tried = Attempts(runs=(failed, replace(run("2", kind="verify", ended=False), backup="a"))).tried("verify")
    assert tried is not None and tried.name == "a" and tried.failure is not None and tried.active


def test_a_run_that_cannot_start_is_told_before_its_deadline() -> None:
    last = Fact(name="a", started=NOW - timedelta(days=1), finished=NOW - timedelta(days=1), verified=NOW)
    waits = Trouble(condition="", reason=R.IMAGE_MISSING, message="image x cannot be pulled")
    stuck = Tried(name="x", started=NOW, active=True, waits=waits)
    view = View(
        now=NOW, created=NOW, spec=SPEC, timetable=timetable(SPEC), dump=stuck,
        summary=Summary(newest=last, newest_verified=last, total=1, verified=1),
    )  # fmt: skip
    (current,) = (v for v in judge(view).verdicts if v.type == "BackupCurrent")
    assert (current.status, current.reason) == ("False", R.IMAGE_MISSING)


def test_what_may_pass_by_itself_is_read_again_soon_and_all_else_at_last_once_a_day() -> None:
    waits = [again_after(failures=n, transient=True) for n in range(1, 6)]
    assert waits == sorted(waits) and waits[0] == timedelta(minutes=10) and waits[-1] == timedelta(days=1)
    assert again_after(failures=1, transient=False) == timedelta(hours=1)
    assert again_after(failures=9, transient=False) == timedelta(days=1)
    assert [attempt_of(job) for job in ("a-verify", "a-read-2", "a-read-3-verify", "b-read-12")] == [1, 2, 1, 12]
