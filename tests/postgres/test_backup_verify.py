"""Whatever happens to a backup in the bucket, verification says so, by the right name; and it never says so of a good
one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyrage
import pytest
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_kit import TABLES, Kit, make_kit

from pgtend.backups.manifest import Evidence


@dataclass(frozen=True)
class Dumped:
    """A good backup of the session, to be laid into the bucket of each test."""

    kit: Kit
    manifest: str
    objects: dict[str, bytes]


_dumped: dict[int, Dumped] = {}


def dumped(server: PostgresServer, s3: S3Server, folder: Path) -> Dumped:
    if server.major not in _dumped:
        kit = make_kit(server, s3, folder)
        manifest = kit.good_dump().manifest
        assert manifest is not None
        _dumped[server.major] = Dumped(kit, manifest, {k: kit.read(k) for k in kit.run_keys()})
    return _dumped[server.major]


@pytest.fixture
def kit(postgres: Postgres, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return laid_out(postgres(18), s3, tmp_path_factory)


def laid_out(server: PostgresServer, s3: S3Server, folders: pytest.TempPathFactory) -> Kit:
    source = dumped(server, s3, folders.mktemp("dumped"))
    kit = replace(source.kit, folder=folders.mktemp("kit"), bucket="")
    for key, body in source.objects.items():
        kit.overwrite(key, body)
    return kit


@pytest.fixture
def backup(kit: Kit) -> str:
    """The manifest's key of a good backup."""
    return _dumped[kit.server.major].manifest


def data_key(kit: Kit, manifest: str) -> str:
    return f"{manifest.rpartition('/')[0]}/{kit.databases[0]}.dump.zst.age"


def fails(kit: Kit, manifest: str, reason: str, **changes: Any) -> Any:
    status, result = kit.verify(manifest, **changes)
    assert (status, result.outcome, result.reason) == (1, "Failed", reason), result
    assert not [k for k in kit.run_keys() if "verified" in k]
    return result


def test_a_good_backup_is_proved_and_the_evidence_lies_beside_it(
    server: PostgresServer, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kit = laid_out(server, s3, tmp_path_factory)
    backup = _dumped[server.major].manifest
    status, result = kit.verify(backup)
    assert (status, result.reason, result.evidence) == (0, "Verified", "Written"), result
    assert result.rows_compared and result.databases[0].rows == sum(TABLES.values())
    evidence = Evidence.model_validate_json(kit.read(f"{backup.rpartition('/')[0]}/verified-read.json"))
    assert evidence.level == "Read" and evidence.recipient == "verify" and evidence.tables == len(TABLES)
    status, again = kit.verify(backup)
    assert (status, again.evidence) == (0, "Present")


def test_a_reader_that_may_not_write_still_verifies(kit: Kit, backup: str) -> None:
    status, result = kit.verify(backup, evidenceCredentials=None)
    assert (status, result.evidence) == (0, "Denied")


@pytest.mark.covers(
    "PostgresBackup.reason.KeyMissing",
    "PostgresBackupPolicy.reason.KeyMissing",
    "PostgresBackup.reason.InvalidIdentity",
    "PostgresBackupPolicy.reason.InvalidIdentity",
)
def test_each_recipient_can_verify_and_nobody_else(kit: Kit, backup: str) -> None:
    kit.write("identity", f"{kit.escrow}\n")
    status, _ = kit.verify(backup, evidenceCredentials=None)
    assert status == 0
    kit.write("identity", f"{pyrage.x25519.Identity.generate()}\n")
    result = fails(kit, backup, "KeyMissing")
    assert "verify, escrow" in result.message
    kit.write("identity", "AGE-SECRET-KEY-1NONSENSE\n")
    result = fails(kit, backup, "InvalidIdentity")
    assert "NONSENSE" not in result.message
    fails(kit, backup, "SecretMissing", identityFile=str(kit.folder / "absent"))


def test_a_manifest_that_promises_our_key_for_data_of_another_is_found_out(kit: Kit, backup: str) -> None:
    stranger = pyrage.x25519.Identity.generate()
    value = json.loads(kit.read(backup))
    value["recipients"][0]["publicKey"] = str(stranger.to_public())
    kit.overwrite(backup, json.dumps(value).encode())
    kit.write("identity", f"{stranger}\n")
    fails(kit, backup, "KeyMissing")


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "one byte short": (lambda b: b[:-1], "TruncatedArchive"),
    "half": (lambda b: b[: len(b) // 2], "TruncatedArchive"),
    "empty": (lambda b: b"", "TruncatedArchive"),
    "one byte more": (lambda b: b + b"x", "ChecksumMismatch"),
    "a bit in the middle": (
        lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 1]) + b[len(b) // 2 + 1 :],
        "ChecksumMismatch",
    ),
    "a bit in the header": (lambda b: b[:80] + bytes([b[80] ^ 1]) + b[81:], "ChecksumMismatch"),
    "the last bit": (lambda b: b[:-1] + bytes([b[-1] ^ 1]), "ChecksumMismatch"),
    "other bytes": (lambda b: bytes(len(b)), "ChecksumMismatch"),
}


@pytest.mark.covers(
    "PostgresBackup.reason.TruncatedArchive",
    "PostgresBackupPolicy.reason.TruncatedArchive",
    "PostgresBackup.reason.ChecksumMismatch",
    "PostgresBackupPolicy.reason.ChecksumMismatch",
)
@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_damage_in_the_store_is_found(kit: Kit, backup: str, damage: str) -> None:
    harm, reason = DAMAGE[damage]
    key = data_key(kit, backup)
    kit.overwrite(key, harm(kit.read(key)))
    result = fails(kit, backup, reason)
    assert key in result.message and not result.transient


@pytest.mark.covers("PostgresBackup.reason.ObjectMissing", "PostgresBackupPolicy.reason.ObjectMissing")
def test_an_object_that_is_gone_is_found(kit: Kit, backup: str) -> None:
    key = data_key(kit, backup)
    kit.s3.client().delete_object(Bucket=kit.bucket, Key=key)
    assert key in fails(kit, backup, "ObjectMissing").message


def test_globals_are_read_too(kit: Kit, backup: str) -> None:
    key = f"{backup.rpartition('/')[0]}/globals.sql.zst.age"
    kit.overwrite(key, kit.read(key)[:-1])
    fails(kit, backup, "TruncatedArchive")


def rewrite(kit: Kit, manifest: str, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(kit.read(manifest))
    change(value)
    kit.overwrite(manifest, json.dumps(value).encode())


@pytest.mark.covers(
    "PostgresBackup.reason.TocMismatch",
    "PostgresBackupPolicy.reason.TocMismatch",
    "PostgresBackup.reason.RowCountMismatch",
    "PostgresBackupPolicy.reason.RowCountMismatch",
    "PostgresBackup.reason.ManifestUnreadable",
    "PostgresBackupPolicy.reason.ManifestUnreadable",
)
def test_a_manifest_that_promises_more_than_the_archive_holds_is_found_out(kit: Kit, backup: str) -> None:
    original = kit.read(backup)
    rewrite(kit, backup, lambda m: m["databases"][0]["tables"].append({"schema": "shop", "name": "ghost", "rows": 0}))
    assert "shop.ghost" in fails(kit, backup, "TocMismatch").message
    kit.overwrite(backup, original)
    rewrite(kit, backup, lambda m: m["databases"][0]["tables"].pop())
    fails(kit, backup, "TocMismatch")
    kit.overwrite(backup, original)

    def one_more(m: dict[str, Any]) -> None:
        (table,) = (t for t in m["databases"][0]["tables"] if t["name"] == "orders")
        table["rows"] += 1

    rewrite(kit, backup, one_more)
    message = fails(kit, backup, "RowCountMismatch").message
    assert "shop.orders had 5001 rows, the archive holds 5000" in message
    kit.overwrite(backup, b"no manifest")
    fails(kit, backup, "ManifestUnreadable")


def reseal(kit: Kit, manifest: str, change: Callable[[bytes], bytes]) -> None:
    """Replace the archive by a changed one, sealed well and named by the manifest: damage that was done before it was
    encrypted, which no checksum of ours can see."""
    import io

    from pgtend.objectstore.pipe import seal, unseal

    key = data_key(kit, manifest)
    raw = change(b"".join(unseal(source=io.BytesIO(kit.read(key)), identities=[kit.identity])))
    sink = io.BytesIO()
    seal(source=io.BytesIO(raw), sink=sink, recipients=[kit.identity.to_public()])
    kit.overwrite(key, sink.getvalue())

    def tell(m: dict[str, Any]) -> None:
        (data,) = (o for o in m["objects"] if o["key"] == key)
        data |= {
            "size": len(sink.getvalue()),
            "rawSize": len(raw),
            "sha256": hashlib.sha256(sink.getvalue()).hexdigest(),
        }

    rewrite(kit, manifest, tell)


def test_an_archive_that_was_cut_before_it_was_sealed_is_found(kit: Kit, backup: str) -> None:
    original = kit.read(backup), kit.read(data_key(kit, backup))
    for cut in (1, 5, 1000):
        kit.overwrite(backup, original[0])
        kit.overwrite(data_key(kit, backup), original[1])
        reseal(kit, backup, lambda raw, n=cut: raw[:-n])  # type: ignore[misc]
        result = fails(kit, backup, "TruncatedArchive")
        assert "end of file" in result.message


def test_rows_that_were_lost_before_they_were_sealed_are_found(
    server: PostgresServer, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two rows joined into one: pg_restore reads it without complaint."""
    kit = laid_out(server, s3, tmp_path_factory)
    backup = _dumped[server.major].manifest

    def join(raw: bytes) -> bytes:
        match = re.search(rb"and tab\\t4000\t[^\n]{10,40}\n", raw)
        assert match is not None
        return raw[: match.end() - 1] + b" " + raw[match.end() :]

    reseal(kit, backup, join)
    assert "shop.orders had 5000 rows, the archive holds 4999" in fails(kit, backup, "RowCountMismatch").message


@pytest.mark.covers("PostgresBackup.reason.ArchiveUnreadable", "PostgresBackupPolicy.reason.ArchiveUnreadable")
def test_what_is_no_archive_is_found_though_it_was_sealed_well(kit: Kit, backup: str) -> None:
    reseal(kit, backup, lambda raw: b"PGDMX" + raw[5:])
    assert "pg_restore" in fails(kit, backup, "ArchiveUnreadable").message


@pytest.mark.covers("PostgresBackup.reason.DecryptFailed", "PostgresBackupPolicy.reason.DecryptFailed")
def test_a_change_that_the_manifest_was_made_to_agree_with_does_not_decrypt(kit: Kit, backup: str) -> None:
    """Who may write everything can forge a checksum, but not what only the sealer knew."""
    key = data_key(kit, backup)
    harmed = bytearray(kit.read(key))
    harmed[len(harmed) // 2] ^= 1
    kit.overwrite(key, bytes(harmed))

    def agree(m: dict[str, Any]) -> None:
        (data,) = (o for o in m["objects"] if o["key"] == key)
        data["sha256"] = hashlib.sha256(harmed).hexdigest()

    rewrite(kit, backup, agree)
    fails(kit, backup, "DecryptFailed")
