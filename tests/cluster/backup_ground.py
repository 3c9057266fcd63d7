"""What the backup tests share: a destination on the session's S3 server, and a stand-in for the node.

The pods that the operator starts are kept from every node, so that this process can be their kubelet: it mounts the
very volumes of the pod's spec, runs the very command with the very configuration against servers that the cluster
cannot reach, and reports how it ended. The Job controller does the rest, as always."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyrage
from tests.cluster.builders import MONITOR_PASSWORD, monitor_role
from tests.cluster.harness import ROOT, Cluster, wait
from tests.fixtures.postgres import Login, PostgresServer
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_kit import allow, client_programs, fill

from pgtend.backups.jobs import dump, verify
from pgtend.backups.jobs.config import DumpConfig, VerifyConfig
from pgtend.core.clock import FakeClock

ESCROW = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"
NOWHERE = {"nodeSelector": {"pgtend.dev/no-such-node": "true"}}


@dataclass
class Ground:
    """One namespace with a target, its role for backups, a bucket and a key pair."""

    cluster: Cluster
    space: str
    server: PostgresServer
    s3: S3Server
    folder: Path
    database: str = ""
    role: Login | None = None
    bucket: str = ""
    identity: Any = field(default_factory=pyrage.x25519.Identity.generate)
    # no CronJob starts by itself while a test runs
    at: str = field(default_factory=lambda: f"{datetime.now(UTC) + timedelta(hours=12):%H:%M}")

    def __post_init__(self) -> None:
        self.bucket = self.s3.fresh_bucket("policy")
        self.role = self.server.fresh_role("backup", "BYPASSRLS")
        self.database = self.server.fresh_database("dump")
        fill(self.server, self.database)
        allow(self.server, self.database, self.role)
        self.programs = client_programs(self.server, self.folder)
        for name in ("admin", "writer", "reader"):
            login = getattr(self.s3, name)
            pair = {"id": login.access_key, "secret": login.secret_key}
            # once by the names that are looked for, once by names of people's own choice
            self.cluster.secret(self.space, f"s3-{name}", pair | {"user": pair["id"], "word": pair["secret"]})
        self.cluster.secret(self.space, "s3-ca", {"bundle.pem": Path(self.s3.ca_path).read_text()})
        self.cluster.secret(self.space, "identity", {"age.txt": f"{self.identity}\n"})

    def target(self, **spec: Any) -> None:
        assert self.role is not None
        monitor_role(self.server)
        self.cluster.secret(self.space, "monitor", {"password": MONITOR_PASSWORD})
        self.cluster.secret(self.space, "backup", {"password": self.role.password})
        self.cluster.secret(self.space, "orders-ca", {"ca.crt": Path(self.server.ca_path).read_text()})
        self.apply(
            "PostgresTarget",
            "orders",
            {
                "mode": "Enforce",
                "members": [{"name": "a", "host": self.server.host, "port": self.server.port}],
                "tls": {"ca": {"secretRef": {"name": "orders-ca"}}},
                "credentials": {
                    "monitor": {"password": {"secretRef": {"name": "monitor"}}},
                    "backup": {"username": self.role.user, "password": {"secretRef": {"name": "backup"}}},
                },
                "probeInterval": "5s",
                **spec,
            },
        )

    def destination_spec(self, **s3: Any) -> dict[str, Any]:
        return {
            "s3": {
                "bucket": self.bucket,
                "prefix": "production",
                "endpoint": self.s3.endpoint,
                "addressing": "Path",
                "ca": {"secretRef": {"name": "s3-ca", "key": "bundle.pem"}},
                "credentials": {
                    use: key_of(f"s3-{login}", id="user", secret="word")
                    for use, login in (("write", "writer"), ("read", "admin"), ("delete", "admin"))
                },
                **s3,
            },
            "encryption": {
                "age": {
                    "recipients": [
                        {
                            "name": "verify",
                            "publicKey": str(self.identity.to_public()),
                            "identity": {"secretRef": {"name": "identity", "key": "age.txt"}},
                        },
                        {"name": "escrow", "publicKey": ESCROW},
                    ]
                }
            },
        }  # fmt: skip

    def destination(self, **s3: Any) -> None:
        self.apply("BackupDestination", "s3", self.destination_spec(**s3))

    def policy(self, **spec: Any) -> None:
        self.apply("PostgresBackupPolicy", "orders", self.policy_spec(**spec))

    def policy_spec(self, **spec: Any) -> dict[str, Any]:
        return {
            "targetRef": {"name": "orders"},
            "destinationRef": {"name": "s3"},
            "schedule": {"daily": {"at": self.at}},
            "dump": {"databases": [{"name": self.database}]},
            "pod": NOWHERE,
            **spec,
        }

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> str:
        return self.cluster.apply(body(kind, self.space, name, spec))

    def scheduled(self, job: str) -> dict[str, Any]:
        """A run of the CronJob, to its end. Returns its last words."""
        self.cluster.kubectl("create", "job", "-n", self.space, "--from=cronjob/orders-dump", job)
        return self.run_pod(job)

    def run_pod(self, job: str, *, failpoints: str = "", during: Callable[[], None] | None = None) -> dict[str, Any]:
        """Be the kubelet of a Job's pod: run it here, report its end. Returns what it left as its last words. `during`
        is called while it runs."""
        found = wait(f"a pod of Job {job}", lambda: self.pods(job), seconds=120)
        pod = found[-1]
        name = pod["metadata"]["name"]
        root = self.folder / name
        self._mounted(pod, root)
        container = pod["spec"]["containers"][0]
        words = [w.replace("/etc/pgtend/", f"{root}/") for w in container["args"]]
        beside = threading.Thread(target=during, daemon=True) if during is not None else None
        if beside is not None:
            beside.start()
        done = subprocess.run(
            [sys.executable, "-m", "pgtend", *words],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT / "operator"),
                "HOME": str(root),
                "PGTEND_FAILPOINTS": failpoints,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if beside is not None:
            beside.join(60)
        last_words = (root / "last-words").read_text() if (root / "last-words").exists() else done.stderr[-2000:]
        self.end_pod(name, container, status=done.returncode, message=last_words)
        return dict(json.loads(last_words))

    def take(self, *, days: float, verified: bool = True, **config: Any) -> dict[str, Any]:
        """A real backup as the CronJob takes it, by a clock that is so many days behind. Returns the last words."""
        job = (self.cluster.get("cronjob", self.space, "orders-dump") or {})["spec"]["jobTemplate"]
        root = self.folder / f"taken-{days}"
        value = self._mounted(job["spec"]["template"], root) | config
        clock = FakeClock(datetime.now(UTC) - timedelta(days=days))
        assert dump.run(DumpConfig.model_validate(value), clock=clock) == 0, (root / "last-words").read_text()
        told = dict(json.loads((root / "last-words").read_text()))
        if verified:
            (root / "identity").write_text(f"{self.identity}\n")
            kept = ("installationID", "policy", "destination", "terminationLog", "scratchFolder", "programsFolder")
            value = {name: value[name] for name in kept} | {
                "manifest": told["manifest"],
                "identityFile": str(root / "identity"),
            }
            for part, text in (("id", self.s3.admin.access_key), ("secret", self.s3.admin.secret_key)):
                (root / "store" / part).write_text(text)
            assert verify.run(VerifyConfig.model_validate(value), clock=clock) == 0
        return told

    def _mounted(self, pod: dict[str, Any], root: Path) -> dict[str, Any]:
        """Lay a pod's volumes out below a folder. Returns its configuration, which lies there too."""
        (root / "tmp").mkdir(parents=True)
        for volume in pod["spec"]["volumes"]:
            self._mount(volume, root, pod)
        config = root / "job" / "job.json"
        value = json.loads(config.read_text().replace("/etc/pgtend/", f"{root}/"))
        value |= {
            "terminationLog": str(root / "last-words"),
            "scratchFolder": str(root / "tmp"),
            "programsFolder": str(self.programs),
        }
        config.write_text(json.dumps(value))
        return dict(value)

    def end_pod(
        self, name: str, container: dict[str, Any], *, status: int, message: str = "", reason: str | None = None
    ) -> None:
        moment = "2026-01-01T00:00:00Z"
        ended = {
            "exitCode": status,
            "reason": reason or ("Completed" if status == 0 else "Error"),
            "message": message,
            "startedAt": moment,
            "finishedAt": moment,
        }
        patch = {
            "status": {
                "phase": "Succeeded" if status == 0 else "Failed",
                "containerStatuses": [
                    {
                        "name": container["name"],
                        "image": container["image"],
                        "imageID": "",
                        "ready": False,
                        "restartCount": 0,
                        "state": {"terminated": ended},
                    }
                ],
            }
        }
        self.cluster.kubectl(
            "patch", "pod", "-n", self.space, name, "--subresource=status", "--type=merge", "-p", json.dumps(patch)
        )

    def pods(self, job: str) -> list[dict[str, Any]]:
        return self.cluster.list("pods", self.space, labels=f"job-name={job}")

    def jobs(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.cluster.list("jobs", self.space)]

    def _mount(self, volume: dict[str, Any], root: Path, pod: dict[str, Any]) -> None:
        folder = root / volume["name"]
        folder.mkdir(exist_ok=True)
        for item in volume.get("downwardAPI", {}).get("items", []):
            key = item["fieldRef"]["fieldPath"].removeprefix("metadata.annotations['").removesuffix("']")
            (folder / item["path"]).write_text(pod["metadata"]["annotations"][key])
        for source in volume.get("projected", {}).get("sources", []):
            secret = self.cluster.get("secret", self.space, source["secret"]["name"])
            assert secret is not None, source
            for item in source["secret"]["items"]:
                path = folder / item["path"]
                path.write_bytes(base64.b64decode(secret["data"][item["key"]]))
                path.chmod(0o600)


def key_of(name: str, **keys: str) -> dict[str, Any]:
    """A credential in one Secret; `keys` where `id` and `secret` have other names in it."""

    def ref(part: str) -> dict[str, Any]:
        return {"secretRef": {"name": name} | ({"key": keys[part]} if part in keys else {})}

    return {"accessKey": {"id": ref("id"), "secret": ref("secret")}}


def body(kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "pgtend.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
