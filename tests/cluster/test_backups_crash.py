"""The operator is killed at every step of a backup's life, from the CronJob to the end of its record: nothing happens
twice, nothing that should stay is deleted, and what was begun is ended."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass

import pytest
from tests.cluster.backup_ground import Ground
from tests.cluster.conftest import StartOperator
from tests.cluster.harness import ROOT, OperatorProcess, wait
from tests.cluster.test_backups import BACKUP, POLICY, ground
from tests.cluster.test_restore import AFTER_JOB, BEFORE_JOB

from pgtend.core.failpoints import names

__all__ = ["ground"]

STEPS = {
    "cronjob": ("backups.policy.before_cronjob", "backups.policy.after_cronjob"),
    "dump": ("backups.record.before_dump", "backups.record.after_dump"),
    "verify": ("backups.record.before_verify", "backups.record.after_verify"),
    "record": ("backups.policy.before_record", "backups.policy.after_record"),
    "retention": (
        "objectstore.sweep.overwrite.before",
        "objectstore.sweep.overwrite.after",
        "objectstore.sweep.delete.before",
        "objectstore.sweep.delete.after",
    ),
    "drop": ("backups.policy.before_drop_record",),
}
ALL = tuple(point for step in STEPS.values() for point in step)
SEED = int(os.environ.get("PGTEND_SEED", "20"))
BEGINNING = tuple(point for step in ("cronjob", "dump", "verify") for point in STEPS[step])
SOME = tuple(random.Random(SEED).sample(BEGINNING, 3))  # noqa: S311 - chooses what is tested


def test_every_failpoint_of_the_operator_is_walked() -> None:
    """Those of the pods are walked in tests/postgres, those of a Restore in test_restore."""
    rooms = ROOT / "operator" / "pgtend" / "backups"
    own = set(names(rooms)) - set(names(rooms / "jobs"))
    assert own <= {*ALL, BEFORE_JOB, AFTER_JOB}


@dataclass
class Crashes:
    """Kills the operator where it is asked to."""

    process: OperatorProcess
    points: tuple[str, ...]

    def at(self, step: str) -> None:
        """Kill it at each chosen point of a step, one after the other; it is down afterwards."""
        self.down()
        for point in STEPS[step]:
            if point in self.points:
                self.process.start(failpoints=f"{point}=kill")
                self.process.killed(point)

    def down(self) -> None:
        if self.process.running:
            self.process.kill9()

    def up(self) -> None:
        self.down()
        self.process.start()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "points", [pytest.param(SOME, id="some"), pytest.param(ALL, id="all", marks=pytest.mark.crash)]
)
def test_killed_at_any_step_of_a_backups_life_it_converges(
    ground: Ground, operator: StartOperator, points: tuple[str, ...]
) -> None:
    cluster, space = ground.cluster, ground.space
    print(f"PGTEND_SEED={SEED}: {points}")
    process = operator([space], run=False)
    crash = Crashes(process, points)
    mark = cluster.audit_mark()

    def done() -> Counter[str]:
        """What the operator has created and deleted."""
        return Counter(
            f"{event['verb']} {event['objectRef']['resource']} {event['objectRef'].get('name', '')}"
            for event in cluster.audited(since=mark, user=process.user)
            if event["verb"] in ("create", "delete")
            and event["responseStatus"]["code"] < 300
            and event["objectRef"]["resource"] in ("cronjobs", "jobs", "postgresbackups")
        )

    ground.destination()
    ground.target()
    ground.policy()
    crash.at("cronjob")
    crash.up()
    cluster.wait_condition(POLICY, space, "orders", "Ready", "True", "InForce", seconds=90)

    crash.down()  # or it has made the Job before it is killed, and the next never passes that point
    ground.apply("PostgresBackup", "now", {"policyRef": {"name": "orders"}})
    crash.at("dump")
    crash.up()
    cluster.wait_condition(BACKUP, space, "now", "Complete", "Unknown", "Running", seconds=90)
    crash.down()
    assert ground.run_pod("now-dump")["outcome"] == "Succeeded"
    crash.at("verify")
    crash.up()
    assert ground.run_pod("now-verify")["outcome"] == "Succeeded"
    cluster.wait_condition(BACKUP, space, "now", "Verified", "True", "AsExpected", seconds=90)
    made = Counter(["create cronjobs orders-dump", "create jobs now-dump", "create jobs now-verify"])
    assert done() == made
    if not set(points) - set(BEGINNING):
        return

    crash.down()
    scheduled = [ground.scheduled(f"orders-dump-{number}")["backupName"] for number in (1, 2)]
    crash.at("record")
    crash.up()
    for name in scheduled:
        assert ground.run_pod(f"{name}-verify")["outcome"] == "Succeeded"
        cluster.wait_condition(BACKUP, space, name, "Verified", "True", "AsExpected", seconds=90)

    # all but the newest have expired
    crash.down()
    ground.policy(retention={"keepFor": "1s", "minVerified": 1})
    crash.at("retention")
    crash.up()
    found = cluster.wait_condition(BACKUP, space, "now", "Available", "False", "Expired", seconds=90)
    assert "retention" in found["message"]
    crash.at("drop")
    crash.up()
    wait("its record is gone", lambda: cluster.get(BACKUP, space, scheduled[0]) is None, seconds=120)
    cluster.wait_condition(POLICY, space, "orders", "RetentionSafe", "True", "AsExpected", seconds=90)

    left = {key.rpartition("/")[0] for key in ground.s3.keys(ground.bucket) if "/.pgtend/" not in key}
    newest = (cluster.get(BACKUP, space, scheduled[1]) or {})["status"]
    assert left == {newest["manifest"].rpartition("/")[0]}
    assert newest["verified"] and ground.s3.uploads(ground.bucket) == []
    records = cluster.kubectl("get", BACKUP, "-n", space, "-o", "name").split()
    assert sorted(name.partition("/")[2] for name in records) == sorted(["now", scheduled[1]])
    status = (cluster.get(POLICY, space, "orders") or {})["status"]
    assert (status["backups"]["total"], status["backups"]["verified"]) == (1, 1)
    made += Counter(f"create jobs {name}-verify" for name in scheduled)
    made += Counter(
        [*(f"create postgresbackups {name}" for name in scheduled), f"delete postgresbackups {scheduled[0]}"]
    )
    assert done() == made
