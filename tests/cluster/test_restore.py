"""A Restore from the wish to the database that is there again, on a real API server, S3 and PostgreSQL: what is shown,
refused, claimed, followed after a crash, and ended; and that a key is where it belongs and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyrage
import pytest
from psycopg import sql
from tests.cluster.backup_ground import NOWHERE, Ground, body
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, wait
from tests.cluster.test_operations import moment
from tests.fixtures.plugin import Postgres
from tests.fixtures.roles import init_roles
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_kit import TABLES, row_counts

from pgtend.postgres.init_sql import init_sql

KIND, BACKUP = "postgresoperation", "postgresbackup"
PASSWORD = "restore-password-0123456789"
BEFORE_JOB, AFTER_JOB = "backups.restore.before_job", "backups.restore.after_job"
CONTAINER = {"name": "restore", "image": "pgtend/tools:dev-pg18"}
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def ground(cluster: Cluster, tenant: Tenant, postgres: Postgres, s3: S3Server, tmp_path: Path) -> Ground:
    return Ground(cluster=cluster, space=tenant.namespace(), server=postgres(18), s3=s3, folder=tmp_path)


def owner_for(ground: Ground) -> str:
    """The role of init-sql, with an owner that it may restore as."""
    owner = ground.server.fresh_name("owner")
    ground.server.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(owner)))
    init_roles(ground.server, init_sql(["restore"], owners=[owner]))
    with ground.server.superuser_connect() as connection:
        connection.pgconn.change_password(b"pgtend_restore", PASSWORD.encode())
    ground.cluster.secret(ground.space, "restore", {"password": PASSWORD})
    return owner


def target(ground: Ground, *, words: list[str], asking: list[str] | None = None, restore: bool = True) -> None:
    role = ground.role
    assert role is not None
    credentials: dict[str, Any] = {
        "monitor": {"password": {"secretRef": {"name": "monitor"}}},
        "backup": {"username": role.user, "password": {"secretRef": {"name": "backup"}}},
    }
    if restore:
        credentials["restore"] = {"password": {"secretRef": {"name": "restore"}}}
    kinds = ["PostgresOperation", "PostgresBackupPolicy", "PostgresBackup"]
    names = {"names": asking or [ground.space]}
    ground.target(
        credentials=credentials,
        access=[{"name": "people", "namespaces": names, "kinds": kinds, "operations": words}],
    )


def backed_up(ground: Ground, *, words: tuple[str, ...] = ("Restore",)) -> str:
    """Destination, target, policy, and a backup `now`; the owner that restores go to."""
    owner = owner_for(ground)
    ground.destination()
    target(ground, words=list(words))
    ground.policy()
    ground.cluster.wait_condition("postgresbackuppolicy", ground.space, "orders", "Ready", "True", seconds=90)
    taken(ground, "now")
    return owner


def taken(ground: Ground, name: str) -> None:
    ground.apply("PostgresBackup", name, {"policyRef": {"name": "orders"}})
    assert ground.run_pod(f"{name}-dump")["outcome"] == "Succeeded"
    ground.cluster.wait_condition(BACKUP, ground.space, name, "Complete", "True", "Committed", seconds=90)


def restore(ground: Ground, name: str, database: str, **spec: Any) -> None:
    """`into`, `select` and `backup` are of the restore; the rest is the operation's."""
    into = {"database": {"name": database, **spec.pop("into", {})}}
    options: dict[str, Any] = {"from": {"backupRef": {"name": spec.pop("backup", "now")}}, "into": into}
    if "select" in spec:
        options["select"] = spec.pop("select")
    value = {
        "targetRef": {"name": "orders"},
        "type": "Restore",
        "reason": "the table was emptied by mistake, ticket 4711",
        "requestedBy": "oncall@example.com",
        "notAfter": moment(hours=1),
        "pod": NOWHERE,
        "restore": options,
        **spec,
    }
    space = spec.pop("space", ground.space)
    value.pop("space", None)
    ground.cluster.apply(body("PostgresOperation", space, name, value))


def job_of(ground: Ground, name: str) -> dict[str, Any]:
    """The Job of an operation, once it is there."""

    def found() -> Any:
        jobs = ground.cluster.list("jobs", ground.space)
        mine = [j for j in jobs if [o["name"] for o in j["metadata"].get("ownerReferences", [])] == [name]]
        return mine[0] if mine else None

    return dict(wait(f"the Job of {name}", found, seconds=90))


def jobs_of(ground: Ground) -> list[str]:
    return [name for name in ground.jobs() if "-restore-" in name]


def status(ground: Ground, name: str) -> dict[str, Any]:
    return dict((ground.cluster.get(KIND, ground.space, name) or {}).get("status", {}))


def exists(ground: Ground, database: str) -> bool:
    return bool(ground.server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]))


@pytest.mark.covers(
    "PostgresTarget.spec.credentials.restore.password.secretRef.name",
    "PostgresOperation.spec.restore.from.backupRef.name",
    "PostgresOperation.spec.restore.select.databases",
    "PostgresOperation.spec.restore.into.database.*",
    "PostgresOperation.spec.pod.*",
    "PostgresOperation.spec.pod.resources.*.*",
    "PostgresOperation.spec.pod.tolerations[].*",
    "PostgresOperation.spec.pod.imagePullSecrets[].*",
    "PostgresOperation.spec.pod.env[].*",
    "PostgresOperation.reason.DatabaseNotEmpty",
)
def test_a_wrecked_database_is_there_again_and_the_record_says_how(ground: Ground, operator: StartOperator) -> None:
    cluster, space = ground.cluster, ground.space
    process = operator([space])
    owner, copy = backed_up(ground), ground.server.fresh_name("again")
    ground.server.execute("DROP SCHEMA shop CASCADE", dbname=ground.database)

    # what would be done is shown, and nothing is begun
    asked = {"owner": owner}
    restore(ground, "look", copy, into=asked, execution="DryRun")
    found = cluster.wait_condition(KIND, space, "look", "Complete", "True", "DryRun", seconds=60)
    assert "1 item planned" in found["message"] and "now has not been read back yet" in found["message"]
    shown = status(ground, "look")["plan"]
    assert shown["sql"][0] == f"CREATE DATABASE {copy} OWNER {owner}"
    assert f"--single-transaction --no-owner --role={owner} -d {copy}" in shown["sql"][1]
    restore(ground, "full", ground.database, into=asked)
    found = cluster.wait_condition(KIND, space, "full", "Accepted", "False", "DatabaseNotEmpty", seconds=60)
    assert "ifNotEmpty: Add" in found["message"] and "Odd" in found["message"]
    assert jobs_of(ground) == [] and not exists(ground, copy)

    # and what is asked of the pod arrives there
    pod = {
        **NOWHERE,
        "labels": {"team": "shop"},
        "annotations": {"why": "ticket"},
        "serviceAccountName": "default",
        "tolerations": [{"key": "restore", "operator": "Equal", "value": "yes", "effect": "NoExecute",
                         "tolerationSeconds": 60}],
        "imagePullSecrets": [{"name": "registry"}],
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
        "resources": {"limits": {"memory": "2Gi"}, "requests": {"cpu": "250m"}},
    }  # fmt: skip
    mark = cluster.audit_mark()
    restore(ground, "again", copy, into=asked, pod=pod, select={"databases": [ground.database]}, timeout="2h")
    cluster.wait_condition(KIND, space, "again", "Complete", "False", "Running", seconds=60)
    job = job_of(ground, "again")
    name, spec = job["metadata"]["name"], job["spec"]["template"]["spec"]
    assert job["spec"]["backoffLimit"] == 0 and 7100 < job["spec"]["activeDeadlineSeconds"] < 7300
    assert spec["automountServiceAccountToken"] is False and spec["securityContext"]["runAsNonRoot"] is True
    assert spec["tolerations"] == pod["tolerations"] and spec["nodeSelector"] == NOWHERE["nodeSelector"]
    container = spec["containers"][0]
    assert container["image"] == "pgtend/tools:dev-pg18" and container["env"] == pod["env"]
    assert container["resources"]["limits"]["memory"] == "2Gi"
    assert job["spec"]["template"]["metadata"]["labels"]["team"] == "shop"
    mounted = {s["secret"]["name"] for v in spec["volumes"] for s in v.get("projected", {}).get("sources", [])}
    assert mounted == {"restore", "orders-ca", "s3-admin", "s3-ca", "identity"}  # none that writes or dumps
    secrets = (str(ground.identity), PASSWORD, ground.s3.admin.secret_key)
    assert not [text for text in secrets if text in json.dumps(job)]

    told = ground.run_pod(name)
    assert (told["outcome"], told["reason"]) == ("Succeeded", "Restored"), told
    found = cluster.wait_condition(KIND, space, "again", "Ready", "True", "Succeeded", seconds=60)
    assert "1 of 1 items done" in found["message"]
    shown = status(ground, "again")
    (item,) = shown["items"]
    assert (item["type"], item["object"], item["outcome"]) == ("Restore", copy, "Succeeded")
    assert item["actual"] and item["size"]["after"] and "rows counted and compared" in item["message"]
    assert shown["progress"] == "1/1" and not shown["journal"].get("unfinished")
    assert row_counts(ground.server, copy) == TABLES
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'shop'"
    assert ground.server.execute(owners, dbname=copy) == [(owner,)]
    events = cluster.list("events", space)
    assert "Succeeded" in {e["reason"] for e in events if e.get("involvedObject", {}).get("name") == "again"}

    # the wrecked schema alone, back into the database that it is missing from
    part = {"databases": [ground.database], "schemas": ["shop"]}
    ground.server.execute(f"GRANT CREATE ON DATABASE {ground.database} TO {owner}")
    restore(ground, "part", ground.database, into={**asked, "ifNotEmpty": "Add"}, select=part, pod=NOWHERE)
    cluster.wait_condition(KIND, space, "part", "Complete", "False", "Running", seconds=60)
    told = ground.run_pod(job_of(ground, "part")["metadata"]["name"])
    assert (told["outcome"], told["reason"]) == ("Succeeded", "Restored"), told
    cluster.wait_condition(KIND, space, "part", "Ready", "True", "Succeeded", seconds=60)
    shown = status(ground, "part")
    assert "--use-list=<schema shop>" in shown["plan"]["sql"][0] and "shop in " in shown["items"][0]["message"]
    assert row_counts(ground.server, ground.database) == TABLES

    # the private key was in no request of the operator, nor is it in its log
    sent = json.dumps(cluster.audited(since=mark, user=process.user))
    assert not [text for text in secrets[:2] if text in sent + process.log]

    # once is once
    process.restart()
    wait("the new process leads", lambda: process.log.count('"leading"') > 1, seconds=60)
    restore(ground, "twice", copy, into=asked)
    cluster.wait_condition(KIND, space, "twice", "Accepted", "False", "DatabaseNotEmpty", seconds=60)
    assert len(jobs_of(ground)) == 2 and name in jobs_of(ground)


@pytest.mark.covers(
    "PostgresOperation.reason.MustBeInTargetNamespace",
    "PostgresOperation.reason.BackupNotFound",
    "PostgresOperation.reason.BackupNotComplete",
    "PostgresOperation.reason.BackupNotAvailable",
    "PostgresOperation.reason.DestinationNotReady",
    "PostgresOperation.reason.IdentityMissing",
    "PostgresOperation.reason.DatabaseNotInBackup",
    "PostgresOperation.reason.CapabilityMissing",
    "PostgresOperation.reason.NotPermitted",
)
def test_what_is_in_the_way_is_said_and_nothing_begins(ground: Ground, operator: StartOperator, tenant: Tenant) -> None:
    cluster, space, elsewhere = ground.cluster, ground.space, tenant.namespace()
    operator([space, elsewhere])
    owner, copy = backed_up(ground, words=("*",)), ground.server.fresh_name("copy")
    into = {"owner": owner}

    def refused(name: str, reason: str, said: str, **spec: Any) -> None:
        restore(ground, name, spec.pop("database", copy), into=into, **spec)
        found = cluster.wait_condition(KIND, spec.get("space", space), name, "Accepted", "False", reason, seconds=60)
        assert said in found["message"], found

    def waits(name: str, reason: str, said: str, **spec: Any) -> None:
        restore(ground, name, copy, into=into, **spec)
        found = cluster.wait_condition(KIND, space, name, "Ready", "False", reason, seconds=60)
        assert said in found["message"], found

    refused("word", "NotPermitted", "does not admit operation Restore")
    target(ground, words=["Restore"], asking=[space, elsewhere])
    wait("it is admitted", lambda: ready(ground), seconds=60)
    reference = {"name": "orders", "namespace": space}
    refused("away", "MustBeInTargetNamespace", f"namespace {space}", space=elsewhere, targetRef=reference)
    refused("other", "DatabaseNotInBackup", ground.database, select={"databases": ["elsewhere"]})
    waits("early", "BackupNotFound", "later", backup="later")
    ground.apply("PostgresBackup", "later", {"policyRef": {"name": "orders"}})
    cluster.wait_condition(KIND, space, "early", "Ready", "False", "BackupNotComplete", seconds=60)
    assert ground.run_pod("later-dump")["outcome"] == "Succeeded"
    job_of(ground, "early")  # what was waited for is there: it begins

    said = cluster.refused(
        body("PostgresOperation", space, "no", operation_of(into={"database": {"name": "template1"}}))
    )
    assert "a template takes no restore" in said
    said = cluster.refused(body("PostgresOperation", space, "no", operation_of(type="VacuumAnalyze")))
    assert "type Restore comes with restore" in said

    spec = ground.destination_spec()
    del spec["encryption"]["age"]["recipients"][0]["identity"]
    ground.apply("BackupDestination", "s3", spec)
    waits("locked", "IdentityMissing", "has an identity in the cluster")
    ground.destination(bucket="no-such-bucket-at-all")
    cluster.wait_condition("backupdestination", space, "s3", "Ready", "False", seconds=60)
    cluster.wait_condition(KIND, space, "locked", "Ready", "False", "DestinationNotReady", seconds=60)
    ground.destination()

    manifest = (cluster.get(BACKUP, space, "now") or {})["status"]["manifest"]
    ground.s3.client().delete_object(Bucket=ground.bucket, Key=manifest)

    cluster.wait_condition("backupdestination", space, "s3", "Ready", "True", seconds=60)
    ground.policy(timeout="11h")  # what is declared anew is looked at anew, the bucket with it
    cluster.wait_condition(BACKUP, space, "now", "Available", "False", "Missing", seconds=90)
    refused("expired", "BackupNotAvailable", "not in the bucket any more")
    target(ground, words=["Restore"], restore=False)
    wait("the target is seen anew", lambda: ready(ground), seconds=60)
    refused("without", "CapabilityMissing", "credentials.restore", backup="later")
    assert len(jobs_of(ground)) == 1 and not exists(ground, copy)


def operation_of(**changes: Any) -> dict[str, Any]:
    into = changes.pop("into", {"database": {"name": "copy"}})
    return {
        "targetRef": {"name": "orders"},
        "type": "Restore",
        "reason": "x",
        "notAfter": moment(hours=1),
        "restore": {"from": {"backupRef": {"name": "now"}}, "into": into},
        **changes,
    }


def ready(ground: Ground) -> bool:
    found = ground.cluster.get("postgrestarget", ground.space, "orders") or {}
    return bool(found["status"].get("observedGeneration") == found["metadata"]["generation"])


@pytest.mark.covers("PostgresOperation.reason.ToolsImageMissing")
def test_without_an_image_of_that_major_it_waits(ground: Ground, operator: StartOperator) -> None:
    process = operator([ground.space])
    owner = backed_up(ground)
    process.stop()
    process.start(tools_majors="15")
    restore(ground, "again", ground.server.fresh_name("copy"), into={"owner": owner})
    found = ground.cluster.wait_condition(
        KIND, ground.space, "again", "Ready", "False", "ToolsImageMissing", seconds=90
    )
    assert "tools.majors" in found["message"]
    assert jobs_of(ground) == []


@pytest.mark.covers("PostgresOperation.reason.Interrupted", "PostgresOperation.reason.Cancelled")
def test_a_killed_operator_follows_what_goes_on_and_begins_nothing_twice(
    ground: Ground, operator: StartOperator
) -> None:
    cluster, space = ground.cluster, ground.space
    process = operator([space])
    owner, copy = backed_up(ground), ground.server.fresh_name("again")
    into = {"owner": owner}

    # killed while the pod works: the next one follows it to its end
    restore(ground, "again", copy, into=into)
    cluster.wait_condition(KIND, space, "again", "Complete", "False", "Running", seconds=60)
    name = job_of(ground, "again")["metadata"]["name"]
    process.kill9()
    assert ground.run_pod(name)["outcome"] == "Succeeded"
    process.start()
    cluster.wait_condition(KIND, space, "again", "Ready", "True", "Succeeded", seconds=90)
    assert "rows counted and compared" in status(ground, "again")["items"][0]["message"]
    assert jobs_of(ground) == [name]

    # killed while the pod works, which goes on longer than the next one needs to come up
    later = ground.server.fresh_name("later")
    restore(ground, "later", later, into=into)
    name = job_of(ground, "later")["metadata"]["name"]
    process.kill9()
    process.start()
    wait("the new process leads", lambda: process.log.count('"leading"') > 2, seconds=60)
    cluster.wait_condition(KIND, space, "later", "Complete", "False", "Running", seconds=60)
    assert ground.run_pod(name)["outcome"] == "Succeeded"
    cluster.wait_condition(KIND, space, "later", "Ready", "True", "Succeeded", seconds=90)

    # killed between the claim and the Job: whether it was begun is not known, so it is not begun again
    for number, point in enumerate(("operations.claimed", BEFORE_JOB)):
        process.kill9()
        process.start(failpoints=f"{point}=kill")
        never = ground.server.fresh_name("never")
        restore(ground, f"never-{number}", never, into=into)
        process.killed(point)
        process.start()
        found = cluster.wait_condition(KIND, space, f"never-{number}", "Ready", "False", "Interrupted", seconds=90)
        assert "not started again" in status(ground, f"never-{number}")["items"][0]["message"], found
        assert len(jobs_of(ground)) == 2 and not exists(ground, never)

    # killed as soon as the Job is made: that very Job is followed
    process.kill9()
    process.start(failpoints=f"{AFTER_JOB}=kill")
    made = ground.server.fresh_name("made")
    restore(ground, "made", made, into=into)
    process.killed(AFTER_JOB)
    name = job_of(ground, "made")["metadata"]["name"]
    process.start()
    assert ground.run_pod(name)["outcome"] == "Succeeded"
    cluster.wait_condition(KIND, space, "made", "Ready", "True", "Succeeded", seconds=90)
    assert len(jobs_of(ground)) == 3 and exists(ground, made)

    # cancelled: its Job goes, and its pod, and nothing is left of it
    gone = ground.server.fresh_name("gone")
    restore(ground, "gone", gone, into=into)
    name = job_of(ground, "gone")["metadata"]["name"]
    cluster.kubectl("patch", KIND, "gone", "-n", space, "--type=merge", "-p", '{"spec":{"cancel":true}}')
    found = cluster.wait_condition(KIND, space, "gone", "Ready", "True", "Cancelled", seconds=120)
    assert f"Job {name} was ended" in found["message"]
    assert name not in ground.jobs() and ground.pods(name) == [] and not exists(ground, gone)


@pytest.mark.covers(
    "PostgresOperation.reason.KeyMissing",
    "PostgresOperation.reason.OutOfMemory",
    "PostgresOperation.reason.WorkerLost",
    "PostgresOperation.reason.RestoreFailed",
)
def test_how_a_pod_failed_is_the_operations_reason(ground: Ground, operator: StartOperator) -> None:
    cluster, space = ground.cluster, ground.space
    operator([space])
    into = {"owner": backed_up(ground)}

    def begun(name: str) -> str:
        restore(ground, name, ground.server.fresh_name(name), into=into)
        job = job_of(ground, name)["metadata"]["name"]
        return str(wait(f"a pod of {job}", lambda: ground.pods(job), seconds=60)[0]["metadata"]["name"])

    def failed(name: str, reason: str, said: str) -> None:
        found = cluster.wait_condition(KIND, space, name, "Ready", "False", reason, seconds=90)
        cluster.wait_condition(KIND, space, name, "Stalled", "True", reason)
        assert said in found["message"] + status(ground, name)["items"][0]["message"], found

    ground.end_pod(begun("hungry"), CONTAINER, status=137, reason="OOMKilled")
    failed("hungry", "OutOfMemory", "of the operation")
    ground.end_pod(begun("shot"), CONTAINER, status=137)
    failed("shot", "WorkerLost", "killed from outside")
    ground.end_pod(begun("dumb"), CONTAINER, status=3, message="Segmentation fault")
    failed("dumb", "RestoreFailed", "status 3")
    # a real one: somebody exchanged the key
    restore(ground, "locked", ground.server.fresh_name("locked"), into=into)
    job = job_of(ground, "locked")["metadata"]["name"]
    cluster.secret(space, "identity", {"age.txt": f"{pyrage.x25519.Identity.generate()}\n"})
    assert ground.run_pod(job)["reason"] == "KeyMissing"
    failed("locked", "KeyMissing", "the identity belongs to none of the recipients verify, escrow")
