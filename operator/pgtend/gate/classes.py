"""What kind of harm a type of work can do, and so when it may run. One list for tasks and operations."""

from __future__ import annotations

from enum import Enum, StrEnum


class TaskClass(Enum):
    """How a type may run: HARMLESS and ONLINE at any time, DISRUPTIVE in a window or by OverrideWindow, EMERGENCY at
    once, DATA at once or in a window."""

    HARMLESS = "Harmless"
    ONLINE = "Online"
    DISRUPTIVE = "Disruptive"
    EMERGENCY = "Emergency"
    DATA = "Data"


class TaskType(StrEnum):
    """Every type with its class and with what it does to an object, for messages. A new type is one line here."""

    task_class: TaskClass
    effect: str

    def __new__(cls, value: str, task_class: TaskClass, effect: str) -> TaskType:
        member = str.__new__(cls, value)
        member._value_ = value
        member.task_class = task_class
        member.effect = effect
        return member

    VACUUM_ANALYZE = "VacuumAnalyze", TaskClass.ONLINE, "vacuums"
    REINDEX = "Reindex", TaskClass.DISRUPTIVE, "rebuilds"
    VACUUM_FULL = "VacuumFull", TaskClass.DISRUPTIVE, "locks"
    RESTORE = "Restore", TaskClass.DATA, "restores into"
    TERMINATE_QUERIES = "TerminateQueries", TaskClass.EMERGENCY, "ends sessions of"
    # of one role that may not log in any more, as its own spec says: until then who should be out is in
    END_SESSIONS = "EndSessions", TaskClass.EMERGENCY, "ends all sessions of"


class RunPolicy(Enum):
    """What the user asks for: at once, once a day at any time (a window's task that is not disruptive), in a window,
    or now although no window is open."""

    IMMEDIATELY = "Immediately"
    DAILY = "Daily"
    IN_WINDOW = "InWindow"
    OVERRIDE_WINDOW = "OverrideWindow"
