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
from tests.cluster.test_restore import job_of, owner_for, restore, target

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

    # what has expired goes, but for the one that is held and the one that a pod is about to read; what is not ours
    # stays even beside it
    ground.policy(retention={"keepFor": "30d", "minVerified": 2})
    left = {folder[50], folder[20], folder[2], newest, others}
    wait("three have gone", lambda: folders(ground) == left | {folder[41]}, seconds=90)
    assert set(foreign) <= everything(ground)
    found = cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "True", "AsExpected", seconds=60)
    assert "1 by retainUntil, 1 while they are restored or read back" in found["message"]
    for days in (60, 45, 35):
        cluster.wait_condition(BACKUP, space, name[days], "Available", "False", "Expired", seconds=60)
    cluster.wait_condition(BACKUP, space, "by-hand", "Available", "False", "Expired", seconds=60)
    assert ground.run_pod(f"{name[41]}-verify")["outcome"] == "Succeeded"
    wait("it goes when it was read", lambda: folders(ground) == left, seconds=120)
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


@pytest.mark.long
@pytest.mark.covers(
    "PostgresBackupPolicy.spec.retention.keep.*",
    "PostgresBackupPolicy.spec.retention.execution",
    "PostgresBackupPolicy.reason.DryRun",
)
@pytest.mark.timeout(600)
def test_generations_stay_and_so_does_what_is_being_restored(ground: Ground, operator: StartOperator) -> None:
    cluster, space = ground.cluster, ground.space
    process = operator([space])
    ground.destination()
    owner = owner_for(ground)
    target(ground, words=["Restore"])
    ground.policy(retention=FOREVER)
    cluster.wait_condition(POLICY, space, "orders", "Ready", "True", "InForce", seconds=90)
    process.kill9()
    # of five days, weeks, months and years, whatever day it is today
    taken = {days: ground.take(days=days) for days in (1601, 1201, 801, 401, 1)}
    folder = {days: str(told["manifest"]).rpartition("/")[0] for days, told in taken.items()}
    name = {days: str(told["backupName"]) for days, told in taken.items()}
    start = everything(ground)
    process.start()
    for days in taken:
        cluster.wait_condition(BACKUP, space, name[days], "Verified", "True", "AsExpected", seconds=90)

    def keep(execution: str = "Run", **periods: int) -> None:
        retention = {"keepFor": "1s", "minVerified": 1, "keep": periods, "execution": execution}
        ground.policy(retention=retention)

    def left(*days: int) -> None:
        wait(f"{days} are left", lambda: folders(ground) == {folder[d] for d in days}, seconds=90)

    # a dry run says what would go
    keep("DryRun", yearly=4)
    found = cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "True", "DryRun", seconds=60)
    assert "1 backups (" in found["message"] and f"would be deleted: {name[1601]};" in found["message"]
    assert everything(ground) == start
    said = [line for line in process.log.splitlines() if '"retention would delete"' in line]
    assert name[1601] in said[-1] and name[1201] not in said[-1]

    keep(yearly=4)
    left(1201, 801, 401, 1)
    found = cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "True", "AsExpected", seconds=60)
    assert "of those that have expired stay 4 by retention.keep" in found["message"]
    wait("its record says so", lambda: "and stays" in available(ground, name[1201]), seconds=60)

    # a restore that has begun is not bereft of its backup, and then it goes
    copy = ground.server.fresh_name("copy")
    restore(ground, "back", copy, into={"owner": owner}, backup=name[1201])
    job = str(job_of(ground, "back")["metadata"]["name"])
    keep(monthly=2)
    left(1201, 401, 1)
    found = cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "True", "AsExpected", seconds=60)
    assert "1 while they are restored" in found["message"]
    assert ground.run_pod(job)["outcome"] == "Succeeded"
    cluster.wait_condition("postgresoperation", space, "back", "Complete", "True", "Succeeded", seconds=90)
    left(401, 1)
    assert ground.server.execute("SELECT count(*) FROM shop.orders", dbname=copy)

    keep(weekly=2)
    cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "True", "AsExpected", seconds=60)
    assert folders(ground) == {folder[401], folder[1]}
    keep(daily=1)
    left(1)


def available(ground: Ground, name: str) -> str:
    return str((ground.cluster.condition(BACKUP, ground.space, name, "Available") or {}).get("message", ""))


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
