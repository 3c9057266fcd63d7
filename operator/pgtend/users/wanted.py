"""A spec as the plan wants it: defaults filled in, names resolved, nothing of Kubernetes left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pgtend.api.databaseuser import MemberOf, UserSpec
from pgtend.api.grants import DefaultPrivilege, Grant
from pgtend.core.clock import parse_rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.core.names import role_mark
from pgtend.users.wishes import member_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a role should be. `attributes` are in SQL's words, `valid_until` is in microseconds since 1970, `settings`
    are by database (None: all)."""

    role: str
    mark: str
    login: bool = True
    inherit: bool = True
    attributes: frozenset[str] = frozenset()
    connection_limit: int = -1
    valid_until: int | None = None
    settings: Mapping[str | None, Mapping[str, str]] = field(default_factory=dict)
    member_of: tuple[MemberOf, ...] = ()
    grants: tuple[Grant, ...] = ()
    default_privileges: tuple[DefaultPrivilege, ...] = ()
    acts_as: str | None = None
    """The role that its sessions are, from their first statement."""
    prunes: bool = True
    """Whether what is beyond is taken away; where not it is no difference either."""
    prunes_others: bool = False
    """Also what others granted."""

    @property
    def databases(self) -> frozenset[str]:
        named = {grant.database for grant in self.grants} | {one.database for one in self.default_privileges}
        return frozenset(database for database in named if database is not None)


def role_name(key: ObjectKey, spec: UserSpec) -> str:
    return spec.role_name or key.name


def derived(role: str) -> tuple[str, str]:
    """The logins of a role that does not log in itself."""
    return f"{role}_a", f"{role}_b"


def secret_name(key: ObjectKey, spec: UserSpec) -> str:
    return spec.secret.name or key.name


def target_key(key: ObjectKey, spec: UserSpec) -> ObjectKey:
    return ObjectKey("PostgresTarget", spec.target_ref.namespace or key.namespace, spec.target_ref.name)


def wanted(key: ObjectKey, spec: UserSpec, *, installation: str) -> Wanted:
    return Wanted(
        role=role_name(key, spec),
        mark=role_mark(installation=installation, namespace=key.namespace, name=key.name),
        login=spec.login,
        inherit=spec.inherit,
        attributes=frozenset(attribute.upper() for attribute in spec.attributes),
        connection_limit=-1 if spec.connection_limit is None else spec.connection_limit,
        valid_until=None if spec.valid_until is None else microseconds(parse_rfc3339(spec.valid_until)),
        settings={None: spec.settings} | {one.database: one.settings for one in spec.database_settings},
        member_of=member_of(spec.member_of, spec.grants),
        grants=spec.grants,
        default_privileges=spec.default_privileges,
        prunes=spec.pruning != "None",
        prunes_others=spec.pruning == "All",
    )


def microseconds(moment: datetime) -> int:
    """Since 1970, exactly as PostgreSQL keeps it."""
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def moment(value: int) -> datetime:
    """The inverse of `microseconds`; what lies beyond a datetime is its nearest."""
    try:
        return _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if value > 0 else datetime.min.replace(tzinfo=UTC)
