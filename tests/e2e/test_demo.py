"""The demo as its reader sees it: the board, a fault and its end, least rights, an uninstall that leaves nothing."""

from __future__ import annotations

import json
import re

import pytest
from tests.cluster.harness import ROOT, Cluster, wait
from tests.e2e import secrecy
from tests.e2e.conftest import run_demo

# for what hangs: each step has a limit of its own
pytestmark = pytest.mark.timeout(3600)
# the lag is as of the last transition
BOARD = (
    r"databases\s+postgrestarget\.pgtend\.dev/orders\s+True\s+Healthy\s+InForce\s+\S+\s+a\s+15\.\d+\s+(<1s|\d+s)\s+\S+"
)


def test_the_story_of_the_demo(cluster: Cluster, demo: str) -> None:
    """One test, since it tells one story in order: each chapter starts where the last one ended."""
    assert re.search(BOARD, demo), demo
    assert "shop_app sees 20000 orders" in demo
    assert re.search(r"databases\s+postgresbackuppolicy\.pgtend\.dev/orders\s+orders\s+True\s+True\s+True", demo), demo
    assert "demo ready after" in demo
    board(cluster)
    standby_stops_and_comes_back(cluster)
    nothing_secret_in_sight(cluster)
    pods_are_restricted(cluster)
    namespaced_without_a_cluster_role(cluster)
    uninstall_leaves_nothing_stuck(cluster)


def board(cluster: Cluster) -> None:
    header = r"NAMESPACE\s+NAME\s+READY\s+HEALTH\s+REASON\s+SINCE\s+PRIMARY\s+VERSION\s+LAG\s+AGE"
    last: list[str] = []

    def well() -> bool:
        last[:] = [cluster.kubectl("get", "pgtend", "-A")]
        return bool(re.search(header, last[0]) and re.search(BOARD, last[0]))

    try:
        wait("the board says that all is well", well, every=2)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{last[0]}") from None


def standby_stops_and_comes_back(cluster: Cluster) -> None:
    cluster.kubectl("-n", "databases", "scale", "statefulset", "orders-b", "--replicas=0")
    found = cluster.wait_condition(
        "postgrestarget", "databases", "orders", "ReplicationHealthy", "False", "StandbyUnreachable", seconds=180
    )
    assert "standby b does not answer" in found["message"]
    wait(
        "the board shows it",
        lambda: re.search(r"orders\s+True\s+Critical", cluster.kubectl("get", "pgt", "-n", "databases")),
    )
    cluster.kubectl("-n", "databases", "scale", "statefulset", "orders-b", "--replicas=1")
    cluster.wait_condition("postgrestarget", "databases", "orders", "ReplicationHealthy", "True", seconds=240)


def nothing_secret_in_sight(cluster: Cluster) -> None:
    """While a user is made, a backup taken and read back, and the operator's container has been replaced once."""
    secrecy.log_every_statement(cluster)
    secrecy.watch_processes(cluster, seconds=900)
    operator = ("-n", "pgtend", "exec", "deployment/pgtend", "--")
    cluster.kubectl(*operator, "python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)", check=False)
    body = {
        "apiVersion": "pgtend.dev/v1alpha1",
        "kind": "DatabaseUser",
        "metadata": {"name": "hush", "namespace": "databases"},
        "spec": {"targetRef": {"name": "orders"}, "roleName": "hush", "deletionPolicy": "Drop"},
    }
    cluster.apply(body)
    cluster.wait_condition("dbu", "databases", "hush", "Ready", "True", seconds=240)
    backup = str(ROOT / "examples" / "demo" / "by-hand" / "backup.yaml")
    name = cluster.kubectl("create", "-f", backup, "-o", "jsonpath={.metadata.name}").strip()
    cluster.wait_condition("pgb", "databases", name, "Verified", "True", seconds=600)
    started = secrecy.processes(cluster)
    for word in ("pg_dump", "pgtend", "PGTEND_INSTALLATION_ID"):
        assert word in started, f"{word} is no process that was seen: the search is blind"
    secrets = secrecy.Secrets.of(cluster)
    assert len(secrets.values) >= 20 and "databases/hush:password" in secrets.values
    logs = dict(secrecy.logs(cluster))
    assert any("previous log of pgtend/" in where for where in logs), list(logs)
    postgres = logs["log of databases/orders-a-0/postgres"]
    assert "CREATE ROLE hush" in postgres.replace('"', ""), "the log has every statement"
    places = {**logs, **dict(secrecy.objects(cluster)), "processes": started, "the audit log": secrecy.audit(cluster)}
    for where, text in places.items():
        assert secrets.found_in(text) == [], where
    # the keys to the store are the store's own
    kept = secrecy.bucket(cluster)
    assert "manifest" in kept
    assert secrets.without("databases/s3-").found_in(kept) == [], "the bucket"
    # the negative control: in the Secrets themselves the search finds every one, though they are in base64
    planted = "".join(cluster.kubectl("get", "secrets", "-n", space, "-o", "yaml") for space in secrecy.SPACES)
    assert secrets.without("none").found_in(planted) == list(secrets.values)
    cluster.kubectl("delete", "dbu", "hush", "-n", "databases", "--timeout=110s")


def pods_are_restricted(cluster: Cluster) -> None:
    """The operator's pod is admitted under the restricted standard, and runs as nobody special."""
    cluster.kubectl("label", "namespace", "pgtend", "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    cluster.kubectl("-n", "pgtend", "rollout", "restart", "deployment/pgtend")
    cluster.kubectl("-n", "pgtend", "rollout", "status", "deployment/pgtend", "--timeout=240s", seconds=270)
    pods = json.loads(cluster.kubectl("get", "pods", "-n", "pgtend", "-o", "json"))["items"]
    assert pods and all(p["spec"]["securityContext"]["runAsNonRoot"] for p in pods)


def namespaced_without_a_cluster_role(cluster: Cluster) -> None:
    run_demo("Namespaced")
    bindings = json.loads(cluster.kubectl("get", "clusterrolebindings", "-o", "json"))["items"]
    bound = [b for b in bindings for s in b.get("subjects") or () if s.get("namespace") == "pgtend"]
    assert bound == []
    board(cluster)


def uninstall_leaves_nothing_stuck(cluster: Cluster) -> None:
    cluster.run("helm", "uninstall", "pgtend", "-n", "pgtend", "--wait", "--timeout", "240s", seconds=270)
    # objects stay with their CRDs, and can be deleted without the operator
    assert cluster.get("postgrestarget", "databases", "orders")
    cluster.kubectl("delete", "namespace", "databases", "--wait=false")
    there = ("get", "namespace", "databases", "--ignore-not-found")
    wait("the namespace is gone", lambda: not cluster.kubectl(*there).strip(), seconds=300, every=1)
    cluster.kubectl("delete", "namespace", "pgtend", "--wait=false")
