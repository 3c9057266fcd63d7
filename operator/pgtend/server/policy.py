"""What must hold at the moment of a write besides the target's own state: the Lease and the brake. Filled in by app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WritePolicy:
    leading: Callable[[], bool]
    braked: Callable[[], bool]
