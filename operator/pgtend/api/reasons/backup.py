"""Why a condition of PostgresBackupPolicy and PostgresBackup is as it is. One enum, since most are of both."""

from __future__ import annotations

from pgtend.api.conditions import Reason


class BackupReason(Reason):
    """Reasons of PostgresBackupPolicy and PostgresBackup, those that pods give among them: a test compares."""

    IN_FORCE = (
        "InForce",
        "The CronJob exists, the server and the bucket answered. Whether there are backups is said by BackupCurrent.",
        "Nothing.",
    )
    OBSERVING = (
        "Observing",
        "This object or its target is in mode Observe: no pod is started, nothing is deleted.",
        "Set `mode: Enforce` on both.",
    )
    SUSPENDED = "Suspended", "`spec.suspend` is true: the CronJob is suspended.", "Set `spec.suspend: false` to go on."
    ACCEPTED = "Accepted", "The spec is valid, and the target admits it.", "Nothing."
    AS_EXPECTED = "AsExpected", "Nothing is out of the ordinary.", "Nothing."
    INVALID_SPEC = (
        "InvalidSpec",
        "The spec does not parse; the message names the field. The CRD in the cluster is of another version.",
        "Correct the field that the message names.",
    )
    INVALID_SCHEDULE = (
        "InvalidSchedule",
        "The schedule or the time zone has no meaning that a CronJob could carry out.",
        "Write what the message proposes.",
    )
    MUST_BE_IN_TARGET_NAMESPACE = (
        "MustBeInTargetNamespace",
        "The object starts pods, which mount Secrets of their own namespace only: it must live beside its target.",
        "Make it in the target's namespace.",
    )
    TARGET_NOT_FOUND = (
        "TargetNotFound",
        "`spec.targetRef` names a PostgresTarget that does not exist.",
        "Create it, or make another policy with the right reference.",
    )
    DESTINATION_NOT_FOUND = (
        "DestinationNotFound",
        "`spec.destinationRef` names a BackupDestination that does not exist in this namespace.",
        "Create it, or make another policy with the right reference.",
    )
    POLICY_NOT_FOUND = (
        "PolicyNotFound",
        "`spec.policyRef` names a PostgresBackupPolicy that does not exist.",
        "Create it, or make another PostgresBackup with the right reference.",
    )
    NOT_PERMITTED = (
        "NotPermitted",
        "The target's `access` does not admit this kind here. The CronJob is suspended; nothing is taken away.",
        "Ask the target's owner to add what the message names.",
    )
    NOT_ACCEPTED = "NotAccepted", "Not looked at, since the object is not accepted.", "See the condition Accepted."
    CAPABILITY_MISSING = (
        "CapabilityMissing",
        "The target has no `credentials.backup`.",
        "Add it; `pgtend target init-sql --features backup` prints the minimal role.",
    )
    TOOLS_IMAGE_MISSING = (
        "ToolsImageMissing",
        "No tools image is configured for the server's major version.",
        "Set the chart's `tools.image` and `tools.majors`.",
    )
    TARGET_NOT_READY = (
        "TargetNotReady",
        "The target cannot be used at the moment; the message gives its own reason.",
        "See the target's conditions.",
    )
    DESTINATION_NOT_READY = (
        "DestinationNotReady",
        "The destination cannot be used at the moment; the message gives its own reason.",
        "See the destination's conditions.",
    )
    REFUSED_BY_API = (
        "RefusedByAPI",
        "The API server refuses the CronJob or Job: a policy of admission, a quota, or what `spec.pod` asks for.",
        "Correct what the message names.",
    )
    OBJECT_NOT_OWNED = (
        "ObjectNotOwned",
        "A CronJob or Job of that name exists and is not this object's. It is left alone.",
        "Delete it, or give this object another name.",
    )
    NEVER_RUN = (
        "NeverRun",
        "There is no backup yet.",
        "Wait for `status.nextAt`, or create a PostgresBackup with this policyRef.",
    )
    OVERDUE = (
        "Overdue",
        "A backup should have been there by now and is not.",
        "Look at the CronJob and its Jobs in this namespace.",
    )
    NEVER_VERIFIED = "NeverVerified", "No backup was read back yet.", "Wait for the first one."
    VERIFY_PENDING = "VerifyPending", "The newest backup is being read back, or waits for it.", "Wait."
    VERIFY_OVERDUE = (
        "VerifyOverdue",
        "The newest backup was not read back within two hours.",
        "Look at its verify Job and pod: an identity Secret that does not exist keeps it waiting.",
    )
    IDENTITY_MISSING = (
        "IdentityMissing",
        "No recipient of the destination has an identity in the cluster, so nothing can be read back.",
        "Give one recipient an `identity`.",
    )
    BELOW_FLOOR = (
        "BelowFloor",
        "Backups have expired, but fewer than `retention.minVerified` are verified: nothing is deleted.",
        "See the condition Verified.",
    )
    LAST_RUN_FAILED = (
        "LastRunFailed",
        "Nothing is deleted while the last run has failed.",
        "See the condition BackupCurrent.",
    )
    CONTESTED = (
        "Contested",
        "`adoption` is Always, and another installation goes on taking backups for a policy of this namespace and name:"
        " nothing is deleted.",
        "Give one of the two installations another prefix, or set `adoption: Never`.",
    )
    DRY_RUN = (
        "DryRun",
        "`retention.execution` is DryRun: the message says what would be deleted, and nothing is.",
        "Set `retention.execution: Run` when that is as you want it.",
    )
    DELETE_DENIED = (
        "DeleteDenied",
        "The store refuses to delete what has expired.",
        "Correct `credentials.delete` of the destination.",
    )
    RETENTION_FAILED = "RetentionFailed", "Retention could not be carried out; it is tried again.", "See the message."
    RECIPIENT_GONE = (
        "RecipientGone",
        "No recipient that the destination names opens some of the backups: a key was replaced or removed.",
        "Name the old recipient again with `decryptOnly: true` and its `identity`, as long as those backups are kept.",
    )
    NOT_COMPLETE = "NotComplete", "There is nothing yet that this could be said of.", "See the condition Complete."
    RUNNING = "Running", "A pod takes the backup.", "Wait."
    WAITING = "Waiting", "It waits for what the message names.", "See the message."
    WORKER_LOST = (
        "WorkerLost",
        "The pod was killed from outside, or it or its Job vanished, and the bucket holds no backup of that run.",
        "A scheduled run comes again; else create a new PostgresBackup.",
    )
    IMAGE_MISSING = (
        "ImageMissing",
        "The pod's image cannot be pulled, so it cannot start.",
        "Correct the chart's `tools.image` or `spec.pod.imagePullSecrets`; see the message.",
    )
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "The pod was killed at its memory limit.",
        "Raise `spec.pod.resources.limits.memory` of the policy.",
    )
    EVICTED = "Evicted", "The node put the pod out.", "See the message; raise `spec.pod.resources.requests`."
    DEADLINE_EXCEEDED = (
        "DeadlineExceeded",
        "The run took longer than `spec.timeout`.",
        "Raise it, or look for what made the run slow.",
    )
    POD_FAILED = "PodFailed", "The pod ended without telling why.", "Look at its log and events."
    EXPIRED = "Expired", "Retention has deleted it, or `notAfter` had passed before it could start.", "Nothing."
    MISSING = (
        "Missing",
        "The bucket does not hold it any more, and it was not retention.",
        "Look for lifecycle rules or people who deleted it.",
    )
    BRAKE_ON = (
        "BrakeOn",
        "The brake pauses every write of this installation.",
        "Remove the key from the brake ConfigMap.",
    )
    COMMITTED = "Committed", "The manifest was written: the backup exists.", "Nothing."
    VERIFIED = "Verified", "Every object was read whole and holds what the manifest says.", "Nothing."
    INVALID_CONFIG = "InvalidConfig", "The job's configuration does not parse.", "Report it: pgtend wrote it."
    SECRET_MISSING = "SecretMissing", "A file that should be mounted is not there.", "Create the Secret or its key."
    CLIENT_TOO_OLD = (
        "ClientTooOld",
        "libpq in the image is older than 16 and could be made to send the password in clear text.",
        "Use a tools image with libpq 16 or later.",
    )
    VERSION_MISMATCH = (
        "VersionMismatch",
        "The image's pg_dump is not of the server's major version.",
        "Use the tools image of that major.",
    )
    PERMISSION_DENIED = (
        "PermissionDenied",
        "The role may not read something that the backup must contain.",
        "Run the GRANT that the message gives.",
    )
    ROW_SECURITY = (
        "RowSecurity",
        "Row security would hide rows from the role: a backup would silently lack them.",
        "Run the ALTER ROLE that the message gives.",
    )
    LARGE_OBJECT_DENIED = (
        "LargeObjectDenied",
        "The role may not read a large object.",
        "Run the GRANT that the message gives, or make the role their owner's member.",
    )
    GLOBALS_DENIED = (
        "GlobalsDenied",
        "Roles were to be dumped with passwords, and the role may not read pg_authid.",
        "Set `spec.dump.globals: Auto`, or grant SELECT on pg_authid.",
    )
    NOTHING_SELECTED = (
        "NothingSelected",
        "The patterns of a database match no table of it, so the backup would hold none.",
        "Correct `schemas` and `tables` of that entry of `spec.dump.databases`.",
    )
    LOCK_TIMEOUT = (
        "LockTimeout",
        "A table stayed locked by somebody else for longer than `spec.dump.lockTimeout`.",
        "See the message for who holds the lock.",
    )
    LOCKS_EXHAUSTED = (
        "LocksExhausted",
        "The server's table of locks is full: a dump locks every table of a database.",
        "Raise max_locks_per_transaction on the server; it needs a restart.",
    )
    YIELDED_TO_DDL = (
        "YieldedToDDL",
        "Somebody waited longer than `spec.dump.yieldToDDLAfter` to change a table that the dump had locked: it ended.",
        "Run the backup at another time than the change, or raise the limit; the message names who waited.",
    )
    TABLES_CHANGING = (
        "TablesChanging",
        "Tables were truncated, rewritten or dropped again and again while the dump began.",
        "Run the backup at another time than the batch job that does it.",
    )
    SNAPSHOT_LOST = (
        "SnapshotLost",
        "The session that held the snapshot and its locks ended before the dump did.",
        "See the server's log; the next run starts anew.",
    )
    DUMP_FAILED = "DumpFailed", "pg_dump or pg_dumpall failed.", "See the message: its last lines are quoted."
    INTERRUPTED = (
        "Interrupted",
        "The pod was told to stop: its deadline passed, or its node was drained.",
        "Raise `spec.timeout` if it was the deadline.",
    )
    MANIFEST_UNREADABLE = "ManifestUnreadable", "The manifest does not parse.", "Treat this backup as lost."
    CHECKSUM_MISMATCH = (
        "ChecksumMismatch",
        "An object is not what was written: same size, other bytes.",
        "Treat this backup as lost and take a new one; look at the store.",
    )
    TOC_MISMATCH = (
        "TocMismatch",
        "The archive does not hold the data of all tables that the manifest names.",
        "Treat this backup as incomplete, and report it.",
    )
    ROW_COUNT_MISMATCH = (
        "RowCountMismatch",
        "The archive holds another number of rows of a table than its snapshot had.",
        "Treat this backup as incomplete, and report it.",
    )
    ARCHIVE_UNREADABLE = (
        "ArchiveUnreadable",
        "pg_restore does not read the archive to its end.",
        "Treat this backup as lost and take a new one.",
    )
    INTERNAL_ERROR = "InternalError", "The job failed in a way that nobody thought of.", "Report it with the pod's log."
    BUCKET_MISSING = (
        "BucketMissing",
        "The bucket does not exist at this endpoint.",
        "Create it, or correct `spec.s3.bucket`, `region` or `endpoint`.",
    )
    BUCKET_DENIED = (
        "BucketDenied",
        "The store refuses the credential, or the credential lacks the right for this request.",
        "Correct the Secret or the role's policy; the message names the request that was refused.",
    )
    BUCKET_UNREACHABLE = (
        "BucketUnreachable",
        "The endpoint does not answer, or its certificate does not verify.",
        "Check `spec.s3.endpoint`, `region`, `ca`, DNS and NetworkPolicy.",
    )
    CONDITIONAL_WRITES_NOT_HONORED = (
        "ConditionalWritesNotHonored",
        "The store overwrites an object although the request forbids it, so a backup cannot be committed safely.",
        "Use a store that honors If-None-Match, or upgrade it.",
    )
    OBJECT_EXISTS = (
        "ObjectExists",
        "An object of this name is already there, and is not overwritten.",
        "Nothing: the next run uses another name.",
    )
    OBJECT_MISSING = (
        "ObjectMissing",
        "An object that the manifest names is not in the bucket.",
        "Look for lifecycle rules or people who deleted it; take a new backup.",
    )
    OBJECT_TOO_LARGE = (
        "ObjectTooLarge",
        "The data does not fit the store's limits of parts and object size.",
        "Raise `spec.s3.limits` if the store allows more.",
    )
    UPLOAD_FAILED = (
        "UploadFailed",
        "The store failed while data was written; the upload was aborted.",
        "See the message; the next run starts anew.",
    )
    READ_FAILED = "ReadFailed", "The store failed while data was read.", "See the message; it is tried again."
    INVALID_RECIPIENT = (
        "InvalidRecipient",
        "A recipient is not an age X25519 public key.",
        "Give a key as `age-keygen` prints it; it begins with age1.",
    )
    INVALID_IDENTITY = (
        "InvalidIdentity",
        "The identity file holds no age X25519 secret key.",
        "Put the file that `age-keygen` writes into the Secret.",
    )
    KEY_MISSING = (
        "KeyMissing",
        "None of the identities opens this object.",
        "Mount the identity of one of the recipients that the manifest names.",
    )
    DECRYPT_FAILED = (
        "DecryptFailed",
        "The object does not decrypt: it was changed or cut after it was written.",
        "Treat this backup as lost and take a new one; look at the store.",
    )
    TRUNCATED_ARCHIVE = (
        "TruncatedArchive",
        "The data ends before its end.",
        "Treat this backup as lost and take a new one.",
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
    STALE_MEMBER = (
        "StaleMember",
        "A member accepts writes on an older timeline than the primary: a former primary that came back.",
        "Stop it, then rebuild it as a standby (pg_rewind or a new base backup).",
    )
    IDENTITY_CHANGED = (
        "IdentityChanged",
        "The primary is not the server that was recorded, or has gone back in time. Writes are frozen.",
        "If that is intended, set `spec.acceptIdentity` to `status.identityToken`.",
    )
    CONNECTION_FAILED = "ConnectionFailed", "Connecting failed for another cause; see the message.", "See the message."
