"""A key is replaced: older backups are still opened with it, newer ones are not for it, and what nobody opens any more
is told."""

from __future__ import annotations

import pyrage
import pytest
from tests.cluster.backup_ground import Ground
from tests.cluster.conftest import StartOperator
from tests.cluster.test_backups import BACKUP, POLICY, ground
from tests.cluster.test_restore import backed_up, job_of, restore, taken

__all__ = ["ground"]


@pytest.mark.long
@pytest.mark.covers(
    "BackupDestination.spec.encryption.age.recipients[].decryptOnly", "PostgresBackupPolicy.reason.RecipientGone"
)
@pytest.mark.timeout(400)
def test_a_key_is_replaced_and_what_was_sealed_with_it_is_still_opened(ground: Ground, operator: StartOperator) -> None:
    cluster, space = ground.cluster, ground.space
    operator([space])
    owner = backed_up(ground)
    cluster.wait_condition(POLICY, space, "orders", "EncryptionCurrent", "True", "AsExpected", seconds=60)

    spec = ground.destination_spec()
    old, escrow = spec["encryption"]["age"]["recipients"]
    fresh = pyrage.x25519.Identity.generate()
    cluster.secret(space, "identity-2", {"identity": f"{fresh}\n"})
    new = {
        "name": "verify-2",
        "publicKey": str(fresh.to_public()),
        "identity": {"secretRef": {"name": "identity-2"}},
    }
    outside = {"name": "escrow-2", "publicKey": str(pyrage.x25519.Identity.generate().to_public())}
    spec["encryption"]["age"]["recipients"] = [new, outside]
    ground.apply("BackupDestination", "s3", spec)
    found = cluster.wait_condition(POLICY, space, "orders", "EncryptionCurrent", "False", "RecipientGone", seconds=90)
    assert "1 of 1 backups, the newest now" in found["message"] and "escrow, verify" in found["message"]

    spec["encryption"]["age"]["recipients"] = [{**old, "decryptOnly": True}, new, outside]
    ground.apply("BackupDestination", "s3", spec)
    cluster.wait_condition(POLICY, space, "orders", "EncryptionCurrent", "True", "AsExpected", seconds=90)
    cluster.wait_condition("backupdestination", space, "s3", "Ready", "True", "InForce", seconds=60)

    # a newer one is not for the old key, and is read back with the new one
    cluster.wait_condition(POLICY, space, "orders", "Ready", "True", "InForce", seconds=60)
    taken(ground, "then")
    assert (cluster.get(BACKUP, space, "then") or {})["status"]["recipients"] == ["verify-2", "escrow-2"]
    assert ground.run_pod("then-verify")["outcome"] == "Succeeded"
    cluster.wait_condition(BACKUP, space, "then", "Verified", "True", "AsExpected", seconds=90)

    # the older one is restored with the old one
    copy = ground.server.fresh_name("copy")
    restore(ground, "back", copy, into={"owner": owner})
    assert ground.run_pod(str(job_of(ground, "back")["metadata"]["name"]))["outcome"] == "Succeeded"
    cluster.wait_condition("postgresoperation", space, "back", "Complete", "True", "Succeeded", seconds=90)

    # nobody at all is refused
    spec["encryption"]["age"]["recipients"] = [{**old, "decryptOnly": True}, {**escrow, "decryptOnly": True}]
    said = cluster.refused(
        {
            "apiVersion": "pgtend.dev/v1alpha1",
            "kind": "BackupDestination",
            "metadata": {"name": "nobody", "namespace": space},
            "spec": spec,
        }
    )
    assert "new backups are for somebody" in said
