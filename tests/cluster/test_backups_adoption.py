"""A cluster that was lost: what the bucket holds has its records again, can be restored from, and is kept as before."""

from __future__ import annotations

import pytest
from tests.cluster.backup_ground import Ground
from tests.cluster.conftest import StartOperator
from tests.cluster.harness import wait
from tests.cluster.test_backups import BACKUP, POLICY, ground
from tests.cluster.test_backups_retention import FOREVER, everything, folders
from tests.cluster.test_restore import job_of, owner_for, restore, target

__all__ = ["ground"]
LOST = "lost-cluster"


@pytest.mark.long
@pytest.mark.covers("PostgresBackupPolicy.spec.adoption", "PostgresBackupPolicy.reason.Contested")
@pytest.mark.timeout(600)
def test_the_records_of_a_lost_cluster_come_back_from_the_bucket(ground: Ground, operator: StartOperator) -> None:
    cluster, space = ground.cluster, ground.space
    process = operator([space])
    owner = owner_for(ground)

    def applied(**policy: str) -> None:
        ground.destination()
        target(ground, words=["Restore"])
        ground.policy(retention=FOREVER, **policy)
        cluster.wait_condition(POLICY, space, "orders", "Ready", "True", "InForce", seconds=90)

    applied()
    process.kill9()
    taken = {days: ground.take(days=days, installationID=LOST) for days in (3, 2)}
    other = ground.take(days=4, installationID=LOST, policy={"namespace": space, "name": "other"})
    folder = {days: str(told["manifest"]).rpartition("/")[0] for days, told in taken.items()}
    name = {days: str(told["backupName"]) for days, told in taken.items()}
    stranger = str(other["manifest"]).rpartition("/")[0]
    process.start()

    # another installation's are left alone, and told by a policy that has no backup of its own
    cluster.kubectl("delete", POLICY, "-n", space, "orders", "--timeout=90s")
    applied()
    found = cluster.wait_condition(POLICY, space, "orders", "BackupCurrent", "False", "NeverRun", seconds=60)
    assert f"holds 2 of installation {LOST} for a policy of this name" in found["message"]
    assert cluster.list(BACKUP, space) == []

    # adopted, they have their records; and again when the cluster has lost all of them
    applied(adoption="Always")
    for again in (False, True):
        if again:
            cluster.kubectl("delete", "pgbp,pgb,pgbd,pgt", "--all", "-n", space, "--timeout=90s")
            applied(adoption="Always")
        for days in (3, 2):
            cluster.wait_condition(BACKUP, space, name[days], "Verified", "True", "AsExpected", seconds=90)
        cluster.wait_condition(POLICY, space, "orders", "Verified", "True", "AsExpected", seconds=60)
        assert {item["metadata"]["name"] for item in cluster.list(BACKUP, space)} == set(name.values())
        status = (cluster.get(POLICY, space, "orders") or {})["status"]
        assert status["lastBackup"]["name"] == name[2] and status["backups"]["total"] == 2

    copy = ground.server.fresh_name("copy")
    restore(ground, "back", copy, into={"owner": owner}, backup=name[3])
    assert ground.run_pod(str(job_of(ground, "back")["metadata"]["name"]))["outcome"] == "Succeeded"
    cluster.wait_condition("postgresoperation", space, "back", "Complete", "True", "Succeeded", seconds=90)
    assert ground.server.execute("SELECT count(*) FROM shop.orders", dbname=copy) == [(5000,)]

    # retention takes what has expired and what crashed runs left, and nothing of anybody else's
    system = folder[2].split("/")[1]
    left = [f"production/{system}/dump/20260101-000000-{tail}/orders.dump.zst.age" for tail in ("abcd", "abce")]
    for key, installation in zip(left, (LOST, "another-cluster"), strict=True):
        of = {"pgtend-installation": installation, "pgtend-policy": f"{space}/orders"}
        ground.s3.client().put_object(Bucket=ground.bucket, Key=key, Body=b"half a dump", Metadata=of)
    ground.policy(adoption="Always", retention={"keepFor": "1s", "minVerified": 1})
    wait("the older one has gone", lambda: folders(ground) == {folder[2], stranger}, seconds=90)
    wait("the leftovers have gone", lambda: left[0] not in everything(ground), seconds=60)
    assert left[1] in everything(ground)

    # where the other installation turns out to live, nothing goes
    ground.take(days=0, installationID=LOST)
    before = everything(ground)
    ground.policy(adoption="Always", retention={"keepFor": "2s", "minVerified": 1})
    found = cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "False", "Contested", seconds=90)
    assert "another prefix" in found["message"]
    assert before <= everything(ground)
    ground.policy(retention={"keepFor": "2s", "minVerified": 1})
    cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "True", "AsExpected", seconds=90)
    cluster.wait_condition(BACKUP, space, name[2], "Available", "True", "AsExpected")
    assert before <= everything(ground)
