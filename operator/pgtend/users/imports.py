"""A DatabaseUser for a role that is there already: what was observed of it, said in the words of a spec. Pure.

Whether applying it would change nothing is not believed but planned, with the very same plan: what is left is told.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from pgtend.api.base import API_VERSION
from pgtend.api.databaseuser import UserSpec, reserved
from pgtend.api.privileges import IN_SCHEMAS, OF_FUTURE, PRIVILEGES, SERVER_WIDE
from pgtend.core.findings import ObjectKey
from pgtend.core.patterns import pattern
from pgtend.users.plan import Credential, plan
from pgtend.users.state import NEVER, SERVER, DatabaseView, ObjectState, Observed, Privileges, RoleState
from pgtend.users.wanted import moment, wanted

MOST = 64
"""Names in a grant, and grants in a spec."""
ATTRIBUTES = {
    "SUPERUSER": "Superuser",
    "CREATEDB": "CreateDB",
    "CREATEROLE": "CreateRole",
    "REPLICATION": "Replication",
    "BYPASSRLS": "BypassRLS",
}
_Shape = tuple[str, str, str | None, tuple[str, ...], tuple[str, ...], bool]
"""Database, kind, schema, columns, privileges and grant option: what one grant is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """`spec` is None where none can say it. `differences` is what applying would change after all."""

    role: str
    name: str
    namespace: str
    spec: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        return self.spec is not None and not self.differences

    @property
    def body(self) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": "DatabaseUser",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": self.spec,
        }


def imported(
    role: RoleState,
    observed: Observed,
    *,
    target: dict[str, str],
    name: str,
    namespace: str,
    verifier: str = "Unknown",
) -> Imported:
    """`name` and `namespace` are the object's; `verifier` is how the role's password is kept (access.Person)."""
    notes: list[str] = []
    # without its present password, programs that log in would be locked out
    given = verifier in ("Scram", "Md5") or (role.login and verifier != "None")
    if given:
        notes.append(f"put its present password into Secret {name}-password, key password, before this is applied")
    elif verifier == "Unknown":
        notes.append("without login: if it has a password after all, that is taken away")
    spec: dict[str, Any] = {"targetRef": target, "roleName": role.name, "adoption": "IfUnowned"}
    if not role.login:
        spec["login"] = False
    if not role.inherit:
        spec["inherit"] = False
    if role.elevated:
        spec["attributes"] = [ATTRIBUTES[word] for word in sorted(role.elevated)]
    if role.connection_limit >= 0:
        spec["connectionLimit"] = role.connection_limit
    if role.valid_until is not None:
        spec["validUntil"] = _until(role.valid_until)
    spec |= _settings(role)
    spec["password"] = {"secretRef": {"name": f"{name}-password"}} if given else {"none": {}}
    if role.memberships:
        spec["memberOf"] = list(_memberships(role, observed.version))
    grants, whole = _grants(role.name, observed, notes)
    if grants:
        spec["grants"] = grants
    if defaults := list(_defaults(role.name, observed)):
        spec["defaultPrivileges"] = defaults
    if not whole:
        spec["pruning"] = "None"
    return _checked(role, observed, spec, notes, name=name, namespace=namespace)


def _checked(
    role: RoleState, observed: Observed, spec: dict[str, Any], notes: list[str], *, name: str, namespace: str
) -> Imported:
    """What the plan would do; where it would take something away that a spec cannot say, it is told to leave that."""
    for pruning in ("OwnGrants", "None"):
        said = spec if pruning == "OwnGrants" else spec | {"pruning": "None"}
        try:
            parsed = UserSpec.model_validate(said)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            path = ".".join(str(part) for part in first["loc"])
            return Imported(
                role=role.name, name=name, namespace=namespace, notes=(f"no spec can say it: {path}: {first['msg']}",)
            )
        # the mark is what applying does write
        known = wanted(ObjectKey("DatabaseUser", namespace, name), parsed, installation="import")
        made = plan(wanted=replace(known, mark=""), observed=observed, credential=Credential(ready=True, applied=True))
        left = (*made.differences, *(problem.message for problem in made.problems))
        if not left:
            break
    if said.get("pruning") == "None":
        notes.append("it has more than a spec can say; with pruning: None that is left alone")
    return Imported(role=role.name, name=name, namespace=namespace, spec=said, notes=tuple(notes), differences=left)


def importable(role: RoleState, *, logins: Collection[str]) -> str | None:
    """Why a role is left out, if so."""
    if role.name in logins:
        return "a login of pgtend's own"
    if reserved(role.name):
        return "its name belongs to the server or a managed service"
    if role.powerful or "SUPERUSER" in role.elevated:
        return "it has the powers of a superuser, and is never adopted"
    return None


def object_names(roles: Iterable[str]) -> dict[str, str]:
    """A Kubernetes name for each role: its own where it is one, else what is left of it with a piece of its hash."""
    found: dict[str, str] = {}
    for role in roles:
        if re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", role):
            found[role] = role
            continue
        plain = re.sub(r"[^a-z0-9]+", "-", role.lower()).strip("-")[:40].strip("-") or "role"
        found[role] = f"{plain}-{hashlib.sha256(role.encode()).hexdigest()[:8]}"
    return found


def _until(value: int) -> str:
    # -infinity is a microsecond before 1970 in a plan (state.NEVER), and never later than that in truth
    return moment(value).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ" if value == NEVER or value % 1_000_000 else "%Y-%m-%dT%H:%M:%SZ"
    )


def _settings(role: RoleState) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if role.settings.get(None):
        found["settings"] = dict(sorted(role.settings[None].items()))
    named = sorted((name, values) for name, values in role.settings.items() if name is not None)
    if named:
        found["databaseSettings"] = [{"database": name, "settings": dict(sorted(v.items()))} for name, v in named]
    return found


def _memberships(role: RoleState, major: int) -> Iterator[dict[str, Any]]:
    """Ours as it is; of others' the one that gives most."""
    best = {}
    for one in sorted(role.memberships, key=lambda one: (one.ours, one.admin, one.inherit, one.set_)):
        best[one.role] = one
    for group, one in sorted(best.items()):
        said: dict[str, Any] = {"role": group}
        if one.admin:
            said["admin"] = True
        if not one.inherit and major >= 16:
            said["inherit"] = False
        if not one.set_ and major >= 16:
            said["set"] = False
        yield said


def _grants(role: str, observed: Observed, notes: list[str]) -> tuple[list[dict[str, Any]], bool]:
    """The grants, and whether they say all."""
    whole = True
    shapes: dict[_Shape, list[str]] = {}
    for database, view in sorted(observed.databases.items()):
        columns: dict[tuple[str | None, str, Privileges, bool], list[str]] = {}
        for item in view.by_role.get(role, ()):
            if item.kind in OF_FUTURE:
                continue
            if not _exact(item, view):
                notes.append(
                    f"{item.shown} has a name that would be a pattern of others too: its privileges are left out"
                )
                whole = False
                continue
            held = item.held[role]
            for words, option in ((held.all - held.grantable, False), (held.all & held.grantable, True)):
                if words and item.column is not None:
                    columns.setdefault((item.schema, item.name, words, option), []).append(item.column)
                elif words:
                    shape: _Shape = (database, item.kind, item.schema, (), _ordered(item.kind, words), option)
                    shapes.setdefault(shape, []).append(item.name)
        for (schema, table, words, option), names in columns.items():
            part: _Shape = (database, "Table", schema, tuple(sorted(names)), _ordered("Table", words), option)
            shapes.setdefault(part, []).append(table)
    said = [grant for shape, names in sorted(shapes.items(), key=_sorting) for grant in _said(shape, sorted(names))]
    if len(said) > MOST:
        notes.append("more names than a spec holds: what it has on all objects of a kind it will have on new ones too")
        every = sorted(shapes.items(), key=_sorting)
        said = [grant for shape, names in every for grant in _said(shape, sorted(names), observed)]
    return said, whole


def _sorting(item: tuple[_Shape, list[str]]) -> tuple[str, ...]:
    return tuple(str(part) for part in item[0])


def _exact(item: ObjectState, view: DatabaseView) -> bool:
    if "*" not in item.name or item.kind == "Database":
        return True
    there = view.by_place.get((item.kind, item.schema), {})
    return not any(name != item.name and pattern(item.name).fullmatch(name) for name in there)


def _said(shape: _Shape, names: list[str], observed: Observed | None = None) -> Iterator[dict[str, Any]]:
    """With what was observed: without names where they are all that there is."""
    database, kind, schema, columns, words, option = shape
    base: dict[str, Any] = {} if kind in SERVER_WIDE else {"database": database}
    base["kind"] = kind
    if kind in IN_SCHEMAS:
        base["schema"] = schema
    rest: dict[str, Any] = {"columns": list(columns)} if columns else {}
    rest["privileges"] = list(words)
    if option:
        rest["grantOption"] = True
    if kind == "Database":
        yield base | rest
        return
    if observed is not None and kind in IN_SCHEMAS and not columns:
        there = observed.databases[database].by_place.get((kind, schema), {})
        if len(there) == len(names):
            yield base | rest
            return
    for first in range(0, len(names), MOST):
        yield base | {"names": names[first : first + MOST]} | rest


def _defaults(role: str, observed: Observed) -> Iterator[dict[str, Any]]:
    for database, view in sorted(observed.databases.items()):
        if database == SERVER:
            continue
        for item in sorted(view.by_role.get(role, ()), key=lambda item: (item.kind, item.schema or "", item.name)):
            if item.kind in OF_FUTURE:
                said: dict[str, Any] = {"database": database}
                if item.schema is not None:
                    said["schema"] = item.schema
                words = _ordered(item.kind, item.held[role].all)
                yield said | {
                    "creators": {"names": [item.name]},
                    "kind": OF_FUTURE[item.kind],
                    "privileges": list(words),
                }


def _ordered(kind: str, words: Privileges) -> tuple[str, ...]:
    return tuple(word for word in PRIVILEGES[kind] if word in words)
