"""Whether a target admits an operation, and whether its times are sound. Pure; asked at every reconcile.

A guarded word (TerminateQueries, VacuumFull) needs an entry that lists it, the target's own namespace too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pgtend.api.conditions import Reason
from pgtend.api.postgresoperation import OperationSpec
from pgtend.api.postgrestarget import AccessEntry, TargetSpec
from pgtend.api.reasons import OperationReason as R
from pgtend.core.clock import parse_rfc3339, rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.server.consent import GUARDED, Consent, Requester, Unseen, consent_for

AHEAD = timedelta(days=7)
KIND = "PostgresOperation"


@dataclass(frozen=True, slots=True, kw_only=True)
class No:
    """Why it is refused for good."""

    reason: Reason
    message: str
    object: str | None = None


def too_far(spec: OperationSpec, created: datetime) -> No | None:
    """notAfter is at most seven days after the object was made."""
    latest = created + AHEAD
    if parse_rfc3339(spec.not_after) <= latest:
        return None
    return No(
        reason=R.NOT_AFTER_TOO_FAR,
        message=f"notAfter {spec.not_after} lies more than 7 days ahead: {rfc3339(latest)} is the latest",
    )


def admit(*, spec: OperationSpec, target: ObjectKey, target_spec: TargetSpec, requester: Requester) -> No | None:
    """None where the target's access admits the operation."""
    word = spec.type

    def asked(own_namespace: str) -> Consent | str:
        return consent_for(access=target_spec.access, target_namespace=own_namespace, requester=requester, kind=KIND)

    # an entry counts for the own namespace too, a selector among them, though it never narrows it
    listed = asked("")
    entries = listed.entries if isinstance(listed, Consent) else ()
    if any(_lists(entry, word) for entry in entries):
        return None
    consent = asked(target.namespace)
    if isinstance(listed, Unseen) and (word in GUARDED or isinstance(consent, str)):
        text = f"target {target}: {listed}"
        return No(reason=R.SELECTOR_NEEDS_CLUSTER_MODE, message=text, object=requester.namespace)
    if isinstance(consent, str):
        return No(reason=R.NOT_PERMITTED, message=f"target {target}: {consent}", object=requester.namespace)
    if consent.own and word not in GUARDED:
        return None
    if consent.own or not entries:
        text = (
            f"no access entry of target {target} lists operation {word} for namespace {requester.namespace}, and"
            f" {word} is always listed word by word: ask its owner to add an entry with kinds [{KIND}] and operations"
            f" [{word}]"
        )
    else:
        names = ", ".join(entry.name for entry in entries)
        text = (
            f"access {names} of target {target} does not admit operation {word}: ask its owner to add it to operations"
        )
    return No(reason=R.NOT_PERMITTED, message=text, object=word)


def _lists(entry: AccessEntry, word: str) -> bool:
    return word in entry.operations or ("*" in entry.operations and word not in GUARDED)
