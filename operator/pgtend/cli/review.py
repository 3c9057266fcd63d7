"""What applying one DatabaseUser would do: whether it is admitted, whose the role is, and then the operator's own plan
with the statements that it would send. Values in, values out; a verifier is nowhere in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pgtend.api.databaseuser import UserSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.actions import Action
from pgtend.core.findings import ObjectKey
from pgtend.core.names import read_mark
from pgtend.core.redaction import STARS, Sensitive
from pgtend.kube.index import Record
from pgtend.server.consent import Requester
from pgtend.users.actions import CreateRole, PrivilegeAction, SetPassword, is_shared
from pgtend.users.admission import Refusal, admit
from pgtend.users.apply import render
from pgtend.users.claim import Claimant, judge_claim
from pgtend.users.plan import DIFFERS, Credential
from pgtend.users.plan_logins import login_of, plan_user
from pgtend.users.rotation import Candidate, Turn, logins, next_login
from pgtend.users.rotation import others as others_of
from pgtend.users.state import Observed
from pgtend.users.wanted import role_name, target_key, wanted

UNKNOWN_INSTALLATION = "unknown"
PASSWORD = "its password becomes the one in its Secret, which is not compared here"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """`refused` is why nothing would be done; `statements` are by database (None: where roles are tended)."""

    key: ObjectKey
    role: str
    target: ObjectKey
    refused: str | None = None
    differences: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    statements: tuple[tuple[str | None, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_change(self) -> bool:
        return bool(self.refused or self.differences or self.problems)

    @property
    def document(self) -> dict[str, Any]:
        return {
            "namespace": self.key.namespace,
            "name": self.key.name,
            "role": self.role,
            "target": str(self.target),
            "refused": self.refused,
            "differences": list(self.differences),
            "problems": list(self.problems),
            "statements": [{"database": database, "sql": text} for database, text in self.statements],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a review is held against: the target and its server; the DatabaseUsers that are there already, with how
    their namespaces ask."""

    target: ObjectKey
    spec: TargetSpec
    observed: Observed
    there: Mapping[ObjectKey, Record]
    requester: Callable[[str], Requester]
    installation: str | None = None


def review(record: Record, scene: Scene, *, others: Collection[Record]) -> Review:
    """`others` are the DatabaseUsers that ask for something beside it, from the cluster or the same files."""
    spec = record.parsed(UserSpec)
    key, role = record.key, role_name(record.key, spec)
    base = Review(key=key, role=role, target=scene.target)
    before = scene.there.get(key)
    if (fixed := _immutable(record, before)) is not None:
        return replace(base, refused=fixed)
    if spec.suspend:
        return replace(base, notes=("spec.suspend is true: the role is left as it is",))
    admitted = _admit(record, scene)
    if isinstance(admitted, Refusal):
        return replace(base, refused=f"{admitted.what}: {admitted.next_step}")
    installation = _installation(key, role, scene)
    known = wanted(key, spec, installation=installation)
    claim = judge_claim(
        wanted=known,
        observed=scene.observed,
        me=_claimant(before or record, spec, admitted.adoption),
        rivals=tuple(_rivals(record, role, scene, others)),
        installation=installation,
        lives=lambda name: any(str(one.key) == name and role_name(one.key, one.spec) == role for one in others),
    )
    if claim.verdict.status != "True":
        return replace(base, refused=claim.verdict.message)
    # what a role has that carries the mark was set by the operator, as far as can be told from here
    state = scene.observed.roles.get(role)
    given = state is not None and read_mark(state.comment) == read_mark(known.mark)
    turn = _turn(role, spec, before)
    for name in turn.others:
        login = judge_claim(
            wanted=login_of(known, name, login=True),
            observed=scene.observed,
            me=_claimant(before or record, spec, "Never"),
            rivals=_rivals(record, name, scene, others),
            installation=installation,
        )
        if login.verdict.status != "True":
            return replace(base, refused=login.verdict.message)
    none = spec.password is not None and spec.password.none is not None
    made = plan_user(
        wanted=known,
        observed=scene.observed,
        credential=Credential(ready=True, absent=none, applied=given),
        turn=turn,
    )
    observing = next((f"{what} is in mode Observe" for what, mode in _modes(spec, scene) if mode == "Observe"), None)
    return replace(
        base,
        differences=tuple(PASSWORD if text == DIFFERS else text for text in made.differences),
        problems=tuple(problem.message for problem in made.problems),
        statements=tuple(_statements(made.actions, () if none else (turn.active, turn.next))),
        notes=(f"nothing of it would be done while {observing}",) if observing else (),
    )


def _turn(role: str, spec: UserSpec, before: Record | None) -> Turn:
    """Who logs in, as the status of the object that is there says, and who would after a change of the strategy."""
    status: Mapping[str, Any] = before.status if before is not None else {}
    password = status.get("password") or {}
    active = password.get("activeLogin") or logins(role, spec)[0]
    follows = next_login(role, spec, active) if active not in logins(role, spec) else None
    return Turn(
        active=active,
        candidate=Candidate(login=follows, password=Sensitive(STARS)) if follows is not None else None,
        others=others_of(role, spec, status),
        retiring=password.get("retiringLogin"),
        over=False,
    )


def _statements(actions: Sequence[Action], given: Collection[str | None]) -> list[tuple[str | None, str]]:
    """As they would be sent, in order; where one of `given` gets its password there are stars."""
    roles = {action.role for action in actions if isinstance(action, CreateRole | SetPassword)}
    hidden = {role: Sensitive(STARS) if role in given else None for role in roles}
    places: dict[str | None, list[Action]] = {}
    for action in actions:
        places.setdefault(_place(action), []).append(action)
    order = sorted(places, key=lambda name: (name is not None, name or ""))
    return [(name, one.query.as_string(None)) for name in order for one in render(places[name], hidden)]


def _place(action: Action) -> str | None:
    return action.database if isinstance(action, PrivilegeAction) and not is_shared(action) else None


def _admit(record: Record, scene: Scene) -> Any:
    return admit(
        key=record.key,
        spec=record.spec,
        target=scene.target,
        target_spec=scene.spec,
        requester=scene.requester(record.key.namespace),
    )


def _rivals(record: Record, role: str, scene: Scene, others: Collection[Record]) -> list[Claimant]:
    found = []
    for other in others:
        spec = other.spec
        if other.key == record.key or not isinstance(spec, UserSpec) or spec.mode == "Observe" or other.deleting:
            continue
        asked = role_name(other.key, spec)
        if role in (asked, *others_of(asked, spec, other.status)) and target_key(other.key, spec) == scene.target:
            admitted = _admit(other, scene)
            if not isinstance(admitted, Refusal):
                found.append(_claimant(other, spec, admitted.adoption))
    return found


def _claimant(record: Record, spec: UserSpec, terms: Any) -> Claimant:
    return Claimant(key=record.key, created=record.created, asks=spec.adoption, admitted=terms)


def _modes(spec: UserSpec, scene: Scene) -> tuple[tuple[str, str], ...]:
    return ("it", spec.mode), (f"target {scene.target}", scene.spec.mode)


def _installation(key: ObjectKey, role: str, scene: Scene) -> str:
    """As it was said, or as the mark of this very object on the role says."""
    state = scene.observed.roles.get(role)
    mark = read_mark(state.comment) if state is not None else None
    if scene.installation is None and mark is not None and mark[1] == str(key):
        return mark[0]
    return scene.installation or UNKNOWN_INSTALLATION


def _immutable(record: Record, before: Record | None) -> str | None:
    if before is None or not isinstance(before.spec, UserSpec):
        return None
    if record.spec.target_ref != before.spec.target_ref:
        return "targetRef is immutable: make another DatabaseUser instead"
    if role_name(record.key, record.spec) != role_name(before.key, before.spec):
        return "roleName is immutable: make another DatabaseUser"
    return None
