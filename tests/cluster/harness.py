"""What cluster tests work with: an API server, namespaces of their own, and the operator as a process under the chart's
ServiceAccount, so that a missing RBAC verb fails a test."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.reading import Reading

ROOT = Path(__file__).resolve().parents[2]
GROUND = ROOT / "tests" / "cluster" / "ground" / "ground.py"
CHART = ROOT / "helm" / "pgtend"
AHEAD = ROOT / "tests" / "cluster" / "ahead.py"
AS_IN_IMAGE = ROOT / "tests" / "cluster" / "as_in_image"


class Failed(AssertionError):
    """What a person needs to see when waiting was in vain."""


def wait(what: str, check: Callable[[], Any], *, seconds: float = 30.0, every: float = 0.2) -> Any:
    """The first truthy result of `check`. Raises Failed with its last result, and tells slow waits."""
    started = time.monotonic()
    last: Any = None
    while time.monotonic() - started < seconds:
        last = check()
        if last:
            return last
        time.sleep(every)
    raise Failed(f"not within {seconds:.0f} s: {what}; last seen: {last!r}")


class Cluster:
    """A context and the programs to use it with. What users do is one kubectl or helm process: plain and debuggable;
    `get` and `list`, which tests call until something holds, are requests on a kept connection."""

    def __init__(self, *, environment: Mapping[str, str], audit: Path | None) -> None:
        self.environment, self.audit = dict(environment), audit

    @cached_property
    def reading(self) -> Reading:
        return Reading(Path(self.environment["KUBECONFIG"]))

    @classmethod
    def up(cls) -> Cluster:
        """The cluster of this checkout, brought up if need be."""
        subprocess.run([sys.executable, str(GROUND), "up"], check=True, stdin=subprocess.DEVNULL)
        told = subprocess.run([sys.executable, str(GROUND), "env"], check=True, capture_output=True, text=True).stdout
        shown = subprocess.run(
            ["bash", "-c", 'eval "$1"; exec env -0', "bash", told], check=True, capture_output=True, text=True
        ).stdout
        environment = dict(item.split("=", 1) for item in shown.split("\0") if "=" in item)
        audit = environment.get("PGTEND_AUDIT_LOG")
        return cls(environment=environment, audit=Path(audit) if audit else None)

    def run(self, *words: str, text: str | None = None, check: bool = True, seconds: float = 120) -> str:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, env=self.environment, timeout=seconds, check=False
        )
        if check and done.returncode:
            raise Failed(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout if check else done.stdout + done.stderr

    def kubectl(self, *words: str, text: str | None = None, check: bool = True, seconds: float = 120) -> str:
        return self.run("kubectl", *words, text=text, check=check, seconds=seconds)

    def apply(self, *documents: Mapping[str, Any] | str) -> str:
        """Apply objects as users do; returns what kubectl said."""
        texts = [d if isinstance(d, str) else json.dumps(d) for d in documents]
        return self.kubectl("apply", "-f", "-", text="\n---\n".join(texts))

    def refused(self, document: Mapping[str, Any] | str) -> str:
        """Apply an object that must be rejected at admission; returns the error."""
        text = document if isinstance(document, str) else json.dumps(document)
        said = self.kubectl("apply", "-f", "-", text=text, check=False)
        if "created" in said or "configured" in said:
            raise Failed(f"this was accepted: {said}")
        return said

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        return self.reading.get(kind, namespace, name)

    def list(self, kind: str, namespace: str, *, labels: str | None = None) -> list[dict[str, Any]]:
        return self.reading.list(kind, namespace, labels=labels)

    def condition(self, kind: str, namespace: str, name: str, type_: str) -> dict[str, Any] | None:
        found = self.get(kind, namespace, name) or {}
        return next((c for c in found.get("status", {}).get("conditions", []) if c["type"] == type_), None)

    def wait_condition(
        self,
        kind: str,
        namespace: str,
        name: str,
        type_: str,
        status: str,
        reason: str | None = None,
        *,
        seconds: float = 30.0,
    ) -> dict[str, Any]:
        """Wait for a condition; the failure shows the whole status and the operator's last lines are in its log."""

        def holds() -> Any:
            found = self.condition(kind, namespace, name, type_)
            return found if found and found["status"] == status and reason in (None, found["reason"]) else None

        try:
            return dict(wait(f"{kind} {namespace}/{name} {type_}={status}/{reason}", holds, seconds=seconds))
        except Failed as failed:
            status_now = (self.get(kind, namespace, name) or {}).get("status")
            raise Failed(f"{failed}\nstatus: {json.dumps(status_now, indent=1)}") from None

    def secret(self, namespace: str, name: str, values: Mapping[str, str]) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data}
        )

    def namespace(self, prefix: str = "t") -> str:
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.kubectl("create", "namespace", name)
        return name

    def audit_mark(self) -> int:
        """Where the audit log ends now; hand it to `audited`."""
        return self.audit.stat().st_size if self.audit else 0

    def audited(self, *, since: int, user: str) -> list[dict[str, Any]]:
        """Completed requests of one user since a mark."""
        if self.audit is None:
            raise Failed("this cluster has no audit log that the tests can read")
        time.sleep(0.5)  # the API server writes it in batches of its own
        with self.audit.open("rb") as log:
            log.seek(since)
            lines = log.read().splitlines()
        events = [json.loads(line) for line in lines if line.endswith(b"}")]
        return [e for e in events if e["user"]["username"] == user and e["stage"] == "ResponseComplete"]


def writes(events: list[dict[str, Any]]) -> dict[str, int]:
    """How many writes by `verb resource[/subresource]`, Leases apart, since the leader's pulse is no work."""
    counted: dict[str, int] = {}
    for event in events:
        ref = event.get("objectRef") or {}
        if event["verb"] in ("get", "list", "watch") or ref.get("resource") == "leases":
            continue
        sub = f"/{ref['subresource']}" if ref.get("subresource") else ""
        name = f"{event['verb']} {ref.get('resource')}{sub}"
        counted[name] = counted.get(name, 0) + 1
    return counted


class OperatorProcess:
    """`python -m pgtend operator` on this machine with the ServiceAccount's token. `log` is its whole output."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        watched: list[str],
        folder: Path,
        installation: str = "tests",
        policy: bool = False,
        strict: bool = True,
    ) -> None:
        """`strict` is Python's development mode, which finds faults and costs time and memory."""
        self.cluster, self.namespace, self.watched, self.strict = cluster, namespace, watched, strict
        self.installation, self.policy = installation, policy
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.user = f"system:serviceaccount:{namespace}:pgtend"
        self.log_path = folder / f"operator-{secrets.token_hex(3)}.log"

    def install(self) -> None:
        """The chart without its Deployment's pods: RBAC, ServiceAccount, policies. With `policy` also what is of the
        whole cluster: the admission policy and the roles for people."""
        wide = str(self.policy).lower()
        self.cluster.run(
            "helm", "upgrade", "--install", "pgtend", str(CHART), "-n", self.namespace,
            "--set", f"installationID={self.installation},replicas=0,mode=Namespaced",
            "--set", f"watchNamespaces={{{','.join(self.watched)}}}", "--set", "crds.install=false",
            "--set", "uninstallHook.enabled=false",
            "--set", f"admissionPolicy.enabled={wide},peopleRoles.enabled={wide}",
        )  # fmt: skip

    def uninstall(self) -> None:
        """What lies outside the namespaces of the test does not go with them."""
        self.cluster.run("helm", "uninstall", "pgtend", "-n", self.namespace)

    def kubeconfig(self) -> Path:
        token = self.cluster.kubectl("create", "token", "pgtend", "-n", self.namespace, "--duration", "6h").strip()
        config = yaml.safe_load(self.cluster.kubectl("config", "view", "--raw", "--minify", "-o", "yaml"))
        config["users"][0]["user"] = {"token": token}
        path = self._folder / "operator.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    def start(
        self, *, failpoints: str = "", identity: str | None = None, ahead: float = 0, tools_majors: str = ""
    ) -> None:
        """`ahead`: seconds that its clock is ahead of the world's; `tools_majors`: those that there is an image for."""
        if self._process is not None and self._process.poll() is None:
            raise Failed("the operator runs already")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = [
            sys.executable, *(("-X", "dev") if self.strict else ()),
            *(("-m", "pgtend") if not ahead else (str(AHEAD), str(ahead))), "operator",
            "--installation-id", self.installation, "--namespace", self.namespace,
            "--kubeconfig", str(self.kubeconfig()), "--health-port", str(self.port),
            "--identity", identity or f"{self.namespace}-{secrets.token_hex(2)}",
            *(word for name in self.watched for word in ("--watch-namespace", name)),
        ]  # fmt: skip
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{AS_IN_IMAGE}:{ROOT / 'operator'}",
            "HOME": str(self._folder),
            "PGTEND_FAILPOINTS": failpoints,
            "PGTEND_TOOLS_IMAGE": "pgtend/tools:dev-pg{major}",
            "PGTEND_TOOLS_MAJORS": tools_majors,
            "PGTEND_REQUESTERS_CHECKED": str(self.policy).lower(),
        }
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=self._folder)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_exit(self, seconds: float = 60.0) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self) -> int:
        """As the kubelet does it: SIGTERM, and SIGKILL after 30 s."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise Failed(f"the operator did not end within 30 s of SIGTERM:\n{self.log[-3000:]}") from None
        return self._process.returncode

    def kill9(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def restart(self, *, failpoints: str = "") -> None:
        self.stop()
        self.start(failpoints=failpoints)


def remove_namespaces(cluster: Cluster, names: list[str]) -> Iterator[None]:
    yield
    cluster.kubectl("delete", "namespace", "--wait=false", "--ignore-not-found", *names)
