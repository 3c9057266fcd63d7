"""`pgtend backup list` of a real bucket: backups are what was committed, and whatever else lies there is told apart."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.fixtures.plugin import Postgres
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_command import command, place, refused
from tests.postgres.backup_kit import INSTALLATION, POLICY, PREFIX, Kit, make_kit

from pgtend.backups.manifest import PolicyRecord, Tombstone
from pgtend.core.clock import rfc3339


@pytest.fixture
def kit(postgres: Postgres, s3: S3Server, tmp_path: Path) -> Kit:
    return make_kit(postgres(18), s3, tmp_path)


def listed(kit: Kit, *words: str, exit_code: int = 0) -> dict[str, Any]:
    done = command(kit, "list", *place(kit), "-o", "json", *words)
    assert done.exit_code == exit_code, (done.output, done.exception)
    return dict(json.loads(done.stdout))


def names(found: dict[str, Any]) -> set[str]:
    return {one["name"] for one in found["backups"]}


def named(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [one for one in found["backups"] if one["name"] == name]
    return dict(one)


def folder_of(manifest: str | None) -> str:
    assert manifest is not None
    return f"{manifest.rpartition('/')[0]}/"


@pytest.mark.timeout(240)
def test_everything_in_a_bucket_is_told_for_what_it_is(kit: Kit) -> None:
    empty = listed(kit)
    assert (empty["backups"], empty["notBackups"]) == ([], [])
    before = datetime.now(UTC) - timedelta(seconds=1)
    proved = kit.good_dump(backupName="orders-1")
    assert kit.verify(str(proved.manifest))[0] == 0
    kit.good_dump(backupName="orders-2", globals="None")
    kit.good_dump(backupName="shop-1", policy={"namespace": "shop", "name": "shop"})
    found = listed(kit)
    assert found["source"] == f"s3://{kit.bucket}/{PREFIX}" and found["notBackups"] == []
    assert names(found) == {"orders-1", "orders-2", "shop-1"}
    first, second, other = (named(found, name) for name in ("orders-1", "orders-2", "shop-1"))
    assert first["policy"] == POLICY and other["policy"] == {"namespace": "shop", "name": "shop"}
    assert first["manifest"] == proved.manifest and first["serverVersion"].startswith("18")
    assert rfc3339(before) <= first["takenAt"] <= first["finishedAt"] <= found["at"]
    assert 0 <= first["ageSeconds"] < 240
    assert first["bytes"]["stored"] == sum(
        len(kit.read(key))
        for key in kit.run_keys()
        if key.startswith(folder_of(proved.manifest)) and key.endswith(".age")
    )
    assert first["databases"] == kit.databases and first["recipients"] == ["verify", "escrow"]
    assert first["verified"]["level"] == "Read" and second["verified"] is None
    assert (first["globals"], second["globals"]) == ("WithPasswords", "None")
    assert {one["broken"] for one in found["backups"]} == {None}
    assert names(listed(kit, "--policy", "databases/orders")) == {"orders-1", "orders-2"}
    assert names(listed(kit, "--policy", "shop")) == {"shop-1"}
    assert listed(kit, "--policy", "shop/orders")["backups"] == []
    listed(kit, "--fail")

    # a run that died before its manifest, one that retention buries, one whose manifest is rubbish, a stranger's key
    died, buried, rubbish = (kit.good_dump(backupName=name).manifest for name in ("died", "buried", "rubbish"))
    kit.s3.client().delete_object(Bucket=kit.bucket, Key=str(died))
    tombstone = Tombstone(
        installation_id=INSTALLATION, policy=PolicyRecord(**POLICY), deleted_at=datetime.now(UTC), keys=()
    )
    kit.overwrite(str(buried), tombstone.to_bytes())
    kit.overwrite(f"{PREFIX}/holiday.jpg", b"a picture")
    kit.overwrite(f"{PREFIX}x/other.txt", b"not below the prefix")
    found = listed(kit, "--fail")
    assert names(found) == {"orders-1", "orders-2", "shop-1", "rubbish"}
    kit.overwrite(str(rubbish), b"{}")
    found = listed(kit, "--fail", exit_code=2)
    assert names(found) == {"orders-1", "orders-2", "shop-1"}
    assert {(one["what"], one["where"]) for one in found["notBackups"]} == {
        ("Uncommitted", folder_of(died)),
        ("Dying", folder_of(buried)),
        ("Unreadable", folder_of(rubbish)),
        ("Foreign", f"{PREFIX}/holiday.jpg"),
    }
    (foreign,) = [one for one in found["notBackups"] if one["what"] == "Foreign"]
    assert (foreign["objects"], foreign["bytes"]) == (1, 9)
    kit.s3.client().delete_object(Bucket=kit.bucket, Key=str(rubbish))

    # a backup that was proved and has lost an object since is no proved backup
    data = f"{folder_of(proved.manifest)}{kit.databases[0]}.dump.zst.age"
    whole = kit.read(data)
    kit.overwrite(data, whole[:-1])
    broken = named(listed(kit, "--fail", exit_code=2), "orders-1")
    assert broken["verified"] is None and broken["broken"] == f"{data} has another size than was written"
    kit.s3.client().delete_object(Bucket=kit.bucket, Key=data)
    assert named(listed(kit), "orders-1")["broken"] == f"{data} is missing"

    keys = kit.s3.keys(kit.bucket)
    done = command(kit, "list", *place(kit, "admin"))
    assert kit.s3.keys(kit.bucket) == keys, "a listing writes nothing, whatever it might"
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    columns = ["BACKUP", "POLICY", "TAKEN", "AGE", "SIZE", "RAW", "VERIFIED", "DATABASES", "RECIPIENTS"]
    assert lines["BACKUP"].split() == columns
    assert lines["orders-1"].split()[1] == "databases/orders" and "BROKEN" in lines["orders-1"]
    assert kit.databases[0] in lines["orders-2"] and "verify,escrow" in lines["orders-2"]
    assert f"broken: orders-1: {data} is missing" in done.stdout
    assert f"no backup: {PREFIX}/holiday.jpg (1 objects, 9): no key of pgtend's" in done.stdout


def test_where_the_bucket_is_may_be_said_in_several_ways(kit: Kit) -> None:
    kit.good_dump(backupName="orders-1")
    spec: dict[str, Any] = {
        "s3": {
            "bucket": kit.bucket,
            "prefix": PREFIX,
            "endpoint": kit.s3.endpoint,
            "addressing": "Path",
            "ca": {"secretRef": {"name": "s3-ca"}},
            "credentials": {
                "write": {"accessKey": {"id": {"secretRef": {"name": "w"}}, "secret": {"secretRef": {"name": "w"}}}}
            },
        },
        "encryption": {"age": {"recipients": [{"name": "verify", "publicKey": str(kit.identity.to_public())}]}},
    }
    body = {"apiVersion": "pgtend.dev/v1alpha1", "kind": "BackupDestination", "metadata": {"name": "s3"}, "spec": spec}
    path = kit.write("destination.yaml", yaml.safe_dump_all([body, {"kind": "ConfigMap"}]))
    keys = ["--key-id-file", str(kit.folder / "reader-id"), "--secret-key-file", str(kit.folder / "reader-secret")]
    ca = ["--ca-file", str(kit.s3.ca_path)]
    done = command(kit, "list", "--destination-file", str(path), *keys, *ca)
    assert done.exit_code == 0 and "orders-1" in done.stdout, (done.output, done.exception)
    refused(command(kit, "list", "--destination-file", str(path), *keys), 1, "Secret s3-ca: give its file by --ca-file")

    # files that the environment names, and then the S3 library's own variables
    flags = place(kit, **{"key-id-file": None, "secret-key-file": None})
    named = {"PGTEND_S3_KEY_ID_FILE": keys[1], "PGTEND_S3_SECRET_KEY_FILE": keys[3]}
    assert "orders-1" in command(kit, "list", *flags, env=named).stdout
    own = {"AWS_ACCESS_KEY_ID": kit.s3.reader.access_key, "AWS_SECRET_ACCESS_KEY": kit.s3.reader.secret_key}
    assert "orders-1" in command(kit, "list", *flags, env=own).stdout
    refused(command(kit, "list", *flags, env={"AWS_PROFILE": "nobody"}), 1, "ReadFailed", "profile (nobody)")


def test_what_is_in_the_way_is_named(kit: Kit) -> None:
    kit.write("wrong", "this-is-no-secret-of-anybody")
    done = command(kit, "list", *place(kit, **{"secret-key-file": str(kit.folder / "wrong")}))
    refused(done, 1, "BucketDenied")
    assert "this-is-no-secret" not in done.output
    refused(command(kit, "list", *place(kit, bucket="no-such-bucket-here")), 1, f"s3://no-such-bucket-here/{PREFIX}/")
    refused(command(kit, "list", *place(kit, **{"key-id-file": "/nowhere/id"})), 1, "SecretMissing", "/nowhere/id")
    refused(command(kit, "list", *place(kit, **{"ca-file": None})), 1, "BucketUnreachable", "certificate")
    refused(command(kit, "list", *place(kit, endpoint="ftp://nowhere")), 1, "endpoint")
    refused(command(kit, "list", *place(kit), "--namespace", "databases"), 2, "exactly one of a bucket")
    refused(command(kit, "list"), 2, "exactly one of a bucket")
    refused(command(kit, "list", *place(kit), "--destination-file", "x.yaml"), 2, "leave the flags")
    refused(command(kit, "list", *place(kit, prefix=None)), 2, "--bucket and --prefix")
