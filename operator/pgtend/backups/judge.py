"""What is true of a policy, from what was seen. Pure, and by the clock: a CronJob that never fires turns a condition
too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from pgtend.api.conditions import Status, Verdict
from pgtend.api.postgresbackuppolicy import (
    Attempt,
    Backups,
    NamedBackup,
    PolicySpec,
    PolicyStatus,
    VerifiedBackup,
)
from pgtend.api.reasons import BackupReason as R
from pgtend.api.types import Timestamp, format_bytes, format_duration
from pgtend.backups.catalog import Backup, Catalog
from pgtend.backups.plan import Timetable
from pgtend.backups.retention import Kept
from pgtend.core.clock import rfc3339

VERIFY_WITHIN = timedelta(hours=2)
NOTHING: Mapping[str, Kept] = MappingProxyType({})
_STAYS = {
    Kept.GENERATION: "by retention.keep",
    Kept.HELD: "by retainUntil",
    Kept.LOCKED: "until their object lock ends",
    Kept.IN_USE: "while they are restored or read back",
    Kept.FLOOR: "by retention.minVerified",
    Kept.NEWEST_VERIFIED: "as the newest verified",
    Kept.NEWEST: "as the newest",
    Kept.LATER: "until the next pass",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a spec is not in force. `condition` is Accepted, where people must change something first, or Ready."""

    condition: str
    reason: R
    message: str
    object: str | None = None
    status: Status = "False"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A committed backup in short."""

    name: str
    started: datetime
    finished: datetime
    verified: datetime | None = None


Keys = frozenset[tuple[str, str]]
"""Recipients, each by public key and name."""


class Sealed(NamedTuple):
    """How many backups, and the newest of them."""

    number: int
    newest: str
    finished: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the bucket holds of a policy; `size` in bytes. `kept` says why what has expired is still there, `stays` how
    many of these stay for which reason. `adoptable` has the installation of each backup that another one took for a
    policy of this name; `sealed` which backups are for which recipients, None where that is not known."""

    newest: Fact | None = None
    newest_verified: Fact | None = None
    total: int = 0
    verified: int = 0
    locked: int = 0
    size: int = 0
    adoptable: tuple[str, ...] = ()
    sealed: Mapping[Keys, Sealed] | None = None
    kept: Trouble | None = None
    stays: Mapping[Kept, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """The newest dump, or the newest verification: whether it goes on and cannot (`waits`), and why the last one that
    ended failed, which stands until another succeeds. `failed_at` is when that one started."""

    name: str
    started: datetime
    active: bool = False
    failure: Trouble | None = None
    failed_at: datetime | None = None
    waits: Trouble | None = None

    def failed_after(self, moment: datetime | None) -> Trouble | None:
        """The failure of a run that started after `moment`, the start of the newest backup."""
        started = self.failed_at or self.started
        return self.failure if moment is None or started > moment else None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that a policy is judged by. `summary` is None as long as the bucket was never read; `keys` are the public
    keys that the destination names, None where there is no destination."""

    now: datetime
    created: datetime
    spec: PolicySpec
    timetable: Timetable | None
    trouble: Trouble | None = None
    observing: bool = False
    identity: bool = True
    keys: frozenset[str] | None = None
    summary: Summary | None = None
    dump: Tried | None = None
    verify: Tried | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    status: PolicyStatus
    verdicts: Sequence[Verdict]


def summarize(
    catalog: Catalog, *, now: datetime, kept: Trouble | None = None, stays: Mapping[str, Kept] = NOTHING
) -> Summary:
    """`stays` by manifest key."""
    return Summary(
        newest=_fact(catalog.newest),
        newest_verified=_fact(catalog.newest_verified),
        total=len(catalog.backups),
        verified=sum(backup.verified for backup in catalog.backups),
        locked=sum(backup.locked(now) for backup in catalog.backups),
        size=sum(backup.manifest.stored_size for backup in catalog.backups),
        adoptable=tuple(backup.manifest.installation_id for backup in catalog.adoptable),
        sealed=_sealed(catalog),
        kept=kept,
        stays=Counter(stays.values()),
    )


def judge(view: View) -> Judged:
    """Status and conditions of a policy."""
    summary = view.summary or Summary()
    following = view.timetable.next_after(view.now) if view.timetable is not None else None
    running = not (view.spec.suspend or view.observing) and view.trouble is None
    newest, proven = summary.newest, summary.newest_verified
    status = PolicyStatus(
        last_backup=NamedBackup(name=newest.name, finished_at=_stamp(newest.finished)) if newest else None,
        last_attempt=Attempt(name=view.dump.name, started_at=_stamp(view.dump.started)) if view.dump else None,
        last_verified=VerifiedBackup(name=proven.name, verified_at=_stamp(proven.verified))
        if proven and proven.verified
        else None,
        next_at=_stamp(following) if following is not None and running else None,
        backups=Backups(
            total=summary.total, verified=summary.verified, locked=summary.locked, size=format_bytes(summary.size)
        )
        if view.summary is not None
        else None,
    )
    trouble = view.trouble
    accepted = Verdict("Accepted", "True", R.ACCEPTED, f"spec is valid and admitted by {view.spec.target_ref.name}")
    if trouble is not None and trouble.condition == "Accepted":
        accepted = Verdict("Accepted", "False", trouble.reason, trouble.message, object=trouble.object)
    return Judged(
        status=status, verdicts=(accepted, _current(view, summary), _verified(view, summary), _safe(view, summary),
                                 _encryption(view, summary), _ready(view))
    )  # fmt: skip


def invalid(reason: R, message: str) -> tuple[Verdict, ...]:
    """Of a spec that does not parse."""
    rest = tuple(
        Verdict(name, "Unknown", R.NOT_ACCEPTED, "not looked at", negligible=True)
        for name in ("BackupCurrent", "Verified", "RetentionSafe", "EncryptionCurrent")
    )
    return (
        Verdict("Accepted", "False", reason, message),
        *rest,
        Verdict("Ready", "False", reason, message),
    )


def _ready(view: View) -> Verdict:
    trouble = view.trouble
    if trouble is not None:
        return Verdict("Ready", trouble.status, trouble.reason, trouble.message, object=trouble.object)
    if view.observing:
        return Verdict("Ready", "True", R.OBSERVING, "the CronJob is suspended: this policy or its target observes")
    if view.spec.suspend:
        return Verdict("Ready", "True", R.SUSPENDED, "the CronJob is suspended by spec.suspend")
    return Verdict("Ready", "True", R.IN_FORCE, "CronJob exists, server and bucket answered")


def _current(view: View, summary: Summary) -> Verdict:
    name = "BackupCurrent"
    last, tried = summary.newest, view.dump
    have = f"last backup {rfc3339(last.finished)}" if last else "there is no backup yet"
    if view.summary is None:
        return Verdict(name, "Unknown", R.NOT_COMPLETE, "the bucket was not read yet", negligible=True)
    if tried is not None and tried.waits is not None:
        why = tried.waits
        text = f"the run of {rfc3339(tried.started)} cannot start, {have}: {why.message}"
        return Verdict(name, "False", why.reason, text, object=why.object)
    failed = tried.failed_after(last.started if last else None) if tried is not None else None
    if tried is not None and failed is not None:
        text = f"the run of {rfc3339(tried.failed_at or tried.started)} failed, {have}: {failed.message}"
        return Verdict(name, "False", failed.reason, text, object=failed.object)
    stopped = view.spec.suspend or view.observing
    now = "create a PostgresBackup with this policyRef to have one now"
    if last is None and summary.adoptable:
        others = ", ".join(sorted(set(summary.adoptable)))
        now = (
            f"{now}. The bucket holds {len(summary.adoptable)} of installation {others} for a policy of this name:"
            " if that is gone, set adoption: Always"
        )
    if last is None:
        if stopped:
            reason = R.SUSPENDED if view.spec.suspend else R.OBSERVING
            return Verdict(name, "False", reason, f"there is no backup, and no run is due: {now}")
        following = view.timetable.next_after(view.now) if view.timetable else None
        when = f"the first run is due at {rfc3339(following)}" if following else "no run is due"
        return Verdict(name, "False", R.NEVER_RUN, f"there is no backup yet, {when}: {now}")
    due = view.timetable.overdue_after(last.started) if view.timetable else None
    if due is None:
        return Verdict(name, "True", R.AS_EXPECTED, have)
    moment, allowed = due
    running = tried is not None and tried.active
    if view.now <= moment or running:
        return Verdict(name, "True", R.AS_EXPECTED, f"the last backup is younger than {_span(allowed)}")
    if stopped:
        reason = R.SUSPENDED if view.spec.suspend else R.OBSERVING
        return Verdict(name, "False", reason, f"{have}, and no run is due: {now}")
    text = (
        f"{have}, the next was due by {rfc3339(moment)} (limit {_span(allowed)}): look at the CronJob and"
        " its Jobs in this namespace"
    )
    return Verdict(name, "False", R.OVERDUE, text, object=last.name)


def _verified(view: View, summary: Summary) -> Verdict:
    name = "Verified"
    last = summary.newest
    if view.summary is None or last is None:
        return Verdict(name, "False" if view.summary else "Unknown", R.NEVER_VERIFIED, "nothing is there to read back",
                       negligible=view.summary is None)  # fmt: skip
    if last.verified is not None:
        return Verdict(name, "True", R.AS_EXPECTED, "the last backup was read whole")
    if not view.identity:
        text = "no recipient of the destination has an identity in the cluster: give one of them"
        return Verdict(name, "False", R.IDENTITY_MISSING, text)
    tried = view.verify
    why = (tried.waits or tried.failure) if tried is not None and tried.name == last.name else None
    if why is not None:
        return Verdict(name, "False", why.reason, f"{last.name} was not read whole: {why.message}", object=last.name)
    if view.now > last.finished + VERIFY_WITHIN:
        waits = "its Job goes on" if tried is not None and tried.active else "no Job reads it"
        text = (
            f"{last.name} of {rfc3339(last.finished)} was not read back within 2h, {waits}: look at {last.name}-verify"
        )
        return Verdict(name, "False", R.VERIFY_OVERDUE, text, object=last.name)
    if summary.newest_verified is not None:
        return Verdict(name, "True", R.VERIFY_PENDING, f"{last.name} is being read back, the one before was read whole")
    return Verdict(name, "Unknown", R.VERIFY_PENDING, f"{last.name} is being read back")


def _safe(view: View, summary: Summary) -> Verdict:
    name = "RetentionSafe"
    if view.summary is None:
        return Verdict(name, "Unknown", R.NOT_COMPLETE, "the bucket was not read yet", negligible=True)
    if summary.kept is not None:
        kept = summary.kept
        return Verdict(
            name, kept.status, kept.reason, kept.message, object=kept.object, negligible=kept.status == "Unknown"
        )
    least = view.spec.retention.min_verified
    text = f"{summary.verified} verified backups (never fewer than {least} are left), policy applied"
    stays = ", ".join(f"{summary.stays[why]} {said}" for why, said in _STAYS.items() if summary.stays.get(why))
    text += f"; of those that have expired stay {stays}" if stays else ""
    return Verdict(name, "True", R.AS_EXPECTED, text)


def _encryption(view: View, summary: Summary) -> Verdict:
    name = "EncryptionCurrent"
    if summary.sealed is None or view.keys is None:
        return Verdict(name, "Unknown", R.NOT_COMPLETE, "the bucket was not read yet", negligible=True)
    lost = {keys: found for keys, found in summary.sealed.items() if view.keys.isdisjoint(key for key, _ in keys)}
    if not lost:
        return Verdict(name, "True", R.AS_EXPECTED, "each backup opens with a recipient that the destination names")
    number, newest = sum(f.number for f in lost.values()), max(lost.values(), key=lambda found: found.finished)
    names = ", ".join(sorted({who for keys in lost for _, who in keys}))
    text = (
        f"{number} of {summary.total} backups, the newest {newest.newest}, open with no recipient that the destination"
        f" names, but with {names}: name it again with decryptOnly: true"
    )
    return Verdict(name, "False", R.RECIPIENT_GONE, text, object=newest.newest)


def _sealed(catalog: Catalog) -> Mapping[Keys, Sealed]:
    found: dict[Keys, Sealed] = {}
    for backup in catalog.backups:  # oldest first
        keys = frozenset((recipient.public_key, recipient.name) for recipient in backup.manifest.recipients)
        number = found[keys].number if keys in found else 0
        found[keys] = Sealed(number + 1, backup.manifest.backup_name, backup.manifest.finished_at)
    return found


def _fact(backup: Backup | None) -> Fact | None:
    if backup is None:
        return None
    manifest = backup.manifest
    proofs = [proof.verified_at for proof in backup.evidence] if backup.verified else []
    return Fact(
        name=manifest.backup_name,
        started=manifest.started_at,
        finished=manifest.finished_at,
        verified=max(proofs, default=None),
    )


def _span(value: timedelta) -> str:
    """As a limit is spoken of: 26h24m rather than 1d2h."""
    if value >= timedelta(hours=48):
        return format_duration(value)
    minutes = int(value.total_seconds()) // 60
    return f"{minutes // 60}h{minutes % 60}m" if minutes % 60 else f"{minutes // 60}h"


def _stamp(moment: datetime) -> Timestamp:
    return Timestamp(rfc3339(moment))
