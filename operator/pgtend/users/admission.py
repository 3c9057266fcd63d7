"""What a target admits of a DatabaseUser (api.md, "References, consent, tenancy"). Pure; asked at every reconcile.

Each privilege must be admitted by one entry as a whole: its namespace, the role's pattern, the database, the privilege.
A refusal names the entry, what it admits, and the next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pgtend.api.conditions import Reason
from pgtend.api.databaseuser import RESERVED_TEXT, UserSpec, reserved
from pgtend.api.postgrestarget import AccessEntry, TargetSpec, UserLimits
from pgtend.api.privileges import words_of
from pgtend.api.reasons import UserReason as R
from pgtend.core.findings import ObjectKey
from pgtend.server.consent import GUARDED, Requester, Unseen, consent_for, matches
from pgtend.users.state import AS_SUPERUSER, OF_PROVIDERS, SERVER
from pgtend.users.wanted import derived, role_name
from pgtend.users.wishes import expand, member_of

BY_NAME = frozenset({"Superuser", "CreateRole", "Replication"})
"""Attributes: before 16 who has CREATEROLE gives itself any role but a superuser's, pg_execute_server_program too; who
has REPLICATION copies the whole server, whatever its privileges."""
TAKES_OVER = frozenset({"Set", "AlterSystem"})
"""On parameters: who has these can make itself a superuser, since some name programs and libraries to run."""


Adoption = Literal["Never", "IfUnowned", "Always"]
ADOPTIONS: tuple[Adoption, ...] = ("Never", "IfUnowned", "Always")
"""From the strictest on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """`by` is what admitted it, for people; `adoption` is which existing roles it may take over."""

    by: str
    adoption: Adoption = "Never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why not. The judge tells `what`, since when, and then the `next_step`. `withdrawn` where namespace or role are
    not admitted at all, whatever the spec asks for."""

    reason: Reason
    about: str
    what: str
    next_step: str
    withdrawn: bool = False


def admit(
    *, key: ObjectKey, spec: UserSpec, target: ObjectKey, target_spec: TargetSpec, requester: Requester
) -> Admitted | Refusal:
    """Whether the target admits all of the spec."""
    role = role_name(key, spec)
    if reserved(role):
        return _role(role, f"{role} may not be tended: {RESERVED_TEXT}")
    logins, names = logins_of(target_spec), (role, *(derived(role) if spec.two_logins else ()))
    for name in names:
        if name in logins:
            return _role(name, f"{name} is the login of target {target} for {logins[name]}")
        if len(name.encode()) > 63:
            return _role(name, f"login {name} is longer than 63 bytes")
    for one in spec.member_of:
        if one.role in logins or one.role in names:
            what = f"the login of target {target} for {logins[one.role]}" if one.role in logins else "the role itself"
            text = "take it out of spec.memberOf"
            return Refusal(reason=R.ROLE_NOT_ALLOWED, about=one.role, what=f"{one.role} is {what}", next_step=text)
    heir = spec.drop.reassign_owned_to
    if heir is not None and (reserved(heir) or heir in logins or heir in (role, *AS_SUPERUSER, *OF_PROVIDERS)):
        what = "the role itself" if heir == role else "of the server, of its provider or of pgtend"
        text = "name another in spec.drop.reassignOwnedTo"
        return Refusal(reason=R.ROLE_NOT_ALLOWED, about=heir, what=f"{heir} is {what}", next_step=text)
    consent = consent_for(
        access=target_spec.access, target_namespace=target.namespace, requester=requester, kind="DatabaseUser"
    )
    if isinstance(consent, str):
        what, _, next_step = consent.partition(": ")
        what = f"target {target}: {what}"
        if isinstance(consent, Unseen):
            reason = R.SELECTOR_NEEDS_CLUSTER_MODE
            return Refusal(reason=reason, about=key.namespace, what=what, next_step=next_step)
        return _refused(what, next_step, key.namespace, withdrawn=True)
    if consent.own:
        own = f"target {target}, whose namespace is this object's own"
        return _guarded(spec, target) or Admitted(by=own, adoption="Always")
    entries = [
        entry
        for entry in consent.entries
        if entry.users and all(_role_fits(entry.users, name, key.namespace) for name in names)
    ]
    if not entries:
        patterns = sorted({entry.users.role_pattern for entry in consent.entries if entry.users})
        return _refused(
            f"{_access(consent.entries)} of target {target} does not admit {_spoken(names)} (admits"
            f" {', '.join(patterns) or 'none, since it has no section users'})",
            "ask its owner to widen users.rolePattern, or make another DatabaseUser with another roleName",
            role,
            withdrawn=True,
        )
    refusal = _grants(spec, target, entries) or _of_role(spec, target, entries)
    if refusal is not None:
        return refusal
    adoption = max((entry.users.adoption for entry in entries if entry.users), key=ADOPTIONS.index)
    return Admitted(by=f"target {target}, access {', '.join(entry.name for entry in entries)}", adoption=adoption)


def _grants(spec: UserSpec, target: ObjectKey, entries: Sequence[AccessEntry]) -> Refusal | None:
    for named in spec.database_settings:
        if not _in(named.database, entries):
            return _no_database(named.database, target, entries, "remove it from databaseSettings")
    for wish in expand(spec.grants, spec.default_privileges):
        here = _in(wish.database, entries) if wish.database != SERVER else [e for e in entries if e.users]
        if not here:
            return _no_database(wish.database, target, entries, "remove the grant")
        for privilege in words_of(wish.kind):
            if privilege not in wish.words:
                continue
            by_name = privilege in TAKES_OVER
            able = [e for e in here if e.users and _word(e.users.max_privileges, privilege, by_name=by_name)]
            if able and wish.option and not any(e.users and e.users.grant_option for e in able):
                return _handing_on(f"privilege {privilege}", target, able, "grantOption out of the grant", privilege)
            if able:
                continue
            words = [word for entry in here if entry.users for word in entry.users.max_privileges]
            return _refused(
                f"{_access(here)} of target {target} does not admit privilege {privilege} (admits"
                f" {', '.join(dict.fromkeys(words)) or 'none'})",
                "ask its owner to add it to users.maxPrivileges, or remove the grant",
                privilege,
            )
    return None


def _in(database: str, entries: Sequence[AccessEntry]) -> list[AccessEntry]:
    return [entry for entry in entries if entry.users and _lists(entry.users.databases, database)]


def _no_database(name: str, target: ObjectKey, entries: Sequence[AccessEntry], otherwise: str) -> Refusal:
    names = sorted({name for entry in entries if entry.users for name in entry.users.databases})
    return _refused(
        f"{_access(entries)} of target {target} does not admit database {name} (admits {', '.join(names) or 'none'})",
        f"ask its owner to add it to users.databases, or {otherwise}",
        name,
    )


def _of_role(spec: UserSpec, target: ObjectKey, entries: Sequence[AccessEntry]) -> Refusal | None:
    """Attributes and memberships, each by one entry."""
    limits = [entry.users for entry in entries if entry.users]
    for attribute in spec.attributes:
        if not any(_word(limit.attributes, attribute, by_name=attribute in BY_NAME) for limit in limits):
            admitted: dict[str, None] = dict.fromkeys(str(word) for limit in limits for word in limit.attributes)
            return _refused(
                f"{_access(entries)} of target {target} does not admit attribute {attribute} (admits"
                f" {', '.join(admitted) or 'none'})",
                "ask its owner to add it to users.attributes, or remove it from spec.attributes",
                attribute,
            )
    heir = spec.drop.reassign_owned_to
    if heir is not None and not any(_lists(limit.member_of, heir) for limit in limits):
        # who owns a function decides with whose rights it runs: to give one away is to act as its owner
        words = dict.fromkeys(word for limit in limits for word in limit.member_of)
        return _refused(
            f"{_access(entries)} of target {target} does not admit role {heir} as owner (admits"
            f" {', '.join(words) or 'none'})",
            "ask its owner to add it to users.memberOf, or remove it from spec.drop.reassignOwnedTo",
            heir,
        )
    for one in member_of(spec.member_of, spec.grants):
        by_name = any(one.role in limit.member_of for limit in limits)
        if not by_name and (one.role in AS_SUPERUSER or not any(_lists(limit.member_of, one.role) for limit in limits)):
            admitted = dict.fromkeys(word for limit in limits for word in limit.member_of)
            return _refused(
                f"{_access(entries)} of target {target} does not admit membership in {one.role} (admits"
                f" {', '.join(admitted) or 'none'})",
                "ask its owner to add it by name to users.memberOf, or remove it from spec.memberOf",
                one.role,
            )
        able = [e for e in entries if e.users and _lists(e.users.member_of, one.role)]
        if one.admin and not any(e.users and e.users.grant_option for e in able):
            return _handing_on(f"membership in {one.role}", target, able, "admin out of spec.memberOf", one.role)
    return None


def _handing_on(what: str, target: ObjectKey, entries: Sequence[AccessEntry], out: str, about: str) -> Refusal:
    """Who hands on decides who else has it, and that is the target's to say."""
    text = f"{_access(entries)} of target {target} admits {what}, and not to hand it on"
    return _refused(text, f"ask its owner for users.grantOption, or take {out}", about)


def _guarded(spec: UserSpec, target: ObjectKey) -> Refusal | None:
    """What the own namespace too is admitted to only where an entry lists it."""
    words = {word for wish in expand(spec.grants) for word in wish.words}
    asked = [
        *(attribute for attribute in spec.attributes if attribute in BY_NAME),
        *(one.role for one in spec.member_of if one.role in AS_SUPERUSER),
        *sorted(words & TAKES_OVER),
    ]
    if not asked:
        return None
    return _refused(
        f"target {target} admits {asked[0]} to nobody, its own namespace included, unless an access entry lists it",
        "ask its owner for an entry that names this namespace, and lists it in users.attributes, users.memberOf or"
        " users.maxPrivileges",
        asked[0],
    )


def logins_of(target_spec: TargetSpec) -> dict[str, str]:
    """pgtend's own logins, by role, with what each is for."""
    given = {name: getattr(target_spec.credentials, name) for name in type(target_spec.credentials).model_fields}
    given.setdefault("users", None)
    return {
        (one.username if one is not None else None) or f"pgtend_{name}": name
        for name, one in given.items()
        if one is not None or name == "users"
    }


def _spoken(names: Sequence[str]) -> str:
    return f"role {names[0]}" if len(names) == 1 else f"role {names[0]} with its logins {' and '.join(names[1:])}"


def _role_fits(limits: UserLimits, role: str, namespace: str) -> bool:
    return matches(limits.role_pattern, role, namespace=namespace)


def _lists(patterns: Sequence[str], name: str) -> bool:
    return any(matches(pattern, name) for pattern in patterns)


def _word(words: Sequence[str], word: str, *, by_name: bool = False) -> bool:
    return word in words or ("*" in words and not by_name and word not in GUARDED)


def _access(entries: Sequence[AccessEntry]) -> str:
    return f"access {', '.join(entry.name for entry in entries)}"


def _refused(what: str, next_step: str, about: str, *, withdrawn: bool = False) -> Refusal:
    return Refusal(reason=R.NOT_PERMITTED, about=about, what=what, next_step=next_step, withdrawn=withdrawn)


def _role(role: str, what: str) -> Refusal:
    text = "make another DatabaseUser with another roleName"
    return Refusal(reason=R.ROLE_NOT_ALLOWED, about=role, what=what, next_step=text)


def needs_labels(target_spec: TargetSpec) -> bool:
    """Whether the labels of the asking namespace matter at all: they are read from the API only then."""
    return any(entry.namespaces.selector is not None for entry in target_spec.access)
