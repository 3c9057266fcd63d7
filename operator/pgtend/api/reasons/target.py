"""Why a condition of PostgresTarget is as it is."""

from __future__ import annotations

from pgtend.api.conditions import Reason


class TargetReason(Reason):
    """Reasons of PostgresTarget."""

    IN_FORCE = "InForce", "The primary is reached with the needed role.", "Nothing."
    OBSERVING = (
        "Observing",
        "The target is observed; nothing is written before `spec.mode: Enforce`.",
        "Set `spec.mode: Enforce` when the plan looks right.",
    )
    SUSPENDED = "Suspended", "`spec.suspend` is true: no probes, no writes.", "Set `spec.suspend: false` to go on."
    ACCEPTED = "Accepted", "The spec is valid.", "Nothing."
    CONNECTED = "Connected", "Every member answers.", "Nothing."
    AS_EXPECTED = "AsExpected", "Nothing is out of the ordinary.", "Nothing."
    INVALID_SPEC = (
        "InvalidSpec",
        "The spec does not parse; the message names the field. The CRD in the cluster is of another version.",
        "Correct the field that the message names.",
    )
    DUPLICATE_SERVER = (
        "DuplicateServer",
        "An older PostgresTarget tends the same server: same system identifier and same start of the primary.",
        "Delete one of the two, or set `spec.mode: Observe` on this one.",
    )
    NOT_PROBED = "NotProbed", "No probe has ended yet.", "Wait for one `probeInterval`."
    SECRET_MISSING = (
        "SecretMissing",
        "A Secret that the spec names does not exist in the target's namespace.",
        "Create it, then touch the annotation `pgtend.dev/reconcile` or wait a minute.",
    )
    SECRET_KEY_MISSING = (
        "SecretKeyMissing",
        "The Secret exists but lacks the key.",
        "Add the key, or name another with `key`.",
    )
    SECRET_FORBIDDEN = (
        "SecretForbidden",
        "The API server does not let the operator read a Secret that the spec names.",
        "Give the operator's ServiceAccount `get` on Secrets of that namespace; in namespaced mode, watch it.",
    )
    NAME_NOT_RESOLVED = "NameNotResolved", "A member's host name does not resolve.", "Correct `host`, or the DNS."
    CONNECTION_REFUSED = (
        "ConnectionRefused",
        "The host answers, but no PostgreSQL listens on the port.",
        "Start the server, or correct `port` and firewall.",
    )
    TIMED_OUT = "TimedOut", "A member does not answer within the deadline.", "Check network, firewall and server load."
    AUTHENTICATION_FAILED = (
        "AuthenticationFailed",
        "The server rejects the credential.",
        "Compare the Secret with the role's password, and pg_hba.conf.",
    )
    AUTHENTICATION_METHOD_REFUSED = (
        "AuthenticationMethodRefused",
        "The server asked for a method that would expose the password (clear text, or md5 without consent).",
        "Make the server use scram-sha-256. Md5 needs `password.method: Md5`.",
    )
    TLS_REFUSED = "TLSRefused", "The server offers no TLS, and pgtend sends nothing without.", "Set `ssl = on` there."
    CERTIFICATE_NOT_TRUSTED = (
        "CertificateNotTrusted",
        "The server's certificate does not verify against the given CA or host name.",
        "Give the right CA in `spec.tls.ca`, or a certificate with this host name to the server.",
    )
    TOO_MANY_CONNECTIONS = (
        "TooManyConnections",
        "The server has no connection left for pgtend.",
        "Grant pg_use_reserved_connections (16 and later), or raise max_connections.",
    )
    SERVER_STARTING = "ServerStarting", "The server is starting, stopping or recovering.", "Wait."
    DATABASE_MISSING = "DatabaseMissing", "`spec.maintenanceDatabase` does not exist.", "Name one that does."
    POOLER_NOT_ALLOWED = (
        "PoolerNotAllowed",
        "The address is a connection pooler, or something that ends TLS on the way, and not the server itself.",
        "Name the server itself in `members`.",
    )
    NO_PRIMARY = "NoPrimary", "No member is a primary that accepts writes.", "Promote one, or add it to `members`."
    UNSUPPORTED_VERSION = "UnsupportedVersion", "The server is older than PostgreSQL 14.", "Upgrade it."
    CONNECTION_FAILED = "ConnectionFailed", "Connecting failed for another cause; see the message.", "See the message."
    PROBE_FAILED = "ProbeFailed", "The member was reached but its state could not be read.", "See the message."
    IDENTITY_CHANGED = (
        "IdentityChanged",
        "The primary is not the server that was recorded, or has gone back in time. Writes are frozen.",
        "If that is intended, set `spec.acceptIdentity` to `status.identityToken`.",
    )
    SPLIT_BRAIN = (
        "SplitBrain",
        "Two members accept writes on one timeline. Writes are frozen.",
        "Stop one of them before anything else.",
    )
    STALE_MEMBER = (
        "StaleMember",
        "A member accepts writes on an older timeline than the primary: a former primary that came back.",
        "Stop it, then rebuild it as a standby (pg_rewind or a new base backup).",
    )
    NO_STANDBY = "NoStandby", "One member only: there is nothing to replicate to.", "Nothing."
    STANDBY_UNREACHABLE = "StandbyUnreachable", "A standby does not answer.", "See the message."
    REPLICATION_LAG_WARNING = (
        "ReplicationLagWarning",
        "A standby is behind by more than `thresholds.replicationLag.warning`.",
        "Check the standby's load, its network and long queries on it.",
    )
    REPLICATION_LAG_CRITICAL = (
        "ReplicationLagCritical",
        "A standby is behind by more than `thresholds.replicationLag.critical`.",
        "Check the standby's network, its primary_conninfo, its disk and long queries on it.",
    )
    NOT_STREAMING = (
        "NotStreaming",
        "A standby has no WAL receiver.",
        "On the standby check the network, primary_conninfo, the slot and its log.",
    )
    MISSING_PRIVILEGE = (
        "MissingPrivilege",
        "The role may not see this, so nothing is claimed about it.",
        "Run the GRANT that the message and `status.missingPrivileges` give.",
    )
    CONNECTIONS_USED_WARNING = (
        "ConnectionsUsedWarning",
        "Client connections exceed `thresholds.connectionsUsed.warning` of max_connections less what is reserved.",
        "Find the roles that hold most (the message names them); use a pooler or lower their pools.",
    )
    CONNECTIONS_USED_CRITICAL = (
        "ConnectionsUsedCritical",
        "Client connections exceed `thresholds.connectionsUsed.critical`: new ones will soon be refused.",
        "End idle sessions of the roles that the message names, then lower their pools.",
    )
    QUERY_DURATION_WARNING = (
        "QueryDurationWarning",
        "A statement runs longer than `thresholds.queryDuration.warning`.",
        "Look at the pid that the message names in pg_stat_activity; cancel it if it is not wanted.",
    )
    QUERY_DURATION_CRITICAL = (
        "QueryDurationCritical",
        "A statement runs longer than `thresholds.queryDuration.critical`.",
        "Look at the pid that the message names in pg_stat_activity; cancel it if it is not wanted.",
    )
    IDLE_IN_TRANSACTION_WARNING = (
        "IdleInTransactionWarning",
        "A transaction has been idle longer than `thresholds.idleInTransaction.warning`.",
        "Find the client that the message names; set idle_in_transaction_session_timeout for its role.",
    )
    IDLE_IN_TRANSACTION_CRITICAL = (
        "IdleInTransactionCritical",
        "A transaction has been idle longer than `thresholds.idleInTransaction.critical`; it holds back VACUUM.",
        "End the session that the message names.",
    )
    LOCK_WAIT_WARNING = (
        "LockWaitWarning",
        "A session waits for a lock longer than `thresholds.lockWait.warning`.",
        "The message and `status.blocking` name the session at the root; end that one, not those that wait.",
    )
    LOCK_WAIT_CRITICAL = (
        "LockWaitCritical",
        "A session waits for a lock longer than `thresholds.lockWait.critical`.",
        "The message and `status.blocking` name the session at the root; end that one, not those that wait.",
    )
    WRAPAROUND_AGE_WARNING = (
        "WraparoundAgeWarning",
        "The oldest transaction or multixact id that is not frozen is older than `thresholds.wraparoundAge.warning`.",
        "End what keeps VACUUM from freezing (the message names it), then run VACUUM (FREEZE) on the oldest tables.",
    )
    WRAPAROUND_AGE_CRITICAL = (
        "WraparoundAgeCritical",
        "The oldest transaction or multixact id that is not frozen is older than `thresholds.wraparoundAge.critical`."
        " At the end the server refuses all writes.",
        "End what keeps VACUUM from freezing (the message names it), then run VACUUM (FREEZE) on the oldest tables.",
    )
    ARCHIVING_OFF = "ArchivingOff", "archive_mode is off: the server archives no WAL.", "Nothing, if that is meant."
    ARCHIVING_FAILING = (
        "ArchivingFailing",
        "The last attempt to archive a WAL file failed. pg_wal grows, and the newest transactions are not archived.",
        "Find the cause in the server's log (`SELECT * FROM pg_stat_archiver` names the file) and repair"
        " archive_command or archive_library; nothing has to be repeated by hand.",
    )
    ARCHIVING_STALLED = (
        "ArchivingStalled",
        "Much WAL was written and none was archived for minutes, though no attempt failed.",
        "See whether archive_command is empty, and whether its process hangs.",
    )
    SLOT_LOST = (
        "SlotLost",
        "A replication slot needed WAL that is gone (max_slot_wal_keep_size): its consumer cannot go on.",
        "Build the consumer anew, then drop the slot.",
    )
    SLOT_RETAINED_WARNING = (
        "SlotRetainedWarning",
        "A slot keeps more WAL than `thresholds.slotRetained.warning` of max_slot_wal_keep_size.",
        "Start or repair the slot's consumer; drop the slot if nobody needs it any more.",
    )
    SLOT_RETAINED_CRITICAL = (
        "SlotRetainedCritical",
        "A slot keeps more WAL than `thresholds.slotRetained.critical` of max_slot_wal_keep_size, and will lose it.",
        "Start or repair the slot's consumer now; drop the slot if nobody needs it any more.",
    )
    POOL_USED_WARNING = (
        "PoolUsedWarning",
        "A pool uses more than `thresholds.poolUsed.warning` of its pool_size.",
        "Raise pool_size, or look for long transactions that hold server connections.",
    )
    POOL_USED_CRITICAL = (
        "PoolUsedCritical",
        "A pool uses more than `thresholds.poolUsed.critical` of its pool_size.",
        "Raise pool_size, or look for long transactions that hold server connections.",
    )
    POOL_WAIT_WARNING = (
        "PoolWaitWarning",
        "Clients of the pooler wait longer than `thresholds.poolWait.warning` for a server connection.",
        "Raise pool_size, or look for long transactions that hold server connections.",
    )
    POOL_WAIT_CRITICAL = (
        "PoolWaitCritical",
        "The pooler is saturated: clients wait longer than `thresholds.poolWait.critical` for a server connection.",
        "Raise pool_size, or look for long transactions that hold server connections.",
    )
    POOLER_UNREACHABLE = "PoolerUnreachable", "The pooler does not answer.", "See the message."
    NOT_REQUESTED = "NotRequested", "The spec does not ask for this.", "Nothing."
    NOT_REACHED = "NotReached", "Nothing is known while no primary is reached.", "See the condition Reachable."
    BRAKE_ON = (
        "BrakeOn",
        "The brake pauses every write of this installation.",
        "Remove the key from the brake ConfigMap.",
    )
    NOT_LEADING = "NotLeading", "The process lost its Lease.", "Nothing: another replica takes over."
    TAKING_OVER = (
        "TakingOver",
        "Sessions that an earlier leader left on the server were terminated and have not ended; nothing is written"
        " there while they run.",
        "Wait. If it stays, see on the server what the named backends wait for.",
    )
    CAPABILITY_MISSING = (
        "CapabilityMissing",
        "The target has no credential for this purpose, or its role lacks a right.",
        "Add the credential that the message names; `pgtend target init-sql` prints the minimal role.",
    )
    NO_POLICY = (
        "NoPolicy",
        "No PostgresBackupPolicy names this target, so nothing is known of its backups.",
        "Make a PostgresBackupPolicy, unless somebody else backs it up.",
    )
    NOT_BACKED_UP = (
        "NotBackedUp",
        "A policy of this target has no current backup; the message gives the policy's own reason.",
        "See the condition BackupCurrent of the policy that the message names.",
    )
    BACKUP_NOT_VERIFIED = (
        "BackupNotVerified",
        "The last backup of a policy of this target was not read back; the message gives the policy's own reason.",
        "See the condition Verified of the policy that the message names.",
    )
    BACKUP_NOT_KNOWN = (
        "BackupNotKnown",
        "A policy of this target has not judged its backups yet, or its newest is still being read back.",
        "Wait; see the conditions of the policy that the message names.",
    )
