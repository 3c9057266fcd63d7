"""What is true of a destination, from what one look at it brought. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from pgtend.api.backupdestination import DestinationSpec, DestinationStatus, LifecycleRule
from pgtend.api.conditions import Reason, Verdict
from pgtend.api.reasons import DestinationReason as R
from pgtend.api.types import Duration, format_duration
from pgtend.core.errors import PgtendError


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen. `failure` is the first request that went wrong; `honored` None where it was not tried;
    `rules` None where no credential may read them; `uploads` None where it may not list them;
    `locks` whether the bucket has object lock, None where no credential may know."""

    failure: PgtendError | None = None
    honored: bool | None = None
    rules: tuple[Mapping[str, Any], ...] | None = ()
    uploads: int | None = None
    locks: bool | None = False
    braked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    status: DestinationStatus
    verdicts: Sequence[Verdict] = field(default_factory=tuple)


def reason_of(error: PgtendError) -> Reason:
    """The error's reason as this kind spells it."""
    try:
        return R(str(error.reason))
    except ValueError:
        return R.READ_FAILED


def refused(reason: Reason, message: str, *, object: str | None = None) -> tuple[Verdict, ...]:
    """The spec cannot be used; nothing was looked at."""
    return (
        Verdict("Accepted", "False", reason, message, object=object),
        Verdict("Reachable", "Unknown", R.NOT_ACCEPTED, "not looked at", negligible=True),
        Verdict("Safe", "Unknown", R.NOT_ACCEPTED, "not looked at", negligible=True),
        Verdict("Ready", "False", reason, message, object=object),
    )


def judge(spec: DestinationSpec, look: Look, *, keep: tuple[str, timedelta] | None) -> Judged:
    """`keep` is the policy that keeps longest here, and for how long."""
    rules = tuple(conflicting(look.rules or (), prefix=spec.s3.prefix, keep=keep[1] if keep else None))
    status = DestinationStatus(
        location=f"s3://{spec.s3.bucket}/{spec.s3.prefix}",
        conditional_writes={None: "Unknown", True: "Honored", False: "Ignored"}[look.honored],
        object_lock=_locked(spec, look),
        incomplete_uploads=look.uploads,
        lifecycle_rules=rules[:10],
    )
    accepted = Verdict("Accepted", "True", R.ACCEPTED, "spec is valid")
    if look.failure is not None:
        reason, message = reason_of(look.failure), look.failure.message
        return Judged(
            status=status,
            verdicts=(
                accepted,
                Verdict("Reachable", "False", reason, message, object=look.failure.object),
                Verdict("Safe", "Unknown", R.NOT_REACHED, "nothing is known while it is not reached", negligible=True),
                Verdict("Ready", "False", reason, message, object=look.failure.object),
            ),
        )
    where = spec.s3.endpoint or f"AWS in {spec.s3.region}"
    safe = _safe(spec, look, rules, keep)
    text = f"bucket {spec.s3.bucket} accepts writing, reading and listing under {spec.s3.prefix}/"
    ready = Verdict("Ready", "True", R.IN_FORCE, text)
    if safe.reason in (R.CONDITIONAL_WRITES_NOT_HONORED, R.OBJECT_LOCK_UNAVAILABLE):
        ready = Verdict("Ready", "False", safe.reason, safe.message)
    return Judged(
        status=status,
        verdicts=(accepted, Verdict("Reachable", "True", R.CONNECTED, f"{where} answers"), safe, ready),
    )


def _safe(
    spec: DestinationSpec, look: Look, rules: Sequence[LifecycleRule], keep: tuple[str, timedelta] | None
) -> Verdict:
    s3 = spec.s3
    if look.honored is False:
        text = (
            f"{s3.endpoint or s3.region} overwrites an object although If-None-Match forbids it, so no backup can be"
            " committed: use a store that honors it, or upgrade this one"
        )
        return Verdict("Safe", "False", R.CONDITIONAL_WRITES_NOT_HONORED, text)
    if s3.object_lock is not None and look.locks is False:
        text = (
            f"bucket {s3.bucket} has no object lock, so no backup can be written as spec.s3.objectLock asks: use a"
            " bucket that was made with it, or leave objectLock out"
        )
        return Verdict("Safe", "False", R.OBJECT_LOCK_UNAVAILABLE, text)
    if rules:
        first = rules[0]
        keeps = f", policy {keep[0]} keeps {format_duration(keep[1])}" if keep else ""
        text = (
            f"bucket rule {first.id} deletes {s3.prefix}/ after {first.expires_after}{keeps}:"
            " exclude the prefix from the rule"
        )
        return Verdict("Safe", "False", R.LIFECYCLE_CONFLICT, text, object=first.id)
    elsewhere = _elsewhere(spec)
    if not elsewhere:
        text = (
            "every identity that opens the backups is a Secret of this cluster: who loses it loses all of them. Keep a"
            " copy elsewhere, and add a recipient without identity whose private key is kept outside"
        )
        return Verdict("Safe", "False", R.IDENTITY_ONLY_IN_CLUSTER, text, object=spec.encryption.age.recipients[0].name)
    if look.braked:
        return Verdict("Safe", "Unknown", R.BRAKE_ON, "the brake is on: conditional writes are not tested")
    if look.rules is None:
        text = (
            f"conditional writes honored, but no credential may read the lifecycle rules of bucket {s3.bucket}:"
            " give `read` the right s3:GetLifecycleConfiguration"
        )
        return Verdict("Safe", "Unknown", R.MISSING_PRIVILEGE, text)
    if s3.object_lock is not None and look.locks is None:
        text = (
            f"no credential may know whether bucket {s3.bucket} has object lock: give `read` the right"
            " s3:GetBucketObjectLockConfiguration"
        )
        return Verdict("Safe", "Unknown", R.MISSING_PRIVILEGE, text)
    kept = f"{elsewhere} {'identity is' if elsewhere == 1 else 'identities are'} kept elsewhere"
    text = f"conditional writes honored, no lifecycle rule expires backups, {kept}"
    return Verdict("Safe", "True", R.AS_EXPECTED, text)


def _locked(spec: DestinationSpec, look: Look) -> Literal["None", "Governance", "Compliance"] | None:
    if look.failure is not None or (spec.s3.object_lock is not None and look.locks is None):
        return None
    return spec.s3.object_lock.mode if spec.s3.object_lock is not None and look.locks else "None"


def _elsewhere(spec: DestinationSpec) -> int:
    """Recipients whose private key is kept outside the cluster, as far as the spec tells."""
    recipients = spec.encryption.age.recipients
    inside = {recipient.public_key for recipient in recipients if recipient.identity is not None}
    return sum(
        recipient.identity is None and not recipient.decrypt_only and recipient.public_key not in inside
        for recipient in recipients
    )


def conflicting(rules: Sequence[Mapping[str, Any]], *, prefix: str, keep: timedelta | None) -> Sequence[LifecycleRule]:
    """The enabled rules that would delete current objects below `prefix` before `keep` has passed. Rules that only
    hit tagged objects do not hit ours."""
    found = []
    for rule in rules:
        expiration = rule.get("Expiration") or {}
        days = expiration.get("Days")
        if days is None and "Date" not in expiration:
            continue
        scope = rule.get("Filter") or {}
        both = scope.get("And") or {}
        if "Tag" in scope or both.get("Tags"):
            continue
        hit = str(rule.get("Prefix") or scope.get("Prefix") or both.get("Prefix") or "")
        if not (f"{prefix}/".startswith(hit) or hit.startswith(f"{prefix}/")):
            continue
        if days is not None and keep is not None and timedelta(days=int(days)) > keep:
            continue
        after = Duration(f"{int(days)}d") if days is not None else f"{expiration['Date']:%Y-%m-%d}"
        found.append(LifecycleRule(id=str(rule.get("ID", ""))[:255], prefix=hit[:1024], expires_after=str(after)))
    return found
