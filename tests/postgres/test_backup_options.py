"""What a destination asks of its store: each as people write it, from the spec to what the store was told or keeps."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.fixtures.gateway import gateway_before
from tests.fixtures.plugin import Postgres
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_kit import INSTALLATION, POLICY, PREFIX, Kit, make_kit

from pgtend.api.backupdestination import S3
from pgtend.backups.bucket import read_policy
from pgtend.backups.inputs import store_config
from pgtend.backups.retention import Kept, plan_retention
from pgtend.core.redaction import Sensitive
from pgtend.objectstore.config import AccessKey
from pgtend.objectstore.s3 import Store
from pgtend.objectstore.sweep import carry_out

DAY = timedelta(days=1)


@pytest.fixture
def kit(postgres: Postgres, s3: S3Server, tmp_path: Path) -> Kit:
    """On one major, where no version can make a difference."""
    return make_kit(postgres(18), s3, tmp_path)


def wire(kit: Kit, **spec: Any) -> dict[str, Any]:
    """A pod's store, as the operator makes it of a destination's spec."""
    return store_config(S3.model_validate(_spec(kit) | spec), ca_file=kit.s3.ca_path).to_wire()


def store(kit: Kit, login: str) -> Store:
    who = getattr(kit.s3, login)
    return Store(
        config=store_config(S3.model_validate(_spec(kit)), ca_file=kit.s3.ca_path),
        credentials=AccessKey(id=who.access_key, secret=Sensitive(who.secret_key)),
    )


def _spec(kit: Kit) -> dict[str, Any]:
    key = {"id": {"secretRef": {"name": "s3"}}, "secret": {"secretRef": {"name": "s3"}}}
    return {
        "bucket": kit.bucket, "prefix": PREFIX, "endpoint": kit.s3.endpoint, "addressing": "Path",
        "credentials": {"write": {"accessKey": key}},
    }  # fmt: skip


@pytest.mark.covers("BackupDestination.spec.s3.objectLock.*")
def test_what_is_locked_is_kept_by_the_store_and_left_alone_by_retention(kit: Kit) -> None:
    kit.bucket = kit.s3.fresh_bucket("locked", lock=True)
    kit.noise(10)  # one object in several parts, the others in one
    lock = {"mode": "Governance", "duration": "36h"}
    result = kit.good_dump(store=wire(kit, objectLock=lock))
    assert result.manifest is not None
    manifest = kit.manifest(result.manifest)
    assert manifest.locked_until == manifest.started_at + timedelta(hours=36)
    client, keys = kit.s3.client(), kit.run_keys()
    assert len(keys) == 3
    for key in keys:
        head = client.head_object(Bucket=kit.bucket, Key=key)
        assert head["ObjectLockMode"] == "GOVERNANCE", key
        assert abs(head["ObjectLockRetainUntilDate"] - manifest.locked_until) < timedelta(seconds=2)
        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(Bucket=kit.bucket, Key=key, VersionId=head["VersionId"])
    assert "ObjectLockMode" not in client.head_object(Bucket=kit.bucket, Key=f"{PREFIX}/.pgtend/conditional-write")

    status, verified = kit.verify(result.manifest)
    assert status == 0, verified
    for _ in range(2):  # a newer one, or nothing may go
        assert kit.verify(str(kit.good_dump().manifest))[0] == 0
    bucket = store(kit, "admin")

    def plan(later: timedelta) -> Any:
        catalog = read_policy(bucket, installation=INSTALLATION, policy=(POLICY["namespace"], POLICY["name"]))
        now = manifest.finished_at + later
        return plan_retention(
            catalog=catalog, now=now, keep_for=timedelta(hours=1), min_verified=1, last_run_failed=False
        )

    before = plan(DAY)
    assert before.kept[result.manifest] is Kept.LOCKED
    assert result.manifest not in {deletion.manifest for deletion in before.deletions}
    (after,) = [deletion for deletion in plan(2 * DAY).deletions if deletion.manifest == result.manifest]
    carry_out(bucket, after.orders)
    assert not set(keys) & set(kit.run_keys())
    assert bucket.locks_objects() is True and store(kit, "writer").locks_objects() is None
    bucket.close()


def test_a_bucket_without_lock_takes_nothing_that_should_be_locked(kit: Kit) -> None:
    assert store(kit, "admin").locks_objects() is False
    status, result = kit.dump(store=wire(kit, objectLock={"mode": "Compliance", "duration": "1d"}))
    assert (status, result.reason) == (1, "UploadFailed"), result
    kit.nothing_left()
    # whose credential may know is told before the first byte
    status, result = kit.dump(login="admin", store=wire(kit, objectLock={"mode": "Compliance", "duration": "1d"}))
    assert (status, result.reason, result.transient) == (1, "UploadFailed", False), result
    assert "has no object lock" in result.message and "dump" not in result.phases
    kit.nothing_left()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"aes256": {}}, {"x-amz-server-side-encryption": "AES256"}),
        ({"kms": {}}, {"x-amz-server-side-encryption": "aws:kms"}),
        (
            {"kms": {"keyID": "alias/pg"}},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "alias/pg",
            },
        ),
    ],
)
@pytest.mark.covers(
    "BackupDestination.spec.s3.serverSideEncryption.aes256", "BackupDestination.spec.s3.serverSideEncryption.kms.keyID"
)
def test_the_store_is_told_to_encrypt(kit: Kit, asked: dict[str, Any], told: dict[str, str]) -> None:
    """The store of the tests has no key server: what counts is what it is told, with each object and each upload."""
    with gateway_before(kit.s3) as gateway:
        config = store_config(
            S3.model_validate(_spec(kit) | {"endpoint": gateway.endpoint, "serverSideEncryption": asked})
        )
        who = kit.s3.admin
        bucket = Store(
            config=config,
            credentials=AccessKey(id=who.access_key, secret=Sensitive(who.secret_key)),
            attempts=1,
        )
        gateway.fails = lambda method, path: True
        for write in (
            lambda: bucket.put(f"{PREFIX}/small", b"x", if_absent=True),
            lambda: bucket.create_upload(f"{PREFIX}/large", metadata={}),
        ):
            with pytest.raises(Exception, match="the disk is full"):
                write()
        bucket.close()
        found = [
            {name: value for name, value in headers.items() if name.startswith("x-amz-server-side")}
            for _, _, headers in gateway.seen
        ]
    assert found == [told, told]


@pytest.mark.covers("BackupDestination.spec.s3.uploadRate")
def test_a_pod_uploads_no_faster_than_asked(kit: Kit) -> None:
    kit.noise(20)
    spent = []
    for options in ({}, {"uploadRate": "4Mi"}):
        began = time.monotonic()
        kit.good_dump(store=wire(kit, **options), globals="None")
        spent.append(time.monotonic() - began)
    # the third part of 8 MiB begins when sixteen have had their time
    assert spent[1] >= 4.0 and spent[1] > spent[0], spent


@pytest.mark.covers("BackupDestination.spec.s3.limits.*")
@pytest.mark.parametrize("limits", [{"parts": 1}, {"objectSize": "9Mi"}])
def test_the_limits_of_the_store_are_respected(kit: Kit, limits: dict[str, Any]) -> None:
    kit.noise(12)
    status, result = kit.dump(store=wire(kit, limits=limits))
    assert (status, result.reason) == (1, "ObjectTooLarge"), result
    kit.nothing_left()
