"""`python -m pgtend.backups.jobs dump|verify|restore --config FILE`, which `pgtend job` calls too. Imports only what
the job at hand needs, since a pod's start counts."""

from __future__ import annotations

import gc
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from pgtend.backups.jobs.config import DumpConfig, JobReason, RestoreConfig, Termination, VerifyConfig

USAGE = "usage: pgtend job dump|verify|restore --config /etc/pgtend/job.json"


_CONFIGS: dict[str, type[DumpConfig | VerifyConfig | RestoreConfig]] = {
    "dump": DumpConfig,
    "verify": VerifyConfig,
    "restore": RestoreConfig,
}


def main(argv: Sequence[str]) -> int:
    """`argv` is `[dump|verify|restore, --config, FILE]`. Exit status 0, 1 when it failed, 2 when it could not begin."""
    if len(argv) != 3 or argv[0] not in _CONFIGS or argv[1] != "--config":
        print(USAGE, file=sys.stderr)  # noqa: T201
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # What is imported stays: walking through it again and again is a tenth of a second of each run.
    gc.disable()
    try:
        return _run(argv[0], Path(argv[2]))
    finally:
        gc.enable()


def _run(kind: str, path: Path) -> int:
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        config = _CONFIGS[kind].model_validate_json(text)
    except (OSError, ValidationError) as error:
        return _unusable(kind, error, text)
    if isinstance(config, DumpConfig):
        from pgtend.backups.jobs import dump

        _settle_imports()
        return dump.run(config)
    if isinstance(config, RestoreConfig):
        from pgtend.backups.jobs import restore

        _settle_imports()
        return restore.run(config)
    from pgtend.backups.jobs import verify

    _settle_imports()
    return verify.run(config)


def _settle_imports() -> None:
    gc.freeze()
    gc.enable()


def _unusable(kind: str, error: Exception, text: str) -> int:
    message = " ".join(str(error).split())[:1000]
    logging.getLogger("pgtend.backups.job").error("InvalidConfig: %s", message)
    termination = Termination(
        kind=_CONFIGS[kind].model_fields["kind"].default,
        outcome="Failed",
        reason=JobReason.INVALID_CONFIG,
        message=message,
    )
    place = _termination_log(text)
    if place.exists():
        place.write_bytes(termination.to_message())
    return 2


def _termination_log(text: str) -> Path:
    """Where a configuration that does not parse as a whole wants its end told, if that much of it does."""
    try:
        return Path(json.loads(text)["terminationLog"])
    except (ValueError, TypeError, KeyError):
        return Path("/dev/termination-log")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
