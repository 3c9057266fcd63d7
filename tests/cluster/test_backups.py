"""Backups on a real API server, a real S3 server and a real PostgreSQL: from the CronJob to the record of a backup that
was read back, and what is said when something is missing."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.backup_ground import NOWHERE, Ground, body, key_of
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, wait, writes
from tests.fixtures.plugin import Postgres
from tests.fixtures.s3 import S3Server

DESTINATION, POLICY, BACKUP = "backupdestination", "postgresbackuppolicy", "postgresbackup"
TARGET = "postgrestarget"
AGE_KEY = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


@pytest.fixture
def ground(cluster: Cluster, tenant: Tenant, postgres: Postgres, s3: S3Server, tmp_path: Path) -> Ground:
    return Ground(cluster=cluster, space=tenant.namespace(), server=postgres(18), s3=s3, folder=tmp_path)


@pytest.mark.long
@pytest.mark.covers(
    "BackupDestination.spec.s3.*",
    "BackupDestination.spec.s3.credentials.*.accessKey.*.secretRef.name",
    "BackupDestination.spec.s3.credentials.*.accessKey.*.secretRef.key",
    "BackupDestination.spec.s3.ca.secretRef.*",
    "BackupDestination.spec.encryption.age.recipients[].*",
    "BackupDestination.spec.encryption.age.recipients[].identity.secretRef.*",
    "PostgresBackupPolicy.spec.*.name",
    "PostgresBackupPolicy.spec.dump.databases[].name",
    "PostgresBackup.spec.policyRef.name",
    "PostgresBackup.spec.reason",
    "*.reason.InForce",
    "*.reason.Accepted",
    "*.reason.AsExpected",
    "*.reason.NeverRun",
    "*.reason.NeverVerified",
    "*.reason.Running",
    "*.reason.Committed",
    "*.reason.Verified",
    "PostgresBackupPolicy.reason.VerifyPending",
    "BackupDestination.reason.Connected",
    "PostgresTarget.reason.NoPolicy",
    "PostgresTarget.reason.NotBackedUp",
    "PostgresTarget.reason.BackupNotKnown",
)
@pytest.mark.timeout(400)
def test_a_backup_now_from_the_wish_to_the_record_that_was_read_back(ground: Ground, operator: StartOperator) -> None:
    cluster, space = ground.cluster, ground.space
    process = operator([space])
    ground.destination()
    cluster.wait_condition(DESTINATION, space, "s3", "Safe", "True", "AsExpected")
    ground.target()
    cluster.wait_condition(TARGET, space, "orders", "BackedUp", "Unknown", "NoPolicy", seconds=60)
    assert (cluster.get(TARGET, space, "orders") or {})["status"]["health"] == "Healthy"
    ground.policy()
    cluster.wait_condition(POLICY, space, "orders", "Ready", "True", "InForce", seconds=60)
    cluster.wait_condition(POLICY, space, "orders", "BackupCurrent", "False", "NeverRun")
    found = cluster.wait_condition(TARGET, space, "orders", "BackedUp", "False", "NotBackedUp")
    assert "policy orders: NeverRun: there is no backup yet" in found["message"]
    status = (cluster.get(TARGET, space, "orders") or {})["status"]
    assert status["health"] == "Critical" and status["worst"]["condition"] == "BackedUp"

    ground.apply("PostgresBackup", "now", {"policyRef": {"name": "orders"}, "reason": "before release 2.4"})
    cluster.wait_condition(BACKUP, space, "now", "Complete", "Unknown", "Running")
    told = ground.run_pod("now-dump")
    assert told["outcome"] == "Succeeded", told
    found = cluster.wait_condition(BACKUP, space, "now", "Complete", "True", "Committed", seconds=60)
    assert "manifest written at" in found["message"]
    cluster.wait_condition(POLICY, space, "orders", "Verified", "Unknown", "VerifyPending", seconds=60)
    cluster.wait_condition(TARGET, space, "orders", "BackedUp", "Unknown", "BackupNotKnown")
    assert ground.run_pod("now-verify")["outcome"] == "Succeeded"
    cluster.wait_condition(BACKUP, space, "now", "Verified", "True", "AsExpected", seconds=60)
    cluster.wait_condition(POLICY, space, "orders", "BackupCurrent", "True", "AsExpected", seconds=60)
    cluster.wait_condition(POLICY, space, "orders", "Verified", "True", "AsExpected")
    cluster.wait_condition(TARGET, space, "orders", "BackedUp", "True", "AsExpected")
    assert (cluster.get(TARGET, space, "orders") or {})["status"]["health"] == "Healthy"
    status = (cluster.get(POLICY, space, "orders") or {})["status"]
    assert status["lastBackup"]["name"] == status["lastVerified"]["name"] == "now"
    assert status["backups"]["total"] == status["backups"]["verified"] == 1
    assert status["worst"]["reason"] == "InForce"
    record = (cluster.get(BACKUP, space, "now") or {})["status"]
    assert record["databases"][0]["name"] == ground.database and record["recipients"] == ["verify", "escrow"]
    lines = cluster.kubectl("get", "pgb", "-n", space).splitlines()
    assert lines[0].split() == ["NAME", "POLICY", "READY", "VERIFIED", "REASON", "SIZE", "EXPIRES", "AGE"]
    assert lines[1].split()[:5] == ["now", "orders", "True", "True", "Verified"]

    # a steady object is not written, nor is anything else; nor after a restart
    before = (cluster.get(POLICY, space, "orders") or {})["status"]
    mark = cluster.audit_mark()
    process.crash()
    cluster.kubectl("annotate", POLICY, "-n", space, "orders", "pgtend.dev/reconcile=1")

    time.sleep(12)
    counted = writes(cluster.audited(since=mark, user=process.user))
    assert counted == {}, (before, (cluster.get(POLICY, space, "orders") or {})["status"])
    assert (cluster.get(POLICY, space, "orders") or {})["status"] == before

    # deleting the record leaves the bucket alone, and the bucket gives the record back
    keys = ground.s3.keys(ground.bucket)
    cluster.kubectl("delete", BACKUP, "-n", space, "now")
    assert ground.s3.keys(ground.bucket) == keys
    process.restart()
    cluster.wait_condition(BACKUP, space, "now", "Verified", "True", "AsExpected", seconds=60)
    again = cluster.get(BACKUP, space, "now") or {}
    assert again["spec"]["stored"]["destinationRef"] == {"name": "s3"}
    assert not again["metadata"].get("ownerReferences")


@pytest.mark.long
@pytest.mark.covers(
    "PostgresBackupPolicy.spec.schedule.*.at",
    "PostgresBackupPolicy.spec.timeZone",
    "PostgresBackupPolicy.spec.startingDeadline",
    "PostgresBackupPolicy.spec.scheduleSpread",
    "PostgresBackupPolicy.spec.timeout",
    "PostgresBackupPolicy.spec.suspend",
    "PostgresBackupPolicy.spec.mode",
    "PostgresBackupPolicy.spec.dump.*",
    "PostgresBackupPolicy.spec.pod.*",
    "PostgresBackupPolicy.spec.pod.resources.*.*",
    "PostgresBackupPolicy.spec.pod.tolerations[].*",
    "PostgresBackupPolicy.spec.pod.imagePullSecrets[].*",
    "PostgresBackupPolicy.spec.pod.env[].*",
    "PostgresBackupPolicy.spec.schedule.weekly.days",
    "PostgresBackupPolicy.spec.schedule.monthly.dayOfMonth",
    "*.reason.Suspended",
    "*.reason.Observing",
    "*.reason.DumpFailed",
)
@pytest.mark.timeout(300)
def test_the_cronjob_is_what_the_policy_says(ground: Ground, operator: StartOperator) -> None:
    cluster, space = ground.cluster, ground.space
    operator([space])
    ground.destination()
    ground.target()
    now = datetime.now(UTC)
    some_day, day_of_month = now + timedelta(days=3), 5 if 10 < now.day < 20 else 15
    weekly = {"weekly": {"days": [f"{some_day:%A}"], "at": "03:30"}}
    parts = {"schemas": {"include": ["sh*"]}, "tables": {"exclude": ["shop.events_*"]}}
    dump = {"databases": [{"name": ground.database, **parts}, {"name": "other"}]}
    ground.policy(schedule=weekly, timeZone="Europe/Berlin", timeout="2h", dump=dump)
    cluster.wait_condition(POLICY, space, "orders", "Ready", "True", "InForce", seconds=60)
    found = cluster.get("cronjob", space, "orders-dump") or {}
    spec = found["spec"]
    assert spec["schedule"] == f"30 3 * * {some_day.isoweekday() % 7}"
    assert (spec["timeZone"], spec["concurrencyPolicy"]) == ("Europe/Berlin", "Forbid")
    assert spec["startingDeadlineSeconds"] == 3600 and spec["suspend"] is False
    job = spec["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] == 7200 and job["backoffLimit"] == 1
    told = json.loads(job["template"]["metadata"]["annotations"]["pgtend.dev/job"])
    assert told["databases"] == [ground.database, "other"]
    assert [part["name"] for part in told["parts"]] == [ground.database]
    assert told["parts"][0]["schemas"]["include"] == ["sh*"]
    mixed = {"name": "a", "schemas": {"include": ["shop"]}, "tables": {"include": ["shop.orders"]}}
    said = cluster.refused(
        body("PostgresBackupPolicy", space, "mixed", ground.policy_spec(dump={"databases": [mixed]}))
    )
    assert "tables.include stands alone" in said
    undotted = {"name": "a", "tables": {"include": ["orders"]}}
    said = cluster.refused(
        body("PostgresBackupPolicy", space, "mixed", ground.policy_spec(dump={"databases": [undotted]}))
    )
    assert "should match" in said
    pod = job["template"]["spec"]
    container = pod["containers"][0]
    assert pod["automountServiceAccountToken"] is False and pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
    assert container["image"] == "pgtend/tools:dev-pg18"
    mounted = {s["secret"]["name"] for v in pod["volumes"] for s in v.get("projected", {}).get("sources", [])}
    assert mounted == {"backup", "orders-ca", "s3-writer", "s3-ca"}  # no key that opens, none that deletes
    assert [o["kind"] for o in found["metadata"]["ownerReferences"]] == ["PostgresBackupPolicy"]

    # a fleet starts one after the other, and says when
    starts = set()
    for name in ("fleet-a", "fleet-b", "fleet-c", "fleet-d"):
        fleet = {"schedule": {"daily": {"at": "02:00"}}, "scheduleSpread": "3h"}
        ground.apply("PostgresBackupPolicy", name, ground.policy_spec(**fleet))
        cluster.wait_condition(POLICY, space, name, "Ready", "True", "InForce", seconds=60)
        minute, hour, *rest = (cluster.get("cronjob", space, f"{name}-dump") or {})["spec"]["schedule"].split()
        assert rest == ["*", "*", "*"] and 120 <= 60 * int(hour) + int(minute) <= 300
        following = (cluster.get(POLICY, space, name) or {})["status"]["nextAt"]
        assert f"T{int(hour):02d}:{int(minute):02d}:00Z" in following
        starts.add((hour, minute))
        cluster.kubectl("delete", POLICY, "-n", space, name, "--timeout=60s")
    assert len(starts) > 1

    # what people say of its pods arrives there
    asked = {
        "tolerations": [
            {"key": "backup", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60}
        ],
        "imagePullSecrets": [{"name": "registry"}],
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
        "resources": {"limits": {"memory": "2Gi"}, "requests": {"cpu": "250m"}},
    }
    ground.policy(schedule={"monthly": {"dayOfMonth": day_of_month, "at": "04:10"}}, pod={**NOWHERE, **asked})

    def arrived() -> dict[str, Any] | None:
        found = (cluster.get("cronjob", space, "orders-dump") or {})["spec"]
        return found if found["schedule"] == f"10 4 {day_of_month} * *" else None

    template = wait("the CronJob follows", arrived, seconds=60)["jobTemplate"]["spec"]["template"]["spec"]
    assert template["tolerations"] == asked["tolerations"]
    assert template["imagePullSecrets"] == asked["imagePullSecrets"]
    assert template["containers"][0]["env"] == asked["env"]
    resources = template["containers"][0]["resources"]
    assert (resources["limits"]["memory"], resources["requests"]["cpu"]) == ("2Gi", "250m")
    assert template["nodeSelector"] == NOWHERE["nodeSelector"]

    # a run of it that fails is told with its cause
    cluster.kubectl("create", "job", "-n", space, "--from=cronjob/orders-dump", "orders-dump-1")
    words = {"kind": "Dump", "outcome": "Failed", "reason": "LockTimeout", "message": "shop.orders is locked by pid 7"}

    def fail() -> bool:
        """It is tried once more, so two pods fail."""
        for pod in ground.pods("orders-dump-1"):
            if pod["status"]["phase"] == "Pending":
                ground.end_pod(pod["metadata"]["name"], container, status=1, message=json.dumps(words))
        job = cluster.get("job", space, "orders-dump-1") or {}
        return any(c["type"] == "Failed" for c in job["status"].get("conditions", []))

    wait("the Job fails", fail, seconds=90, every=1.0)
    failed = cluster.wait_condition(POLICY, space, "orders", "BackupCurrent", "False", "LockTimeout", seconds=90)
    assert "locked by pid 7" in failed["message"] and "there is no backup" in failed["message"]

    for change, reason in (({"suspend": True}, "Suspended"), ({"mode": "Observe"}, "Observing")):
        ground.policy(**change)
        cluster.wait_condition(POLICY, space, "orders", "Ready", "True", reason)
        wait("suspended", lambda: (cluster.get("cronjob", space, "orders-dump") or {})["spec"]["suspend"])
        ground.policy()
        cluster.wait_condition(POLICY, space, "orders", "Ready", "True", "InForce")
        wait("goes on", lambda: not (cluster.get("cronjob", space, "orders-dump") or {})["spec"]["suspend"])
    said = cluster.refused(body("PostgresBackupPolicy", space, "orders", ground.policy_spec(targetRef={"name": "b"})))
    assert "targetRef is immutable" in said
    said = cluster.refused(
        body("PostgresBackupPolicy", space, "orders", ground.policy_spec(destinationRef={"name": "b"}))
    )
    assert "destinationRef is immutable" in said


@pytest.mark.covers(
    "BackupDestination.reason.SecretMissing",
    "BackupDestination.reason.SecretKeyMissing",
    "BackupDestination.reason.BucketMissing",
    "BackupDestination.reason.BucketDenied",
    "BackupDestination.reason.BucketUnreachable",
    "BackupDestination.reason.InvalidRecipient",
    "BackupDestination.reason.MissingPrivilege",
    "BackupDestination.reason.LifecycleConflict",
    "BackupDestination.reason.IdentityOnlyInCluster",
    "BackupDestination.reason.ObjectLockUnavailable",
    "BackupDestination.reason.NotReached",
    "BackupDestination.reason.NotAccepted",
    "BackupDestination.spec.s3.endpoint",
)
@pytest.mark.timeout(240)
def test_what_a_destination_lacks_is_told_within_ten_seconds(ground: Ground, operator: StartOperator) -> None:
    cluster, space = ground.cluster, ground.space
    operator([space])
    shared = ground.s3.fresh_bucket("shared")
    locked = ground.s3.fresh_bucket("locked", lock=True)
    lock = {"mode": "Governance", "duration": "1d"}
    rule = {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 14}}
    ground.s3.client().put_bucket_lifecycle_configuration(Bucket=shared, LifecycleConfiguration={"Rules": [rule]})
    cluster.secret(space, "half", {"id": "someone"})
    cluster.secret(space, "wrong", {"id": "someone", "secret": "no secret of anybody"})
    cases = {
        "no-secret": ({"credentials": {"write": key_of("nowhere")}}, "Ready", "False", "SecretMissing"),
        "no-key": ({"credentials": {"write": key_of("half")}}, "Ready", "False", "SecretKeyMissing"),
        "no-bucket": ({"bucket": "there-is-no-such-bucket"}, "Reachable", "False", "BucketMissing"),
        "denied": ({"credentials": {"write": key_of("wrong")}}, "Reachable", "False", "BucketDenied"),
        "away": ({"endpoint": "https://127.0.0.1:9"}, "Reachable", "False", "BucketUnreachable"),
        "blind": (
            {"credentials": {"write": key_of("s3-writer"), "read": key_of("s3-reader")}},
            "Safe", "Unknown", "MissingPrivilege",
        ),
        "shared": ({"bucket": shared}, "Safe", "False", "LifecycleConflict"),
        "lockless": ({"objectLock": lock}, "Safe", "False", "ObjectLockUnavailable"),
        "locked": ({"bucket": locked, "objectLock": lock}, "Safe", "True", "AsExpected"),
    }  # fmt: skip
    for name, (change, *_) in cases.items():
        ground.apply("BackupDestination", name, ground.destination_spec(**change))
    wrong = ground.destination_spec()
    wrong["encryption"]["age"]["recipients"][0]["publicKey"] = AGE_KEY[:-1] + "q"
    ground.apply("BackupDestination", "typo", wrong)
    lone = ground.destination_spec()
    lone["encryption"]["age"]["recipients"].pop()
    ground.apply("BackupDestination", "lone", lone)
    for name, (_, condition, status, reason) in cases.items():
        found = cluster.wait_condition(DESTINATION, space, name, condition, status, reason)
        assert len(found["message"]) > 20, found
    for name, shown in (("locked", "Governance"), ("shared", "None")):
        assert (cluster.get(DESTINATION, space, name) or {})["status"]["objectLock"] == shown
    cluster.wait_condition(DESTINATION, space, "lockless", "Ready", "False", "ObjectLockUnavailable")
    both = {"serverSideEncryption": {"aes256": {}, "kms": {}}}
    said = cluster.refused(body("BackupDestination", space, "both", ground.destination_spec(**both)))
    assert "exactly one of aes256 and kms" in said
    found = cluster.wait_condition(DESTINATION, space, "lone", "Safe", "False", "IdentityOnlyInCluster")
    assert "kept outside" in found["message"]
    cluster.wait_condition(DESTINATION, space, "lone", "Ready", "True", "InForce")
    cluster.wait_condition(DESTINATION, space, "typo", "Accepted", "False", "InvalidRecipient")
    cluster.wait_condition(DESTINATION, space, "typo", "Reachable", "Unknown", "NotAccepted")
    cluster.wait_condition(DESTINATION, space, "away", "Safe", "Unknown", "NotReached")
    cluster.secret(space, "nowhere", {"id": ground.s3.admin.access_key, "secret": ground.s3.admin.secret_key})
    cluster.kubectl("annotate", DESTINATION, "-n", space, "no-secret", "pgtend.dev/reconcile=1")
    cluster.wait_condition(DESTINATION, space, "no-secret", "Ready", "True", "InForce")


@pytest.mark.covers(
    "*.reason.InvalidSchedule",
    "*.reason.MustBeInTargetNamespace",
    "*.reason.TargetNotFound",
    "*.reason.DestinationNotFound",
    "*.reason.DestinationNotReady",
    "*.reason.CapabilityMissing",
    "*.reason.PolicyNotFound",
    "*.reason.Expired",
    "PostgresBackupPolicy.spec.schedule.cron",
    "PostgresBackupPolicy.spec.schedule.rrule",
    "PostgresBackupPolicy.spec.schedule.monthly.week",
    "PostgresBackupPolicy.spec.schedule.monthly.days",
    "PostgresBackupPolicy.spec.targetRef.namespace",
    "PostgresBackup.spec.notAfter",
    "PostgresBackupPolicy.reason.NotPermitted",
    "PostgresBackupPolicy.reason.TargetNotReady",
    "PostgresBackupPolicy.reason.ObjectNotOwned",
    "PostgresBackupPolicy.reason.RefusedByAPI",
    "PostgresBackupPolicy.reason.NotComplete",
    "PostgresBackupPolicy.reason.BrakeOn",
    "PostgresBackup.reason.NotPermitted",
    "PostgresBackup.reason.TargetNotReady",
    "PostgresBackup.reason.RefusedByAPI",
    "PostgresBackup.reason.BrakeOn",
    "BackupDestination.reason.BrakeOn",
)
@pytest.mark.timeout(240)
def test_what_a_policy_lacks_is_told(ground: Ground, operator: StartOperator) -> None:
    cluster, space = ground.cluster, ground.space
    process = operator([space])
    ground.destination()
    ground.apply("BackupDestination", "bad", ground.destination_spec(bucket="there-is-no-such-bucket"))
    ground.target()
    time.sleep(1.0)  # of two targets of one server the older tends it, and ages are told in seconds
    monitor = {"monitor": {"password": {"secretRef": {"name": "monitor"}}}}
    base = (cluster.get("postgrestarget", space, "orders") or {})["spec"]
    ground.apply("PostgresTarget", "bare", {**base, "credentials": monitor, "mode": "Observe"})
    ground.apply("PostgresTarget", "asleep", {**base, "suspend": True})
    closed = [{"name": "users", "namespaces": {"names": [space]}, "kinds": ["DatabaseUser"]}]
    ground.apply("PostgresTarget", "closed", {**base, "access": closed})
    idle = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "none"}], "nodeSelector": {"a": "b"}}
    cluster.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "owned-dump", "namespace": space},
            "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": idle}}}},
        }
    )
    cases = {
        "cron": ({"schedule": {"cron": "0 25 * * *"}}, "Accepted", "InvalidSchedule"),
        "rule": ({"schedule": {"rrule": "FREQ=DAILY"}}, "Accepted", "InvalidSchedule"),
        "zone": ({"timeZone": "Europe/Berlyn"}, "Accepted", "InvalidSchedule"),
        "foreign": ({"targetRef": {"name": "orders", "namespace": "elsewhere"}}, "Accepted", "MustBeInTargetNamespace"),
        "target": ({"targetRef": {"name": "nobody"}}, "Accepted", "TargetNotFound"),
        "destination": ({"destinationRef": {"name": "nowhere"}}, "Accepted", "DestinationNotFound"),
        "bucket": ({"destinationRef": {"name": "bad"}}, "Ready", "DestinationNotReady"),
        "bare": ({"targetRef": {"name": "bare"}}, "Ready", "CapabilityMissing"),
        "week": (
            {"schedule": {"monthly": {"week": "Last", "days": ["Sunday"], "at": "02:00"}}},
            "Accepted", "InvalidSchedule",
        ),
        "asleep": ({"targetRef": {"name": "asleep"}}, "Ready", "TargetNotReady"),
        "closed": ({"targetRef": {"name": "closed"}}, "Accepted", "NotPermitted"),
        "owned": ({}, "Ready", "ObjectNotOwned"),
        "refused": ({"pod": {"labels": {"a": "no label at all!"}}}, "Ready", "RefusedByAPI"),
    }  # fmt: skip
    for name, (change, *_) in cases.items():
        ground.apply("PostgresBackupPolicy", name, ground.policy_spec(**change))
    for name, (_, condition, reason) in cases.items():
        found = cluster.wait_condition(POLICY, space, name, condition, "False", reason)
        assert len(found["message"]) > 20, found
    cluster.wait_condition(POLICY, space, "destination", "BackupCurrent", "Unknown", "NotComplete")
    assert cluster.kubectl("get", "cronjobs", "-n", space, "-o", "name").strip() == "cronjob.batch/owned-dump"
    ground.apply("PostgresBackup", "orphan", {"policyRef": {"name": "nobody"}})
    cluster.wait_condition(BACKUP, space, "orphan", "Complete", "False", "PolicyNotFound")
    ground.apply("PostgresBackup", "late", {"policyRef": {"name": "orders"}, "notAfter": "2020-01-01T00:00:00Z"})
    cluster.wait_condition(BACKUP, space, "late", "Ready", "True", "Expired")
    wishes = {"asleep": "TargetNotReady", "closed": "NotPermitted", "refused": "RefusedByAPI"}
    for name, reason in wishes.items():
        ground.apply("PostgresBackup", name, {"policyRef": {"name": name}})
        cluster.wait_condition(BACKUP, space, name, "Complete", "False", reason)
    assert ground.jobs() == []

    # under the brake nothing is begun, and that is said; released, it goes on by itself
    cluster.kubectl("create", "configmap", "-n", process.namespace, "pgtend-brake", "--from-literal=paused=true")
    wait("the brake is seen", lambda: '"brake", "on": true' in process.log)
    ground.policy()
    ground.apply("PostgresBackup", "braked", {"policyRef": {"name": "orders"}})
    cluster.kubectl("annotate", DESTINATION, "-n", space, "s3", "pgtend.dev/reconcile=1")
    cluster.wait_condition(POLICY, space, "orders", "Ready", "False", "BrakeOn")
    cluster.wait_condition(BACKUP, space, "braked", "Complete", "Unknown", "BrakeOn")
    cluster.wait_condition(DESTINATION, space, "s3", "Safe", "Unknown", "BrakeOn")
    assert ground.jobs() == []
    cluster.kubectl("delete", "configmap", "-n", process.namespace, "pgtend-brake")
    cluster.wait_condition(BACKUP, space, "braked", "Complete", "Unknown", "Running", seconds=60)

    said = cluster.refused(body("PostgresBackupPolicy", space, "p" * 41, ground.policy_spec()))
    assert "40" in said
    said = cluster.refused(body("PostgresBackup", space, "both", {}))
    assert "exactly one of policyRef and stored" in said
    said = cluster.refused(body("PostgresBackup", space, "late", {"policyRef": {"name": "other"}}))
    assert "all but retainUntil is immutable" in said
    said = cluster.refused(body("BackupDestination", space, "bad", ground.destination_spec(prefix="")))
    assert "prefix" in said
