"""One single-node kind cluster: created, recognised when healthy, and made anew when a crash left it half alive."""

from __future__ import annotations

import ipaddress
import json
import shutil
from pathlib import Path

from .settings import GROUND, Settings
from .steps import GroundError, output, say, step

REMEDY = (
    "see the log. `unable to apply caps` means that the Docker daemon is not ours and lacks CAP_SYS_RESOURCE: stop it "
    "and run this again. `too many open files` means that fs.inotify.max_user_instances is too low"
)


def healthy(settings: Settings, *, image: str | None) -> bool:
    """Whether the node runs the wanted image and its API server says that it is ready."""
    running = output("docker", "inspect", "--format", "{{.State.Running}} {{.Config.Image}}", settings.node, timeout=10)
    if running is None or not running.startswith("true ") or (image and running != f"true {image}"):
        return False
    return ready(settings.kubeconfig)


def ready(kubeconfig: Path) -> bool:
    if not kubeconfig.exists():
        return False
    command = ("kubectl", "--kubeconfig", kubeconfig, "--request-timeout=3s", "get", "--raw=/readyz")
    return output(*command, timeout=8) == "ok"


def revive(settings: Settings, *, image: str) -> bool:
    """Give a node that a crash or a reboot stopped the time to come back with all that it held; tell whether it did."""
    told = output("docker", "inspect", "--format", "{{.State.Running}} {{.Config.Image}}", settings.node, timeout=10)
    if told is None or not settings.kubeconfig.exists() or not told.endswith(f" {image}"):
        return False
    try:
        with step("node comes back", waits_for="docker", remedy=REMEDY, log=settings.logs / "cluster.log") as current:
            current.run("docker", "start", settings.node, timeout=60)
            current.until("the API server", lambda: ready(settings.kubeconfig), seconds=60, every=1)
            current.until("the system's pods", lambda: _system_is_new(settings), seconds=90, every=1)
    except GroundError as error:
        say(f"  it did not: {error.cause}")
        return False
    return True


def _system_is_new(settings: Settings) -> bool:
    """Whether all pods of kube-system are ready and were started after the node: what the API server remembers from
    before a crash looks just as ready."""
    since = output("docker", "inspect", "--format", "{{.State.StartedAt}}", settings.node)
    kubectl = ("kubectl", "--kubeconfig", settings.kubeconfig, "--request-timeout=5s")
    listed = output(*kubectl, "-n", "kube-system", "get", "pods", "-o", "json")
    if not since or not listed:
        return False
    containers = [c for pod in json.loads(listed)["items"] for c in pod["status"].get("containerStatuses", [])]
    return bool(containers) and all(
        c["ready"] and c["state"].get("running", {}).get("startedAt", "") >= since[:19] for c in containers
    )


def create(settings: Settings, *, image: str | None) -> None:
    """Make the cluster, after removing what is left of an older one; without an image kind takes its own."""
    delete(settings)
    settings.audit.mkdir(parents=True, exist_ok=True)
    settings.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(GROUND / "node" / "audit-policy.yaml", settings.audit / "policy.yaml")
    config = settings.state / "kind.json"
    config.write_text(json.dumps(_config(settings, image=image), indent=2))
    log = settings.logs / "cluster.log"
    with step("kind create cluster", waits_for="kubeadm", remedy=REMEDY, log=log) as current:
        kubeconfig = ("--kubeconfig", settings.kubeconfig)
        current.run("kind", "create", "cluster", "--config", config, *kubeconfig, "--retain", timeout=300)
    with step("cluster ready", waits_for="the node", remedy=REMEDY, log=log) as current:
        kubectl = ("kubectl", "--kubeconfig", settings.kubeconfig)
        current.run(*kubectl, "wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
        current.waits_for = "cluster DNS"
        current.run(*kubectl, "-n", "kube-system", "rollout", "status", "deploy/coredns", "--timeout=120s")


def delete(settings: Settings) -> None:
    """Remove the node and its volume. The audit log goes too: its numbers belong to that cluster."""
    left = output("docker", "ps", "-aq", "--filter", f"label=io.x-k8s.kind.cluster={settings.name}")
    if left:
        say(f"  removes cluster {settings.name}")
        log = settings.logs / "cluster.log"
        with step("kind delete cluster", waits_for="docker", remedy=REMEDY, log=log) as current:
            kubeconfig = ("--kubeconfig", settings.kubeconfig)
            current.run("kind", "delete", "cluster", "--name", settings.name, *kubeconfig, timeout=120)
    settings.forget()
    shutil.rmtree(settings.audit, ignore_errors=True)


def _config(settings: Settings, *, image: str | None) -> dict[str, object]:
    pods, services = free_subnets()
    arguments = {
        "audit-policy-file": "/etc/kubernetes/audit/policy.yaml",
        "audit-log-path": "/etc/kubernetes/audit/audit.log",
        # The reader counts from offsets in this one file: it is rotated late.
        "audit-log-maxsize": "1000",
        "audit-log-maxbackup": "1",
    }
    # our images of the control plane hold one binary and no zone data, and CronJobs name time zones
    place = "/usr/share/zoneinfo"
    zones = {"name": "zoneinfo", "hostPath": place, "mountPath": place, "readOnly": True, "pathType": "Directory"}
    mounts = [{"name": "audit", "hostPath": "/etc/kubernetes/audit", "mountPath": "/etc/kubernetes/audit"}]
    node: dict[str, object] = {
        "role": "control-plane",
        "extraMounts": [{"hostPath": str(settings.audit), "containerPath": "/etc/kubernetes/audit"}],
        "kubeadmConfigPatches": [
            json.dumps(
                {
                    "kind": "ClusterConfiguration",
                    "apiServer": {"extraArgs": arguments, "extraVolumes": [*mounts, zones]},
                    "controllerManager": {"extraVolumes": [zones]},
                }
            )
        ],
    }
    if image:
        node["image"] = image
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": settings.name,
        # Port 0 lets kind take a free one. nftables needs no kernel modules of iptables.
        "networking": {
            "apiServerAddress": "127.0.0.1",
            "apiServerPort": 0,
            "podSubnet": pods,
            "serviceSubnet": services,
            "kubeProxyMode": "nftables",
        },
        "nodes": [node],
    }


def free_subnets(routes: Path = Path("/proc/net/route")) -> tuple[str, str]:
    """Networks for pods and for services that no route of this machine leads to."""
    taken = []
    for line in routes.read_text().splitlines()[1:]:
        address, mask = (ipaddress.ip_address(bytes.fromhex(line.split()[column])[::-1]) for column in (1, 7))
        if int(mask):
            taken.append(ipaddress.ip_network(f"{address}/{mask}", strict=False))
    free = [
        network
        for network in ipaddress.ip_network("10.0.0.0/8").subnets(new_prefix=16)
        if network.network_address.packed[1] >= 240 and not any(network.overlaps(other) for other in taken)
    ]
    return str(free[0]), str(free[1])
