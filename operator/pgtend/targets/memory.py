"""What is remembered of a target from probe to probe, and what of it outlives the process, in the status. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pgtend.api.postgrestarget import Identity, TargetStatus
from pgtend.server.standing import ServerIdentity, format_lsn, parse_lsn
from pgtend.targets.grading import Grades
from pgtend.targets.reading import Reading

HISTORY = 240


@dataclass(slots=True, kw_only=True)
class Memory:
    """What a judge remembers of one target between probes. Lost at a restart without harm: `for` starts anew."""

    recorded: ServerIdentity | None = None
    token: str | None = None
    behind_since: dict[str, datetime] = field(default_factory=dict)
    primary_lsns: deque[tuple[datetime, int]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    lsns_of: tuple[str, str, int] | None = None
    """Whose LSNs these are: member, system, timeline. Those of a former primary say nothing about today's."""
    grades: Grades = field(default_factory=Grades)

    def saw(self, primary: Reading, now: datetime) -> None:
        """Remember how far the primary is."""
        whose = (primary.member, primary.system_identifier, primary.timeline or 0)
        if self.lsns_of != whose:
            self.primary_lsns.clear()
            self.lsns_of = whose
        if primary.flush_lsn is not None:
            self.primary_lsns.append((now, primary.flush_lsn))


def memory_from(status: Mapping[str, object]) -> Memory:
    """Take up what an earlier process recorded. A status that does not parse is as good as none."""
    identity = status.get("identity")
    memory = Memory(token=str(status["identityToken"]) if status.get("identityToken") else None)
    if isinstance(identity, Mapping):
        try:
            memory.recorded = ServerIdentity(
                system_identifier=str(identity["systemIdentifier"]),
                timeline=int(str(identity["timeline"])),
                lsn=parse_lsn(str(identity["lsn"])),
            )
        except (KeyError, ValueError):
            return Memory()
    return memory


def on_record(memory: Memory, status: Mapping[str, object]) -> TargetStatus:
    """What a target's status keeps while nobody looks."""
    version = status.get("serverVersion")
    return TargetStatus(
        health="Unknown",
        server_version=str(version) if version else None,
        identity=shown_identity(memory.recorded),
        identity_token=memory.token,
    )


def shown_identity(recorded: ServerIdentity | None) -> Identity | None:
    if recorded is None:
        return None
    return Identity(
        system_identifier=recorded.system_identifier, timeline=str(recorded.timeline), lsn=format_lsn(recorded.lsn)
    )
