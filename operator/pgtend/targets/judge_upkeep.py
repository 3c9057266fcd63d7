"""Verdicts on what grows until a server stops: WraparoundSafe, ArchivingHealthy, slots for ReplicationHealthy. Pure.

The primary decides: its ages are those of its standbys, and its WAL is what is archived. Slots are looked at on every
member, since each keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pgtend.api.conditions import Verdict
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import TargetReason as R
from pgtend.api.types import format_bytes, format_duration
from pgtend.core.clock import rfc3339
from pgtend.targets.grading import Grades, Severity, grade
from pgtend.targets.reading import Archiver, Reading, Slot, Upkeep

# Ids are compared modulo 2^32: half of that behind, the past would become the future. PostgreSQL refuses to give out
# ids three million before (manual, "Preventing Transaction ID Wraparound Failures").
WRAPAROUND = 1 << 31
# With this much WAL written since the last success and nothing archived for so long, the archiver hangs: it is woken
# with every finished segment, and tries again after a minute at the latest.
STALLED_SEGMENTS = 16
STALLED_SECONDS = 300.0
_AGE: Mapping[Severity, R] = {"Warning": R.WRAPAROUND_AGE_WARNING, "Critical": R.WRAPAROUND_AGE_CRITICAL}
_SLOT: Mapping[Severity, R] = {"Warning": R.SLOT_RETAINED_WARNING, "Critical": R.SLOT_RETAINED_CRITICAL}


def judge_upkeep(
    *, spec: TargetSpec, primary: Reading | None, grades: Grades, now: datetime
) -> tuple[Verdict, Verdict]:
    """WraparoundSafe and ArchivingHealthy, as the primary has them."""
    if primary is None:
        return _unknown(R.NOT_REACHED, "no primary is known; see Ready", None)
    if not primary.sees_stats:
        user = spec.credentials.monitor.username or "pgtend_monitor"
        text = (
            f"{user} cannot see who holds transactions open on {primary.member}: as an administrator run"
            f" GRANT pg_monitor TO {user}"
        )
        return _unknown(R.MISSING_PRIVILEGE, text, primary.member)
    if primary.activity is None:
        text = f"{primary.member} could not be read within the deadline; it is tried again with the next probe"
        return _unknown(R.PROBE_FAILED, text, primary.member)
    upkeep = primary.activity.upkeep
    return _wraparound(spec, primary.member, upkeep, grades, now), _archiving(primary.member, upkeep.archiver, now)


def _unknown(reason: R, text: str, member: str | None) -> tuple[Verdict, Verdict]:
    def made(name: str) -> Verdict:
        return Verdict(name, "Unknown", reason, text, member, negligible=member is None)

    return made("WraparoundSafe"), made("ArchivingHealthy")


def _wraparound(spec: TargetSpec, member: str, upkeep: Upkeep, grades: Grades, now: datetime) -> Verdict:
    name, limits = "WraparoundSafe", spec.thresholds.wraparound_age
    oldest = max(upkeep.ages, key=lambda a: max(a.xids, a.multixacts))
    used = max(oldest.xids, oldest.multixacts)
    severity = grade(grades, "wraparoundAge", used / WRAPAROUND, limits, now)
    if severity is None:
        below = limits.warning or limits.critical
        text = f"the oldest unfrozen ids are below {below} of wraparound" if below else "no limit is set"
        return Verdict(name, "True", R.AS_EXPECTED, text)
    limit = limits.critical if severity == "Critical" else limits.warning
    what = "transaction" if oldest.xids >= oldest.multixacts else "multixact"
    text = (
        f"database {oldest.database} has {what} ids unfrozen for {used / 1e6:.0f} million ids,"
        f" {used / WRAPAROUND:.0%} of wraparound, at {rfc3339(now)} (limit {limit})"
    )
    holder = upkeep.holder
    # what holds back less than half of that age is not why it is so old
    if holder is not None and holder.xids >= used / 2 and what == "transaction":
        text += f"; {holder.what} keeps VACUUM from freezing: end it first"
    return Verdict(name, "False", _AGE[severity], f"{text}. Run VACUUM (FREEZE) on its oldest tables", oldest.database)


def _archiving(member: str, archiver: Archiver, now: datetime) -> Verdict:
    name = "ArchivingHealthy"
    if archiver.mode == "off":
        text = "archive_mode is off: the server archives nothing, and nothing waits"
        return Verdict(name, "True", R.ARCHIVING_OFF, text)
    age = archiver.archived_age
    last = "nothing yet" if age is None else f"nothing for {format_duration(age)}"
    waiting = f", {format_bytes(archiver.waiting)} of WAL written since" if archiver.waiting else ""
    if archiver.failing is not None:
        text = (
            f"{member} fails to archive {archiver.failing}: archived {last} at {rfc3339(now)}{waiting}. The cause is in"
            " its log; pg_wal grows until archive_command or archive_library works"
        )
        return Verdict(name, "False", R.ARCHIVING_FAILING, text, archiver.failing)
    stalled = (
        age is not None and age >= STALLED_SECONDS and (archiver.waiting or 0) >= STALLED_SEGMENTS * archiver.segment
    )
    if stalled:
        text = (
            f"{member} archived {last} at {rfc3339(now)}{waiting}, and no attempt failed: archive_command is empty or"
            " hangs. pg_wal grows until it works"
        )
        return Verdict(name, "False", R.ARCHIVING_STALLED, text, member)
    return Verdict(name, "True", R.AS_EXPECTED, "the last attempt to archive did not fail")


def judge_slots(*, spec: TargetSpec, readings: Sequence[Reading], grades: Grades, now: datetime) -> Verdict | None:
    """The worst slot of all members as a verdict on ReplicationHealthy; None when all are well."""
    name, limits = "ReplicationHealthy", spec.thresholds.slot_retained
    found: list[tuple[int, str, Verdict]] = []
    graded: set[str] = set()
    for reading in readings:
        if reading.error is not None or reading.activity is None:
            continue
        upkeep = reading.activity.upkeep
        for slot in upkeep.slots:
            if slot.lost:
                text = (
                    f"slot {slot.name} on {reading.member} has lost WAL that it still needed: its consumer has to be"
                    f" built anew. Then drop it: {_drop(slot)}"
                )
                found.append((0, slot.name, Verdict(name, "False", R.SLOT_LOST, text, slot.name)))
                continue
            if slot.retained is None or upkeep.slot_limit is None:
                continue
            figure = f"slotRetained/{reading.member}/{slot.name}"
            graded.add(figure)
            severity = grade(grades, figure, slot.retained / max(upkeep.slot_limit, 1), limits, now)
            if severity is None:
                continue
            limit = limits.critical if severity == "Critical" else limits.warning
            step = (
                "its consumer is connected but behind: look at it"
                if slot.active
                else f"nobody consumes it: start its consumer, or drop it: {_drop(slot)}"
            )
            text = (
                f"slot {slot.name} on {reading.member} keeps {format_bytes(slot.retained)} of WAL at {rfc3339(now)}, of"
                f" max_slot_wal_keep_size {format_bytes(upkeep.slot_limit)} (limit {limit}); {step}"
            )
            rank = 1 if severity == "Critical" else 2
            found.append((rank, slot.name, Verdict(name, "False", _SLOT[severity], text, slot.name)))
    grades.forget("slotRetained/", graded)
    return min(found, key=lambda item: item[:2])[2] if found else None


def _drop(slot: Slot) -> str:
    # shown to people, who run it themselves; names of slots hold lower-case letters, digits and underscores only
    return f"SELECT pg_drop_replication_slot('{slot.name}')"
