"""Looks for every secret of the demo in every place where none may be: command lines and environments of all processes
of the node while backups run, logs of all containers that live and of those before them, all objects but Secrets, the
audit log, the bucket, PostgreSQL's log of every statement. In plain, base64 and URL form."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from tests.cluster.harness import Cluster, wait

SPACES = ("databases", "pgtend")
# which values of a Secret are secret; others (user names, hosts, certificates) are in specs on purpose
KEYS = ("password", "secret", "identity", "uri", "jdbc-uri", "pgpass", "tls.key")
WATCHER = "secrecy-watcher"
# reads what every process of the node was started with, many times a second, and at the end tells what it saw
LOOK = """
import os, sys, time
seen, end = set(), time.monotonic() + float(sys.argv[1])
while time.monotonic() < end and not os.path.exists("/tmp/enough"):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    seen.update(file.read().split(bytes(1)))
            except OSError:
                pass
    time.sleep(0.05)
sys.stdout.buffer.write(bytes([10]).join(sorted(seen)))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Values that must not show, by `namespace/name:key`."""

    values: dict[str, str]

    @classmethod
    def of(cls, cluster: Cluster) -> Secrets:
        found = {}
        for space in SPACES:
            for secret in json.loads(cluster.kubectl("get", "secrets", "-n", space, "-o", "json"))["items"]:
                for key, value in (secret.get("data") or {}).items():
                    if key in KEYS:
                        text = base64.b64decode(value).decode(errors="replace").strip()
                        name = f"{space}/{secret['metadata']['name']}:{key}"
                        # of a file the longest line: the others are a header, or common to all
                        found[name] = max(text.splitlines(), key=len)
        return cls(values=found)

    def without(self, prefix: str) -> Secrets:
        return Secrets(values={name: value for name, value in self.values.items() if not name.startswith(prefix)})

    def found_in(self, text: str) -> list[str]:
        """The names of the secrets that the text holds in any form."""
        return [name for name, value in self.values.items() if any(form in text for form in forms(value))]


def forms(value: str) -> Iterator[str]:
    """Plain, URL, and base64 wherever in a longer text it begins."""
    yield value
    yield quote(value, safe="")
    for ahead in range(3):
        # of the ends only what no neighbour has a part in
        encoded = base64.b64encode(b"\0" * ahead + value.encode()).decode().rstrip("=")
        yield encoded[(0, 2, 3)[ahead] : len(encoded) - (1 if (len(value) + ahead) % 3 else 0)]


def watch_processes(cluster: Cluster, *, seconds: int) -> None:
    """Starts looking at the processes of the node; `processes` tells what was seen."""
    cluster.kubectl("delete", "pod", WATCHER, "-n", "default", "--ignore-not-found")
    container = {
        "name": "look",
        "image": "pgtend/tools:dev-pg15",
        "command": ["python3", "-c", LOOK, str(seconds)],
        "securityContext": {"privileged": True, "runAsUser": 0},
    }
    spec = {"hostPID": True, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": WATCHER, "namespace": "default"}, "spec": spec}
    )
    wait("it looks", lambda: phase(cluster) == "Running", seconds=60)


def processes(cluster: Cluster) -> str:
    cluster.kubectl("-n", "default", "exec", WATCHER, "--", "touch", "/tmp/enough", check=False)
    wait("it has looked", lambda: phase(cluster) == "Succeeded", seconds=120)
    text = cluster.kubectl("-n", "default", "logs", WATCHER)
    cluster.kubectl("delete", "pod", WATCHER, "-n", "default")
    return text


def phase(cluster: Cluster) -> str:
    return cluster.kubectl("-n", "default", "get", "pod", WATCHER, "-o", "jsonpath={.status.phase}")


def logs(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """(where, text) of every container, and of the one before it where there was one."""
    for space in SPACES:
        for pod in json.loads(cluster.kubectl("get", "pods", "-n", space, "-o", "json"))["items"]:
            for status in pod["status"].get("containerStatuses", []):
                name = f"{space}/{pod['metadata']['name']}/{status['name']}"
                words = ("logs", "-n", space, pod["metadata"]["name"], "-c", status["name"])
                yield f"log of {name}", cluster.kubectl(*words)
                if status["restartCount"]:
                    yield f"previous log of {name}", cluster.kubectl(*words, "--previous")


def objects(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """(kind, YAML) of everything that the API server lists in these namespaces, but Secrets."""
    kinds = cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    for kind in kinds:
        if kind != "secrets":
            text = "".join(cluster.kubectl("get", kind, "-n", space, "-o", "yaml") for space in SPACES)
            yield f"objects of {kind}", text


def bucket(cluster: Cluster) -> str:
    """All that the store keeps on its volume, objects and their names."""
    words = ("sh", "-c", "find /data -type f -exec cat {} + | base64 -w0; find /data")
    stored, _, names = cluster.kubectl("-n", "databases", "exec", "s3-0", "--", *words).partition("/data")
    return base64.b64decode(stored).decode("latin-1") + names


def log_every_statement(cluster: Cluster) -> None:
    for sql in ("ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()"):
        words = ("psql", "-U", "postgres", "-d", "postgres", "-XAtc", sql)
        cluster.kubectl("-n", "databases", "exec", "orders-a-0", "-c", "postgres", "--", *words)


def audit(cluster: Cluster) -> str:
    return cluster.audit.read_text(errors="replace") if cluster.audit is not None else ""
