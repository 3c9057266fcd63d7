"""Whether a target admits a window and its tasks. Pure; asked at every reconcile.

A guarded word (VacuumFull) needs an entry that lists it, in the target's own namespace too.
"""

from __future__ import annotations

from collections.abc import Sequence

from pgtend.api.postgrestarget import AccessEntry, TargetSpec
from pgtend.api.reasons import WindowReason as W
from pgtend.core.findings import ObjectKey
from pgtend.maintenance.judge import Trouble
from pgtend.server.consent import GUARDED, Consent, Requester, Unseen, consent_for

KIND = "MaintenanceWindow"


def refusal(
    *, words: Sequence[str], target: ObjectKey, target_spec: TargetSpec, requester: Requester
) -> Trouble | None:
    """None where the target's access admits a window with these tasks; else why not, about the word or namespace."""

    def asked(own_namespace: str) -> Consent | str:
        return consent_for(access=target_spec.access, target_namespace=own_namespace, requester=requester, kind=KIND)

    # an entry counts for the own namespace too, a selector among them, though it never narrows it
    listed = asked("")
    entries = listed.entries if isinstance(listed, Consent) else ()
    consent = asked(target.namespace)
    if isinstance(listed, Unseen) and (isinstance(consent, str) or any(word in GUARDED for word in words)):
        text = f"target {target}: {listed}"
        return Trouble(reason=W.SELECTOR_NEEDS_CLUSTER_MODE, message=text, object=requester.namespace)
    if isinstance(consent, str):
        return Trouble(reason=W.NOT_PERMITTED, message=f"target {target}: {consent}", object=requester.namespace)
    for word in words:
        if any(_lists(entry, word) for entry in entries) or (consent.own and word not in GUARDED):
            continue
        if not entries:
            text = (
                f"no access entry of target {target} lists task {word} for namespace {requester.namespace}, and {word}"
                f" is always listed word by word: ask its owner to add an entry with kinds [{KIND}] and tasks [{word}]"
            )
        else:
            names = ", ".join(entry.name for entry in entries)
            text = f"access {names} of target {target} does not admit task {word}: ask its owner to add it to tasks"
        return Trouble(reason=W.NOT_PERMITTED, message=text, object=word)
    return None


def _lists(entry: AccessEntry, word: str) -> bool:
    return word in entry.tasks or ("*" in entry.tasks and word not in GUARDED)
