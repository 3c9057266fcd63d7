"""The demo, brought up once in the tests' cluster by the very script that `make demo` runs; e2e tests look at it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from tests.cluster.harness import ROOT, Cluster

Demo = Callable[..., str]


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return Cluster.up()


def run_demo(mode: str = "Cluster") -> str:
    """`demo.py up`; what it printed. Raises with its whole output where it fails."""
    environment = {**os.environ, "PGTEND_DEMO_CLUSTER": "", "PGTEND_DEMO_MODE": mode}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo" / "demo.py"), "up"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def demo(cluster: Cluster) -> str:
    """The demo's output, with everything left running."""
    return run_demo()
