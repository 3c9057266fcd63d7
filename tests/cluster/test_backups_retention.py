"""Retention as the operator carries it out, on a real bucket: of real backups whose times lie back it deletes those
that have expired and may go, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cluster.backup_ground import Ground, key_of
from tests.cluster.conftest import StartOperator
from tests.cluster.harness import wait
from tests.cluster.test_backups import BACKUP, DESTINATION, POLICY, ground

__all__ = ["ground"]
DAY = 86_400
FOREVER = {"keepFor": "3650d", "minVerified": 1}


@pytest.mark.long
@pytest.mark.covers(
    "PostgresBackupPolicy.spec.retention.keepFor",
    "PostgresBackupPolicy.spec.retention.minVerified",
    "PostgresBackup.spec.retainUntil",
    "PostgresBackup.spec.stored.destinationRef.name",
    "PostgresBackup.spec.stored.manifest",
    "PostgresBackup.reason.Missing",
    "PostgresBackup.reason.VerifyPending",
    "PostgresBackupPolicy.reason.LastRunFailed",
    "PostgresBackupPolicy.reason.BelowFloor",
    "PostgresBackupPolicy.reason.DeleteDenied",
    "PostgresBackupPolicy.reason.Overdue",
    "PostgresBackupPolicy.reason.VerifyOverdue",
)
@pytest.mark.timeout(600)
def test_exactly_what_has_expired_goes(ground: Ground, operator: StartOperator) -> None:
    cluster, space = ground.cluster, ground.space
    process = operator([space])
    ground.destination()
    ground.target()
    ground.policy(retention=FOREVER)
    cluster.wait_condition(POLICY, space, "orders", "Ready", "True", "InForce", seconds=90)
    process.kill9()
    taken = {days: ground.take(days=days, verified=days != 41) for days in (60, 50, 45, 41, 35, 20, 2)}
    folder = {days: str(told["manifest"]).rpartition("/")[0] for days, told in taken.items()}
    name = {days: str(told["backupName"]) for days, told in taken.items()}
    others = str(ground.take(days=70, policy={"namespace": space, "name": "other"})["manifest"]).rpartition("/")[0]
    system = folder[60].split("/")[1]
    foreign = ["production/notes.txt", f"production/{system}/dump/readme", f"{folder[60]}/extra.txt"]
    for key in foreign:
        ground.s3.client().put_object(Bucket=ground.bucket, Key=key, Body=b"somebody's")
    for key in (f"production/{system}/dump/20260101-000000-abcd/orders.dump.zst.age", "production/upload.bin"):
        ground.s3.client().create_multipart_upload(Bucket=ground.bucket, Key=key)
    start = everything(ground)

    # each gets its record; one is held
    process.start()
    for days in taken:
        cluster.wait_condition(BACKUP, space, name[days], "Complete", "True", "Committed", seconds=90)
    cluster.wait_condition(BACKUP, space, name[41], "Verified", "Unknown", "VerifyPending", seconds=60)
    ground.apply("PostgresBackup", "by-hand", stored(f"{folder[45]}/manifest.json"))
    ground.apply("PostgresBackup", "nowhere", stored(f"{folder[45]}0/manifest.json"))
    cluster.wait_condition(BACKUP, space, "by-hand", "Ready", "True", "Verified", seconds=60)
    cluster.wait_condition(BACKUP, space, "nowhere", "Complete", "False", "Missing", seconds=60)
    hold = json.dumps({"spec": {"retainUntil": "2099-01-01T00:00:00Z"}})
    cluster.kubectl("patch", BACKUP, "-n", space, name[50], "--type=merge", "-p", hold)
    wait("the hold is seen", lambda: expires(ground, name[50]).startswith("2099"), seconds=60)

    # nothing goes while the last run has failed, nor below the floor
    cluster.kubectl("create", "job", "-n", space, "--from=cronjob/orders-dump", "orders-dump-1")
    words = json.dumps({"kind": "Dump", "outcome": "Failed", "reason": "LockTimeout", "message": "shop.orders"})

    def fail() -> bool:
        for pod in ground.pods("orders-dump-1"):
            if pod["status"]["phase"] == "Pending":
                ground.end_pod(pod["metadata"]["name"], pod["spec"]["containers"][0], status=1, message=words)
        found = cluster.condition(POLICY, space, "orders", "BackupCurrent") or {}
        return bool(found.get("reason") == "LockTimeout")

    wait("the run has failed", fail, seconds=120, every=1.0)
    ground.policy(retention={"keepFor": "30d", "minVerified": 2})
    cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "Unknown", "LastRunFailed", seconds=60)
    assert everything(ground) == start
    ground.policy(retention={"keepFor": "30d", "minVerified": 1000})
    newest = str(ground.scheduled("orders-dump-2")["manifest"]).rpartition("/")[0]
    found = cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "False", "BelowFloor", seconds=90)
    assert "fewer than 1000 are verified" in found["message"]
    assert start <= everything(ground)

    # what has expired goes, but for the one that is held; what is not ours stays even beside it
    ground.policy(retention={"keepFor": "30d", "minVerified": 2})
    left = {folder[50], folder[20], folder[2], newest, others}
    wait("four have gone", lambda: folders(ground) == left, seconds=90)
    assert set(foreign) <= everything(ground)
    cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "True", "AsExpected", seconds=60)
    for days in (60, 45, 41, 35):
        cluster.wait_condition(BACKUP, space, name[days], "Available", "False", "Expired", seconds=60)
    cluster.wait_condition(BACKUP, space, "by-hand", "Available", "False", "Expired", seconds=60)
    for days in (50, 20, 2):
        cluster.wait_condition(BACKUP, space, name[days], "Available", "True", "AsExpected")

    # a credential that may not delete is told, and deletes nothing
    spec = ground.destination_spec()
    spec["s3"]["credentials"]["delete"] = key_of("s3-reader")
    ground.apply("BackupDestination", "s3", spec)
    generation = (cluster.get(DESTINATION, space, "s3") or {})["metadata"]["generation"]
    wait("the destination is looked at", lambda: observed(ground, DESTINATION, "s3") == generation, seconds=60)
    ground.policy(retention={"keepFor": "10d", "minVerified": 1})
    cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "False", "DeleteDenied", seconds=90)
    assert folders(ground) == left
    ground.destination()

    # the newest and the newest that is verified stay, however old they are
    ground.policy(retention={"keepFor": "1s", "minVerified": 1})
    wait("one more has gone", lambda: folders(ground) == left - {folder[20]}, seconds=90)

    # three days later: what nobody ended is swept, what did not come is overdue, what somebody took is missing
    ground.policy(retention={"keepFor": "30d", "minVerified": 1})
    record = Path(newest).name[:15]
    wait("its record lives on", lambda: expires(ground, f"orders-{record}") > expires(ground, name[2]), seconds=60)
    process.kill9()
    ground.s3.client().delete_object(Bucket=ground.bucket, Key=f"{folder[2]}/manifest.json")
    process.start(ahead=3 * DAY)
    wait("only the foreign upload is left", lambda: ground.s3.uploads(ground.bucket) == ["production/upload.bin"],
         seconds=90)  # fmt: skip
    cluster.wait_condition(POLICY, space, "orders", "BackupCurrent", "False", "Overdue", seconds=90)
    cluster.wait_condition(POLICY, space, "orders", "Verified", "False", "VerifyOverdue", seconds=60)
    cluster.wait_condition(BACKUP, space, name[2], "Available", "False", "Missing", seconds=60)
    wait("records of what retention took are gone", lambda: cluster.get(BACKUP, space, name[60]) is None, seconds=60)
    assert cluster.get(BACKUP, space, "by-hand") is not None
    assert set(foreign) <= everything(ground)


def stored(manifest: str) -> dict[str, object]:
    return {"stored": {"destinationRef": {"name": "s3"}, "manifest": manifest}}


def everything(ground: Ground) -> set[str]:
    return set(ground.s3.keys(ground.bucket))


def folders(ground: Ground) -> set[str]:
    """Of the backups that are committed."""
    return {key.rpartition("/")[0] for key in everything(ground) if key.endswith("/manifest.json")}


def expires(ground: Ground, name: str) -> str:
    found = ground.cluster.get(BACKUP, ground.space, name) or {}
    return str(found.get("status", {}).get("expiresAt", ""))


def observed(ground: Ground, kind: str, name: str) -> int:
    return int(((ground.cluster.get(kind, ground.space, name) or {}).get("status") or {}).get("observedGeneration", 0))
