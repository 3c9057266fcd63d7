#!/usr/bin/env python3
"""`make demo`: a cluster of its own, PostgreSQL in it, pgtend by Helm, and the story that kubectl then tells.

`down` removes every trace. Standard library only; tells how long each step took and what it waits for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "examples" / "demo"
# the tests run the demo in their own cluster
CLUSTER = os.environ.get("PGTEND_DEMO_CLUSTER", "demo")
GROUND = [sys.executable, str(ROOT / "tests" / "cluster" / "ground" / "ground.py")]
GROUND += ["--name", CLUSTER] if CLUSTER else []
NAMESPACE = "databases"
INFRA = ("namespace.yaml", "init-sql.yaml", "orders.yaml", "pool.yaml", "s3.yaml")
PATIENCE = 300.0


class DemoError(Exception):
    """A step failed; the text says what was seen last and what to look at."""


def main(verb: str) -> int:
    started = time.monotonic()
    try:
        if verb == "down":
            subprocess.run([*GROUND, "down"], check=True)
            return 0
        up()
    except (DemoError, subprocess.CalledProcessError) as error:
        print(f"\ndemo: failed after {time.monotonic() - started:.0f} s\n{error}", file=sys.stderr)
        return 1
    print(f"\ndemo ready after {time.monotonic() - started:.0f} s")
    return 0


def up() -> None:
    with step("cluster"):
        subprocess.run([*GROUND, "up"], check=True)
    environment()
    with step("images"):
        subprocess.run([*GROUND, "images"], check=True)
    with step("PostgreSQL, PgBouncer and S3"):
        kubectl("apply", "-f", str(HERE / "infra" / "namespace.yaml"))
        recipient = run(sys.executable, str(HERE / "infra" / "credentials.py")).strip()
        for name in INFRA[1:]:
            kubectl("apply", "-f", str(HERE / "infra" / name))
        for workload in ("statefulset/orders-a", "statefulset/orders-b", "deployment/orders-pool"):
            kubectl(
                "-n", NAMESPACE, "rollout", "status", workload, f"--timeout={PATIENCE:.0f}s", patience=PATIENCE + 10
            )
    with step("pgtend by Helm"):
        install()
    with step("examples/demo"):
        for path in sorted(HERE.glob("*.yaml")):
            apply(path.read_text().replace("AGE_RECIPIENT", recipient))
        for type_ in ("Ready", "ReplicationHealthy", "PoolHealthy"):
            condition("postgrestarget", "orders", type_, "True")
        condition("databaseuser", "shop-app", "Ready", "True")
        condition("backupdestination", "s3", "Ready", "True")
        condition("postgresbackuppolicy", "orders", "Ready", "True")
    with step("a pod logs in with the Secret shop-app"):
        print("  " + log_in())
    with step("a backup, and its proof by another pod"):
        name = kubectl("create", "-f", str(HERE / "by-hand" / "backup.yaml"), "-o", "jsonpath={.metadata.name}").strip()
        condition("postgresbackup", name, "Complete", "True")
        condition("postgresbackup", name, "Verified", "True")
        condition("postgresbackuppolicy", "orders", "Verified", "True")
        condition("postgrestarget", "orders", "BackedUp", "True")
    with step("a maintenance run in the window that is open nine minutes of ten"):
        condition("maintenancewindow", "often", "Ready", "True")
        print("  " + maintained())
    show()


def log_in() -> str:
    """What a pod sees that has nothing but the user's Secret."""
    kubectl("-n", NAMESPACE, "delete", "pod", "login", "--ignore-not-found")
    kubectl("create", "-f", str(HERE / "by-hand" / "login.yaml"))

    def ended() -> str | None:
        phase = kubectl("-n", NAMESPACE, "get", "pod", "login", "-o", "jsonpath={.status.phase}")
        return phase if phase in ("Succeeded", "Failed") else None

    wait("pod login", ended, lambda: kubectl("-n", NAMESPACE, "describe", "pod", "login")[-1500:])
    said = kubectl("-n", NAMESPACE, "logs", "login").strip()
    if ended() != "Succeeded":
        raise DemoError(f"pod login failed: {said}")
    return said


def maintained() -> str:
    """What the first run that has ended says."""

    def ended() -> str | None:
        found = json.loads(kubectl("-n", NAMESPACE, "get", "maintenanceruns", "-o", "json"))["items"]
        for run in found:
            last[0] = json.dumps(run.get("status", {}).get("conditions"), indent=1)
            for one in run.get("status", {}).get("conditions", []):
                if one["type"] == "Complete" and one["status"] == "True":
                    counts = run["status"]["counts"]
                    last[0] = f"{run['metadata']['name']}: {counts['succeeded']} done, {one['message']}"
                    return last[0]
        return None

    last = ["no run yet"]
    wait("a finished MaintenanceRun", ended, lambda: last[0])
    return last[0]


def apply(text: str) -> None:
    run("kubectl", "apply", "-f", "-", text=text)


def install() -> None:
    """Cluster-wide, or with PGTEND_DEMO_MODE=Namespaced without any ClusterRole."""
    values = ["mode=Cluster"]
    if os.environ.get("PGTEND_DEMO_MODE") == "Namespaced":
        values = ["mode=Namespaced", f"watchNamespaces={{{NAMESPACE}}}"]
    run(
        "helm", "upgrade", "--install", "pgtend", str(ROOT / "helm" / "pgtend"), "-n", "pgtend",
        "--create-namespace", "--take-ownership", "--wait", "--timeout", f"{PATIENCE:.0f}s",
        "-f", str(HERE / "by-hand" / "values.yaml"), "--set", ",".join(values),
        patience=PATIENCE + 10,
    )  # fmt: skip


def show() -> None:
    print("\n$ kubectl get pgtend -A")
    print(kubectl("get", "pgtend", "-A"))
    print("$ kubectl -n databases get pgmr")
    print(kubectl("-n", NAMESPACE, "get", "pgmr"))
    print("$ kubectl -n databases get pgt orders -o jsonpath='{.status.conditions}'")
    found = json.loads(kubectl("-n", NAMESPACE, "get", "postgrestarget", "orders", "-o", "json"))
    for one in found["status"]["conditions"]:
        print(f"  {one['type']:22} {one['status']:8} {one['reason']:16} {one['message']}")
    print(
        "\nGo on by hand:\n"
        '  eval "$(python3 tests/cluster/ground/ground.py --name demo env)"\n'
        "  kubectl -n databases scale statefulset orders-b --replicas 0   # stop the standby\n"
        "  kubectl get pgt -A -w                                          # and see the health turn\n"
        "  make demo-down                                                 # remove every trace"
    )


def condition(kind: str, name: str, type_: str, status: str) -> None:
    """Wait for a condition; what stands in the way is shown when patience is over."""

    def holds() -> str | None:
        found = json.loads(kubectl("-n", NAMESPACE, "get", kind, name, "-o", "json"))
        conditions = found.get("status", {}).get("conditions", [])
        last[0] = json.dumps(conditions, indent=1)
        return next((c["reason"] for c in conditions if c["type"] == type_ and c["status"] == status), None)

    last = [""]
    wait(f"{kind} {name}: {type_}={status}", holds, lambda: last[0])


def wait(what: str, check: Callable[[], str | None], explain: Callable[[], str]) -> None:
    print(f"  waiting for {what}", flush=True)
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE:
        if check():
            return
        time.sleep(0.5)
    log = run("kubectl", "-n", "pgtend", "logs", "deployment/pgtend", "--tail=15", check=False)
    raise DemoError(f"not within {PATIENCE:.0f} s: {what}\nlast seen: {explain()}\noperator's log:\n{log}")


@contextmanager
def step(name: str) -> Iterator[None]:
    print(f"--- {name}", flush=True)
    started = time.monotonic()
    yield
    print(f"--- {name}: {time.monotonic() - started:.1f} s", flush=True)


def environment() -> None:
    """Where the ground put kubectl, helm and the kubeconfig."""
    told = subprocess.run([*GROUND, "env"], check=True, capture_output=True, text=True).stdout
    shown = subprocess.run(
        ["bash", "-c", 'eval "$1"; exec env -0', "bash", told], check=True, capture_output=True, text=True
    ).stdout
    for item in shown.split("\0"):
        name, _, value = item.partition("=")
        if name in ("PATH", "KUBECONFIG"):
            os.environ[name] = value


def kubectl(*words: str, patience: float = 60.0) -> str:
    return run("kubectl", *words, patience=patience)


def run(*words: str, patience: float = 60.0, check: bool = True, text: str | None = None) -> str:
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=patience, check=False)
    if check and done.returncode:
        raise DemoError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "up"))
