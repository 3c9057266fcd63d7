"""Who is let in to which target: the target as it stands, what it admits, and who else is admitted to the same role.

Looks into the index and the namespaces' labels only; nothing is connected to here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass, replace

from pgtend.api.databaseuser import DATABASE_USER, UserSpec
from pgtend.api.postgrestarget import POSTGRES_TARGET, TargetSpec
from pgtend.api.reasons import TargetReason
from pgtend.api.reasons import UserReason as R
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.kube.index import Index, Record
from pgtend.server.consent import Requester, consent_for, role_admitted
from pgtend.server.ledger import Abandoned
from pgtend.server.registry import Registry
from pgtend.server.server import Server
from pgtend.users.admission import Admitted, Refusal, admit, needs_labels
from pgtend.users.claim import Claimant
from pgtend.users.look import ask_for
from pgtend.users.observe.read import Ask
from pgtend.users.rotation import others
from pgtend.users.state import Problem
from pgtend.users.undoing import Place, lacks_credential, place_for
from pgtend.users.wanted import role_name, target_key

Labels = Callable[[str], Awaitable[Mapping[str, str] | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a target is to its users now. Without `server` there is a `problem`; `waiting` where no probe ended yet."""

    key: ObjectKey
    spec: TargetSpec | None = None
    server: Server | None = None
    refusal: Refusal | None = None
    problem: Problem | None = None
    waiting: bool = False


class Door:
    """`watched` are the namespaces that the operator sees (none: all); `labels_of` gives the labels of a namespace
    (None where they may not be read)."""

    def __init__(self, *, index: Index, registry: Registry, labels_of: Labels, watched: frozenset[str]) -> None:
        self._index, self._registry, self._labels_of, self._watched = index, registry, labels_of, watched
        # as last seen: of a target that is gone nobody else can say it
        self._systems: dict[ObjectKey, str] = {}

    def target(self, key: ObjectKey) -> Target:
        if self._watched and key.namespace not in self._watched:
            what = f"target {key} is in a namespace that this operator does not watch"
            next_step = "add it to the operator's namespaces, or make another DatabaseUser"
            return Target(key=key, refusal=_not(R.TARGET_NOT_WATCHED, key, what, next_step))
        record = self._index.get(key)
        if record is None:
            what = f"PostgresTarget {key} does not exist"
            next_step = "create it, or make another DatabaseUser with the right targetRef"
            return Target(key=key, refusal=_not(R.TARGET_NOT_FOUND, key, what, next_step))
        if record.spec_error is not None:
            return Target(key=key, problem=Problem(reason=TargetReason.INVALID_SPEC, message=record.spec_error))
        spec = record.parsed(TargetSpec)
        if spec.suspend:
            text = "spec.suspend is true: it is not looked at"
            return Target(key=key, spec=spec, problem=Problem(reason=TargetReason.SUSPENDED, message=text))
        server = self._registry.find(key)
        if server is None or server.standing is None or server.spec != spec:
            text = "it has not been probed yet"
            return Target(
                key=key, spec=spec, waiting=True, problem=Problem(reason=TargetReason.NOT_PROBED, message=text)
            )
        refusal = server.standing.refusal
        if refusal is not None:
            problem = _as_told(record) or problem_of(refusal)
            return Target(key=key, spec=spec, server=server, problem=problem)
        if (system := _system(server)) is not None:
            self._systems[key] = system
        return Target(key=key, spec=spec, server=server)

    def last(self, target: Target) -> Target:
        """For one who is being deleted: a target that is gone as it was, where what it takes to undo is kept of it."""
        record = self._index.get(target.key)
        if target.server is not None or (record is not None and not record.deleting):
            return target
        going, kept = self._registry.find(target.key), self._registry.retired(target.key)
        if going is not None:
            text = f"PostgresTarget {target.key} has just been deleted"
            return Target(
                key=target.key, spec=going.spec, problem=Problem(reason=TargetReason.NOT_PROBED, message=text)
            )
        return target if kept is None else Target(key=target.key, spec=kept.spec, server=kept)

    def where(self, entry: Abandoned) -> tuple[Target | None, bool]:
        """Where what a deleted user left behind can be undone, and else whether it lacks a credential."""
        places = [self._place(record, entry) for record in self._index.of_kind(POSTGRES_TARGET.name)]
        places += [
            Place(key=kept.key, system=_system(kept), open=kept.spec.mode != "Observe", kept=True)
            for kept in self._registry.all_retired()
        ]
        place = place_for(entry, places)
        if place is None:
            return None, lacks_credential(entry, places)
        kept = self._registry.retired(place.key) if place.kept else None
        return Target(key=place.key, spec=kept.spec, server=kept) if kept else self.target(place.key), False

    def _place(self, record: Record, entry: Abandoned) -> Place:
        system = self._server_known(record.key)
        if not isinstance(record.spec, TargetSpec):
            return Place(key=record.key, system=system, open=False)
        spec = record.spec
        admitted = record.key == entry.target_key or _admits(spec, record.key, entry)
        watched = not self._watched or record.key.namespace in self._watched
        return Place(
            key=record.key,
            system=system,
            open=watched and admitted and spec.mode != "Observe" and not spec.suspend,
        )

    def system(self, target: Target) -> str | None:
        """The system identifier of the server that a target's users were made on, as far as it is known."""
        if target.server is not None and target.problem is None:
            return _system(target.server)
        return self._server_known(target.key) or self._systems.get(target.key)

    def _server_known(self, target: ObjectKey) -> str | None:
        """That of a target that exists: found by the last probe or, where that is in doubt, on record."""
        server, record = self._registry.find(target), self._index.get(target)
        if server is not None and server.standing is not None and server.standing.refusal is None:
            return _system(server)
        recorded = record.status.get("identity") if record is not None else None
        return str(recorded["systemIdentifier"]) if recorded else None

    async def admit(self, record: Record, spec: UserSpec, target: Target) -> Admitted | Refusal:
        if target.refusal is not None:
            return target.refusal
        if target.spec is None:
            return Admitted(by=f"nobody yet, since target {target.key} is not valid")
        labels = await self._labels_of(record.key.namespace) if needs_labels(target.spec) else None
        requester = Requester(namespace=record.key.namespace, labels=labels)
        found = admit(key=record.key, spec=spec, target=target.key, target_spec=target.spec, requester=requester)
        if isinstance(found, Refusal) and labels is None and needs_labels(target.spec):
            # not to be let look at a namespace's labels is no word of the target's: nobody loses a login by it
            return replace(found, withdrawn=False)
        return found

    async def rivals(self, target: Target, roles: Set[str]) -> dict[str, tuple[Claimant, ...]]:
        """For each role: who is admitted to it on the same server and would change it."""
        server = self._server_id(target.key)
        found: dict[str, list[Claimant]] = {role: [] for role in roles}
        for other in self._index.of_kind(DATABASE_USER.name):
            spec = other.spec
            if other.deleting or not isinstance(spec, UserSpec) or spec.mode == "Observe":
                continue
            wants = roles & {role_name(other.key, spec), *others(role_name(other.key, spec), spec, other.status)}
            if not wants:
                continue
            place = target_key(other.key, spec)
            if place != target.key and self._server_id(place) != server:
                continue
            where = target if place == target.key else self.target(place)
            if where.spec is None or where.spec.mode == "Observe":
                continue
            admitted = await self.admit(other, spec, where)
            if isinstance(admitted, Admitted):
                asks, terms = spec.adoption, admitted.adoption
                claimant = Claimant(key=other.key, created=other.created, asks=asks, admitted=terms)
                for role in wants:
                    found[role].append(claimant)
        return {role: tuple(claimants) for role, claimants in found.items()}

    def lives(self, name: str, *, role: str, target: ObjectKey) -> bool:
        """Whether the DatabaseUser `namespace/name` still asks for this role there, be it admitted or not. One that
        cannot be seen or read is taken to."""
        namespace, _, called = name.partition("/")
        if self._watched and namespace not in self._watched:
            return True
        found = self._index.get(ObjectKey(DATABASE_USER.name, namespace, called))
        if found is None or not isinstance(found.spec, UserSpec):
            return found is not None
        place = target_key(found.key, found.spec)
        asked = role_name(found.key, found.spec)
        return role in (asked, *others(asked, found.spec, found.status)) and self._server_id(place) == self._server_id(
            target
        )

    def everybody(self, target: ObjectKey) -> Ask:
        """What to look at for all users of a target."""
        users, families = [], []
        for record in self._index.of_kind(DATABASE_USER.name):
            spec = record.spec
            if not isinstance(spec, UserSpec) or target_key(record.key, spec) != target:
                continue
            role = role_name(record.key, spec)
            users.append((role, spec))
            if logins := others(role, spec, record.status):
                families.append((role, *logins))
        return ask_for(users, families=families)

    def _server_id(self, target: ObjectKey) -> str:
        server = self._registry.find(target)
        return (_system(server) if server is not None else None) or str(target)


def _system(server: Server) -> str | None:
    identity = server.standing.identity if server.standing is not None else None
    return identity.system_identifier if identity is not None else None


def _admits(spec: TargetSpec, target: ObjectKey, entry: Abandoned) -> bool:
    """Whether a target that the user did not name lets its namespace have that role; the namespace may be gone, and its
    labels with it."""
    requester = Requester(namespace=entry.namespace, labels=None)
    consent = consent_for(
        access=spec.access, target_namespace=target.namespace, requester=requester, kind=DATABASE_USER.name
    )
    if isinstance(consent, str):
        return False
    return consent.own or bool(role_admitted(consent, role=entry.role, namespace=entry.namespace))


def _as_told(target: Record) -> Problem | None:
    """What the target itself says about not being ready: where no member is reached, why not."""
    conditions = {c["type"]: c for c in target.status.get("conditions") or ()}
    ready, reachable = conditions.get("Ready"), conditions.get("Reachable")
    if ready is None or ready["status"] != "False" or ready["reason"] not in TargetReason._value2member_map_:
        return None
    told = reachable if reachable is not None and reachable["reason"] == ready["reason"] else ready
    return Problem(reason=TargetReason(ready["reason"]), message=told["message"], transient=True)


def problem_of(error: PgtendError) -> Problem:
    return Problem(reason=error.reason, message=error.message, object=error.object, transient=error.transient)


def _not(reason: R, key: ObjectKey, what: str, next_step: str) -> Refusal:
    return Refusal(reason=reason, about=str(key), what=what, next_step=next_step)
