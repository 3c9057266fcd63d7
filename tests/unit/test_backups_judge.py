"""What a policy's conditions say, by the clock: a CronJob that never fires turns one too."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgtend.api.conditions import Verdict
from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.reasons import BackupReason as R
from pgtend.backups.judge import Fact, Sealed, Summary, Tried, Trouble, View, judge
from pgtend.backups.judge_record import Reading, expires_at
from pgtend.backups.plan import timetable
from pgtend.core.clock import FakeClock

SPEC = PolicySpec.model_validate({"targetRef": {"name": "orders"}, "destinationRef": {"name": "s3"}})


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def fact(day: int, *, verified: bool = True) -> Fact:
    return Fact(
        name=f"orders-202611{day}-020003",
        started=at(day, 2),
        finished=at(day, 2, 12),
        verified=at(day, 2, 19) if verified else None,
    )


def summary(*days: int, verified: bool = True) -> Summary:
    facts = [fact(day) for day in days[:-1]] + [fact(day, verified=verified) for day in days[-1:]]
    proven = [f for f in facts if f.verified]
    return Summary(
        newest=facts[-1] if facts else None,
        newest_verified=proven[-1] if proven else None,
        total=len(facts),
        verified=len(proven),
        size=13 << 30,
    )


def look(now: datetime, **given: object) -> dict[str, Verdict]:
    spec = given.pop("spec", SPEC)
    assert isinstance(spec, PolicySpec)
    view = View(now=now, created=at(1, 0), spec=spec, timetable=timetable(spec), **given)  # type: ignore[arg-type]
    return {verdict.type: verdict for verdict in judge(view).verdicts}


def test_a_policy_that_is_well() -> None:
    sealed = {frozenset({("age1verify", "verify"), ("age1escrow", "escrow")}): Sealed(2, "b", at(22, 2))}
    found = look(at(22, 8), summary=replace(summary(21, 22), sealed=sealed), keys=frozenset({"age1escrow"}))
    assert {v.type: (v.status, v.reason) for v in found.values()} == {
        "Accepted": ("True", R.ACCEPTED),
        "BackupCurrent": ("True", R.AS_EXPECTED),
        "Verified": ("True", R.AS_EXPECTED),
        "RetentionSafe": ("True", R.AS_EXPECTED),
        "EncryptionCurrent": ("True", R.AS_EXPECTED),
        "Ready": ("True", R.IN_FORCE),
    }
    assert "26h24m" in found["BackupCurrent"].message


def test_it_turns_overdue_by_the_clock_alone() -> None:
    clock = FakeClock(at(23, 4, 23))
    assert look(clock.now(), summary=summary(22))["BackupCurrent"].status == "True"
    clock.advance(120)
    found = look(clock.now(), summary=summary(22))["BackupCurrent"]
    assert (found.status, found.reason) == ("False", R.OVERDUE)
    running = Tried(name="orders-dump-1", started=at(23, 2), active=True)
    assert look(clock.now(), summary=summary(22), dump=running)["BackupCurrent"].status == "True"


def test_a_failed_run_is_told_at_once_and_a_later_success_clears_it() -> None:
    failed = Tried(
        name="orders-dump-2",
        started=at(23, 2),
        failure=Trouble(condition="", reason=R.PERMISSION_DENIED, message="GRANT SELECT", object="shop.invoices"),
    )
    found = look(at(23, 2, 1), summary=summary(22), dump=failed)["BackupCurrent"]
    assert (found.status, found.reason, found.object) == ("False", R.PERMISSION_DENIED, "shop.invoices")
    assert "2026-11-23T02:00:00Z failed" in found.message and "2026-11-22T02:12:00Z" in found.message
    assert look(at(24, 3), summary=summary(22, 24), dump=failed)["BackupCurrent"].status == "True"


def test_never_is_no_success() -> None:
    found = look(at(22, 8), summary=Summary())
    assert (found["BackupCurrent"].status, found["BackupCurrent"].reason) == ("False", R.NEVER_RUN)
    assert (found["Verified"].status, found["Verified"].reason) == ("False", R.NEVER_VERIFIED)
    assert found["Ready"].status == "True", "Ready does not mean backed up"


def test_what_was_never_read_is_unknown() -> None:
    found = look(at(22, 8))
    assert {v.status for name, v in found.items() if name not in ("Accepted", "Ready")} == {"Unknown"}


@pytest.mark.parametrize(
    ("minutes", "before", "expected"),
    [(30, (), ("Unknown", R.VERIFY_PENDING)), (30, (21,), ("True", R.VERIFY_PENDING)),
     (180, (21,), ("False", R.VERIFY_OVERDUE))],
)  # fmt: skip
def test_reading_back_has_two_hours(minutes: int, before: tuple[int, ...], expected: tuple[str, R]) -> None:
    found = look(at(22, 2, 12) + timedelta(minutes=minutes), summary=summary(*before, 22, verified=False))["Verified"]
    assert (found.status, found.reason) == expected


def test_a_backup_that_does_not_read_is_told_with_its_reason() -> None:
    tried = Tried(
        name=fact(22).name,
        started=at(22, 2, 13),
        failure=Trouble(condition="", reason=R.CHECKSUM_MISMATCH, message="other bytes"),
    )
    found = look(at(22, 3), summary=summary(21, 22, verified=False), verify=tried)["Verified"]
    assert (found.status, found.reason) == ("False", R.CHECKSUM_MISMATCH)
    assert look(at(22, 3), summary=summary(22, verified=False), identity=False)["Verified"].reason is R.IDENTITY_MISSING


def test_suspended_and_observed_are_ready_and_still_judged() -> None:
    resting = SPEC.model_copy(update={"suspend": True})
    found = look(at(25, 8), summary=summary(22), spec=resting)
    assert (found["Ready"].status, found["Ready"].reason) == ("True", R.SUSPENDED)
    assert (found["BackupCurrent"].status, found["BackupCurrent"].reason) == ("False", R.SUSPENDED)
    found = look(at(25, 8), summary=summary(22), observing=True)
    assert (found["Ready"].reason, found["BackupCurrent"].reason) == (R.OBSERVING, R.OBSERVING)


def test_the_next_run_is_shown_only_where_there_will_be_one() -> None:
    view = View(now=at(22, 8), created=at(1, 0), spec=SPEC, timetable=timetable(SPEC), summary=summary(22))
    assert judge(view).status.next_at == "2026-11-23T02:00:00Z"
    trouble = Trouble(condition="Ready", reason=R.TARGET_NOT_READY, message="away")
    away = View(now=at(22, 8), created=at(1, 0), spec=SPEC, timetable=timetable(SPEC), trouble=trouble)
    assert judge(away).status.next_at is None


def test_expiry_is_the_latest_of_all_wishes() -> None:
    finished, held = at(1, 2), at(30, 0)
    assert expires_at(finished=finished, keep_for=timedelta(days=7), retain=(None, None)) == at(8, 2)
    assert expires_at(finished=finished, keep_for=timedelta(days=7), retain=(held, None)) == held
    assert expires_at(finished=finished, keep_for=None, retain=(None, None)) is None
    assert Reading().verified_at is None


def test_what_could_be_adopted_is_told_as_long_as_there_is_no_backup() -> None:
    left = Summary(adoptable=("lost-cluster", "lost-cluster"))
    found = look(at(22, 8), summary=left)["BackupCurrent"]
    assert found.reason is R.NEVER_RUN
    assert "holds 2 of installation lost-cluster for a policy of this name" in found.message
    assert "adoption: Always" in found.message


def test_backups_that_no_recipient_opens_any_more_are_told() -> None:
    old, new = ("age1old", "verify"), ("age1new", "verify")
    sealed = {
        frozenset({old}): Sealed(3, "orders-old", at(20, 2)),
        frozenset({old, new}): Sealed(1, "mixed", at(21, 2)),
    }
    held = Summary(total=4, sealed=sealed)
    found = look(at(22, 8), summary=held, keys=frozenset({"age1new"}))["EncryptionCurrent"]
    assert (found.status, found.reason, found.object) == ("False", R.RECIPIENT_GONE, "orders-old")
    assert "3 of 4 backups, the newest orders-old" in found.message and "with verify" in found.message
    assert look(at(22, 8), summary=held, keys=frozenset({"age1old"}))["EncryptionCurrent"].status == "True"
    for unknown in ({"summary": held}, {"summary": Summary(), "keys": frozenset({"a"})}):
        assert look(at(22, 8), **unknown)["EncryptionCurrent"].reason is R.NOT_COMPLETE
