"""Who may ask what of a target (api.md, "References, consent, tenancy"). Pure; checked at every reconcile.

Entries are additive, an omitted or empty list admits nothing, "*" admits all but the guarded words, which are always
listed one by one. Where no entry names the target's own namespace, it is admitted to everything but the guarded words;
a selector never narrows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgtend.api.postgrestarget import AccessEntry, NamespaceSelector, UserLimits
from pgtend.core.patterns import pattern as compiled

GUARDED = frozenset(
    {"Restore", "RunSQL", "UpdateSettings", "TerminateQueries", "TerminateBlockers", "VacuumFull", "Superuser"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Whose object asks: its namespace and that namespace's labels (None where they cannot be read)."""

    namespace: str
    labels: Mapping[str, str] | None


class Unseen(str):
    """A refusal that might be none: an entry selects namespaces by labels, which this installation may not read."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Consent:
    """The entries that admit the requester; `own` where the target's own namespace needs none."""

    entries: tuple[AccessEntry, ...]
    own: bool

    @property
    def names(self) -> str:
        return ", ".join(entry.name for entry in self.entries) or "the target's own namespace"


def consent_for(
    *, access: Sequence[AccessEntry], target_namespace: str, requester: Requester, kind: str
) -> Consent | str:
    """The consent for objects of this kind, or the text that says why there is none (`Unseen` where a selector might
    have given it)."""
    mine = tuple(entry for entry in access if _covers(entry.namespaces, requester))
    own = requester.namespace == target_namespace
    named = any(requester.namespace in (entry.namespaces.names or ()) for entry in access)
    if own and not named:
        return Consent(entries=(), own=True)
    if not mine:
        if hidden := _hidden(access, requester, kind):
            return Unseen(
                f"access {hidden} selects namespaces by labels, which this installation may not read, as in namespaced"
                f" mode: list {requester.namespace} in its namespaces.names, or install pgtend in cluster mode"
            )
        return f"no access entry admits namespace {requester.namespace}: ask the target's owner to add one"
    admitting = tuple(entry for entry in mine if _lists(entry.kinds, kind))
    if not admitting:
        names = ", ".join(entry.name for entry in mine)
        return f"access {names} does not admit kind {kind}: ask the target's owner to add it to kinds"
    return Consent(entries=admitting, own=False)


def role_admitted(consent: Consent, *, role: str, namespace: str) -> tuple[UserLimits, ...]:
    """The limits of the entries whose rolePattern fits the role; empty where none does. Own consent has no limits."""
    limits = tuple(entry.users for entry in consent.entries if entry.users is not None)
    return tuple(limit for limit in limits if matches(limit.role_pattern, role, namespace=namespace))


def matches(pattern: str, text: str, *, namespace: str = "") -> bool:
    """Patterns know `*` only; `{namespace}` stands for the requester's, letter for letter.

    With - as _ the roles of namespace shop-eu would be roles of namespace shop, too. A namespace has no underscore, so
    `{namespace}_*` ends where it ends. Where no namespace is given (lists of roles and databases) it stands for itself:
    for nothing at all it would leave a pattern that fits more than it says.
    """
    return compiled(pattern.replace("{namespace}", namespace or "{namespace}")).fullmatch(text) is not None


def _covers(namespaces: NamespaceSelector, requester: Requester) -> bool:
    if namespaces.names is not None:
        return requester.namespace in namespaces.names
    if namespaces.selector is None or requester.labels is None:
        return False
    return all(requester.labels.get(key) == value for key, value in namespaces.selector.match_labels.items())


def _hidden(access: Sequence[AccessEntry], requester: Requester, kind: str) -> str:
    """The names of the entries that would admit the kind if only its namespace's labels could be seen."""
    if requester.labels is not None:
        return ""
    selecting = (e for e in access if e.namespaces.selector is not None and _lists(e.kinds, kind))
    return ", ".join(entry.name for entry in selecting)


def _lists(words: Sequence[str], word: str) -> bool:
    return word in words or ("*" in words and word not in GUARDED)
