"""DatabaseUser: a role, its password in a Secret, and what it may do, held equal to the spec."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from pgtend.api.base import ApiModel, Column, Kind
from pgtend.api.conditions import BaseStatus
from pgtend.api.grants import DatabaseName, DefaultPrivilege, Grant, quoted
from pgtend.api.reasons import UserReason
from pgtend.api.refs import SecretKeyRef, TargetRef
from pgtend.api.schedule import DEFAULT_TIME_ZONE, Schedule, TimeZoneName
from pgtend.api.settings import elements
from pgtend.api.types import Duration, ObjectName, Timestamp

RESERVED = "^(pg_|rds|cloudsql|azure|alloydb)"
RESERVED_TEXT = (
    "a role is not named public or none, nor pg_*, rds*, cloudsql*, azure* or alloydb*, which belong to the server"
)
PasswordSource = Literal["Generate", "SecretRef", "None"]
Exposed = Literal["Log", "PgStatStatements", "PgAudit"]
Attribute = Literal["CreateDB", "CreateRole", "Replication", "BypassRLS", "Superuser"]
GRACE = Duration("1h")
LEAST_INTERVAL = 300.0
_ONE_RHYTHM = "rotation takes schedule or interval, not both"
_OF_GENERATED = "rotation and rotateIfOlderThan are of a generated password: change a given one in its Secret"
_ROOM_FOR_LOGINS = "with strategy DualRole roleName has at most 61 bytes: its logins end with _a and _b"
_NOTHING_TO_NAME = "with password none there is no .password and no .pgpass: take them out of secret.templates"
_LOST_OF_GENERATED = "onLostSecret Rotate is of a generated password"
_ONE_SOURCE = "exactly one of generate, secretRef and none is needed"
SECRET_KEYS = ("username", "password", "host", "port", "dbname", "uri", "jdbc-uri", "pgpass")
"""What the Secret of a user holds."""
_TEMPLATE = r"([^{]|\{[^{]|\{\{ ?\.(" + "|".join(SECRET_KEYS) + r") ?\}\})*\{?"
_TEMPLATE_CEL = "^" + _TEMPLATE.replace("\\", "\\\\") + "$"
_TEMPLATE_TEXT = "between {{ and }} stands one of " + ", ".join(f".{key}" for key in SECRET_KEYS) + ", and nothing else"


def reserved(role: str) -> bool:
    """Whether a role's name belongs to the server or to a managed service."""
    return role in ("public", "none") or re.match(RESERVED, role) is not None


class Generate(ApiModel):
    """A password made by pgtend. Its 22 characters or more are 128 bits: a verifier that leaks is not guessed back."""

    length: Annotated[int, Field(ge=22, le=128)] = 32
    alphabet: Literal["URLSafe", "Alphanumeric"] = "URLSafe"


class NoPassword(ApiModel):
    """The role has no password in the database, and its Secret none either."""


class UserPassword(ApiModel):
    """Exactly one member. Left out, it is `generate: {}`."""

    generate: Generate | None = None
    secret_ref: SecretKeyRef | None = None
    """A Secret of the object's own namespace; key password."""
    none: NoPassword | None = None
    """For logins by certificate or by a cloud's IAM."""
    on_lost: Annotated[Literal["Wait", "Rotate"], Field(alias="onLostSecret")] = "Wait"
    """Of a generated password whose Secret is gone while the role has it: leave the role alone and say so, or make
    another password, which refuses programs that hold the one before."""
    cel = (
        ("[has(self.generate), has(self.secretRef), has(self.none)].filter(given, given).size() == 1", _ONE_SOURCE),
        ("has(self.generate) || self.onLostSecret == 'Wait'", _LOST_OF_GENERATED),
    )

    @model_validator(mode="after")
    def _one_member(self) -> Self:
        if sum(member is not None for member in (self.generate, self.secret_ref, self.none)) != 1:
            raise ValueError(_ONE_SOURCE)
        if self.generate is None and self.on_lost != "Wait":
            raise ValueError(_LOST_OF_GENERATED)
        return self


TemplateKey = Annotated[str, Field(max_length=63)]
Template = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


def _templates(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        if re.fullmatch("[-._a-zA-Z0-9]+", key) is None:
            raise ValueError(f"{key!r} is no key of a Secret: letters, digits, dots, dashes and underscores are")
        if key in SECRET_KEYS:
            raise ValueError(f"{key} is one of the Secret's own keys: choose another")
        if re.fullmatch(_TEMPLATE, text) is None:
            raise ValueError(f"template {key}: {_TEMPLATE_TEXT}")
    return value


class UserSecret(ApiModel):
    """The Secret that pgtend writes, and what it says beside the role and the password."""

    name: ObjectName | None = None
    """Default: the object's own name."""
    endpoint: Literal["Members", "Pooler"] = "Members"
    """What host, port, uri, jdbc-uri and pgpass lead to: all members of the target, or its `pooler`."""
    database: DatabaseName | None = None
    """Key dbname. Default: the first of `grants`."""
    templates: Annotated[dict[TemplateKey, Template], Field(max_length=16), AfterValidator(_templates)] = Field(
        default={}
    )
    """More keys, by name; `{{ .username }}` and the other standard keys stand for their values, as they are."""
    cel = (
        (
            f"!has(self.templates) || self.templates.all(k, !(k in {quoted(SECRET_KEYS)}))",
            "templates: a key is one of the Secret's own",
        ),
        (
            f"!has(self.templates) || self.templates.all(k, self.templates[k].matches('{_TEMPLATE_CEL}'))",
            f"templates: {_TEMPLATE_TEXT}",
        ),
    )


SettingName = Annotated[str, StringConstraints(max_length=63)]
_SETTING = r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*"


def _settings(value: dict[str, str]) -> dict[str, str]:
    if len({name.lower() for name in value}) < len(value):
        raise ValueError("a setting is named twice, in capitals and without")
    for name, text in value.items():
        if not re.fullmatch(_SETTING, name) or "\0" in text:
            raise ValueError(f"{name!r} is no setting's name, or its value has a NUL")
        elements(name, text)
    return value


Settings = Annotated[
    dict[SettingName, Annotated[str, Field(max_length=1024)]], Field(max_length=32), AfterValidator(_settings)
]


class DatabaseSettings(ApiModel):
    database: DatabaseName
    settings: Settings


class MemberOf(ApiModel):
    """Membership in a role. `inherit` and `set` can be false from PostgreSQL 16 on."""

    role: DatabaseName
    admin: bool = False
    """May hand it on."""
    inherit: bool = True
    """Has its privileges without SET ROLE."""
    set_: Annotated[bool, Field(alias="set")] = True
    """May SET ROLE to it."""


class Drop(ApiModel):
    """How a role is dropped."""

    reassign_owned_to: DatabaseName | None = None
    """Who gets what the role owns, in all databases. Default: nobody, and a role that owns something is not dropped.
    The target's `access` must admit it as it does a membership; never a superuser."""
    sessions: Literal["Refuse", "Wait", "Terminate"] = "Refuse"
    """A role that has sessions is left as it is, loses its login until they have ended, or they are ended."""


def _rotating(value: Duration) -> Duration:
    if value.seconds < LEAST_INTERVAL:
        raise ValueError("at least 5m")
    return value


class Rotation(ApiModel):
    """A new password from time to time. Without schedule and interval only `rotateIfOlderThan` asks for one."""

    schedule: Schedule | None = None
    """The first start after the password was made; one that was missed is made up for at once."""
    interval: Annotated[Duration | None, AfterValidator(lambda value: value and _rotating(value))] = None
    """At least 5m, and longer than grace."""
    time_zone: TimeZoneName = DEFAULT_TIME_ZONE
    """Of the schedule."""
    strategy: Literal["InPlace", "DualRole"] = "InPlace"
    """InPlace gives the role another password: who holds the old one is refused. DualRole has two logins, `<role>_a`
    and `<role>_b`, that are members of the role and act as it: one is used while the other is made anew."""
    grace: Duration = GRACE
    """Of DualRole: for how long the login before may still be used."""
    sessions: Literal["Wait", "Terminate"] = "Wait"
    """Of DualRole: whether sessions of the login before may go on after the grace."""
    cel = (("!has(self.schedule) || !has(self.interval)", _ONE_RHYTHM),)

    @model_validator(mode="after")
    def _one_rhythm(self) -> Self:
        if self.schedule is not None and self.interval is not None:
            raise ValueError(_ONE_RHYTHM)
        if self.interval is not None and self.interval.seconds <= self.grace.seconds:
            raise ValueError("interval is to be longer than grace")
        return self


class UserSpec(ApiModel):
    """One role on one target. Whoever may write one gets what the target's `access` admits, and no more."""

    target_ref: TargetRef
    role_name: DatabaseName | None = None
    """Default: the object's own name."""
    suspend: bool = False
    mode: Literal["Observe", "Enforce"] = "Enforce"
    """Observe reports drift only. The target's own mode counts too, the stricter wins."""
    adoption: Literal["Never", "IfUnowned", "Always"] = "Never"
    """Whether a role that exists is taken over: not at all, where it has no mark of any pgtend, or also where its mark
    is of an object that is no more or of another installation. The target's `access` counts too, the stricter wins."""
    login: bool = True
    inherit: bool = True
    """Whether it has the privileges of the roles that it is a member of without SET ROLE. From 16 on each membership
    says so itself."""
    attributes: Annotated[tuple[Attribute, ...], Field(max_length=5)] = ()
    """Superuser only where the target's `access` lists it."""
    connection_limit: Annotated[int | None, Field(ge=0, le=262143)] = None
    """Default: unlimited."""
    valid_until: Timestamp | None = None
    """When the password ends to be accepted. Default: never."""
    settings: Settings = Field(default={})
    """Of its sessions, in all databases. Others that an ordinary role may set are taken away from it."""
    database_settings: Annotated[
        tuple[DatabaseSettings, ...], Field(max_length=32, json_schema_extra={"x-list-map-keys": ["database"]})
    ] = ()
    """The same in one database; they come before `settings`."""
    password: UserPassword | None = None
    """Default: generated."""
    secret: UserSecret = UserSecret()
    rotation: Rotation | None = None
    """Of a generated password."""
    rotate_if_older_than: Timestamp | None = None
    """A generated password from before this moment is made anew, once: the moment itself when it lies ahead."""
    member_of: Annotated[
        tuple[MemberOf, ...], Field(max_length=32, json_schema_extra={"x-list-map-keys": ["role"]})
    ] = ()
    """Memberships that others gave are left alone."""
    grants: Annotated[tuple[Grant, ...], Field(max_length=64)] = ()
    default_privileges: Annotated[tuple[DefaultPrivilege, ...], Field(max_length=64)] = ()
    pruning: Literal["OwnGrants", "None", "All"] = "OwnGrants"
    """Whether privileges and memberships that this object could have given, and settings that any role may set, are
    taken away where the spec does not list them. None adds only; All also takes away what others granted."""
    deletion_policy: Literal["Retain", "Disable", "Drop"] = "Retain"
    """What becomes of the role when the object is deleted: nothing, NOLOGIN, or DROP ROLE as `drop` says."""
    drop: Drop = Drop()
    cel = (
        ("self.targetRef == oldSelf.targetRef", "targetRef is immutable: make another DatabaseUser instead"),
        (
            "!has(self.password) || !has(self.password.none) || !has(self.secret) || !has(self.secret.templates)"
            " || self.secret.templates.all(k, !self.secret.templates[k].matches('\\\\.(password|pgpass) ?}}'))",
            _NOTHING_TO_NAME,
        ),
        (
            "!has(self.password) || has(self.password.generate)"
            " || (!has(self.rotation) && !has(self.rotateIfOlderThan))",
            _OF_GENERATED,
        ),
    )

    @model_validator(mode="after")
    def _password(self) -> Self:
        if self.source != "Generate" and (self.rotation is not None or self.rotate_if_older_than is not None):
            raise ValueError(_OF_GENERATED)
        templates = self.secret.templates.values()
        if self.source == "None" and any(re.search(r"\.(password|pgpass) ?\}\}", text) for text in templates):
            raise ValueError(_NOTHING_TO_NAME)
        return self

    @property
    def generate(self) -> Generate | None:
        """How the password is made, or None where it is given or there is none."""
        if self.password is None:
            return Generate()
        return self.password.generate

    @property
    def makes_lost_anew(self) -> bool:
        """Whether a generated password whose Secret is gone is made anew."""
        return self.password is not None and self.password.on_lost == "Rotate"

    @property
    def two_logins(self) -> bool:
        """Whether others log in for the role."""
        return self.rotation is not None and self.rotation.strategy == "DualRole"

    @property
    def grace(self) -> Duration:
        return self.rotation.grace if self.rotation is not None else GRACE

    @property
    def source(self) -> PasswordSource:
        if self.generate is not None:
            return "Generate"
        return "None" if self.password is not None and self.password.none is not None else "SecretRef"


class PasswordStatus(ApiModel):
    source: PasswordSource
    changed_at: Timestamp | None = None
    """When the password that the role has now was decided upon; the Secret carries the same moment."""
    exposure: Annotated[tuple[Exposed, ...], Field(max_length=3)] = ()
    """What could have recorded the verifier of that password as it was set: the server's log, pg_stat_statements.
    pgaudit masks it; PgAudit stands only in a status that an earlier version wrote."""
    active_login: Annotated[str | None, Field(max_length=63)] = None
    """The role that the Secret's password is of; with rotation DualRole another than roleName."""
    retiring_login: Annotated[str | None, Field(max_length=63)] = None
    """The login before it, while it may be used or has sessions."""
    withdrawn_logins: Annotated[tuple[Annotated[str, Field(max_length=63)], ...] | None, Field(max_length=3)] = None
    """Which logins were switched off as the target's consent was withdrawn; given back with it."""
    next_rotation_at: Timestamp | None = None


class DriftStatus(ApiModel):
    """What differs between spec and database: how many differences, and the first 20 of them."""

    total: int
    differences: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(max_length=20)] = ()


class EffectiveStatus(ApiModel):
    """How many privileges the role has in effect in its databases, each counted once; a superuser has all besides."""

    direct: int
    """Granted to the role, or its as an owner."""
    via_roles: int
    """By roles that it inherits from, and not granted to itself."""
    via_public: int
    """As everybody has them, and by nothing else."""


class UserStatus(BaseStatus):
    role_name: Annotated[str | None, Field(max_length=253)] = None
    secret_name: Annotated[str | None, Field(max_length=253)] = None
    password: PasswordStatus | None = None
    drift: DriftStatus | None = None
    effective: EffectiveStatus | None = None
    remaining_sessions: int | None = None
    """Of a role without login or to be dropped, and of a login that was rotated out: sessions that began before."""
    withdrawn_at: Timestamp | None = None
    """Since when the target's `access` does not admit this namespace or this role any more."""


_ROLE = "(has({0}.spec.roleName) ? {0}.spec.roleName : {0}.metadata.name)"

DATABASE_USER = Kind(
    name="DatabaseUser",
    plural="databaseusers",
    short="dbu",
    spec=UserSpec,
    status=UserStatus,
    reasons=UserReason,
    conditions=("Accepted", "Unique", "CredentialsReady", "PrivilegesInSync", "InSync", "RotationCurrent"),
    columns=(
        Column(name="Target", json_path=".spec.targetRef.name"),
        Column(name="Role", json_path=".status.roleName"),
        Column(name="Ready", json_path='.status.conditions[?(@.type=="Ready")].status'),
        Column(name="InSync", json_path='.status.conditions[?(@.type=="InSync")].status'),
        Column(name="Reason", json_path=".status.worst.reason"),
        Column(name="Since", json_path=".status.worst.since", type="date"),
        Column(name="Secret", json_path=".status.secretName"),
        Column(name="Age", json_path=".metadata.creationTimestamp", type="date"),
    ),
    selectable=(".spec.targetRef.name",),
    description="A role, its password in a Secret, and its privileges.",
    extra_cel=(
        (f"{_ROLE.format('self')} == {_ROLE.format('oldSelf')}", "roleName is immutable: make another DatabaseUser"),
        (
            f"!{_ROLE.format('self')}.matches('{RESERVED}') && !({_ROLE.format('self')} in ['public', 'none'])",
            RESERVED_TEXT,
        ),
        (
            "has(self.spec.roleName) || size(self.metadata.name) <= 63",
            "a role's name has at most 63 bytes: set roleName",
        ),
        (
            "!has(self.spec.rotation) || self.spec.rotation.strategy != 'DualRole'"
            f" || size({_ROLE.format('self')}) <= 61",
            _ROOM_FOR_LOGINS,
        ),
    ),
)
