"""What a plan consists of: values that say what is to change, without SQL and without secrets."""

from __future__ import annotations

from dataclasses import dataclass

from pgtend.core.actions import Action
from pgtend.users.state import NEVER, SERVER, Privileges


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleOptions:
    """Attributes to set; None leaves one alone. `valid_until` is in microseconds since 1970, `NO_END` takes it away;
    `having` and `without` are attributes to give and to take away, in SQL's words (SUPERUSER)."""

    login: bool | None = None
    inherit: bool | None = None
    connection_limit: int | None = None
    valid_until: int | None = None
    having: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


NO_END = NEVER - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleAction(Action):
    """Acts on a role: a shared object, locked in the maintenance database."""

    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRole(RoleAction):
    """With its password and its mark (as comment), in one transaction."""

    options: RoleOptions
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRole(RoleAction):
    """Makes an existing role this object's: the mark at the end of its comment, which was `before`."""

    comment: str
    before: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterRole(RoleAction):
    options: RoleOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPassword(RoleAction):
    """The verifier is handed to apply beside the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropRole(RoleAction):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSessions(RoleAction):
    """Of a role that cannot log in any more. Our login is a member of it, or (`borrowed`) becomes one for as long as it
    takes; `options` from 16 on, where a membership has them."""

    borrowed: bool = False
    options: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedAction(RoleAction):
    """On what a role has in one database or, in the maintenance database (None), of the server too."""

    database: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReassignOwned(OwnedAction):
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DropOwned(OwnedAction):
    """Its privileges, and what it has for itself alone; refused where it owns anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSetting(RoleAction):
    """A setting of the role's sessions, in one database or (None) in all; `values` None takes it away."""

    database: str | None
    name: str
    values: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipAction(RoleAction):
    """Makes the role a member of `group`, or ends that."""

    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantMembership(MembershipAction):
    """Also changes the options of a membership that is ours. `inherit` and `set_` are None before 16."""

    admin: bool
    inherit: bool | None
    set_: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeMembership(MembershipAction):
    """`admin_only` takes away the right to hand it on; `grantor` is whose grant it is, where not ours."""

    admin_only: bool = False
    grantor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivilegeAction(RoleAction):
    """Privileges on objects of one kind in one database (SERVER: of the server) and, of what lives in one, in one
    schema; of one table's `columns`, where there are any. `arguments` are those that end the names of routines."""

    kind: str
    database: str
    schema: str | None
    names: tuple[str, ...]
    privileges: Privileges
    columns: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantPrivileges(PrivilegeAction):
    option: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokePrivileges(PrivilegeAction):
    """`option_only` takes away the right to hand them on; `grantor` is whose grant it is, where not ours."""

    option_only: bool = False
    grantor: str | None = None


def is_shared(action: Action) -> bool:
    """Whether it changes a shared object; the others are local to their database."""
    if isinstance(action, OwnedAction):
        return action.database is None
    return not isinstance(action, PrivilegeAction) or action.kind == "Database" or action.database == SERVER
