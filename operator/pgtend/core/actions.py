"""What a plan consists of: an action says what it does, in words and in SQL and without secrets, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Repeat(Enum):
    """IDEMPOTENT may run again after a crash; ONCE is claimed in the journal first and never repeated by itself."""

    IDEMPOTENT = "Idempotent"
    ONCE = "Once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Base of all actions. `object` is what it acts on, `verb` what it does, as in a record."""

    object: str
    verb: str
    repeat: Repeat = Repeat.IDEMPOTENT

    def describe(self) -> str:
        """One line for people: dry run, event, record. Never a secret."""
        return f"{self.verb} {self.object}"
