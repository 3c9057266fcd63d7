"""Run the test layers one after the other and tell how long each took; one failing layer does not hide the others.

What the layers need is made first, each step with its time: environment, servers, cluster, images.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {
    "lint": "lint",
    "unit": "test-unit",
    "postgres": "test-postgres",
    "cluster": "test-cluster",
    "e2e": "test-e2e",
}


def main(layers: list[str]) -> int:
    with tempfile.NamedTemporaryFile("r", prefix="pgtend-unsteady-") as told:
        os.environ["PGTEND_UNSTEADY"] = told.name
        status = run(layers)
        for name in told:
            print(f"UNSTEADY: {name.strip()} failed among others and passed alone: a fault to be mended")
    return status


def run(layers: list[str]) -> int:
    results: list[tuple[str, int, float]] = []
    for name, target in [("environment", "venv"), ("servers", "servers"), ("ground", "ground"), ("images", "images")]:
        results.append(step(name, target))
        if results[-1][1]:
            break
    else:
        results += [step(name, TARGETS[name]) for name in layers]
        if {"cluster", "e2e"} <= set(layers):
            # what no test has needed is not to be granted: told by what all of them have left in the audit log
            results.append(step("rights", "test-rights"))
    print("\nminutes per layer")
    for name, status, seconds in results:
        print(f"  {name:12} {seconds / 60:6.1f}  {'ok' if status == 0 else f'FAILED ({status})'}")
    failed = [name for name, status, _ in results if status]
    print(f"\n{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def step(name: str, target: str) -> tuple[str, int, float]:
    print(f"\n=== {name}: make {target}", flush=True)
    started = time.monotonic()
    status = subprocess.run(["make", "--no-print-directory", target], cwd=ROOT, check=False).returncode
    return name, status, time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
