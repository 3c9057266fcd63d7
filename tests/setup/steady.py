"""Run a pytest command; what fails among others is run once more alone, so that a busy machine is told from a fault.

A layer's processes share the cores, and a machine may have other work besides. A test that fails among others and
passes alone is not forgiven in silence: it is named as UNSTEADY here and once more at the end of `make test`, and it is
a fault of the test or of what it tests, to be mended. A few at most: more of them fail the run.

    python tests/setup/steady.py -n 3 tests/postgres
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# What a busy machine breaks is a test or two of a layer's hundreds; more of them at once are a fault of what they test.
LIMIT = 3
# pytest's own exit status: some tests failed; others are interruption, misuse, nothing collected
TESTS_FAILED = 1


def main(arguments: list[str]) -> int:
    shared, rest = _split(arguments)
    with tempfile.TemporaryDirectory(prefix="pgtend-steady-") as folder:
        command = [sys.executable, "-m", "pytest", "--durations=10", "-o", f"cache_dir={folder}"]
        status = subprocess.run([*command, *shared, *rest], check=False).returncode
        failed = _failed(Path(folder))
        if status != TESTS_FAILED or not 0 < len(failed) <= LIMIT:
            return status
        print(f"\n{len(failed)} failed; once more, alone: {', '.join(failed)}", flush=True)
        command += ["--last-failed", "--last-failed-no-failures=none", *rest]
        status = subprocess.run(command, check=False).returncode
    if status == 0:
        _tell(failed)
    return status


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What spreads tests over processes, and the rest."""
    at = arguments.index("-n") if "-n" in arguments else None
    if at is None:
        return [], arguments
    return ["--maxschedchunk", "1", *arguments[at : at + 2]], [*arguments[:at], *arguments[at + 2 :]]


def _failed(cache: Path) -> list[str]:
    record = cache / "v" / "cache" / "lastfailed"
    return sorted(json.loads(record.read_text())) if record.exists() else []


def _tell(names: list[str]) -> None:
    for name in names:
        print(f"UNSTEADY: {name} failed among others and passed alone", flush=True)
    if told := os.environ.get("PGTEND_UNSTEADY"):
        with Path(told).open("a") as file:
            file.writelines(f"{name}\n" for name in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
