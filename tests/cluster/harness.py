"""What cluster tests work with: an API server, namespaces of their own, and the operator as a process under the chart's
ServiceAccount, so that a missing RBAC verb fails a test."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.connection import Connection

ROOT = Path(__file__).resolve().parents[2]
GROUND = ROOT / "tests" / "cluster" / "ground" / "ground.py"
CHART = ROOT / "helm" / "pgtend"
AHEAD = ROOT / "tests" / "cluster" / "ahead.py"
AS_IN_IMAGE = ROOT / "tests" / "cluster" / "as_in_image"
# How long what takes a second or two may take on a busy machine. What is promised within a time is measured where it is
# promised (test_bad_input.py, benches); everywhere else a short limit would only tell of the machine.
PATIENCE = 120.0


class Failed(AssertionError):
    """What a person needs to see when waiting was in vain."""


def wait(what: str, check: Callable[[], Any], *, seconds: float = PATIENCE, every: float = 0.2) -> Any:
    """The first truthy result of `check`. Raises Failed with its last result."""
    end = time.monotonic() + seconds
    while True:
        # looked at once more when the time is over: this process may have been kept from looking
        late = time.monotonic() >= end
        last = check()
        if last:
            return last
        if late:
            raise Failed(f"not within {seconds:.0f} s: {what}; last seen: {last!r}")
        time.sleep(every)


class Cluster:
    """A context and the programs to use it with. What users do is one kubectl or helm process: plain and debuggable;
    what tests call until something holds (`get`, `list`, `touch`), and what they only need to be there (`namespace`,
    `secret`), are requests on a kept connection."""

    def __init__(self, *, environment: Mapping[str, str], audit: Path | None) -> None:
        self.environment, self.audit = dict(environment), audit

    @cached_property
    def connection(self) -> Connection:
        return Connection(Path(self.environment["KUBECONFIG"]))

    @cached_property
    def kubeconfig(self) -> dict[str, Any]:
        """Of this context alone, with everything in it."""
        return dict(yaml.safe_load(self.kubectl("config", "view", "--raw", "--minify", "-o", "yaml")))

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
        done = subprocess.run(
            ("kubectl", "apply", "-f", "-"),
            input=text,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=120,
            check=False,
        )
        if done.returncode == 0:
            raise Failed(f"this was accepted: {done.stdout}")
        return done.stdout + done.stderr

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        return self.connection.get(kind, namespace, name)

    def list(self, kind: str, namespace: str, *, labels: str | None = None) -> list[dict[str, Any]]:
        return self.connection.list(kind, namespace, labels=labels)

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
        seconds: float = PATIENCE,
    ) -> dict[str, Any]:
        """Wait for a condition of the object as it is now, not of a spec before; the failure shows the whole status."""

        def holds() -> Any:
            body = self.get(kind, namespace, name) or {}
            found = next((c for c in body.get("status", {}).get("conditions", []) if c["type"] == type_), None)
            if not found or found["status"] != status or reason not in (None, found["reason"]):
                return None
            return found if found["observedGeneration"] == body["metadata"]["generation"] else None

        try:
            return dict(wait(f"{kind} {namespace}/{name} {type_}={status}/{reason}", holds, seconds=seconds))
        except Failed as failed:
            status_now = (self.get(kind, namespace, name) or {}).get("status")
            raise Failed(f"{failed}\nstatus: {json.dumps(status_now, indent=1)}") from None

    def secret(self, namespace: str, name: str, values: Mapping[str, str]) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        meta = {"name": name, "namespace": namespace}
        self.connection.put("secret", namespace, {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})

    def touch(self, kind: str, namespace: str, name: str) -> None:
        """Have it looked at now."""
        annotations = {"pgtend.dev/reconcile": secrets.token_hex(4)}
        self.connection.patch(kind, namespace, name, {"metadata": {"annotations": annotations}})

    def namespace(self, prefix: str = "t") -> str:
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.connection.create("namespace", None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name

    def forget(self, namespaces: Iterable[str]) -> None:
        """Have them deleted, and wait for none of them."""
        for name in namespaces:
            self.connection.delete("namespace", None, name)

    def audit_mark(self) -> int:
        """Where the audit log ends now; hand it to `audited`."""
        return self.audit.stat().st_size if self.audit else 0

    def audited(self, *, since: int, user: str) -> list[dict[str, Any]]:
        """Completed requests of one user since a mark."""
        if self.audit is None:
            raise Failed("this cluster has no audit log that the tests can read")
        # a line is written when its request ends, which may be after its effect has been seen; a request of ours, made
        # a little later, tells when the log has come so far
        time.sleep(0.3)
        sign = f"audited-{secrets.token_hex(6)}"
        self.get("configmap", "default", sign)
        log = self.audit
        wait("the audit log has come so far", lambda: sign.encode() in _since(log, since), every=0.05)
        lines = _since(log, since).splitlines()
        events = [json.loads(line) for line in lines if line.endswith(b"}")]
        return [e for e in events if e["user"]["username"] == user and e["stage"] == "ResponseComplete"]


def _since(log: Path, offset: int) -> bytes:
    with log.open("rb") as opened:
        opened.seek(offset)
        return opened.read()


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
        labels: bool = False,
    ) -> None:
        """`strict` is Python's development mode, which finds faults and costs time and memory; `labels` has it watch
        the namespaces, which only an account of more than the chart's rights in namespaced mode may do."""
        self.cluster, self.namespace, self.watched, self.strict = cluster, namespace, watched, strict
        self.labels = labels
        self.installation, self.policy = installation, policy
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.identity = f"{namespace}-{secrets.token_hex(2)}"
        self.user = f"system:serviceaccount:{namespace}:pgtend"
        self.log_path = folder / f"operator-{secrets.token_hex(3)}.log"

    def install(self) -> None:
        """The chart without its Deployment's pods. With `policy` all of it, by Helm, and what is of the whole cluster
        too: the admission policy and the roles for people; else what a process needs of it: its account and rights."""
        wide = str(self.policy).lower()
        words = (
            "pgtend", str(CHART), "-n", self.namespace,
            "--set", f"installationID={self.installation},replicas=0,mode=Namespaced",
            "--set", f"watchNamespaces={{{','.join(self.watched)}}}", "--set", "crds.install=false",
            "--set", "uninstallHook.enabled=false",
            "--set", f"admissionPolicy.enabled={wide},peopleRoles.enabled={wide}",
        )  # fmt: skip
        if self.policy:
            self.cluster.run("helm", "upgrade", "--install", *words)
            return
        # which knows no cluster, so it is told a version
        version = ("--kube-version", self.cluster.connection.version)
        for body in yaml.safe_load_all(self.cluster.run("helm", "template", *words, *version)):
            if body and body["kind"] in ("ServiceAccount", "Role", "RoleBinding"):
                namespace = body["metadata"].get("namespace", self.namespace)
                self.cluster.connection.put(body["kind"].lower(), namespace, body)

    def uninstall(self) -> None:
        """What lies outside the namespaces of the test does not go with them."""
        self.cluster.run("helm", "uninstall", "pgtend", "-n", self.namespace)

    @cached_property
    def kubeconfig(self) -> Path:
        token = self.cluster.connection.token(self.namespace, "pgtend")
        config = {**self.cluster.kubeconfig}
        config["users"] = [{**config["users"][0], "user": {"token": token}}]
        path = self._folder / f"{self.identity}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    def start(
        self, *, failpoints: str = "", identity: str | None = None, ahead: float = 0, tools_majors: str = ""
    ) -> None:
        """`ahead`: seconds that its clock is ahead of the world's; `tools_majors`: those that there is an image for.
        After a kill -9 the next process takes up the Lease at once, since it has the same identity; another has to wait
        for its end, as test_crash.py shows."""
        if self._process is not None and self._process.poll() is None:
            raise Failed("the operator runs already")
        words = [
            sys.executable, *(("-X", "dev") if self.strict else ()),
            *(("-m", "pgtend") if not ahead else (str(AHEAD), str(ahead))), "operator",
            "--installation-id", self.installation, "--namespace", self.namespace,
            "--kubeconfig", str(self.kubeconfig),
            "--health-port", "0",  # any: nobody asks, and one that was free a moment ago may not be any more
            "--identity", identity or self.identity,
            *(word for name in self.watched for word in ("--watch-namespace", name)),
            *(("--namespace-labels",) if self.labels else ()),
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

    def wait_exit(self, seconds: float = 2 * PATIENCE) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def killed(self, failpoint: str) -> None:
        """Wait until it has been killed where it was armed to."""
        try:
            status = self.wait_exit()
        except subprocess.TimeoutExpired:
            raise Failed(f"{failpoint} was never passed") from None
        if status != -signal.SIGKILL:
            raise Failed(f"exit {status}, not killed at {failpoint}:\n{self.log[-3000:]}")

    def stop(self) -> int:
        """As the kubelet does it: SIGTERM, and SIGKILL later. The kubelet gives it 30 s; a busy machine has more."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise Failed(
                    f"the operator did not end within {PATIENCE:.0f} s of SIGTERM:\n{self.log[-3000:]}"
                ) from None
        return self._process.returncode

    def kill9(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)

    def restart(self, *, failpoints: str = "") -> None:
        self.stop()
        self.start(failpoints=failpoints)

    def crash(self, *, ahead: float = 0) -> None:
        """kill -9, and another in its place, which leads when this returns."""
        self.kill9()
        before = self.log.count('"leading"')
        self.start(ahead=ahead)
        wait("the new process leads", lambda: self.log.count('"leading"') > before)
