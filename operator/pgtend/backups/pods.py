"""What is handed to Kubernetes: a policy's CronJob, and the Jobs of a backup now and of a verification. Pure.

A job's configuration travels in an annotation of its own pod, which the pod sees as a file: it belongs to the run and
cannot change under it, and no object more is left behind. Secrets are mounted from where people put them, each pod's
own and no other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pgtend.api.backupdestination import AgeRecipient, DestinationSpec
from pgtend.api.base import API_VERSION
from pgtend.api.pod import PodSettings
from pgtend.backups.inputs import (
    ROOT,
    Body,
    Restoring,
    Setting,
    dump_config,
    dump_sources,
    restore_config,
    restore_sources,
    verify_config,
    verify_sources,
)
from pgtend.core.findings import ObjectKey
from pgtend.core.names import short_hash

PREFIX = "pgtend.dev/"
POLICY, RUN, BACKUP = f"{PREFIX}policy", f"{PREFIX}run", f"{PREFIX}backup"
OPERATION = f"{PREFIX}operation"
CONFIG, HASH = f"{PREFIX}job", f"{PREFIX}hash"
# a finished Job is looked at long before; a day leaves time to read its log
TTL = 86_400
# reading back takes about as long as writing did
VERIFY_TIMEOUT = 43_200


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    kind: str
    name: str
    uid: str

    def to_wire(self) -> Body:
        return {
            "apiVersion": API_VERSION, "kind": self.kind, "name": self.name, "uid": self.uid, "controller": True
        }  # fmt: skip


def cron_job(setting: Setting, *, cron: str, suspended: bool) -> Body:
    """The CronJob of a policy, with the hash of itself."""
    spec = setting.spec
    labels = _labels(setting.policy.name, "dump")
    job = _job_spec(
        pod=spec.pod,
        labels=labels,
        image=setting.image,
        run="dump",
        config=dump_config(setting),
        sources=dump_sources(setting),
        deadline=int(spec.timeout.seconds),
        retries=1,
    )
    body: Body = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": cron_job_name(setting.policy.name),
            "namespace": setting.policy.namespace,
            "labels": labels,
            "annotations": {},
            "ownerReferences": [
                Owner(kind="PostgresBackupPolicy", name=setting.policy.name, uid=setting.uid).to_wire()
            ],
        },
        "spec": {
            "schedule": cron,
            "timeZone": spec.time_zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": max(10, int(spec.starting_deadline.seconds)),
            "suspend": suspended,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"metadata": {"labels": labels}, "spec": job},
        },
    }
    body["metadata"]["annotations"][HASH] = digest(body)
    return body


def cron_job_name(policy: str) -> str:
    return f"{policy}-dump"


def dump_job(setting: Setting, *, backup: str, uid: str, reason: str | None, retain_until: datetime | None) -> Body:
    """The Job of a backup now. It is not tried again: whoever asked looks at it."""
    labels = _labels(setting.policy.name, "dump") | {BACKUP: backup}
    spec = _job_spec(
        pod=setting.spec.pod,
        labels=labels,
        image=setting.image,
        run="dump",
        config=dump_config(setting, backup=backup, reason=reason, retain_until=retain_until),
        sources=dump_sources(setting),
        deadline=int(setting.spec.timeout.seconds),
        retries=0,
    )
    name = f"{backup}-dump"
    return _job(name, setting.policy.namespace, labels, spec, Owner(kind="PostgresBackup", name=backup, uid=uid))


def verify_job(
    *,
    installation: str,
    policy: ObjectKey,
    pod: PodSettings,
    destination: DestinationSpec,
    recipient: AgeRecipient,
    image: str,
    backup: str,
    uid: str,
    manifest: str,
    attempt: int = 1,
) -> Body:
    """The Job that reads a backup back: with the credential that reads, and a key that opens. Each attempt has a name
    of its own, so that what an earlier one said stays."""
    labels = _labels(policy.name, "verify") | {BACKUP: backup}
    spec = _job_spec(
        pod=pod,
        labels=labels,
        image=image,
        run="verify",
        config=verify_config(installation=installation, policy=policy, destination=destination, manifest=manifest),
        sources=verify_sources(destination, recipient),
        deadline=VERIFY_TIMEOUT,
        retries=1,
    )
    # of one length: a backup's name may have 56 characters and a Job's 63
    name = f"{backup}-verify" if attempt == 1 else f"{backup}-read-{attempt}"
    return _job(name, policy.namespace, labels, spec, Owner(kind="PostgresBackup", name=backup, uid=uid))


def restore_job_name(operation: str, uid: str) -> str:
    """Of the very object: one that is made anew under the same name is another."""
    return f"{operation[:44].rstrip('-.')}-restore-{short_hash(uid)}".replace(".", "-")


def restore_job(restoring: Restoring, *, pod: PodSettings, image: str, uid: str, deadline: int) -> Body:
    """The Job of a Restore. It is never tried again."""
    name = restore_job_name(restoring.operation.name, uid)
    labels = {"app.kubernetes.io/managed-by": "pgtend", OPERATION: name, RUN: "restore"}
    spec = _job_spec(
        pod=pod,
        labels=labels,
        image=image,
        run="restore",
        config=restore_config(restoring),
        sources=restore_sources(restoring),
        deadline=deadline,
        retries=0,
    )
    owner = Owner(kind="PostgresOperation", name=restoring.operation.name, uid=uid)
    return _job(name, restoring.operation.namespace, labels, spec, owner)


def digest(body: Mapping[str, Any]) -> str:
    """A hash that changes with any word of the body."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]


def _labels(policy: str, run: Literal["dump", "verify"]) -> dict[str, str]:
    return {"app.kubernetes.io/managed-by": "pgtend", POLICY: policy, RUN: run}


def _job(name: str, namespace: str, labels: Mapping[str, str], spec: Body, owner: Owner) -> Body:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": dict(labels),
            "ownerReferences": [owner.to_wire()],
        },
        "spec": {**spec, "ttlSecondsAfterFinished": TTL},
    }


def _job_spec(
    *,
    pod: PodSettings,
    labels: Mapping[str, str],
    image: str,
    run: str,
    config: Body,
    sources: Mapping[str, list[Body]],
    deadline: int,
    retries: int,
) -> Body:
    mounts: list[Body] = [
        {"name": "job", "mountPath": str(ROOT / "job"), "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own, in memory
    ]
    volumes: list[Body] = [
        {
            "name": "job",
            "downwardAPI": {
                "items": [{"path": "job.json", "fieldRef": {"fieldPath": f"metadata.annotations['{CONFIG}']"}}]
            },
        },
        # the password file and what libpq reads; never on a disk
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
    ]
    for name, listed in sources.items():
        mounts.append({"name": name, "mountPath": str(ROOT / name), "readOnly": True})
        volumes.append({"name": name, "projected": {"defaultMode": 0o440, "sources": listed}})
    template: Body = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": run,
                "image": image,
                "args": ["job", run, "--config", str(ROOT / "job" / "job.json")],
                "env": [variable.to_wire() for variable in pod.env],
                "resources": {"requests": pod.requests(), "limits": pod.limits()},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if pod.service_account_name:
        template["serviceAccountName"] = pod.service_account_name
    if pod.node_selector:
        template["nodeSelector"] = dict(pod.node_selector)
    if pod.tolerations:
        template["tolerations"] = [toleration.to_wire() for toleration in pod.tolerations]
    if pod.priority_class_name:
        template["priorityClassName"] = pod.priority_class_name
    if pod.image_pull_secrets:
        template["imagePullSecrets"] = [secret.to_wire() for secret in pod.image_pull_secrets]
    return {
        "backoffLimit": retries,
        "activeDeadlineSeconds": max(60, deadline),
        "template": {
            "metadata": {
                "labels": {**pod.labels, **labels},
                "annotations": {**pod.annotations, CONFIG: json.dumps(config, sort_keys=True)},
            },
            "spec": template,
        },
    }
