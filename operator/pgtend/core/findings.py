"""What a domain has judged about a target. Only targets/ writes PostgresTarget; everybody else publishes findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from pgtend.api.conditions import Reason, Status


class ObjectKey(NamedTuple):
    """Which object: sorts, hashes, and prints as `namespace/name`."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A verdict on a target: which condition, which way, why, with which figures, as of when."""

    target: ObjectKey
    condition: str
    status: Status
    reason: Reason
    message: str
    object: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    as_of: datetime
