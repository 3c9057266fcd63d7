"""What a policy's Jobs came to, as it is judged by: the newest of each kind, and the failure that stands until another
succeeds. A report is read once; whoever deletes a pod does not take its cause away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pgtend.backups.judge import Tried, Trouble
from pgtend.backups.runs import Failure, Run, read_runs, waits_for, with_report
from pgtend.core.findings import ObjectKey
from pgtend.kube.client import KubeClient

Kind = Literal["dump", "verify"]


@dataclass(slots=True)
class Attempts:
    """Of one policy, in the memory of one process. `seen` are the Jobs that had ended at the last look."""

    runs: tuple[Run, ...] = ()
    seen: set[str] = field(default_factory=set)
    _reported: dict[str, Run] = field(default_factory=dict)
    _waits: dict[str, Trouble] = field(default_factory=dict)

    async def look(self, client: KubeClient, key: ObjectKey) -> bool:
        """Read all Jobs; whether one has ended since the last look, so that the bucket is worth one. Raises
        ApiError."""
        runs = await read_runs(client, namespace=key.namespace, policy=key.name)
        ended = {run.uid for run in runs if run.ended is not None}
        news = bool(ended - self.seen)
        self.seen = ended
        judged = [run for kind in ("dump", "verify") if (run := _last_ended(runs, kind)) is not None]
        self._reported = {
            run.uid: self._reported.get(run.uid) or await with_report(client, namespace=key.namespace, run=run)
            for run in judged
        }
        self._waits = {}
        for run in runs:
            waits = await waits_for(client, namespace=key.namespace, run=run) if run.active else None
            if waits is not None and waits.reason is not None:
                self._waits[run.uid] = Trouble(condition="", reason=waits.reason, message=waits.text, object=run.job)
        self.runs = tuple(self._reported.get(run.uid, run) for run in runs)
        return news

    @property
    def active(self) -> bool:
        return any(run.active for run in self.runs)

    def tried(self, kind: Kind) -> Tried | None:
        """The newest run of this kind; None where there is none."""
        runs = [run for run in self.runs if run.kind == kind]
        if not runs:
            return None
        last, ended = runs[-1], _last_ended(runs, kind)
        if ended is not None and kind == "verify" and ended.backup != last.backup:
            ended = None
        failure = ended.failure if ended is not None else None
        return Tried(
            name=last.backup if kind == "verify" and last.backup else last.name,
            started=last.created,
            active=last.active,
            failure=_trouble(failure),
            failed_at=ended.created if ended is not None and failure is not None else None,
            waits=self._waits.get(last.uid),
        )


def _last_ended(runs: Sequence[Run], kind: str) -> Run | None:
    """By its end: two that began in the same second are told apart by that."""
    ended = [(run.ended, run) for run in runs if run.kind == kind and run.ended is not None]
    return max(ended, key=lambda pair: (pair[0], pair[1].created))[1] if ended else None


def _trouble(failure: Failure | None) -> Trouble | None:
    if failure is None:
        return None
    return Trouble(condition="", reason=failure.reason, message=failure.message, object=failure.object)
