"""Why a condition of PostgresOperation is as it is."""

from __future__ import annotations

from pgtend.api.conditions import Reason


class OperationReason(Reason):
    """Reasons of PostgresOperation. While the target cannot be used, Ready carries the target's own reason."""

    SUCCEEDED = "Succeeded", "Everything that was planned has been done.", "Nothing."
    ACCEPTED = "Accepted", "The target exists and admits the operation.", "Nothing."
    RUNNING = "Running", "It runs.", "Wait, or set `spec.cancel: true`."
    DRY_RUN = "DryRun", "The plan was computed; nothing was changed.", "Nothing; to carry it out make another with Run."
    OBSERVING = (
        "Observing",
        "The plan was computed and nothing was changed: the target is in mode Observe.",
        "Set the target's `spec.mode: Enforce`, then make another operation.",
    )
    SCHEDULED = (
        "Scheduled",
        "It waits for a window, or for a backup or other work in the way; the message says for what.",
        "Nothing: it starts by itself, or expires at `spec.notAfter`. `spec.cancel: true` ends the waiting.",
    )
    EXPIRED = "Expired", "`spec.notAfter` passed before it could start. Not one statement was sent.", "Make another."
    CANCELLED = "Cancelled", "`spec.cancel` was set; what was done until then stays done.", "Nothing."
    FAILED = "Failed", "Some items failed; the message and `status.items` name them.", "See the message; make another."
    DEFERRED = (
        "Deferred",
        "Some items were put off: somebody held a lock on them or waited for us, or the time was too short for them.",
        "Make another operation when what the message names is over, with more time if that was it.",
    )
    TIMED_OUT = (
        "TimedOut",
        "It ran into `spec.timeout`; what was done until then stays done.",
        "Narrow the selection or raise `timeout`, in another operation.",
    )
    STOPPED = (
        "Stopped",
        "It was stopped while it ran: brake, mode, suspension, consent or Lease changed. What was done stays done.",
        "See the message; make another operation.",
    )
    INTERRUPTED = (
        "Interrupted",
        "The operator ended in the middle, and the database does not tell whether it was done. It is never repeated.",
        "Look at what the message names; make another operation if it is still wanted.",
    )
    REFUSED = "Refused", "Nothing was done; the condition Accepted says why.", "Make another operation."
    INVALID_SPEC = (
        "InvalidSpec",
        "The spec does not parse; the message names the field. The CRD in the cluster is of another version.",
        "Make another operation with the field corrected.",
    )
    TARGET_NOT_FOUND = (
        "TargetNotFound",
        "`spec.targetRef` names a PostgresTarget that does not exist (yet).",
        "Create it before `spec.notAfter`, or make another operation with the right reference.",
    )
    NOT_PERMITTED = (
        "NotPermitted",
        "The target's `access` does not admit this operation. TerminateQueries, VacuumFull, Restore are listed.",
        "Ask the target's owner to add what the message names, then make another operation.",
    )
    SELECTOR_NEEDS_CLUSTER_MODE = (
        "SelectorNeedsClusterMode",
        "Only an `access` entry with a selector could admit the namespace, and this installation may not read the"
        " labels of namespaces, as in namespaced mode.",
        "Ask the target's owner to list the namespace in `namespaces.names`, or install pgtend in cluster mode; then"
        " make another operation.",
    )
    NOT_AFTER_TOO_FAR = (
        "NotAfterTooFar",
        "`spec.notAfter` lies more than 7 days ahead: what nobody remembers must not happen.",
        "Make another operation with an earlier `notAfter`.",
    )
    TOO_MANY_VICTIMS = (
        "TooManyVictims",
        "More sessions fit the selector than `maxVictims`. Nobody was touched; `status.items` names the first 50.",
        "Narrow `select`, or make another operation with a larger `maxVictims`.",
    )
    MISSING_PRIVILEGE = (
        "MissingPrivilege",
        "The role of credentials.maintenance, of a Restore credentials.restore, may not see or do this.",
        "Run the GRANT that the message gives, then make another operation.",
    )
    CAPABILITY_MISSING = (
        "CapabilityMissing",
        "The target has no credentials.maintenance, or for a Restore no credentials.restore.",
        "Add it to the target, then make another operation.",
    )
    OUTSIDE_WINDOW = (
        "OutsideWindow",
        "The type is disruptive, `runPolicy` is Immediately, and no window of the target is open.",
        "Make another operation with `runPolicy: InWindow`, or OverrideWindow.",
    )
    NO_WINDOW_BEFORE_EXPIRY = (
        "NoWindowBeforeExpiry",
        "No window of the target opens before `spec.notAfter`, so it could never start.",
        "Make another operation with a later `notAfter` (7 days at most) or with `runPolicy: OverrideWindow`.",
    )
    DISK_UNKNOWN = (
        "DiskUnknown",
        "VacuumFull writes each table anew, and how much disk is free on the server is not known.",
        "Look at the server's disk, then make another operation with `vacuumFull.allowUnknownDisk: true`.",
    )
    EXTENSION_MISSING = (
        "ExtensionMissing",
        "`measure: Exact` needs the extension pgstattuple, and no selected database has it.",
        "Run the CREATE EXTENSION that the message gives, or use `measure: Estimate`.",
    )
    CONFIG_MAP_NOT_OWNED = (
        "ConfigMapNotOwned",
        "The ConfigMap that would take the list of items exists and belongs to something else. Nothing was done.",
        "Remove it, or make another operation with another name.",
    )
    WAITING_FOR_TARGET = (
        "WaitingForTarget",
        "The target cannot be used at the moment; it is tried again until `spec.notAfter`.",
        "See the message and the target's own conditions.",
    )
    MUST_BE_IN_TARGET_NAMESPACE = (
        "MustBeInTargetNamespace",
        "A Restore starts a pod that mounts the target's Secrets, and a pod mounts those of its own namespace only.",
        "Make the operation in the target's namespace.",
    )
    BACKUP_NOT_FOUND = (
        "BackupNotFound",
        "`restore.from.backupRef` names a PostgresBackup that does not exist (yet).",
        "Create it before `spec.notAfter` (`spec.stored` names a backup that is in the bucket), or correct the name.",
    )
    BACKUP_NOT_COMPLETE = (
        "BackupNotComplete",
        "The PostgresBackup is not committed (yet): there is nothing to restore from.",
        "Wait, or see what the backup's condition Complete says.",
    )
    BACKUP_NOT_AVAILABLE = (
        "BackupNotAvailable",
        "The backup is not in the bucket any more: it has expired, or somebody deleted it.",
        "Restore from another one.",
    )
    DESTINATION_NOT_READY = (
        "DestinationNotReady",
        "The BackupDestination that the backup lies in cannot be used.",
        "See the message and the destination's own conditions.",
    )
    IDENTITY_MISSING = (
        "IdentityMissing",
        "No recipient of the backup has its identity in the cluster, so nobody here can open it.",
        "Give the identity of one of them at the BackupDestination: `recipients[].identity`.",
    )
    TOOLS_IMAGE_MISSING = (
        "ToolsImageMissing",
        "No image with the programs of the target's major is configured, or it cannot be pulled.",
        "Set the chart's `tools.image` and `tools.majors`.",
    )
    DATABASE_NOT_IN_BACKUP = (
        "DatabaseNotInBackup",
        "The backup does not hold the database, or holds several and none was named.",
        "Make another with one of those that the message lists in `restore.select.databases`.",
    )
    SCHEMA_NOT_IN_BACKUP = (
        "SchemaNotInBackup",
        "The backup does not hold a schema that `restore.select.schemas` names. Nothing was restored.",
        "Make another with the right name; `pg_restore --list` shows what an archive holds.",
    )
    DATABASE_NOT_EMPTY = (
        "DatabaseNotEmpty",
        "The database that would take the backup holds something already. Nothing was changed.",
        "Make another that names a database which does not exist, or says `ifNotEmpty: Add`: nothing is ever dropped.",
    )
    VERSION_MISMATCH = (
        "VersionMismatch",
        "The backup was taken of a later major than the target's: it does not restore there.",
        "Restore into a target of the same major or a later one.",
    )
    KEY_MISSING = (
        "KeyMissing",
        "The identity that was mounted opens none of the backup's recipients.",
        "Put the identity of one of them into the Secret that the BackupDestination names.",
    )
    OBJECT_MISSING = (
        "ObjectMissing",
        "The manifest names an object that is not in the bucket.",
        "Restore from another backup; look for lifecycle rules or people who deleted it.",
    )
    CHECKSUM_MISMATCH = (
        "ChecksumMismatch",
        "The object in the bucket is not what was written. Nothing was restored.",
        "Restore from another backup, and look at the store.",
    )
    TRUNCATED_ARCHIVE = (
        "TruncatedArchive",
        "The object in the bucket ends before its end. Nothing was restored.",
        "Restore from another backup, and look at the store.",
    )
    PERMISSION_DENIED = (
        "PermissionDenied",
        "The role of credentials.restore may not create the database, or something that is in the backup.",
        "Run the GRANT that the message gives, or name an `owner` that the role is a member of.",
    )
    ROLE_MISSING = (
        "RoleMissing",
        "The backup names an owner or a grantee that the server does not have. Nothing was restored.",
        "Create the role (the backup's globals have it), or name another owner in `restore.into.database.owner`.",
    )
    EXTENSION_UNAVAILABLE = (
        "ExtensionUnavailable",
        "The backup needs an extension that the server does not have, or that the role may not create.",
        "Install it, or have an administrator create it in the empty database first; then make another operation.",
    )
    LOCKS_EXHAUSTED = (
        "LocksExhausted",
        "The restore is one transaction, and the server's table of locks is full. Nothing was restored.",
        "Raise max_locks_per_transaction on the server; it needs a restart.",
    )
    OBJECT_CLASH = (
        "ObjectClash",
        "Something of that name is in the database already. Nothing was restored.",
        "Restore into a database of its own, or remove what the message names.",
    )
    ROW_COUNT_MISMATCH = (
        "RowCountMismatch",
        "After the restore a table has another number of rows than the snapshot of the backup had.",
        "Look at what wrote to the database meanwhile; verify the backup.",
    )
    NOT_COMPARED = (
        "NotCompared",
        "The backup is in the database and committed, but the server was lost before its settings and grants were given"
        " back or its rows counted.",
        "Look at the database before you use it; nothing has to be restored again.",
    )
    RESTORE_FAILED = (
        "RestoreFailed",
        "The pod of the restore failed in another way; it is one transaction, so nothing was restored.",
        "See the message: the last lines are quoted.",
    )
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "The pod was killed at its memory limit. Nothing was restored.",
        "Make another with more in `spec.pod.resources.limits.memory`.",
    )
    WORKER_LOST = (
        "WorkerLost",
        "The pod was evicted or killed from outside. Nothing was restored unless the message says so.",
        "See the events of the namespace; make another operation.",
    )
