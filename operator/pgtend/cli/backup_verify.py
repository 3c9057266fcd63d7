"""`pgtend backup verify`: what the pod does that reads a backup back, done here, by the very same code."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from pgtend.backups.jobs import verify
from pgtend.backups.jobs.config import (
    Destination,
    JobReason,
    PolicyName,
    Termination,
    VerifyConfig,
    parse_termination,
)
from pgtend.backups.jobs.programs import Programs
from pgtend.cli.chosen import Chosen
from pgtend.core.errors import PgtendError

_EVIDENCE = {
    "Written": "evidence written beside the manifest",
    "Present": "evidence was there already",
    "Denied": "no evidence written: the credential may only read",
}


def read_back(chosen: Chosen, *, destination: Destination, identity: Path, programs: Path | None) -> Termination:
    """How it ended; a failure is in it. Raises PgtendError where it could not begin."""
    _compare_versions(chosen, programs)
    record = chosen.record
    with tempfile.TemporaryDirectory(prefix="pgtend-") as folder:
        log = Path(folder) / "termination-log"
        verify.run(
            VerifyConfig(
                installation_id=record.installation_id,
                policy=PolicyName(namespace=record.policy.namespace, name=record.policy.name),
                destination=destination,
                termination_log=log,
                scratch_folder=Path(folder),
                programs_folder=programs.absolute() if programs is not None else None,
                manifest=chosen.manifest,
                identity_file=identity.absolute(),
            )
        )
        found = parse_termination(log.read_text(encoding="utf-8"))
    if found is None:
        raise PgtendError(JobReason.INTERNAL_ERROR, "the verification left no word")
    return found


def _compare_versions(chosen: Chosen, programs: Path | None) -> None:
    """An old pg_restore does not read what a newer pg_dump wrote, and says so as if the archive were damaged."""
    own, theirs = Programs(folder=programs).version("pg_restore"), chosen.record.client_version
    if _major(own) < _major(theirs):
        text = f"pg_restore {own} is older than the pg_dump {theirs} that wrote it: name another by --programs-folder"
        raise PgtendError(JobReason.VERSION_MISMATCH, text, transient=False)


def _major(version: str) -> int:
    found = re.match(r"[0-9]+", version)
    return int(found[0]) if found is not None else 0


def told(result: Termination) -> str:
    """One line."""
    if result.outcome == "Failed":
        return f"{result.reason}: {result.message}"
    return f"whole: {result.message}; {_EVIDENCE[result.evidence or 'Denied']}"
