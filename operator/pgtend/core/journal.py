"""What a status says about work that was begun: whether it is our own, claimed, finished. Pure.

A Once action is claimed here before it starts. A status proves itself by its mark, made of the installation and the
object's uid: one that came with the object out of a backup, or from somebody's hand, carries another and is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgtend.core.clock import parse_rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """An item that was claimed: what people call it, and what finds it again."""

    object: str
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """`claimed_by` is the process that claimed, `deadline` when the work is cut off, `finished` whether all is said."""

    claimed_at: datetime | None
    claimed_by: str | None
    deadline: datetime | None
    finished: bool
    unfinished: tuple[Claimed, ...]
    resume_from: str | None


def mark_of(*, installation: str, uid: str) -> str:
    return f"{installation}/{uid}"


def of_another(status: Mapping[str, Any], *, installation: str, uid: str) -> str | None:
    """The installation that tends this very object, where it is not ours: two that both acted would act twice."""
    body = status.get("journal")
    mark = str(body.get("mark", "")) if isinstance(body, Mapping) else ""
    who, _, what = mark.partition("/")
    return who if what == uid and who != installation else None


def read_journal(status: Mapping[str, Any], *, mark: str) -> Journal | None:
    """The journal in a status, or None where there is none that is ours, whatever else the status claims."""
    body = status.get("journal")
    if not isinstance(body, Mapping) or body.get("mark") != mark:
        return None
    unfinished = tuple(
        Claimed(object=str(entry.get("object")), facts=dict(entry.get("facts") or {}))
        for entry in body.get("unfinished") or ()
    )
    return Journal(
        claimed_at=_moment(body.get("claimedAt")),
        claimed_by=body.get("claimedBy"),
        deadline=_moment(body.get("deadline")),
        finished=bool(status.get("finishedAt")),
        unfinished=unfinished,
        resume_from=body.get("resumeFrom"),
    )


def _moment(text: str | None) -> datetime | None:
    return parse_rfc3339(text) if text else None
