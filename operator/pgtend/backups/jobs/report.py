"""How a job ends: one termination message, one exit status, whatever happened. Secrets are taken out on the way."""

from __future__ import annotations

import logging
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from pgtend.backups.jobs.config import JobReason, RestoreReason, Termination
from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive, redact

log = logging.getLogger("pgtend.backups.job")


_WELL: dict[str, str] = {
    "Dump": JobReason.COMMITTED,
    "Verify": JobReason.VERIFIED,
    "Restore": RestoreReason.RESTORED,
}


class InterruptedJob(BaseException):
    """The pod was told to stop. Derives from BaseException so that nothing takes it for an ordinary failure."""


@dataclass
class Report:
    """What becomes known while a job runs; `values` are fields of Termination."""

    kind: Literal["Dump", "Verify", "Restore"]
    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    secrets: list[Sensitive] = field(default_factory=list)
    current: str = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a phase; phases of one name add up."""
        started = time.monotonic()
        outer, self.current = self.current, name
        log.info("%s: %s", self.kind.lower(), name)
        try:
            yield
        finally:
            self.phases[name] = round(self.phases.get(name, 0.0) + time.monotonic() - started, 2)
        self.current = outer  # after a failure it keeps the name of the phase that failed

    def write(self, *, outcome: Literal["Succeeded", "Failed"], reason: str, message: str) -> Termination:
        """Leave the message where the kubelet reads it, and say it on the log."""
        text = redact(message, self.secrets)
        termination = Termination(
            kind=self.kind, outcome=outcome, reason=reason, message=text, phases=self.phases, **self.values
        )
        raw = termination.to_message()
        try:
            self.path.write_bytes(raw)
        except OSError as error:
            log.warning("no termination message: %s", error)
        log.log(logging.INFO if outcome == "Succeeded" else logging.ERROR, "%s: %s: %s", outcome, reason, text)
        return termination


def conclude(report: Report, work: Callable[[], str]) -> int:
    """Do `work`, which returns the message of success, and report. Exit status 0 or 1."""
    try:
        with _told_to_stop():
            message = work()
    except InterruptedJob:
        phase = f" while in phase {report.current}" if report.current else ""
        report.values["transient"] = True
        report.write(outcome="Failed", reason=JobReason.INTERRUPTED, message=f"the pod was told to stop{phase}")
        return 1
    except PgtendError as error:
        report.values |= {"object": error.object, "transient": error.transient}
        report.write(outcome="Failed", reason=str(error.reason.value), message=error.message)
        return 1
    except Exception as error:
        log.error("%s", redact(traceback.format_exc(), report.secrets))
        report.values["transient"] = True
        phase = f" in phase {report.current}" if report.current else ""
        text = f"{type(error).__name__}{phase}: {error}"
        report.write(outcome="Failed", reason=JobReason.INTERNAL_ERROR, message=text[:1500])
        return 1
    report.write(outcome="Succeeded", reason=_WELL[report.kind], message=message)
    return 0


def format_names(names: Sequence[str], *, most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """SIGTERM becomes InterruptedJob, once; later ones do not disturb the cleaning up."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise InterruptedJob

    previous = None
    with suppress(ValueError):  # not the main thread: a test, which is not told to stop
        previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
