"""PostgresTarget: one PostgreSQL deployment, how it is reached, and what is true about it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pgtend.api.base import ApiModel, Column, Kind
from pgtend.api.conditions import BaseStatus
from pgtend.api.reasons import TargetReason
from pgtend.api.refs import FromSecret, FromTlsSecret
from pgtend.api.types import Duration, HostName, Identifier, ItemName, NamespaceName, Percentage, Timestamp

Port = Annotated[int, Field(ge=1, le=65535)]


class Member(ApiModel):
    name: ItemName
    host: HostName
    port: Port = 5432


class Tls(ApiModel):
    """`mode` is VerifyFull where a CA is given, else Require."""

    mode: Literal["Require", "VerifyCA", "VerifyFull"] | None = None
    ca: FromSecret | None = None
    cel = (
        (
            "!has(self.mode) || self.mode == 'Require' || has(self.ca)",
            "tls.mode VerifyCA and VerifyFull need tls.ca",
        ),
    )

    @property
    def sslmode(self) -> str:
        """libpq's word."""
        mode = self.mode or ("VerifyFull" if self.ca else "Require")
        return {"Require": "require", "VerifyCA": "verify-ca", "VerifyFull": "verify-full"}[mode]


class Password(FromSecret):
    method: Literal["ScramSha256", "Md5"] = "ScramSha256"


class Credential(ApiModel):
    """A login: a password or a client certificate. The username defaults to pgtend_<purpose>."""

    username: Identifier | None = None
    password: Password | None = None
    client_certificate: FromTlsSecret | None = None
    cel = (
        (
            "has(self.password) != has(self.clientCertificate)",
            "exactly one of password and clientCertificate is needed",
        ),
    )


class Credentials(ApiModel):
    """One login per purpose; a domain uses its own and no other."""

    monitor: Credential
    maintenance: Credential | None = None
    """Tasks and most operations."""
    users: Credential | None = None
    backup: Credential | None = None
    """Dumps; mounted by their pods."""
    restore: Credential | None = None
    """Restore into a database; mounted by its pod."""

    @property
    def roles(self) -> frozenset[str]:
        """The roles that pgtend logs in as."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return frozenset(one.username or f"pgtend_{name}" for name, one in given.items() if one is not None)


class DurationThreshold(ApiModel):
    warning: Duration | None = None
    critical: Duration | None = None
    for_: Annotated[Duration, Field(alias="for")] = Duration("0s")

    @property
    def floor(self) -> float:
        """Seconds from which on anything matters; a week where no limit is set."""
        limits = [limit.seconds for limit in (self.warning, self.critical) if limit is not None]
        return min(limits, default=604_800.0)


class LagThreshold(DurationThreshold):
    critical: Duration | None = Duration("30s")
    for_: Annotated[Duration, Field(alias="for")] = Duration("45s")


class QueryThreshold(DurationThreshold):
    warning: Duration | None = Duration("5m")
    critical: Duration | None = Duration("30m")


class IdleThreshold(DurationThreshold):
    warning: Duration | None = Duration("5m")
    critical: Duration | None = Duration("15m")


class LockThreshold(DurationThreshold):
    warning: Duration | None = Duration("60s")
    critical: Duration | None = Duration("120s")


class PoolWaitThreshold(DurationThreshold):
    critical: Duration | None = Duration("5s")
    for_: Annotated[Duration, Field(alias="for")] = Duration("45s")


class ShareThreshold(ApiModel):
    """Clears 5 points below."""

    warning: Percentage | None = None
    critical: Percentage | None = None
    for_: Annotated[Duration, Field(alias="for")] = Duration("0s")


class ConnectionsThreshold(ShareThreshold):
    warning: Percentage | None = Percentage("75%")
    critical: Percentage | None = Percentage("90%")


class SlotThreshold(ShareThreshold):
    warning: Percentage | None = Percentage("50%")
    critical: Percentage | None = Percentage("90%")


class WraparoundThreshold(ShareThreshold):
    warning: Percentage | None = Percentage("50%")
    critical: Percentage | None = Percentage("75%")


class PoolUsedThreshold(ShareThreshold):
    warning: Percentage | None = Percentage("75%")


class Thresholds(ApiModel):
    replication_lag: LagThreshold = LagThreshold()
    slot_retained: SlotThreshold = SlotThreshold()
    """WAL that a slot keeps, of max_slot_wal_keep_size; where that is unlimited, nothing is graded."""
    connections_used: ConnectionsThreshold = ConnectionsThreshold()
    """Of max_connections less what is reserved."""
    pool_used: PoolUsedThreshold = PoolUsedThreshold()
    """Server connections of pool_size."""
    pool_wait: PoolWaitThreshold = PoolWaitThreshold()
    """Saturation: clients wait this long."""
    query_duration: QueryThreshold = QueryThreshold()
    idle_in_transaction: IdleThreshold = IdleThreshold()
    lock_wait: LockThreshold = LockThreshold()
    wraparound_age: WraparoundThreshold = WraparoundThreshold()
    """Age of the oldest unfrozen xid or multixact, of 2^31."""


class PoolerCredential(ApiModel):
    username: Identifier
    password: FromSecret


class Pooler(ApiModel):
    """A PgBouncer before the members. `credential` reads its SHOW commands."""

    host: HostName
    port: Port = 6432
    tls: Tls | None = None
    credential: PoolerCredential | None = None


class LabelSelector(ApiModel):
    match_labels: Annotated[
        dict[Annotated[str, Field(max_length=316)], Annotated[str, Field(max_length=63)]], Field(max_length=16)
    ]


class NamespaceSelector(ApiModel):
    """Names, or labels of the namespace."""

    names: Annotated[tuple[NamespaceName, ...] | None, Field(max_length=64)] = None
    selector: LabelSelector | None = None
    cel = (("has(self.names) != has(self.selector)", "exactly one of names and selector is needed"),)


class UserLimits(ApiModel):
    """What a DatabaseUser of these namespaces may ask for."""

    role_pattern: Annotated[str, Field(max_length=128)] = "{namespace}_*"
    """`*` stands for any characters, `{namespace}` for the asking namespace, letter for letter (`shop-eu_app`): no role
    fits the default of two namespaces."""
    adoption: Literal["Never", "IfUnowned", "Always"] = "Never"
    """Whether a DatabaseUser may take over a role of the pattern that exists, with what that role has."""
    databases: Annotated[tuple[Identifier, ...], Field(max_length=64)] = ()
    max_privileges: Annotated[
        tuple[
            Literal[
                "Connect", "Create", "Temporary", "Usage", "Select", "Insert", "Update", "Delete", "Truncate",
                "References", "Trigger", "Maintain", "Execute", "Set", "AlterSystem", "*",
            ],
            ...,
        ],
        Field(max_length=32),
    ] = ()  # fmt: skip
    """`*` is all but Set and AlterSystem, with which a server can be taken over."""
    member_of: Annotated[tuple[Identifier, ...], Field(max_length=64)] = ()
    """Roles; `*` stands for any characters, but roles that amount to a superuser are listed by name."""
    attributes: Annotated[
        tuple[Literal["CreateDB", "CreateRole", "Replication", "BypassRLS", "Superuser", "*"], ...],
        Field(max_length=8),
    ] = ()
    """`*` is all but Superuser, CreateRole (the same before PostgreSQL 16) and Replication, which copies everything."""
    grant_option: bool = False
    """Whether it may hand on what it is admitted to: privileges WITH GRANT OPTION, memberships WITH ADMIN OPTION."""


class AccessEntry(ApiModel):
    """Who may ask what of this target; `name` is told in refusals."""

    name: ItemName
    namespaces: NamespaceSelector
    kinds: Annotated[
        tuple[
            Literal[
                "DatabaseUser",
                "PostgresBackupPolicy",
                "PostgresBackup",
                "PostgresOperation",
                "MaintenanceWindow",
                "*",
            ],
            ...,
        ],
        Field(max_length=16),
    ] = ()
    operations: Annotated[
        tuple[Literal["TerminateQueries", "VacuumAnalyze", "Reindex", "VacuumFull", "Restore", "*"], ...],
        Field(max_length=32),
    ] = ()
    """Types, word by word: `*` is all but TerminateQueries, VacuumFull and Restore, which are always listed."""
    tasks: Annotated[tuple[Literal["VacuumAnalyze", "Reindex", "VacuumFull", "*"], ...], Field(max_length=32)] = ()
    """Of a MaintenanceWindow: types, word by word as in operations."""
    users: UserLimits | None = None


AccessFinding = Literal[
    "Superuser",
    "RoleWithoutExpiry",
    "UnusedLogin",
    "NonScramVerifier",
    "PublicGrant",
    "SecurityDefinerWithoutSearchPath",
    "UndeclaredRole",
]


class Waiver(ApiModel):
    """A finding of the access report that is known and accepted, until a day: then it is reported again."""

    name: ItemName
    finding: AccessFinding
    role: Identifier
    """Whom the finding names, in full: of functions the owner, of what everybody may do PUBLIC."""
    until: Timestamp
    reason: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class TargetSpec(ApiModel):
    """What is tended and how it is reached. Observed only until `mode: Enforce`."""

    mode: Literal["Observe", "Enforce"] = "Observe"
    suspend: bool = False
    members: Annotated[
        tuple[Member, ...],
        Field(min_length=1, max_length=16, json_schema_extra={"x-list-map-keys": ["name"]}),
    ]
    maintenance_database: Identifier = "postgres"
    accept_identity: Annotated[str | None, Field(pattern=r"^[0-9a-f]{8}$", max_length=8)] = None
    tls: Tls = Tls()
    credentials: Credentials
    pooler: Pooler | None = None
    probe_interval: Duration = Duration("15s")
    max_connections: Annotated[int, Field(ge=2, le=100)] = 5
    max_destructive_per_pass: Annotated[int, Field(ge=1, le=1000)] = 5
    """How many roles are dropped or disabled at once; others wait some seconds, in which a mistake can be stopped."""
    thresholds: Thresholds = Thresholds()
    access: Annotated[
        tuple[AccessEntry, ...], Field(max_length=64, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = ()
    on_withdrawal: Literal["Keep", "Disable"] = "Keep"
    """What becomes of the logins of DatabaseUsers whose namespace or role `access` does not admit any more: nothing, or
    NOLOGIN after the grace. Admitted again they log in again."""
    withdrawal_grace: Duration = Duration("24h")
    waivers: Annotated[tuple[Waiver, ...], Field(max_length=64, json_schema_extra={"x-list-map-keys": ["name"]})] = ()
    """For `pgtend access report`: findings that it marks as waived."""
    cel = (
        (
            "!has(self.probeInterval) || (!self.probeInterval.contains('d')"
            " && duration(self.probeInterval) >= duration('5s') && duration(self.probeInterval) <= duration('5m'))",
            "probeInterval lies between 5s and 5m",
        ),
        (
            "self.members.all(m, self.members.exists_one(o, o.host == m.host && o.port == m.port))",
            "two members have the same host and port",
        ),
    )


class Identity(ApiModel):
    """Read from a primary: timeline from the name of its current WAL file, LSN flushed."""

    system_identifier: Annotated[str, Field(max_length=24)]
    timeline: Annotated[str, Field(max_length=12)]
    lsn: Annotated[str, Field(max_length=20)]


class Lag(ApiModel):
    time: Annotated[str, Field(max_length=16)]
    size: Annotated[str, Field(max_length=16)]


class MemberStatus(ApiModel):
    name: ItemName
    role: Literal["Primary", "Standby", "Unknown"]
    timeline: Annotated[str | None, Field(max_length=12)] = None
    state: Annotated[str | None, Field(max_length=32)] = None
    """Of a standby: Streaming, NotStreaming, or the state that the primary reports."""
    lag: Lag | None = None


class MissingPrivilege(ApiModel):
    credential: Annotated[str, Field(max_length=32)]
    feature: Annotated[str, Field(max_length=64)]
    sql: Annotated[str, Field(max_length=512)]


class Blocking(ApiModel):
    """A session that blocks others, with the tree below it."""

    root: Annotated[str, Field(max_length=160)]
    blocked: int
    waiting_for: Annotated[str, Field(max_length=16)]
    tree: Annotated[str, Field(max_length=1024)]


class TargetStatus(BaseStatus):
    health: Literal["Healthy", "Warning", "Critical", "Unknown"] | None = None
    server_version: Annotated[str | None, Field(max_length=64)] = None
    identity_token: Annotated[str | None, Field(max_length=8)] = None
    identity: Identity | None = None
    primary: Annotated[str | None, Field(max_length=63)] = None
    replication_lag: Annotated[str | None, Field(max_length=16)] = None
    members: Annotated[
        tuple[MemberStatus, ...], Field(max_length=16, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = ()
    blocking: Annotated[tuple[Blocking, ...], Field(max_length=10)] = ()
    missing_privileges: Annotated[tuple[MissingPrivilege, ...], Field(max_length=20)] = ()


POSTGRES_TARGET = Kind(
    name="PostgresTarget",
    plural="postgrestargets",
    short="pgt",
    spec=TargetSpec,
    status=TargetStatus,
    reasons=TargetReason,
    conditions=(
        "Accepted",
        "Reachable",
        "ReplicationHealthy",
        "ConnectionsHealthy",
        "PoolHealthy",
        "QueriesHealthy",
        "LocksHealthy",
        "WraparoundSafe",
        "ArchivingHealthy",
        "BackedUp",
    ),
    columns=(
        Column(name="Ready", json_path='.status.conditions[?(@.type=="Ready")].status'),
        Column(name="Health", json_path=".status.health"),
        Column(name="Reason", json_path=".status.worst.reason"),
        Column(name="Since", json_path=".status.worst.since", type="date"),
        Column(name="Primary", json_path=".status.primary"),
        Column(name="Version", json_path=".status.serverVersion"),
        Column(name="Lag", json_path=".status.replicationLag"),
        Column(name="Age", json_path=".metadata.creationTimestamp", type="date"),
    ),
    description="One PostgreSQL deployment: how to reach it, and its health board.",
)
