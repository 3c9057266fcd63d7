"""Fixtures of the cluster tests: `cluster`, `api` (the same, for reading aloud), `tenant` and `operator`."""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cluster.harness import PATIENCE, ROOT, Cluster, OperatorProcess
from tests.fixtures import plugin
from tests.fixtures.plugin import *  # noqa: F403 - the fixtures of real servers


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that take minutes begin first, or the layer ends with one of them and idle processes. And a test's time-out
    is for what hangs: what is waited for has limits of its own, which no sum of them must cut short."""
    plugin.pytest_collection_modifyitems(config, items)
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items:
        asked = item.get_closest_marker("timeout")
        item.add_marker(pytest.mark.timeout(max(2 * asked.args[0] if asked else 0, 3 * PATIENCE)), append=False)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The checkout's cluster with this checkout's CRDs."""
    found = Cluster.up()
    # the processes that share the layer take turns: what is not there yet cannot be created twice
    turn = ROOT / ".ground" / "crds.lock"
    turn.parent.mkdir(exist_ok=True)
    with turn.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found.kubectl("apply", "-f", str(ROOT / "crds"))
        found.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=110s")
    return found


@pytest.fixture
def api(cluster: Cluster) -> Cluster:
    return cluster


@dataclass
class Tenant:
    """Namespaces of one test, gone with it."""

    cluster: Cluster
    names: list[str]

    def namespace(self, prefix: str = "t") -> str:
        name = self.cluster.namespace(prefix)
        self.names.append(name)
        return name


@pytest.fixture
def tenant(cluster: Cluster) -> Iterator[Tenant]:
    made = Tenant(cluster=cluster, names=[])
    yield made
    if made.names:
        cluster.forget(made.names)


StartOperator = Callable[..., OperatorProcess]


@pytest.fixture
def operator(cluster: Cluster, tenant: Tenant, tmp_path: Path) -> Iterator[StartOperator]:
    """`operator([namespaces], failpoints="")` installs RBAC by the chart and starts the process; ends with the test.
    Its log is printed where the test fails. `policy=True` brings the admission policy and the roles for people."""
    started: list[OperatorProcess] = []

    def start(watched: list[str], *, failpoints: str = "", run: bool = True, policy: bool = False) -> OperatorProcess:
        namespace = tenant.namespace("pgtend")
        process = OperatorProcess(
            cluster,
            namespace=namespace,
            watched=watched,
            folder=tmp_path,
            installation=f"test-{secrets.token_hex(3)}",
            policy=policy,
        )
        started.append(process)
        process.install()
        if run:
            process.start(failpoints=failpoints)
        return process

    yield start
    for process in started:
        status = process.stop()
        if process.policy:
            process.uninstall()
        print(f"operator in {process.namespace}: exit {status}\n{process.log[-6000:]}")
        # whatever a test provokes, the operator's own code never logs a programming error
        assert "Traceback" not in process.log, "the operator logged a traceback, see above"
