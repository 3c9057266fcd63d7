"""Which member may be written to, if any. Pure.

A higher timeline, or the same one with an LSN that has not gone back, is the recorded server. A lower timeline is a
former primary that came back: it is skipped and reported. Another system identifier, or a lower LSN on the same
timeline, freezes writes until people accept it. Two writable members on one timeline freeze writes too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.server.standing import ServerIdentity, Standing, format_lsn
from pgtend.targets.reading import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityVerdict:
    """`recorded` is what to remember from now on; `token` is what spec.acceptIdentity must equal to accept a change;
    `stale` names former primaries that still accept writes."""

    standing: Standing
    recorded: ServerIdentity | None
    token: str | None
    stale: tuple[str, ...] = ()


def judge_identity(
    *, readings: Sequence[Reading], recorded: ServerIdentity | None, token: str | None, accepted: str | None
) -> IdentityVerdict:
    """`recorded` and `token` are what stood before, `accepted` is spec.acceptIdentity."""
    writable = [r for r in readings if r.writable and r.timeline is not None and r.flush_lsn is not None]
    if recorded is None:
        return _first_sight(readings, writable)
    ours = [r for r in writable if _same(r, recorded)]
    stale = tuple(r.member for r in ours if (r.timeline or 0) < recorded.timeline)
    leaders = _leaders([r for r in ours if r.member not in stale])
    if len(leaders) > 1:
        return _split(leaders, recorded, token)
    doubtful = [r for r in writable if r not in ours] or [r for r in leaders if not _continues(r, recorded)]
    if doubtful:
        return _changed(doubtful[0], readings, recorded, accepted)
    foreign = [r for r in readings if r.error is None and r.in_recovery and not _same(r, recorded)]
    if foreign:
        first = foreign[0]
        return _frozen(
            recorded,
            token,
            f"standby {first.member} belongs to another system, {first.system_identifier}, not"
            f" {recorded.system_identifier}: correct spec.members",
        )
    if not leaders:
        text = (
            f"only {', '.join(stale)} accept{'s' if len(stale) == 1 else ''} writes, on an older timeline than"
            f" {recorded.timeline}: promote a standby, or start the primary"
            if stale
            else "no member is a primary: promote one, or start it"
        )
        reason = TargetReason.STALE_MEMBER if stale else TargetReason.NO_PRIMARY
        return _standing(None, recorded, PgtendError(reason, text), recorded, token, stale)
    leader = leaders[0]
    now = _identity(leader)
    behind = tuple(r.member for r in ours if r is not leader)
    return _standing(leader, now, None, now, token or _token(now, None), behind)


def _first_sight(readings: Sequence[Reading], writable: list[Reading]) -> IdentityVerdict:
    if not writable:
        error = PgtendError(TargetReason.NO_PRIMARY, "no member is a primary: promote one, or add it to spec.members")
        return _standing(None, None, error, None, None)
    systems = {r.system_identifier: r.member for r in readings if r.error is None}
    if len(systems) > 1:
        names = " and ".join(sorted(systems.values()))
        error = PgtendError(
            TargetReason.IDENTITY_CHANGED, f"{names} are different systems: name the members of one system only"
        )
        return _standing(None, None, error, None, None)
    leaders = _leaders(writable)
    if len(leaders) > 1:
        return _split(leaders, None, None)
    now = _identity(leaders[0])
    behind = tuple(r.member for r in writable if r is not leaders[0])
    return _standing(leaders[0], now, None, now, _token(now, None), behind)


def _leaders(writable: Sequence[Reading]) -> list[Reading]:
    """Those on the highest timeline. Where there are two, an older LSN of one does not make it a mere copy: both take
    writes."""
    top = max((r.timeline or 0 for r in writable), default=0)
    return [r for r in writable if r.timeline == top]


def _changed(
    seen: Reading, readings: Sequence[Reading], recorded: ServerIdentity, accepted: str | None
) -> IdentityVerdict:
    now = _identity(seen)
    token = _token(now, recorded)
    if accepted == token:
        # recorded from now on; whether it may be written to is judged anew, since the others are still there
        return judge_identity(readings=readings, recorded=now, token=token, accepted=None)
    if now.system_identifier != recorded.system_identifier:
        what = f"is system {now.system_identifier}, recorded is {recorded.system_identifier}"
    else:
        what = (
            f"went back on timeline {now.timeline} from {format_lsn(recorded.lsn)} to {format_lsn(now.lsn)}:"
            " an older copy of the data"
        )
    text = f"{seen.member} {what}. Writes are frozen; if this is intended set spec.acceptIdentity to {token}"
    return _frozen(recorded, token, text)


def _frozen(recorded: ServerIdentity, token: str | None, text: str) -> IdentityVerdict:
    error = PgtendError(TargetReason.IDENTITY_CHANGED, text, transient=False)
    return _standing(None, recorded, error, recorded, token)


def _split(leaders: list[Reading], recorded: ServerIdentity | None, token: str | None) -> IdentityVerdict:
    names = " and ".join(r.member for r in leaders)
    error = PgtendError(
        TargetReason.SPLIT_BRAIN,
        f"{names} both accept writes on timeline {leaders[0].timeline}: stop one of them. Writes are frozen",
        object=names,
        transient=False,
    )
    return _standing(None, recorded, error, recorded, token)


def _standing(
    primary: Reading | None,
    identity: ServerIdentity | None,
    refusal: PgtendError | None,
    recorded: ServerIdentity | None,
    token: str | None,
    stale: tuple[str, ...] = (),
) -> IdentityVerdict:
    standing = Standing(
        primary=primary.member if primary else None,
        identity=identity,
        refusal=refusal,
        primary_started=primary.started if primary else None,
    )
    return IdentityVerdict(standing=standing, recorded=recorded, token=token, stale=stale)


def _same(reading: Reading, recorded: ServerIdentity) -> bool:
    return reading.system_identifier == recorded.system_identifier


def _continues(reading: Reading, recorded: ServerIdentity) -> bool:
    timeline, lsn = reading.timeline or 0, reading.flush_lsn or 0
    forward = timeline > recorded.timeline or (timeline == recorded.timeline and lsn >= recorded.lsn)
    return _same(reading, recorded) and forward


def _identity(reading: Reading) -> ServerIdentity:
    return ServerIdentity(
        system_identifier=reading.system_identifier, timeline=reading.timeline or 0, lsn=reading.flush_lsn or 0
    )


def _token(seen: ServerIdentity, recorded: ServerIdentity | None) -> str:
    """Names this very change: what was seen against what was recorded, so that an old acceptance accepts nothing new.
    The LSN seen is left out, since a running server's moves."""
    before = f"{recorded.system_identifier}/{recorded.timeline}/{recorded.lsn}" if recorded else "-"
    return hashlib.sha256(f"{seen.system_identifier}/{seen.timeline}<{before}".encode()).hexdigest()[:8]
