"""What the operator itself sees go wrong with destinations, policies and backups, and no pod tells: a spec that the
schema cannot judge, a store that forgets or fails, an image or an identity that is not there."""

from __future__ import annotations

import json

import pytest
from tests.cluster.backup_ground import Ground, key_of
from tests.cluster.conftest import StartOperator
from tests.cluster.test_backups import BACKUP, DESTINATION, POLICY, ground
from tests.fixtures.gateway import Gateway

__all__ = ["ground"]


@pytest.mark.covers(
    "BackupDestination.reason.InvalidSpec",
    "PostgresBackup.reason.InvalidSpec",
    "PostgresBackupPolicy.reason.InvalidSpec",
    "PostgresBackupPolicy.reason.NotAccepted",
    "BackupDestination.reason.ConditionalWritesNotHonored",
    "BackupDestination.reason.ReadFailed",
    "BackupDestination.reason.UploadFailed",
)
@pytest.mark.timeout(180)
def test_specs_and_stores_that_no_schema_can_judge(ground: Ground, gateway: Gateway, operator: StartOperator) -> None:
    cluster, space = ground.cluster, ground.space
    operator([space])
    # a space that does not break, as it is copied from a page
    ground.apply("BackupDestination", "odd", ground.destination_spec(endpoint="https://s3.example\u00a0"))
    ground.apply("PostgresBackupPolicy", "odd", ground.policy_spec(timeout="999999999d"))
    ground.apply("PostgresBackup", "odd", {"policyRef": {"name": "orders"}, "notAfter": "0000-01-01T00:00:00Z"})
    buckets = {name: ground.s3.fresh_bucket(name) for name in ("forgets", "unread", "unwritten")}
    gateway.forgets = True
    gateway.fails = lambda method, path: (
        (method == "GET" and path.startswith(f"/{buckets['unread']}"))
        or (method == "PUT" and path.startswith(f"/{buckets['unwritten']}"))
    )
    for name, bucket in buckets.items():
        ground.apply("BackupDestination", name, ground.destination_spec(bucket=bucket, endpoint=gateway.endpoint))

    found = cluster.wait_condition(DESTINATION, space, "odd", "Accepted", "False", "InvalidSpec")
    assert "spec.s3.endpoint" in found["message"]
    found = cluster.wait_condition(POLICY, space, "odd", "Accepted", "False", "InvalidSpec")
    assert "spec.timeout" in found["message"]
    cluster.wait_condition(POLICY, space, "odd", "BackupCurrent", "Unknown", "NotAccepted")
    found = cluster.wait_condition(BACKUP, space, "odd", "Complete", "False", "InvalidSpec")
    assert "spec.notAfter" in found["message"]

    found = cluster.wait_condition(DESTINATION, space, "forgets", "Safe", "False", "ConditionalWritesNotHonored")
    assert "If-None-Match" in found["message"]
    cluster.wait_condition(DESTINATION, space, "forgets", "Ready", "False", "ConditionalWritesNotHonored")
    for name, reason in (("unread", "ReadFailed"), ("unwritten", "UploadFailed")):
        found = cluster.wait_condition(DESTINATION, space, name, "Reachable", "False", reason)
        assert "the disk is full" in found["message"], found


@pytest.mark.covers(
    "*.reason.ToolsImageMissing",
    "*.reason.IdentityMissing",
    "PostgresBackupPolicy.reason.RetentionFailed",
    "PostgresBackup.reason.Waiting",
)
@pytest.mark.timeout(300)
def test_what_is_missing_around_a_backup_is_told_and_taken_up(
    ground: Ground, gateway: Gateway, operator: StartOperator
) -> None:
    cluster, space = ground.cluster, ground.space
    process = operator([space], run=False)
    process.start(tools_majors="14")
    # nobody in the cluster can open it, and nobody has made the Secret of the credential that deletes
    destination = ground.destination_spec(endpoint=gateway.endpoint)
    del destination["encryption"]["age"]["recipients"][0]["identity"]
    destination["s3"]["credentials"]["delete"] = key_of("nowhere")
    ground.apply("BackupDestination", "s3", destination)
    ground.target()
    ground.policy()
    ground.apply("PostgresBackup", "now", {"policyRef": {"name": "orders"}})
    found = cluster.wait_condition(POLICY, space, "orders", "Ready", "False", "ToolsImageMissing", seconds=60)
    assert "tools.majors" in found["message"]
    cluster.wait_condition(BACKUP, space, "now", "Complete", "False", "ToolsImageMissing")
    assert ground.jobs() == []

    # with an image the wish goes on by itself
    process.crash()
    cluster.wait_condition(POLICY, space, "orders", "Ready", "True", "InForce")
    found = cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "False", "RetentionFailed")
    assert "nowhere" in found["message"]
    cluster.wait_condition(BACKUP, space, "now", "Complete", "Unknown", "Running", seconds=60)
    told = ground.run_pod("now-dump")
    assert told["outcome"] == "Succeeded", told
    found = cluster.wait_condition(BACKUP, space, "now", "Verified", "False", "IdentityMissing", seconds=60)
    assert "identity" in found["message"]
    cluster.wait_condition(POLICY, space, "orders", "Verified", "False", "IdentityMissing", seconds=60)
    assert ground.jobs() == ["now-dump"]

    # a record of what the bucket holds waits while the store fails
    gateway.fails = lambda method, path: method == "GET"
    stored = {"destinationRef": {"name": "s3"}, "manifest": told["manifest"]}
    ground.apply("PostgresBackup", "found", {"stored": stored})
    found = cluster.wait_condition(BACKUP, space, "found", "Complete", "Unknown", "Waiting", seconds=60)
    assert "the disk is full" in found["message"]
    gateway.fails = lambda method, path: False
    touch = json.dumps({"metadata": {"annotations": {"pgtend.dev/reconcile": "1"}}})
    cluster.kubectl("patch", BACKUP, "-n", space, "found", "--type=merge", "-p", touch)
    cluster.wait_condition(BACKUP, space, "found", "Complete", "True", "Committed", seconds=60)
