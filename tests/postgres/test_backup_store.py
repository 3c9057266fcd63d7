"""The object store and the pipe by themselves, on a real store and against the stock programs."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fixtures.binaries import tool
from tests.fixtures.plugin import Proxies
from tests.fixtures.s3 import S3Login, S3Server
from tests.unit.backup_world import INSTALLATION, NOW, POLICY, PREFIX, World

import pgtend.objectstore.s3 as s3_module
from pgtend.backups.catalog import Listed, read_catalog, sort_listing
from pgtend.backups.retention import plan_retention
from pgtend.core import failpoints
from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive
from pgtend.objectstore.config import AccessKey, CredentialFiles, StoreConfig, WebIdentity, load_credentials
from pgtend.objectstore.errors import AlreadyExists, NotFound, StoreError
from pgtend.objectstore.multipart import Pace, Upload
from pgtend.objectstore.parts import PartPlan
from pgtend.objectstore.pipe import parse_identities, parse_recipients, seal, unseal
from pgtend.objectstore.reading import ObjectReader
from pgtend.objectstore.s3 import Store
from pgtend.objectstore.sweep import carry_out, delete_abandoned

MIB = 1 << 20


class Place:
    """A bucket and clients of it."""

    def __init__(self, s3: S3Server, *, endpoint: str | None = None, **options: Any) -> None:
        self.s3 = s3
        self.bucket = s3.fresh_bucket("store", **options)
        self.endpoint = endpoint or s3.endpoint
        self._stores: list[Store] = []

    def store(self, login: S3Login | None = None, **changes: Any) -> Store:
        who = login or self.s3.admin
        value = {
            "bucket": self.bucket,
            "prefix": PREFIX,
            "endpoint": self.endpoint,
            "addressing": "Path",
            "caFile": str(self.s3.ca_path),
        } | changes
        self._stores.append(
            Store(
                config=StoreConfig.model_validate(value),
                credentials=AccessKey(id=who.access_key, secret=Sensitive(who.secret_key)),
                read_timeout=15,
            )
        )
        return self._stores[-1]

    def close(self) -> None:
        for store in self._stores:
            store.close()


@pytest.fixture
def place(s3: S3Server) -> Iterator[Place]:
    made = Place(s3)
    yield made
    made.close()


def upload(store: Store, key: str, data: bytes, **options: Any) -> Any:
    sink = Upload(store=store, key=key, plan=options.pop("plan", PartPlan()), **options)
    with sink:
        for start in range(0, len(data), 65552):
            sink.write(data[start : start + 65552])
        written = sink.finish()
        sink.commit()
    return written


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 40 * MIB + 7])
def test_an_upload_of_any_size_arrives_whole(place: Place, size: int) -> None:
    store = place.store()
    data = os.urandom(size)
    written = upload(store, f"{PREFIX}/object", data, metadata={"pgtend-installation": "x"})
    assert (written.size, written.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert written.parts == max(1, -(-size // (8 * MIB)))
    reader = ObjectReader(store=store, key=f"{PREFIX}/object")
    assert b"".join(iter(lambda: reader.read(MIB), b"")) == data
    assert reader.sha256 == written.sha256
    assert store.head(f"{PREFIX}/object").metadata == {"pgtend-installation": "x"}
    assert list(store.incomplete_uploads("")) == []


def test_nothing_is_visible_before_the_commit_and_nothing_stays_after_an_abort(place: Place) -> None:
    store = place.store()
    with Upload(store=store, key=f"{PREFIX}/object", plan=PartPlan()) as sink:
        sink.write(bytes(20 * MIB))
        sink.finish()
        assert list(store.objects("")) == []
        assert [u.key for u in store.incomplete_uploads("")] == [f"{PREFIX}/object"]
    assert list(store.objects("")) == [] and list(store.incomplete_uploads("")) == []


def test_nothing_is_ever_overwritten_by_an_upload_or_a_conditional_put(place: Place) -> None:
    store = place.store()
    store.put("key", b"first", if_absent=True)
    with pytest.raises(AlreadyExists):
        store.put("key", b"second", if_absent=True)
    for size in (10, 9 * MIB):
        with pytest.raises(AlreadyExists):
            upload(store, "key", bytes(size))
    assert store.get("key") == b"first"
    assert list(store.incomplete_uploads("")) == []
    store.put("key", b"third", if_absent=False)
    assert store.get("key") == b"third"


def test_bytes_that_changed_on_the_way_are_refused_by_the_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS the signature leaves the payload out, so its checksum guards it: here it is one of other bytes."""
    store = place.store()
    begun = store.create_upload("parts", metadata={})
    checksum = s3_module._crc32
    monkeypatch.setattr(s3_module, "_crc32", lambda body: checksum(bytes(body) + b"!"))
    with pytest.raises(StoreError):
        store.put("whole", b"some bytes", if_absent=True)
    with pytest.raises(StoreError):
        store.upload_part("parts", begun, 1, b"some bytes")
    monkeypatch.setattr(s3_module, "_crc32", checksum)
    store.abort_upload("parts", begun)
    assert [o.key for o in store.objects("")] == []


def test_conditional_writes_are_tried_out_with_a_credential_that_only_writes(place: Place) -> None:
    store = place.store(place.s3.writer)
    assert store.honors_conditional_writes(f"{PREFIX}/.pgtend/conditional-write")
    assert store.honors_conditional_writes(f"{PREFIX}/.pgtend/conditional-write")
    with pytest.raises(StoreError, match="BucketDenied"):
        store.get(f"{PREFIX}/.pgtend/conditional-write")
    with pytest.raises(StoreError, match="BucketDenied"):
        store.delete(f"{PREFIX}/.pgtend/conditional-write")


def test_a_writer_alone_uploads_and_aborts(place: Place) -> None:
    store = place.store(place.s3.writer)
    upload(store, f"{PREFIX}/object", bytes(9 * MIB))
    with pytest.raises(RuntimeError), Upload(store=store, key=f"{PREFIX}/other", plan=PartPlan()) as sink:
        sink.write(bytes(9 * MIB))
        raise RuntimeError("the dump died")
    assert place.s3.uploads(place.bucket) == [] and place.s3.keys(place.bucket) == [f"{PREFIX}/object"]


def test_memory_is_bounded_when_the_store_is_slow(place: Place) -> None:
    """A writer waits as soon as four parts are on their way."""
    store = place.store()
    gate = threading.Event()
    started: list[int] = []

    def pace(size: int) -> None:
        started.append(size)
        gate.wait(20)

    sink = Upload(store=store, key=f"{PREFIX}/object", plan=PartPlan(), pace=pace)
    taken: list[int] = []

    def write() -> None:
        for _ in range(64):
            sink.write(bytes(MIB))
            taken.append(MIB)

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(1)
    assert sum(taken) < 6 * 8 * MIB and len(started) == 4
    gate.set()
    thread.join(30)
    sink.finish()
    sink.commit()
    assert store.head(f"{PREFIX}/object").size == 64 * MIB


def test_the_rate_is_kept(place: Place) -> None:
    started = time.monotonic()
    upload(place.store(), f"{PREFIX}/object", bytes(24 * MIB), pace=Pace(16 * MIB))
    assert time.monotonic() - started >= 0.95


def test_too_many_parts_or_bytes_end_the_upload(place: Place) -> None:
    store = place.store(limits={"parts": 2, "objectSize": 5 << 40})
    with pytest.raises(StoreError, match=r"ObjectTooLarge.*more than 2 parts"):
        upload(store, "key", bytes(25 * MIB), plan=PartPlan(2, 16 * MIB))
    store = place.store(limits={"parts": 100, "objectSize": 10 * MIB})
    with pytest.raises(StoreError, match=r"ObjectTooLarge.*the limit of the store"):
        upload(store, "key", bytes(11 * MIB))
    assert place.s3.keys(place.bucket) == [] and place.s3.uploads(place.bucket) == []


def test_a_network_that_breaks_once_is_survived(s3: S3Server, proxy: Proxies) -> None:
    relay = proxy((s3.host, s3.port))
    place = Place(s3, endpoint=f"https://{relay.host}:{relay.port}")
    store = place.store()
    data = os.urandom(20 * MIB)
    undo = failpoints.on("objectstore.create_upload.after", relay.cut)
    try:
        upload(store, "key", data)
    finally:
        undo()
    reader = ObjectReader(store=store, key="key")
    parts = [reader.read(MIB)]
    relay.cut()
    while block := reader.read(MIB):
        parts.append(block)
        if len(parts) == 5:
            relay.cut()
    assert b"".join(parts) == data
    place.close()


def test_a_store_that_dies_ends_the_upload_with_a_reason(s3: S3Server, proxy: Proxies) -> None:
    relay = proxy((s3.host, s3.port))
    place = Place(s3, endpoint=f"https://{relay.host}:{relay.port}")
    store = place.store()
    undo = failpoints.on("objectstore.create_upload.after", relay.refuse)
    sink = Upload(store=store, key="key", plan=PartPlan())
    try:
        with pytest.raises(StoreError) as caught:
            for _ in range(10):
                sink.write(bytes(8 * MIB))
            sink.finish()
        assert caught.value.reason == "BucketUnreachable"
    finally:
        undo()
    relay.heal()
    sink.abort()
    assert s3.uploads(place.bucket) == []
    place.close()


def test_an_object_that_is_replaced_while_it_is_read_is_no_mixture(place: Place) -> None:
    store = place.store()
    store.put("key", b"a" * (4 * MIB), if_absent=True)
    reader = ObjectReader(store=store, key="key")
    reader.read(MIB)
    store.put("key", b"b" * (4 * MIB), if_absent=False)
    reader.close()  # as if the connection had broken
    reader._body = None
    with pytest.raises(StoreError):
        reader.drain()


def test_what_is_not_there_is_not_found(place: Place) -> None:
    store = place.store(place.s3.reader)
    for act in (lambda: store.get("absent"), lambda: store.head("absent"), lambda: store.open("absent")):
        with pytest.raises(NotFound):
            act()
    place.store(place.s3.deleter).delete("absent")
    with pytest.raises(StoreError, match="limit 3"):
        place.store().put("big", b"1234", if_absent=True)
        store.get("big", limit=3)


def test_retention_is_carried_out_with_the_deleters_rights_and_resumed_after_a_crash(place: Place) -> None:
    world = World()
    for age in (60, 50, 40, 3, 2, 1):
        world.backup(age_days=age, verified=True)
    world.add("notes.txt", b"somebody else's")
    admin = place.store()
    for key, size in world.sizes.items():
        admin.put(key, world.contents.get(key, bytes(size)), if_absent=True)

    def pass_once() -> int:
        listed = [Listed(key=o.key, size=o.size, etag=o.etag) for o in admin.objects(f"{PREFIX}/")]
        small = {o.key: admin.get(o.key) for o in listed if o.key.endswith(".json")}
        catalog = read_catalog(
            listing=sort_listing(prefix=PREFIX, listed=listed),
            contents=small,
            installation=INSTALLATION,
            policy=("databases", POLICY),
        )
        result = plan_retention(
            catalog=catalog, now=NOW, keep_for=timedelta(days=30), min_verified=2, last_run_failed=False
        )
        for deletion in result.deletions:
            carry_out(admin, deletion.orders)
        return len(result.deletions)

    calls = iter(range(100))

    def crash() -> None:
        if next(calls) == 1:
            raise RuntimeError("the operator died")

    undo = failpoints.on("objectstore.sweep.delete.after", crash)
    with pytest.raises(RuntimeError, match="died"):
        pass_once()
    undo()
    assert pass_once() == 3
    assert pass_once() == 0
    left = [o.key for o in admin.objects("")]
    assert len([k for k in left if k.endswith("manifest.json")]) == 3
    assert f"{PREFIX}/notes.txt" in left and len(left) == 3 * 4 + 1
    # Deleting needs the right to overwrite a manifest too; whoever may only delete is told so.
    with pytest.raises(StoreError, match="BucketDenied"):
        carry_out(place.store(place.s3.deleter), [(left[0], b"tombstone")])


def test_data_without_a_manifest_is_deleted_only_where_it_says_that_it_is_ours(place: Place) -> None:
    store = place.store()
    upload(store, "ours", b"1", metadata={"pgtend-installation": "a", "pgtend-policy": "n/p"})
    upload(store, "other", b"2", metadata={"pgtend-installation": "b", "pgtend-policy": "n/p"})
    store.put("nobody", b"3", if_absent=True)
    owner = {"pgtend-installation": "a", "pgtend-policy": "n/p"}
    assert delete_abandoned(store, keys=["ours", "other", "nobody", "absent"], owner=owner) == ["ours"]
    assert delete_abandoned(store, keys=["other"], owner={}) == []
    assert [o.key for o in store.objects("")] == ["nobody", "other"]


def test_lifecycle_rules_that_delete_are_listed(place: Place) -> None:
    store = place.store()
    assert store.expiring_rules() == []
    place.s3.client().put_bucket_lifecycle_configuration(
        Bucket=place.bucket,
        LifecycleConfiguration={
            "Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 14}}]
        },
    )
    assert [r["ID"] for r in store.expiring_rules()] == ["all"]


def test_the_ca_may_come_from_memory(place: Place) -> None:
    config = StoreConfig(bucket=place.bucket, prefix=PREFIX, endpoint=place.endpoint, addressing="Path")
    who = AccessKey(id=place.s3.admin.access_key, secret=Sensitive(place.s3.admin.secret_key))
    store = Store(config=config, credentials=who, ca_pem=place.s3.ca_path.read_text())
    assert list(store.objects("")) == []
    store.close()
    store = Store(config=config, credentials=who, attempts=1)
    with pytest.raises(StoreError, match="BucketUnreachable"):
        list(store.objects(""))
    store.close()


def test_credentials_come_from_files_or_from_the_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "id").write_text("key\n")
    (tmp_path / "secret").write_text("value\n")
    pair = {"idFile": str(tmp_path / "id"), "secretFile": str(tmp_path / "secret")}
    found = load_credentials(CredentialFiles.model_validate({"accessKey": pair}))
    assert found == AccessKey(id="key", secret=Sensitive("value")) and "value" not in repr(found)
    (tmp_path / "token").write_text("jwt")
    web = load_credentials(
        CredentialFiles.model_validate(
            {"webIdentity": {"roleARN": "arn:aws:iam::123456789012:role/x", "tokenFile": str(tmp_path / "token")}}
        )
    )
    assert isinstance(web, WebIdentity)
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = StoreConfig(bucket="bucket", prefix="x", endpoint="https://127.0.0.1:9")
    store = Store(config=config, credentials=load_credentials(CredentialFiles()), attempts=1)
    with pytest.raises(StoreError, match="CredentialsMissing"):
        store.get("key")
    store.close()


# The pipe


def sealed(data: bytes, *identities: Any, level: int = 1) -> bytes:
    sink = io.BytesIO()
    assert seal(source=io.BytesIO(data), sink=sink, recipients=[i.to_public() for i in identities], level=level) == len(
        data
    )
    return sink.getvalue()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=1000), st.integers(0, 300), st.sampled_from([1, 3, 19]))
def test_what_was_sealed_opens(data: bytes, times: int, level: int) -> None:
    identity = pyrage.x25519.Identity.generate()
    stored = sealed(data * times, identity, level=level)
    assert b"".join(unseal(source=io.BytesIO(stored), identities=[identity])) == data * times


def test_every_recipient_opens_it_with_the_stock_tools(tmp_path: Path) -> None:
    identities = [pyrage.x25519.Identity.generate() for _ in range(3)]
    data = os.urandom(3 * MIB) + bytes(30 * MIB) + b"end"
    (tmp_path / "stored").write_bytes(sealed(data, *identities))
    for number, identity in enumerate(identities):
        (tmp_path / f"key-{number}").write_text(f"{identity}\n")
        command = f"{tool('age')} -d -i {tmp_path}/key-{number} {tmp_path}/stored | {tool('zstd')} -d"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=True)
        assert done.stdout == data


def test_what_the_stock_tools_wrote_opens(tmp_path: Path) -> None:
    made = subprocess.run([tool("age-keygen")], capture_output=True, text=True, check=True)
    public = re.search(r"age1[0-9a-z]+", made.stdout + made.stderr)
    assert public is not None
    data = os.urandom(MIB) * 3
    (tmp_path / "raw").write_bytes(data)
    command = f"{tool('zstd')} -q -3 -c {tmp_path}/raw | {tool('age')} -r {public[0]}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=True)
    identities = parse_identities(made.stdout)
    assert b"".join(unseal(source=io.BytesIO(done.stdout), identities=identities)) == data


@pytest.mark.parametrize("where", range(0, 100, 7))
def test_a_stream_that_is_cut_or_changed_anywhere_never_opens_whole(where: int) -> None:
    identity = pyrage.x25519.Identity.generate()
    stored = sealed(os.urandom(200_000), identity)
    position = where * (len(stored) - 1) // 100
    for damaged in (
        stored[:position],
        stored[:position] + bytes([stored[position] ^ 1]) + stored[position + 1 :],
        stored + b"x",
    ):
        with pytest.raises(PgtendError) as caught:
            list(unseal(source=io.BytesIO(damaged), identities=[identity]))
        assert caught.value.reason in {"DecryptFailed", "TruncatedArchive", "KeyMissing"}


def test_a_plain_stream_that_was_cut_before_it_was_encrypted_is_no_whole() -> None:
    import zstandard

    identity = pyrage.x25519.Identity.generate()
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(os.urandom(300_000))
    for cut in (1, 4, 5, 1000, len(packed)):
        stored = pyrage.encrypt(packed[:-cut], [identity.to_public()])
        with pytest.raises(PgtendError, match="TruncatedArchive"):
            list(unseal(source=io.BytesIO(stored), identities=[identity]))


def test_a_bomb_is_unpacked_in_small_blocks() -> None:
    identity = pyrage.x25519.Identity.generate()

    class Zeros:
        left = 400 * MIB

        def read(self, size: int) -> bytes:
            taken = min(size, self.left)
            self.left -= taken
            return bytes(taken)

    sink = io.BytesIO()
    seal(source=Zeros(), sink=sink, recipients=[identity.to_public()])
    assert len(sink.getvalue()) < MIB
    blocks = [len(b) for b in unseal(source=io.BytesIO(sink.getvalue()), identities=[identity])]
    assert sum(blocks) == 400 * MIB and max(blocks) <= MIB


def test_errors_of_source_and_sink_come_through_as_they_are() -> None:
    identity = pyrage.x25519.Identity.generate()

    class Broken(Exception):
        pass

    class Breaks:
        def __init__(self) -> None:
            self.calls = 0

        def read(self, size: int) -> bytes:
            self.calls += 1
            if self.calls > 3:
                raise Broken
            return os.urandom(size)

        def write(self, data: bytes) -> None:
            raise Broken

        def flush(self) -> None: ...

    with pytest.raises(Broken):
        seal(source=Breaks(), sink=io.BytesIO(), recipients=[identity.to_public()])
    with pytest.raises(Broken):
        seal(source=io.BytesIO(bytes(MIB)), sink=Breaks(), recipients=[identity.to_public()])
    with pytest.raises(Broken):
        seal(source=io.BytesIO(os.urandom(MIB)), sink=Breaks(), recipients=[identity.to_public()])
    stored = io.BytesIO(sealed(os.urandom(MIB), identity))

    class BreaksLater:
        def read(self, size: int) -> bytes:
            if stored.tell() > 300_000:
                raise Broken
            return stored.read(size)

    with pytest.raises(Broken):
        list(unseal(source=BreaksLater(), identities=[identity]))


def test_keys_that_are_none_are_refused_without_being_quoted() -> None:
    with pytest.raises(PgtendError, match="InvalidRecipient"):
        parse_recipients(["age1nonsense"])
    with pytest.raises(PgtendError, match="nobody could decrypt"):
        parse_recipients([])
    identity = str(pyrage.x25519.Identity.generate())
    with pytest.raises(PgtendError, match="InvalidIdentity") as caught:
        parse_identities(f"# a comment\n{identity[:-2]}\n")
    assert identity[16:40] not in str(caught.value)
    with pytest.raises(PgtendError, match="is empty"):
        parse_identities("# only a comment\n")
    assert len(parse_identities(f"# created\n\n{identity}\n")) == 1
