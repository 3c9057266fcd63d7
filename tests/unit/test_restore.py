"""What a Restore is asked and becomes, without a server: the spec, the pod, the words of pg_restore, and what of it
goes on after a restart."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from pgtend.api.backupdestination import DestinationSpec
from pgtend.api.pod import PodSettings
from pgtend.api.postgresoperation import ItemStatus, OperationSpec, OperationStatus, PlanStatus
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import OperationReason as R
from pgtend.api.restore import RestoreDatabase
from pgtend.backups.inputs import Restoring
from pgtend.backups.jobs.config import JobReason, RestoreConfig, RestoreReason, Termination
from pgtend.backups.jobs.creating import _parse
from pgtend.backups.jobs.restore import _compare_versions, reason_of
from pgtend.backups.jobs.session import Primary
from pgtend.backups.manifest import Manifest
from pgtend.backups.pods import restore_job, restore_job_name
from pgtend.backups.restore import reason_of as told_reason
from pgtend.backups.runs import Failure
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.core.journal import Claimed
from pgtend.gate.classes import RunPolicy, TaskType
from pgtend.operations.recovery import Begun, followed
from pgtend.operations.telling import Ended
from pgtend.operations.timing import policy_of
from pgtend.tasks.protocol import GOES_ON, Breach, ItemResult, Outcome
from pgtend.tasks.runner import Ending

NOW = datetime(2026, 11, 22, 14, 12, 7, tzinfo=UTC)
RESTORE = {"from": {"backupRef": {"name": "now"}}, "into": {"database": {"name": "copy"}}}


def spec(**changes: Any) -> OperationSpec:
    value = {
        "targetRef": {"name": "orders"},
        "type": "Restore",
        "reason": "x",
        "notAfter": "2026-11-22T20:00:00Z",
        "restore": RESTORE,
        **changes,
    }
    return OperationSpec.model_validate({key: entry for key, entry in value.items() if entry is not None})


def test_it_runs_at_once_for_a_day_at_most_and_refuses_what_is_not_empty() -> None:
    given = spec()
    assert policy_of(given, TaskType.RESTORE) is RunPolicy.IMMEDIATELY
    assert given.limit.seconds == 86_400
    assert spec(timeout="2h").limit.seconds == 7_200
    assert spec(type="VacuumAnalyze", restore=None).limit.seconds == 600
    assert given.restore is not None and given.restore.into.database.if_not_empty == "Refuse"
    assert given.to_wire()["restore"]["from"] == {"backupRef": {"name": "now"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"restore": None}, "type Restore comes with restore"),
        ({"type": "VacuumAnalyze"}, "type Restore comes with restore"),
        ({"type": "VacuumAnalyze", "restore": None, "pod": {}}, "pod is for type Restore"),
        ({"restore": {**RESTORE, "into": {"database": {"name": "template0"}}}}, "a template takes no restore"),
        ({"restore": {**RESTORE, "select": {"databases": ["a", "b"]}}}, "at most 1 item"),
        ({"runPolicy": "OverrideWindow"}, "OverrideWindow is for types"),
        ({"vacuumFull": {}}, "no options but those of its own name"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        spec(**changes)


def restoring(name: str = "again") -> Restoring:
    key = {"accessKey": {"id": {"secretRef": {"name": "s3"}}, "secret": {"secretRef": {"name": "s3"}}}}
    public = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
    recipient = {"name": "verify", "publicKey": public, "identity": {"secretRef": {"name": "identity"}}}
    destination = DestinationSpec.model_validate(
        {
            "s3": {"bucket": "backups", "prefix": "production", "credentials": {"write": key}},
            "encryption": {"age": {"recipients": [recipient]}},
        }
    )
    login = {"password": {"secretRef": {"name": "restore"}}}
    target = TargetSpec.model_validate(
        {"members": [{"name": "a", "host": "a.example.com"}], "credentials": {"monitor": login, "restore": login}}
    )
    assert target.credentials.restore is not None
    return Restoring(
        installation="prod-eu",
        operation=ObjectKey("PostgresOperation", "databases", name),
        target=target,
        credential=target.credentials.restore,
        destination=destination,
        recipient=destination.encryption.age.recipients[0],
        manifest="production/1/dump/x/manifest.json",
        source="orders",
        schemas=(),
        database=RestoreDatabase(name="copy", owner="shop"),
        identifier="7437812650013388821",
        timeline=3,
    )


def test_the_pod_is_told_and_given_what_it_needs_and_no_more() -> None:
    pod = PodSettings.model_validate({"resources": {"limits": {"memory": "2Gi"}}})
    job = restore_job(restoring(), pod=pod, image="tools:18", uid="u-1", deadline=7_260)
    assert job["spec"]["backoffLimit"] == 0 and job["spec"]["activeDeadlineSeconds"] == 7_260
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
        "PostgresOperation", "again", "u-1", True,
    )  # fmt: skip
    template = job["spec"]["template"]
    config = RestoreConfig.model_validate_json(template["metadata"]["annotations"]["pgtend.dev/job"])
    assert (config.source, config.database, config.owner, config.if_not_empty) == ("orders", "copy", "shop", "Refuse")
    assert (config.server.user, config.server.minimum_timeline) == ("pgtend_restore", 3)
    assert json.loads(config.model_dump_json(by_alias=True))["operation"] == {"namespace": "databases", "name": "again"}
    assert template["spec"]["automountServiceAccountToken"] is False
    volumes = {v["name"]: v for v in template["spec"]["volumes"]}
    assert set(volumes) == {"job", "tmp", "server", "store", "identity"}


def test_a_job_is_of_the_very_object() -> None:
    long = "a-name-that-is-much-longer-than-a-job-may-be-called." + "x" * 100
    names = {restore_job_name(name, uid) for name in ("again", long) for uid in ("u-1", "u-2")}
    assert len(names) == 4
    assert all(len(name) <= 63 and name.replace("-", "").isalnum() for name in names)


def test_how_the_database_was_made_is_read_from_the_archive() -> None:
    made = _parse(
        b'SET x = 1;\nCREATE DATABASE "odd ""one" WITH TEMPLATE = template0 ENCODING = \'UTF8\' LOCALE_PROVIDER = icu'
        b' LOCALE = \'C.UTF-8\' ICU_LOCALE = \'de\'\'x\';\n\n\nALTER DATABASE "odd ""one" OWNER TO "the ""shop";\n'
    )
    assert made.owner == 'the "shop'
    assert made.options == (
        ("ENCODING", "UTF8"), ("LOCALE_PROVIDER", "icu"), ("LOCALE", "C.UTF-8"), ("ICU_LOCALE", "de'x"),
    )  # fmt: skip
    assert _parse(b"nothing of the kind").options == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('ERROR:  role "leaver" does not exist', RestoreReason.ROLE_MISSING),
        ('ERROR:  permission denied to create extension "plpython3u"', RestoreReason.EXTENSION_UNAVAILABLE),
        ('ERROR:  extension "postgis" is not available', RestoreReason.EXTENSION_UNAVAILABLE),
        ("ERROR:  must be owner of table orders", JobReason.PERMISSION_DENIED),
        ('ERROR:  must be able to SET ROLE "shop"', JobReason.PERMISSION_DENIED),
        ("HINT:  You might need to increase max_locks_per_transaction.", RestoreReason.LOCKS_EXHAUSTED),
        ('ERROR:  relation "orders" already exists', RestoreReason.OBJECT_CLASH),
        ('ERROR:  could not extend file "base/1/2": No space left on device', RestoreReason.DISK_FULL),
        ("ERROR:  syntax error", RestoreReason.RESTORE_FAILED),
    ],
)
def test_what_pg_restore_failed_for(line: str, reason: Any) -> None:
    assert reason_of(["pg_restore: error: could not execute query", line]) is reason


def test_every_word_of_the_pod_has_a_reason_or_falls_back() -> None:
    told = Termination(kind="Restore", outcome="Failed", reason="KeyMissing", message="m", phases={})
    from pgtend.api.reasons import BackupReason

    assert told_reason(Failure(reason=BackupReason.POD_FAILED, message="m"), told) is R.KEY_MISSING
    killed = Failure(reason=BackupReason.OUT_OF_MEMORY, message="pod x was killed")
    assert told_reason(killed, told) is R.OUT_OF_MEMORY
    assert told_reason(Failure(reason=BackupReason.EVICTED, message="e"), None) is R.WORKER_LOST
    assert told_reason(Failure(reason=BackupReason.DEADLINE_EXCEEDED, message="d"), None) is R.RESTORE_FAILED
    assert {R(breach.value) for breach in Breach}, "each breach is a reason"


def ended(**outcomes: ItemResult) -> Ended:
    return Ended(
        type=TaskType.RESTORE, outcomes=outcomes, ending=Ending.DONE, message="", started_at=NOW, finished_at=NOW
    )


def test_what_failed_for_one_reason_says_it() -> None:
    full = ItemResult(outcome=Outcome.FAILED, reason=R.LOCKS_EXHAUSTED)
    assert ended(copy=full).reason is R.LOCKS_EXHAUSTED
    assert ended(copy=full, other=ItemResult(outcome=Outcome.FAILED)).reason is R.FAILED
    assert ended(copy=full, other=ItemResult(outcome=Outcome.SUCCEEDED)).reason is R.LOCKS_EXHAUSTED


def test_what_goes_on_is_followed_and_not_begun() -> None:
    row = ItemStatus(type="Restore", object="copy", outcome="Planned", sql="pg_restore")
    before = OperationStatus(plan_hash="sha256:1", plan=PlanStatus(items=1, lock="None", sql=("pg_restore",)))
    begun = Begun(before=before, rows=(row,), claimed=(Claimed(object="copy", facts={"job": "j"}),))
    rest = followed(type_=TaskType.RESTORE, begun=begun, found={})
    (item,) = rest.plan.items
    assert (item.verb, item.facts, rest.done) == (GOES_ON, {"job": "j"}, {})
    assert rest.plan.plan_hash == "sha256:1" and rest.plan.sql == ("pg_restore",)


@pytest.mark.parametrize(
    ("server", "client", "reason"),
    [
        ("17.2", "17.2 (Debian 17.2-1)", None),
        ("18beta1", "18.0", JobReason.VERSION_MISMATCH),
        ("17.2", "19.0", JobReason.VERSION_MISMATCH),
        ("", "17.2", JobReason.MANIFEST_UNREADABLE),
        ("17.2", "devel", JobReason.MANIFEST_UNREADABLE),
    ],
)
def test_a_manifests_versions_are_compared_or_refused(server: str, client: str, reason: JobReason | None) -> None:
    manifest = Manifest.model_construct(backup_name="now", server_version=server, client_version=client)
    primary = Primary(
        host="db", address="192.0.2.1", port=5432, system_identifier="1", timeline=1, major=17, version="17.5"
    )
    if reason is None:
        _compare_versions(manifest, primary, "17.5")
        return
    with pytest.raises(PgtendError) as caught:
        _compare_versions(manifest, primary, "17.5")
    assert caught.value.reason is reason
