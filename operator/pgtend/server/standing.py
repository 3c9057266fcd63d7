"""What is known about a target's identity: who is primary, and whether it may be written to. Judged by targets/,
asked by every write."""

from __future__ import annotations

from dataclasses import dataclass

from pgtend.core.errors import PgtendError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """Read from a primary only. `timeline` is that of its current WAL file, `lsn` is flushed."""

    system_identifier: str
    timeline: int
    lsn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`refusal` is why nothing may be written now; None where `primary` (a member's name) may be written to."""

    primary: str | None
    identity: ServerIdentity | None
    refusal: PgtendError | None
    primary_started: str | None = None


def parse_lsn(text: str) -> int:
    """`5A/1B2C3D40` as the number of bytes. Raises ValueError."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def format_lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
