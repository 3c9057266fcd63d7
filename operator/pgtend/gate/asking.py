"""What the gate is asked and told, and how it says no: plain values, so that a test or a controller can make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pgtend.core.findings import ObjectKey
from pgtend.gate.busy import Busy
from pgtend.gate.classes import RunPolicy, TaskType
from pgtend.gate.reasons import GateReason
from pgtend.gate.windows import Calendar


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody wants to start.

    `object` is what it acts on, for messages. `estimate` is how long it will take, with the estimator's safety in it.
    `timeout` is its own limit. `window` restricts it to one window (a run's); without it any window of the target will
    do. `object_mode` is the mode of the asking object.
    """

    target: ObjectKey
    type: TaskType
    object: str
    run_policy: RunPolicy
    estimate: timedelta
    timeout: timedelta | None = None
    window: ObjectKey | None = None
    object_mode: Literal["Observe", "Enforce"] = "Enforce"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetWindow:
    """A window that selects the target and is admitted by it."""

    key: ObjectKey
    calendar: Calendar
    suspended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known about one target."""

    target: ObjectKey
    mode: Literal["Observe", "Enforce"]
    suspended: bool = False
    brake: bool = False
    windows: tuple[TargetWindow, ...] = ()
    busy: Busy = field(default_factory=Busy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why it may not start now. `object` is what stands in the way; `retry_at` (UTC) is when asking again makes sense,
    None where that depends on people or on the end of other work."""

    reason: GateReason
    message: str
    object: str | None = None
    retry_at: datetime | None = None
