"""One exception that knows its reason, so that a failure becomes a condition without guessing from its text."""

from __future__ import annotations

from pgtend.api.conditions import Reason


class PgtendError(Exception):
    """A failure that a user can read: `reason` for the condition, `message` with object and next step.

    `transient` says that trying again later may help without a change by people.
    """

    def __init__(self, reason: Reason, message: str, *, object: str | None = None, transient: bool = True) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.object = object
        self.transient = transient


class StaleObject(Exception):
    """What was computed belongs to an older version of the object: look again, write nothing."""
