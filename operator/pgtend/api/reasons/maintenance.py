"""Why a condition of MaintenanceWindow and MaintenanceRun is as it is."""

from __future__ import annotations

from pgtend.api.conditions import Reason


class WindowReason(Reason):
    """Reasons of MaintenanceWindow."""

    IN_FORCE = "InForce", "The schedule is valid and at least one target admits the window.", "Nothing."
    ACCEPTED = "Accepted", "The spec is valid and every target that it names admits it.", "Nothing."
    AS_EXPECTED = "AsExpected", "Nothing stands in the way.", "Nothing."
    WINDOW_OPEN = "WindowOpen", "The window is open; the message says until when.", "Nothing."
    OUTSIDE_WINDOW = "OutsideWindow", "The window is closed; the message says when it opens.", "Nothing."
    EXCLUSION_ACTIVE = (
        "ExclusionActive",
        "An exclusion is in force: no window is open meanwhile.",
        "Wait until it is over, or change `spec.exclusions`.",
    )
    SUSPENDED = "Suspended", "`spec.suspend` is true: nothing starts.", "Set `spec.suspend: false` to go on."
    OBSERVING = (
        "Observing",
        "The window or its targets are in mode Observe: runs are planned and nothing is carried out.",
        "Set `spec.mode: Enforce` on window and target when the plan looks right.",
    )
    INVALID_SPEC = "InvalidSpec", "The spec does not parse; the message names the field.", "Correct it."
    INVALID_SCHEDULE = (
        "InvalidSchedule",
        "Schedule, time zone, duration, closing or an exclusion has no usable meaning.",
        "Write what the message proposes.",
    )
    TARGET_NOT_FOUND = (
        "TargetNotFound",
        "`spec.targetRefs` names a PostgresTarget that does not exist.",
        "Create it or correct the reference; other targets are served meanwhile.",
    )
    NO_TARGETS = (
        "NoTargets",
        "`spec.targetSelector` fits no PostgresTarget of the window's namespace.",
        "Label a target, or correct the selector.",
    )
    NOT_PERMITTED = (
        "NotPermitted",
        "A target's `access` does not admit the window or one of its tasks. Nothing is done there.",
        "Ask the target's owner to add what the message names, or remove the task.",
    )
    SELECTOR_NEEDS_CLUSTER_MODE = (
        "SelectorNeedsClusterMode",
        "Only an `access` entry with a selector could admit the namespace, and this installation may not read the"
        " labels of namespaces, as in namespaced mode. Nothing is done there.",
        "Ask the target's owner to list the namespace in `namespaces.names`, or install pgtend in cluster mode.",
    )
    NOT_ACCEPTED = "NotAccepted", "Not judged while the window is not accepted.", "See the condition Accepted."
    TARGET_NOT_READY = (
        "TargetNotReady",
        "No plan can be made for a target: it is not reached, or lacks credentials or a privilege.",
        "See the message and the target's own conditions.",
    )
    WAITING_FOR_BACKUP = (
        "WaitingForBackup",
        "The window is open and work waits for a dump of a target. Backups win.",
        "Nothing: work begins when the dump has ended. Move one of the two schedules if they meet each time.",
    )
    STARVED_BY_BACKUP = (
        "StarvedByBackup",
        "In the last window work was left undone because a dump ran into it.",
        "Move one of the two schedules; the message proposes a time.",
    )
    WAITING = (
        "Waiting",
        "The window is open and work on a target waits: for other work, a turn, the brake, or the target itself.",
        "See the message.",
    )
    PAUSED = (
        "Paused",
        "The window is open and no item starts, because a limit of `spec.pauseWhile` is exceeded.",
        "Look at what the message names; work goes on by itself.",
    )


class RunReason(Reason):
    """Reasons of MaintenanceRun."""

    ACCEPTED = "Accepted", "The target admits the window and its tasks.", "Nothing."
    SCHEDULED = "Scheduled", "The plan is made; the run begins when the window opens.", "Nothing."
    RUNNING = "Running", "It runs.", "Nothing, or suspend the window to stop it."
    SUCCEEDED = (
        "Succeeded",
        "Everything that there was time for has been done; the message says what is left for the next window.",
        "Nothing.",
    )
    FAILED = (
        "Failed",
        "Some items failed; the message and `status.items` name them.",
        "See the message. The next window tries again what is still due.",
    )
    SKIPPED = (
        "Skipped",
        "Nothing was done in this window; the message says why.",
        "See the message. The next window tries again.",
    )
    STARVED_BY_BACKUP = (
        "StarvedByBackup",
        "A dump ran into the window, and work was left undone.",
        "Move the window or the backup; the message proposes a time.",
    )
    CANCELLED = (
        "Cancelled",
        "The window was closed for it: suspended, changed, deleted, excluded, or consent withdrawn. What was done until"
        " then stays done.",
        "Nothing.",
    )
    OBSERVING = (
        "Observing",
        "The plan was made and nothing was changed: the window or the target is in mode Observe.",
        "Set `spec.mode: Enforce` when the plan looks right.",
    )
    DRY_RUN = "DryRun", "The plan was made; no task of it has execution Run.", "Set `execution: Run` to carry it out."
    NOT_PERMITTED = (
        "NotPermitted",
        "The target's `access` does not admit the window or one of its tasks any more.",
        "Ask the target's owner.",
    )
    WAITING_FOR_BACKUP = (
        "WaitingForBackup",
        "A dump of the target runs or is due. Backups win.",
        "Nothing: work goes on when the dump has ended.",
    )
    WAITING = (
        "Waiting",
        "The window is open and the run waits: for other work on the target, its turn among the targets, the brake, or"
        " the target itself.",
        "See the message.",
    )
    PAUSED = (
        "Paused",
        "A limit of the window's `pauseWhile` is exceeded: no item starts.",
        "Look at what the message names; it goes on by itself.",
    )
