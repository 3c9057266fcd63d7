"""Why work may not start now. A kind that shows one of these spells it the same in its own enum."""

from __future__ import annotations

from pgtend.api.conditions import Reason


class GateReason(Reason):
    """Reasons of the gate."""

    INVALID_SCHEDULE = (
        "InvalidSchedule",
        "The schedule, its time zone or the spans that count back from a window's end have no usable meaning.",
        "Write what the message proposes.",
    )
    BRAKE_ON = (
        "BrakeOn",
        "The installation's brake is set: the operator writes nothing on any server.",
        "Release the brake when what made somebody set it is over.",
    )
    SUSPENDED = (
        "Suspended",
        "The target or the window has `spec.suspend: true`.",
        "Set `spec.suspend: false` to go on.",
    )
    OBSERVING = (
        "Observing",
        "The target, or the object itself, is in mode Observe: plans are made, nothing is carried out.",
        "Set `spec.mode: Enforce` when the plan looks right.",
    )
    OUTSIDE_WINDOW = (
        "OutsideWindow",
        "The work is disruptive, or was asked for in a window, and no window of the target is open.",
        "Wait for the next window, or create the operation with `runPolicy: OverrideWindow`.",
    )
    EXCLUSION_ACTIVE = (
        "ExclusionActive",
        "An exclusion of a window that selects the target is in force. Exclusions beat windows and OverrideWindow.",
        "Wait until it is over, or change `spec.exclusions` of the window that the message names.",
    )
    WINDOW_CLOSING = (
        "WindowClosing",
        "The window is open but nothing starts in its last `closing.lastStart`.",
        "Nothing: the next window goes on. Lengthen `duration` if this happens each time.",
    )
    NOT_ENOUGH_TIME = (
        "NotEnoughTime",
        "The estimate does not fit before the moment at which the work would be cancelled.",
        "Nothing if a later window fits; else lengthen `duration` or `timeout`, or narrow `select`.",
    )
    WAITING_FOR_BACKUP = (
        "WaitingForBackup",
        "A dump of the target runs, or its start has passed and its Job is about to appear. Backups win.",
        "Nothing: work goes on when the dump has ended. Move one of the two schedules if they meet each time.",
    )
    BACKUP_DUE = (
        "BackupDue",
        "The estimate does not end 60 seconds before the next dump of the target.",
        "Nothing: work goes on after the dump. Move one of the two schedules if they meet each time.",
    )
    TARGET_BUSY = (
        "TargetBusy",
        "Another disruptive task runs on the target; there is never more than one.",
        "Nothing: work goes on when the other has ended.",
    )
    PAUSED = (
        "Paused",
        "A limit of the window's `pauseWhile` is exceeded: no item starts.",
        "Nothing: work goes on when the figure has come down.",
    )
