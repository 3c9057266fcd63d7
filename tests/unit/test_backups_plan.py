"""When backups are due, of what their pods are made, and which image takes them: with the schedules of the production
example and a clock that is told the time."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from pgtend import backups
from pgtend.api.backupdestination import DestinationSpec
from pgtend.api.base import Kind
from pgtend.api.postgresbackup import POSTGRES_BACKUP
from pgtend.api.postgresbackuppolicy import POSTGRES_BACKUP_POLICY, PolicySpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import BackupReason, DestinationReason
from pgtend.backups.inputs import Setting
from pgtend.backups.jobs.config import DumpConfig, JobReason, VerifyConfig
from pgtend.backups.judge_destination import Look, conflicting, judge
from pgtend.backups.plan import ToolsImages, major_of, timetable
from pgtend.backups.pods import CONFIG, HASH, cron_job, dump_job, verify_job
from pgtend.backups.readback import opens
from pgtend.core.findings import ObjectKey
from pgtend.gate.walltime import ScheduleError
from pgtend.objectstore.errors import StoreReason
from pgtend.objectstore.pipe import PipeReason

KEY = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
ESCROW = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"
POLICY = ObjectKey("PostgresBackupPolicy", "databases", "orders")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def policy(**spec: object) -> PolicySpec:
    return PolicySpec.model_validate({"targetRef": {"name": "orders"}, "destinationRef": {"name": "s3"}, **spec})


def secret(name: str) -> dict[str, object]:
    return {"accessKey": {"id": {"secretRef": {"name": name}}, "secret": {"secretRef": {"name": name}}}}


def destination(escrow: str = ESCROW, s3: dict[str, object] | None = None, **credentials: object) -> DestinationSpec:
    return DestinationSpec.model_validate(
        {
            "s3": {
                "bucket": "example-pg-backups",
                "prefix": "production",
                "credentials": {"write": secret("w"), **credentials},
                **(s3 or {}),
            },
            "encryption": {
                "age": {
                    "recipients": [
                        {"name": "verify", "publicKey": KEY, "identity": {"secretRef": {"name": "key"}}},
                        {"name": "escrow", "publicKey": escrow},
                    ]
                }
            },
        }
    )


def setting(*, place: DestinationSpec | None = None, **spec: object) -> Setting:
    target = TargetSpec.model_validate(
        {
            "members": [{"name": "a", "host": "orders-a.db.example.com"}],
            "tls": {"ca": {"secretRef": {"name": "ca"}}},
            "credentials": {
                "monitor": {"password": {"secretRef": {"name": "m"}}},
                "backup": {"password": {"secretRef": {"name": "b"}}},
            },
        }
    )
    assert target.credentials.backup is not None
    return Setting(
        installation="prod-eu1",
        policy=POLICY,
        uid="u",
        spec=policy(**spec),
        target=target,
        credential=target.credentials.backup,
        destination=place or destination(read=secret("r"), delete=secret("d")),
        image="pgtend/tools:0.1-pg17",
        identifier="7437812650013388821",
        timeline=3,
    )


def test_the_default_is_two_in_the_morning_of_utc() -> None:
    times = timetable(policy())
    assert times.cron == "0 2 * * *"
    assert times.next_after(at("2026-11-22T02:12:40")) == at("2026-11-23T02:00:00")
    assert times.next_after(at("2026-11-22T01:59:59")) == at("2026-11-22T02:00:00")
    due = times.overdue_after(at("2026-11-22T02:00:03"))
    assert due == (at("2026-11-23T04:24:00"), timedelta(hours=26, minutes=24))


def test_a_weekend_without_runs_is_no_delay() -> None:
    times = timetable(policy(schedule={"cron": "0 2 * * MON-FRI"}))
    due = times.overdue_after(at("2026-11-20T02:00:03"))  # a Friday
    assert due is not None and at("2026-11-23T02:00:00") < due[0] < at("2026-11-23T12:00:00")


def test_a_zone_moves_with_its_clock() -> None:
    times = timetable(policy(timeZone="Europe/Berlin"))
    assert times.next_after(at("2026-07-01T03:00:00")) == at("2026-07-02T00:00:00")
    assert times.next_after(at("2026-12-01T03:00:00")) == at("2026-12-02T01:00:00")


@pytest.mark.parametrize(
    "spec",
    [
        {"schedule": {"rrule": "FREQ=DAILY"}},
        {"schedule": {"monthly": {"week": "Last", "days": ["Sunday"], "at": "02:00"}}},
        {"schedule": {"cron": "0 25 * * *"}},
        {"timeZone": "Europe/Berlyn"},
    ],
)
def test_what_no_cronjob_can_carry_out_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(ScheduleError):
        timetable(policy(**spec))


def test_images_are_chosen_by_the_observed_major() -> None:
    images = ToolsImages(template="pgtend/tools:0.1-pg{major}", majors=frozenset({15, 17}))
    assert images.of(17) == "pgtend/tools:0.1-pg17"
    assert images.of(14) == images.of(15) == "pgtend/tools:0.1-pg15"
    assert images.of(16) is None
    assert ToolsImages().of(17) is None
    assert [major_of(v) for v in ("17.7", "18beta1", "16.4 (Debian 16.4-1)", "")] == [17, 18, 16, None]


def test_the_cronjob_says_what_the_policy_says_and_mounts_nothing_else() -> None:
    made = cron_job(setting(timeout="2h", startingDeadline="30m"), cron="0 2 * * *", suspended=False)
    spec = made["spec"]
    assert spec["concurrencyPolicy"] == "Forbid" and spec["timeZone"] == "Etc/UTC"
    assert spec["startingDeadlineSeconds"] == 1800
    job = spec["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] == 7200
    template = job["template"]
    named = {
        s["secret"]["name"] for v in template["spec"]["volumes"] for s in v.get("projected", {}).get("sources", [])
    }
    assert named == {"b", "ca", "w"}
    config = DumpConfig.model_validate_json(template["metadata"]["annotations"][CONFIG])
    assert config.server.user == "pgtend_backup" and config.server.minimum_timeline == 3
    assert config.server.sslmode == "verify-full" and config.backup_name is None
    assert [r.name for r in config.recipients] == ["verify", "escrow"]


def test_the_hash_changes_with_every_word_and_not_by_itself() -> None:
    def digest(**spec: object) -> str:
        return str(cron_job(setting(**spec), cron="0 2 * * *", suspended=False)["metadata"]["annotations"][HASH])

    assert digest() == digest()
    assert len({digest(), digest(timeout="1h"), digest(dump={"compressionLevel": 3}), digest(pod={"env": []})}) == 3


def test_only_the_pod_that_verifies_has_a_key_that_opens() -> None:
    now = dump_job(setting(), backup="now", uid="u", reason="why", retain_until=at("2027-01-01T00:00:00"))
    config = DumpConfig.model_validate_json(now["spec"]["template"]["metadata"]["annotations"][CONFIG])
    assert (config.backup_name, config.reason) == ("now", "why")
    assert '{"name": "key"' not in json.dumps(now) and "identity" not in json.dumps(now)
    place = destination(read=secret("r"))
    verify = verify_job(
        installation="prod-eu1",
        policy=POLICY,
        pod=policy().pod,
        destination=place,
        recipient=place.encryption.age.recipients[0],
        image="i",
        backup="now",
        uid="u",
        manifest="production/1/dump/x/manifest.json",
    )
    text = json.dumps(verify)
    assert '"secret": {"name": "key"' in text and '{"name": "b"' not in text
    read = VerifyConfig.model_validate_json(verify["spec"]["template"]["metadata"]["annotations"][CONFIG])
    assert read.evidence_credentials is not None and read.destination.credentials != read.evidence_credentials


def test_every_reason_of_a_pod_is_a_reason_of_a_condition() -> None:
    """But one: what the platform's own identity lacks cannot be, since a credential is always an access key."""
    never = {StoreReason.CREDENTIALS_MISSING}
    for reason in {*JobReason, *StoreReason, *PipeReason} - never:
        assert BackupReason(str(reason))


@pytest.mark.parametrize(
    ("kind", "modules"),
    [
        (POSTGRES_BACKUP, ("record", "judge_record", "readback", "remembered", "runs", "prepare")),
        (POSTGRES_BACKUP_POLICY, ("judge", "cronjob", "attempts", "runs", "prepare")),
    ],
)
def test_no_kind_gives_a_reason_that_its_page_leaves_out(kind: Kind, modules: tuple[str, ...]) -> None:
    source = "".join((Path(backups.__file__).parent / f"{module}.py").read_text() for module in modules)
    given = {name for name in BackupReason.__members__ if re.search(rf"\b(R|BackupReason)\.{name}\b", source)}
    assert kind.never and not given & {reason.name for reason in kind.never}


RULES = [
    ({"ID": "all", "Prefix": "", "Expiration": {"Days": 14}}, True),
    ({"ID": "ours", "Filter": {"Prefix": "production/"}, "Expiration": {"Days": 14}}, True),
    ({"ID": "a part", "Filter": {"And": {"Prefix": "production/7/"}}, "Expiration": {"Days": 1}}, True),
    ({"ID": "a date", "Filter": {}, "Expiration": {"Date": datetime(2027, 1, 1, tzinfo=UTC)}}, True),
    ({"ID": "late", "Prefix": "", "Expiration": {"Days": 90}}, False),
    ({"ID": "other", "Filter": {"Prefix": "production-2/"}, "Expiration": {"Days": 1}}, False),
    ({"ID": "tagged", "Filter": {"Tag": {"Key": "a", "Value": "b"}}, "Expiration": {"Days": 1}}, False),
    ({"ID": "old versions", "Prefix": "", "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}, False),
]


@pytest.mark.parametrize(("rule", "hurts"), RULES, ids=[str(rule["ID"]) for rule, _ in RULES])
def test_lifecycle_rules_that_would_hurt_are_found(rule: dict[str, object], hurts: bool) -> None:
    assert bool(conflicting([rule], prefix="production", keep=timedelta(days=30))) is hurts


def test_a_store_that_overwrites_is_not_ready() -> None:
    judged = judge(destination(), Look(honored=False), keep=None)
    found = {v.type: (v.status, v.reason) for v in judged.verdicts}
    assert found["Ready"] == found["Safe"] == ("False", DestinationReason.CONDITIONAL_WRITES_NOT_HONORED)


def test_rules_that_nobody_may_read_are_unknown() -> None:
    judged = judge(destination(), Look(honored=True, rules=None), keep=None)
    assert {v.type: v.status for v in judged.verdicts}["Safe"] == "Unknown"


def test_an_identity_is_kept_elsewhere_or_that_is_told() -> None:
    well = judge(destination(), Look(honored=True), keep=None).verdicts
    assert {v.type: v.reason for v in well}["Safe"] is DestinationReason.AS_EXPECTED
    # the same key under another name is no other copy
    judged = judge(destination(escrow=KEY), Look(honored=True, rules=None), keep=None)
    found = {v.type: (v.status, v.reason) for v in judged.verdicts}
    assert found["Safe"] == ("False", DestinationReason.IDENTITY_ONLY_IN_CLUSTER)
    assert found["Ready"][0] == "True"


@pytest.mark.parametrize(
    ("asked", "locks", "safe", "shown"),
    [
        ("Governance", True, ("True", DestinationReason.AS_EXPECTED), "Governance"),
        ("Compliance", True, ("True", DestinationReason.AS_EXPECTED), "Compliance"),
        ("Governance", False, ("False", DestinationReason.OBJECT_LOCK_UNAVAILABLE), "None"),
        ("Governance", None, ("Unknown", DestinationReason.MISSING_PRIVILEGE), None),
        (None, False, ("True", DestinationReason.AS_EXPECTED), "None"),
    ],
)
def test_a_lock_that_is_asked_for_is_there_or_that_is_told(
    asked: str | None, locks: bool | None, safe: tuple[str, DestinationReason], shown: str | None
) -> None:
    lock: dict[str, object] = {"objectLock": {"mode": asked, "duration": "30d"}} if asked else {}
    judged = judge(destination(s3=lock), Look(honored=True, locks=locks), keep=None)
    found = {v.type: (v.status, v.reason) for v in judged.verdicts}
    assert found["Safe"] == safe and judged.status.object_lock == shown
    assert found["Ready"][0] == ("False" if locks is False and asked else "True")


@pytest.mark.parametrize(
    "options",
    [
        {"serverSideEncryption": {}},
        {"serverSideEncryption": {"aes256": {}, "kms": {}}},
        {"objectLock": {"mode": "Governance", "duration": "0s"}},
        {"uploadRate": "100k"},
        {"limits": {"objectSize": "1Mi"}},
    ],
)
def test_what_no_store_can_do_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        destination(s3=options)


def test_a_retired_recipient_opens_and_gets_nothing_new() -> None:
    value = destination().to_wire()
    recipients = value["encryption"]["age"]["recipients"]
    recipients[0]["decryptOnly"] = True
    place = DestinationSpec.model_validate(value)
    made = cron_job(setting(place=place), cron="0 2 * * *", suspended=False)
    annotations = made["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["annotations"]
    config = DumpConfig.model_validate_json(annotations[CONFIG])
    assert [r.name for r in config.recipients] == ["escrow"]
    found = opens(place, ["verify", "escrow"])
    assert found is not None and found.name == "verify"
    for recipient in recipients:
        recipient["decryptOnly"] = True
    with pytest.raises(ValidationError, match="new backups are for somebody"):
        DestinationSpec.model_validate(value)


@pytest.mark.parametrize(
    "schedule",
    [
        {"daily": {"at": "02:00"}},
        {"weekly": {"days": ["Sunday", "Monday"], "at": "02:00"}},
        {"monthly": {"dayOfMonth": 31, "at": "02:00"}},
    ],
)
def test_a_fleet_does_not_start_at_one_moment(schedule: dict[str, object]) -> None:
    spec = policy(schedule=schedule, scheduleSpread="3h")
    crons = {name: timetable(spec, policy=f"databases/{name}").cron for name in (f"p{i}" for i in range(300))}
    starts = {name: 60 * int(cron.split()[1]) + int(cron.split()[0]) for name, cron in crons.items()}
    assert min(starts.values()) >= 120 and max(starts.values()) <= 300 and len(set(starts.values())) > 100
    assert {cron.split(" ", 2)[2] for cron in crons.values()} == {timetable(policy(schedule=schedule)).cron[4:]}
    assert crons["p1"] == timetable(spec, policy="databases/p1").cron
    times = timetable(spec, policy="databases/p1")
    following = times.next_after(at("2026-11-22 00:00"))
    assert following is not None and 60 * following.hour + following.minute == starts["p1"]


def test_a_spread_ends_at_midnight_and_needs_a_time_of_day() -> None:
    late = policy(schedule={"daily": {"at": "23:50"}}, scheduleSpread="6h")
    assert {timetable(late, policy=str(i)).cron.split()[1] for i in range(50)} == {"23"}
    with pytest.raises(ScheduleError, match="scheduleSpread"):
        timetable(policy(schedule={"cron": "0 2 * * *"}, scheduleSpread="1h"))
    assert timetable(policy(schedule={"cron": "0 2 * * *"})).cron == "0 2 * * *"
