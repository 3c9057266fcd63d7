"""Conditions and how a new verdict is merged with what stands, so that transition times mean what they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from pgtend.api.base import ApiModel
from pgtend.api.types import Timestamp

Status = Literal["True", "False", "Unknown"]
MESSAGE_LIMIT = 1024


class Reason(StrEnum):
    """A reason with what it means and what to do, the source of its page in docs/reasons.

    Members are written `NAME = "Name", "meaning", "what to do"`.
    """

    meaning: str
    remedy: str

    def __new__(cls, value: str, meaning: str = "", remedy: str = "") -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.remedy = remedy
        return member


class Condition(ApiModel):
    """metav1.Condition as it is stored."""

    type: Annotated[str, Field(max_length=64)]
    status: Status
    reason: Annotated[str, Field(max_length=128)]
    message: Annotated[str, Field(max_length=MESSAGE_LIMIT)] = ""
    last_transition_time: Timestamp
    observed_generation: int


class Worst(ApiModel):
    """The condition to read first; feeds the columns REASON and SINCE."""

    condition: Annotated[str, Field(max_length=64)]
    reason: Annotated[str, Field(max_length=128)]
    object: Annotated[str | None, Field(max_length=256)] = None
    since: Timestamp


class BaseStatus(ApiModel):
    """What every status carries. `observed_at` is the moment of the figures and moves with a write only."""

    observed_generation: int | None = None
    observed_at: Timestamp | None = None
    worst: Worst | None = None
    conditions: Annotated[
        tuple[Condition, ...], Field(max_length=32, json_schema_extra={"x-list-map-keys": ["type"]})
    ] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition as a judge gives it, before it is merged. `object` names the offender for `worst`.

    `negligible` marks an Unknown that is no trouble (not requested, or a mere consequence of another condition).
    """

    type: str
    status: Status
    reason: Reason
    message: str
    object: str | None = None
    negligible: bool = False


# Present only when true (kstatus), never the worst.
ABNORMAL = ("Reconciling", "Stalled")


def merge(
    *, previous: Sequence[Mapping[str, Any]], verdicts: Iterable[Verdict], generation: int, now: str
) -> list[Condition]:
    """The conditions to store: a transition time changes only where the status does; what is not given is dropped."""
    old = {c.get("type"): c for c in previous}
    merged = []
    for verdict in verdicts:
        before = old.get(verdict.type)
        same = before is not None and before.get("status") == verdict.status
        merged.append(
            Condition(
                type=verdict.type,
                status=verdict.status,
                reason=str(verdict.reason),
                message=_clip(verdict.message),
                last_transition_time=Timestamp(before["lastTransitionTime"] if same and before else now),
                observed_generation=generation,
            )
        )
    return merged


def worst_of(
    *, previous: Mapping[str, Any], verdicts: Sequence[Verdict], conditions: Sequence[Condition], now: str
) -> Worst:
    """The condition to read first: critical, then False, then warnings, then Unknown; earlier in the kind's order
    wins, Ready comes last; Ready's own where nothing is wrong. `since` restarts when the reason changes."""
    times = {c.type: str(c.last_transition_time) for c in conditions}
    candidates = [v for v in verdicts if v.type not in ABNORMAL]
    chosen = min(candidates, key=lambda v: (_rank(v), v.type == "Ready" and _rank(v) < _WELL))
    if _rank(chosen) == _WELL:
        chosen = next(v for v in candidates if v.type == "Ready")
    before = next((c for c in previous.get("conditions") or () if c.get("type") == chosen.type), None)
    old_worst = previous.get("worst") or {}
    since = times[chosen.type]
    if old_worst.get("condition") == chosen.type and old_worst.get("reason") == str(chosen.reason):
        since = old_worst.get("since", since)
    elif before is not None and before.get("reason") != str(chosen.reason):
        since = now
    return Worst(
        condition=chosen.type,
        reason=str(chosen.reason),
        object=chosen.object[:256] if chosen.object and _rank(chosen) != _WELL else None,
        since=Timestamp(since),
    )


_WELL = 9


def _rank(verdict: Verdict) -> int:
    if verdict.status == "True" or verdict.negligible:
        return _WELL
    if verdict.status == "Unknown":
        return 4
    if verdict.reason.endswith("Critical"):
        return 1
    return 3 if verdict.reason.endswith("Warning") else 2


def _clip(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"
