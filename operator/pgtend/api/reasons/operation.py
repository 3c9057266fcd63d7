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
        "The target's `access` does not admit this operation. TerminateQueries and VacuumFull are listed word by word.",
        "Ask the target's owner to add what the message names, then make another operation.",
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
        "The role of credentials.maintenance may not see or do this.",
        "Run the GRANT that the message gives, then make another operation.",
    )
    CAPABILITY_MISSING = (
        "CapabilityMissing",
        "The target has no credentials.maintenance.",
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
