"""Workers that are lost on the way: each ends with its own reason, leaves nothing in the bucket, and is forgotten when
another succeeds."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tests.cluster.backup_ground import Ground
from tests.cluster.conftest import StartOperator
from tests.cluster.harness import wait
from tests.cluster.test_backups import BACKUP, POLICY, ground

__all__ = ["ground"]
CONTAINER = {"name": "dump", "image": "pgtend/tools:dev-pg18"}


def failed_pod(ground: Ground, job: str) -> str:
    """The name of a Job's pod."""
    return str(wait(f"a pod of Job {job}", lambda: ground.pods(job), seconds=60)[-1]["metadata"]["name"])


def patch_status(ground: Ground, pod: str, status: dict[str, Any]) -> None:
    ground.cluster.kubectl(
        "patch", "pod", "-n", ground.space, pod, "--subresource=status", "--type=merge",
        "-p", json.dumps({"status": status}),
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.covers(
    "PostgresBackup.reason.WorkerLost",
    "PostgresBackup.reason.Evicted",
    "PostgresBackup.reason.OutOfMemory",
    "PostgresBackup.reason.PodFailed",
    "PostgresBackup.reason.DeadlineExceeded",
    "PostgresBackup.reason.ImageMissing",
    "PostgresBackup.reason.BucketUnreachable",
    "PostgresBackup.reason.NotComplete",
    "PostgresBackupPolicy.reason.WorkerLost",
    "PostgresBackupPolicy.reason.Evicted",
    "PostgresBackupPolicy.reason.OutOfMemory",
    "PostgresBackupPolicy.reason.PodFailed",
    "PostgresBackupPolicy.reason.DeadlineExceeded",
    "PostgresBackupPolicy.reason.ImageMissing",
    "PostgresBackupPolicy.reason.BucketUnreachable",
    "PostgresTarget.reason.BackupNotVerified",
)
@pytest.mark.timeout(600)
def test_each_way_to_lose_a_worker_has_its_reason_and_a_success_ends_it(
    ground: Ground, operator: StartOperator
) -> None:
    cluster, space = ground.cluster, ground.space
    process = operator([space])
    ground.destination()
    ground.target()
    ground.policy()
    ground.apply("PostgresBackupPolicy", "short", ground.policy_spec(timeout="90s"))
    for name in ("orders", "short"):
        cluster.wait_condition(POLICY, space, name, "Ready", "True", "InForce", seconds=90)
    for name, policy in (("late", "short"), ("image", "short"), ("killed", "orders")):
        ground.apply("PostgresBackup", name, {"policyRef": {"name": policy}})
        wait(f"the Job of {name}", lambda name=name: f"{name}-dump" in ground.jobs(), seconds=60)
        time.sleep(
            1.0
        )  # moments are told in seconds, and the policy speaks of the last attempt: the next is a later one

    # an image that cannot be pulled is told while it lasts
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    pulling = {**CONTAINER, "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
    patch_status(ground, failed_pod(ground, "image-dump"), {"phase": "Pending", "containerStatuses": [pulling]})
    found = cluster.wait_condition(BACKUP, space, "image", "Complete", "Unknown", "ImageMissing", seconds=60)
    assert "ImagePullBackOff" in found["message"] and "tools.image" in found["message"]
    cluster.kubectl("annotate", POLICY, "-n", space, "short", "pgtend.dev/reconcile=1")
    cluster.wait_condition(POLICY, space, "short", "BackupCurrent", "False", "ImageMissing", seconds=60)

    # the backend of a real dump is killed half-way
    ground.server.execute(
        "CREATE TABLE shop.wide AS SELECT g, repeat(md5(g::text), 40) AS t FROM generate_series(1, 20000) g",
        dbname=ground.database,
    )
    told = ground.run_pod("killed-dump", failpoints="backups.dump.stream_started=sleep:5", during=lambda: kill(ground))
    assert (told["outcome"], told["reason"]) == ("Failed", "DumpFailed"), told
    assert [key for key in ground.s3.keys(ground.bucket) if "/.pgtend/" not in key] == []
    assert ground.s3.uploads(ground.bucket) == []
    failed(ground, "killed", "DumpFailed", "COPY shop.wide")

    for name in ("gone", "evicted", "hungry", "shot", "dumb"):
        ground.apply("PostgresBackup", name, {"policyRef": {"name": "orders"}})
        wait(f"the Job of {name}", lambda name=name: f"{name}-dump" in ground.jobs(), seconds=60)
    cluster.kubectl("delete", "pod", "-n", space, failed_pod(ground, "gone-dump"), "--wait=false")
    failed(ground, "gone", "WorkerLost", "its pod is gone")
    words = json.dumps({"kind": "Dump", "outcome": "Failed", "reason": "Interrupted", "message": "told to stop"})
    pod = failed_pod(ground, "evicted-dump")
    patch_status(ground, pod, {"reason": "Evicted", "message": "the node was low on memory"})
    ground.end_pod(pod, CONTAINER, status=1, message=words)
    failed(ground, "evicted", "Evicted", "low on memory")
    ground.end_pod(failed_pod(ground, "hungry-dump"), CONTAINER, status=137, reason="OOMKilled")
    failed(ground, "hungry", "OutOfMemory", "spec.pod.resources.limits.memory")
    ground.end_pod(failed_pod(ground, "shot-dump"), CONTAINER, status=137)
    failed(ground, "shot", "WorkerLost", "killed from outside")
    ground.end_pod(failed_pod(ground, "dumb-dump"), CONTAINER, status=3, message="Segmentation fault")
    failed(ground, "dumb", "PodFailed", "status 3")

    # the deadline of the first two has passed by now, or soon
    cluster.wait_condition(BACKUP, space, "late", "Complete", "False", "DeadlineExceeded", seconds=120)
    found = cluster.wait_condition(BACKUP, space, "image", "Complete", "False", "ImageMissing", seconds=60)
    assert "until its deadline" in found["message"]
    cluster.wait_condition(POLICY, space, "short", "BackupCurrent", "False", "DeadlineExceeded", seconds=60)

    # a success ends it; reading it back fails once, is repeated, and is told as failed until it has succeeded
    ground.apply("PostgresBackup", "good", {"policyRef": {"name": "orders"}})
    assert ground.run_pod("good-dump")["outcome"] == "Succeeded"
    cluster.wait_condition(POLICY, space, "orders", "BackupCurrent", "True", "AsExpected", seconds=90)
    words = json.dumps(
        {"kind": "Verify", "outcome": "Failed", "reason": "BucketUnreachable", "message": "no route", "transient": True}
    )
    seen = set()

    def fail() -> bool:
        """Kubernetes itself tries it once more, so two pods fail."""
        for pod in ground.pods("good-verify"):
            if pod["status"]["phase"] == "Pending" and pod["metadata"]["name"] not in seen:
                seen.add(pod["metadata"]["name"])
                ground.end_pod(pod["metadata"]["name"], {**CONTAINER, "name": "verify"}, status=1, message=words)
        found = cluster.condition(BACKUP, space, "good", "Verified") or {}
        return bool(found.get("status") == "False")

    wait("reading it back has failed", fail, seconds=120, every=1.0)
    found = cluster.wait_condition(BACKUP, space, "good", "Verified", "False", "BucketUnreachable")
    assert "it is read again at" in found["message"]
    cluster.wait_condition(POLICY, space, "orders", "Verified", "False", "BucketUnreachable", seconds=60)
    found = cluster.wait_condition("postgrestarget", space, "orders", "BackedUp", "False", "BackupNotVerified")
    assert "BucketUnreachable" in found["message"]
    assert "good-read-2" not in ground.jobs()
    process.crash(ahead=3600)
    wait("it is read again", lambda: "good-read-2" in ground.jobs(), seconds=90)
    found = cluster.wait_condition(BACKUP, space, "good", "Verified", "False", "BucketUnreachable")
    assert ground.run_pod("good-read-2")["outcome"] == "Succeeded"
    cluster.wait_condition(BACKUP, space, "good", "Verified", "True", "AsExpected", seconds=90)
    cluster.wait_condition(POLICY, space, "orders", "Verified", "True", "AsExpected", seconds=90)


def failed(ground: Ground, name: str, reason: str, text: str) -> None:
    """It is told of the backup, which is not tried again, and of its policy."""
    cluster, space = ground.cluster, ground.space
    found = cluster.wait_condition(BACKUP, space, name, "Complete", "False", reason, seconds=90)
    assert text in found["message"], found
    cluster.wait_condition(BACKUP, space, name, "Stalled", "True", reason)
    cluster.wait_condition(BACKUP, space, name, "Available", "False", "NotComplete")
    found = cluster.wait_condition(POLICY, space, "orders", "BackupCurrent", "False", reason, seconds=60)
    assert text in found["message"], found


def kill(ground: Ground) -> None:
    """End the backend that copies the wide table, as soon as it does."""
    assert ground.role is not None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if ground.server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "  # noqa: S608
            f"WHERE usename = '{ground.role.user}' AND query LIKE 'COPY shop.wide%'"
        ):
            return
        time.sleep(0.05)
