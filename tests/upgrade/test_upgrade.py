"""From the previous commit's chart to this one's and back, in the cluster: nothing that stood there is done again.

`make test-upgrade` runs it, `make test` does not: it builds the images of two commits. The commit to come from is
PGTEND_UPGRADE_FROM (default HEAD~1); its chart, its examples and its code are those of a clone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.harness import CHART, GROUND, ROOT, Cluster, wait
from tests.cluster.test_operations import moment

from pgtend.api.base import GROUP
from pgtend.api.kinds import KINDS

pytestmark = pytest.mark.timeout(1800)
SPACE, OWN, RELEASE = "databases", "pgtend", "pgtend"
# what the demo applies before pgtend; the first is the namespace, and then come its Secrets
INFRA = ("init-sql.yaml", "orders.yaml", "pool.yaml", "s3.yaml")
PATIENT = 360
LIMIT = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'shop_app'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A chart with its examples, and the tag of the images that were built from the same commit."""

    checkout: Path
    tag: str

    @property
    def demo(self) -> Path:
        return self.checkout / "examples" / "demo"


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A clone of the commit to come from, whose images are in the cluster."""
    folder = tmp_path_factory.mktemp("previous") / "checkout"
    reference = os.environ.get("PGTEND_UPGRADE_FROM", "HEAD~1")
    commit = subprocess.run(
        ["git", "rev-parse", f"{reference}^{{commit}}"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    subprocess.run(["git", "clone", "-q", "--no-checkout", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "checkout", "-q", "--detach", commit], cwd=folder, check=True)
    print(f"upgrading from {commit}")
    subprocess.run([sys.executable, GROUND, "images", "--checkout", folder, "--tag", "previous"], check=True)
    return Version(checkout=folder, tag="previous")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = Cluster.up()
    subprocess.run([sys.executable, GROUND, "images"], check=True)
    clean(found)
    yield found
    clean(found)


def clean(cluster: Cluster) -> None:
    cluster.run(
        "helm",
        "uninstall",
        RELEASE,
        "-n",
        OWN,
        "--ignore-not-found",
        "--wait",
        "--timeout",
        f"{PATIENT}s",
        seconds=PATIENT + 10,
    )
    cluster.kubectl("delete", "namespace", SPACE, OWN, "--ignore-not-found", "--wait=false")
    wait("the namespaces are gone", lambda: not namespaces(cluster) & {SPACE, OWN}, seconds=PATIENT)


def namespaces(cluster: Cluster) -> set[str]:
    return set(cluster.kubectl("get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}").split())


def helm(cluster: Cluster, version: Version, folder: Path) -> None:
    """Install or upgrade to a version, and wait until its pod tends everything."""
    values = folder / f"{version.tag}.yaml"
    values.write_text(
        yaml.safe_dump({"image": {"tag": version.tag}, "tools": {"image": f"pgtend/tools:{version.tag}-pg{{major}}"}})
    )
    chart = CHART if version.checkout == ROOT else version.checkout / "helm" / "pgtend"
    cluster.run(
        *("helm", "upgrade", "--install", RELEASE, str(chart), "-n", OWN, "--create-namespace", "--take-ownership"),
        *("--wait", "--timeout", f"{PATIENT}s", "-f", str(version.demo / "by-hand" / "values.yaml"), "-f", str(values)),
        seconds=PATIENT + 10,
    )
    tending(cluster, version)


def tending(cluster: Cluster, version: Version) -> None:
    """The pod of that version leads, has seen each object, and has probed the target more than once."""
    cluster.kubectl("-n", OWN, "rollout", "status", "deployment/pgtend", f"--timeout={PATIENT}s", seconds=PATIENT + 10)

    def seen() -> bool:
        pods = json.loads(
            cluster.kubectl("get", "pods", "-n", OWN, "-l", "app.kubernetes.io/name=pgtend", "-o", "json")
        )
        running = [p for p in pods["items"] if "deletionTimestamp" not in p["metadata"]]
        if len(running) != 1 or running[0]["spec"]["containers"][0]["image"] != f"pgtend/operator:{version.tag}":
            return False
        path = f"/api/v1/namespaces/{OWN}/pods/{running[0]['metadata']['name']}:8080/proxy/metrics"
        text = cluster.kubectl("get", "--raw", path, check=False)
        counts = {m[1]: float(m[2]) for m in re.finditer(r'pgtend_reconciles_total\{kind="(\w+)"\} (\S+)', text)}
        there = {kind for kind, _ in objects(cluster)}
        return all(counts.get(kind, 0) >= (3 if kind == "PostgresTarget" else 1) for kind in there)

    wait(f"{version.tag} tends everything", seen, seconds=PATIENT, every=1)


def objects(cluster: Cluster) -> dict[tuple[str, str], dict[str, Any]]:
    """All objects of pgtend in the demo's namespace by kind and name."""
    said = cluster.kubectl("get", "pgtend,pgtend-records", "-n", SPACE, "-o", "json", check=False)
    # right after the CRDs were made kubectl's discovery does not know the categories: there is no object then
    found = json.loads(said) if said.startswith("{") else {}
    return {(item["kind"], item["metadata"]["name"]): item for item in found.get("items", [])}


def psql(cluster: Cluster, sql: str) -> str:
    """As superuser on the primary."""
    words = ("psql", "-U", "postgres", "-d", "postgres", "-XAtc", sql)
    return cluster.kubectl("-n", SPACE, "exec", "orders-a-0", "-c", "postgres", "--", *words)


def log(cluster: Cluster) -> list[str]:
    return cluster.kubectl("-n", SPACE, "logs", "orders-a-0", "-c", "postgres").splitlines()


def written(lines: list[str]) -> list[str]:
    """What pgtend's logins changed: the log has statements that modify data or definitions, and no others."""
    return [line for line in lines if re.search(r" pgtend_\w+@\S+ pgtend/\S+ LOG: +(statement|execute [^:]*): ", line)]


def stand(cluster: Cluster) -> dict[str, Any]:
    """All that an upgrade has no business with."""
    secrets = json.loads(cluster.kubectl("get", "secrets", "-n", SPACE, "-o", "json"))["items"]
    jobs = json.loads(cluster.kubectl("get", "jobs", "-n", SPACE, "-o", "json"))["items"]
    crds = json.loads(cluster.kubectl("get", "crds", "-o", "json"))["items"]
    found = objects(cluster)
    finished = {
        key: body["status"] for key, body in found.items() if key[0] == "PostgresOperation" and body.get("status")
    }
    return {
        "secrets": {
            s["metadata"]["name"]: hashlib.sha256(json.dumps(s.get("data"), sort_keys=True).encode()).hexdigest()
            for s in secrets
        },
        "verifiers": psql(cluster, "SELECT rolname, rolpassword FROM pg_authid WHERE rolcanlogin ORDER BY 1"),
        "jobs": {job["metadata"]["name"]: job["metadata"]["uid"] for job in jobs},
        "operations": finished,
        "objects": {key: (b["metadata"]["uid"], b["metadata"]["generation"]) for key, b in found.items()},
        "crds": {
            c["metadata"]["name"]: c["metadata"]["uid"] for c in crds if c["metadata"]["name"].endswith(f".{GROUP}")
        },
    }


def ready(cluster: Cluster, *, seconds: float = PATIENT) -> None:
    def all_ready() -> bool:
        conditions = [
            {c["type"]: c["status"] for c in body.get("status", {}).get("conditions", [])}
            for body in objects(cluster).values()
        ]
        return bool(conditions) and all(found.get("Ready") == "True" for found in conditions)

    wait("all objects are Ready", all_ready, seconds=seconds, every=1)


def bring_up(cluster: Cluster, previous: Version, folder: Path) -> str:
    """The previous commit's demo, as its demo.py does it; returns its objects' YAML."""
    infra = previous.demo / "infra"
    cluster.kubectl("apply", "-f", str(infra / "namespace.yaml"))
    recipient = cluster.run(sys.executable, str(infra / "credentials.py")).strip()
    for name in INFRA:
        cluster.kubectl("apply", "-f", str(infra / name))
    for workload in ("statefulset/orders-a", "statefulset/orders-b", "deployment/orders-pool"):
        cluster.kubectl("-n", SPACE, "rollout", "status", workload, f"--timeout={PATIENT}s", seconds=PATIENT + 10)
    helm(cluster, previous, folder)
    # a window that is open writes by itself, whatever is upgraded meanwhile
    files = [path for path in sorted(previous.demo.glob("*.yaml")) if "maintenance" not in path.name]
    text = "\n---\n".join(path.read_text() for path in files)
    text = text.replace("AGE_RECIPIENT", recipient)
    cluster.kubectl("apply", "-f", "-", text=text)
    # one whose deletion undoes something, so that there is a finalizer
    cluster.apply(
        {
            "apiVersion": f"{GROUP}/v1alpha1",
            "kind": "DatabaseUser",
            "metadata": {"name": "shop-passing", "namespace": SPACE},
            "spec": {"targetRef": {"name": "orders"}, "roleName": "shop_passing", "deletionPolicy": "Drop"},
        }
    )
    ready(cluster)
    return text


def finish_one_of_each(cluster: Cluster, previous: Version) -> None:
    """A backup, an operation that ran, and one that came too late."""
    # by a selector: an entry that names the own namespace would narrow what the other objects of the demo may ask
    access = {
        "name": "oncall",
        "namespaces": {"selector": {"matchLabels": {"kubernetes.io/metadata.name": SPACE}}},
        "kinds": ["PostgresOperation"],
        "operations": ["TerminateQueries"],
    }
    patch = json.dumps({"spec": {"access": [access]}})
    cluster.kubectl("patch", "pgt", "orders", "-n", SPACE, "--type=merge", "-p", patch)
    me = cluster.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
    for name, until in (("ran", moment(hours=1)), ("late", moment(seconds=-1))):
        cluster.apply(
            {
                "apiVersion": f"{GROUP}/v1alpha1",
                "kind": "PostgresOperation",
                "metadata": {"name": name, "namespace": SPACE},
                "spec": {
                    "targetRef": {"name": "orders"},
                    "type": "TerminateQueries",
                    "reason": "before the upgrade",
                    "requestedBy": me,
                    "notAfter": until,
                    "terminateQueries": {"select": {"users": ["nobody_at_all"]}, "maxVictims": 1},
                },
            }
        )
    cluster.wait_condition("pgop", SPACE, "ran", "Ready", "True", "Succeeded", seconds=PATIENT)
    cluster.wait_condition("pgop", SPACE, "late", "Ready", "True", "Expired", seconds=PATIENT)
    backup = previous.demo / "by-hand" / "backup.yaml"
    name = cluster.kubectl("create", "-f", str(backup), "-o", "jsonpath={.metadata.name}").strip()
    cluster.wait_condition("pgb", SPACE, name, "Verified", "True", seconds=PATIENT)


def test_upgrade_and_roll_back(cluster: Cluster, previous: Version, tmp_path: Path) -> None:
    this = Version(checkout=ROOT, tag="dev")
    examples = bring_up(cluster, previous, tmp_path)
    finish_one_of_each(cluster, previous)
    psql(cluster, "ALTER SYSTEM SET log_statement = 'mod'")
    psql(cluster, "SELECT pg_reload_conf()")
    before, offset = stand(cluster), len(log(cluster))
    assert len(before["jobs"]) >= 2 and len(before["operations"]) == 2 and len(before["crds"]) >= 1

    def unchanged(step: str, crds: dict[str, str]) -> None:
        ready(cluster)
        now = stand(cluster)
        for part, value in before.items():
            # a version may bring kinds; none goes
            wanted = crds if part == "crds" else value
            assert now[part] == wanted, f"{part} after the {step}"
        assert written(log(cluster)[offset:]) == [], f"SQL writes after the {step}"

    helm(cluster, this, tmp_path)
    kept = stand(cluster)["crds"]
    assert before["crds"].items() <= kept.items()
    assert set(kept) >= {f"{kind.plural}.{GROUP}" for kind in KINDS}
    unchanged("upgrade", kept)
    said = cluster.kubectl("apply", "-f", "-", text=examples)
    assert set(re.findall(r" (\w+)$", said, re.MULTILINE)) <= {"unchanged", "configured"}, said

    cluster.run("helm", "rollback", RELEASE, "1", "-n", OWN, "--wait", "--timeout", f"{PATIENT}s", seconds=PATIENT + 10)
    tending(cluster, previous)
    kept = stand(cluster)["crds"]
    assert before["crds"].items() <= kept.items()
    unchanged("rollback", kept)

    helm(cluster, this, tmp_path)
    kept = stand(cluster)["crds"]
    unchanged("second upgrade", kept)
    the_search_finds_a_write(cluster, offset)
    uninstall(cluster, kept)


def the_search_finds_a_write(cluster: Cluster, offset: int) -> None:
    """The negative control: what is asked for is written, and seen in the log."""
    cluster.kubectl("patch", "dbu", "shop-app", "-n", SPACE, "--type=merge", "-p", '{"spec":{"connectionLimit":7}}')
    wait("the change is in force", lambda: psql(cluster, LIMIT).strip() == "7", seconds=PATIENT)
    wait("the log has it", lambda: written(log(cluster)[offset:]), seconds=30)


def uninstall(cluster: Cluster, crds: dict[str, str]) -> None:
    """Objects and CRDs stay, no finalizer does: what is left can be deleted without the operator."""
    assert any(body["metadata"].get("finalizers") for body in objects(cluster).values())
    cluster.run("helm", "uninstall", RELEASE, "-n", OWN, "--wait", "--timeout", f"{PATIENT}s", seconds=PATIENT + 10)
    left = objects(cluster)
    assert left
    assert [key for key, body in left.items() if body["metadata"].get("finalizers")] == []
    assert [key for key, body in left.items() if body["metadata"].get("deletionTimestamp")] == []
    assert stand(cluster)["crds"] == crds
    cluster.kubectl("delete", "namespace", SPACE, "--wait=false")
    wait("the namespace is gone", lambda: SPACE not in namespaces(cluster), seconds=PATIENT)
