"""`pgtend backup fetch` and `verify` on a real bucket: what comes out is what went in, and whatever was done to it in
between is told by name, with exit code 1 and without a file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest
from click.testing import Result
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_command import command, place, refused
from tests.postgres.backup_kit import TABLES, Kit, make_kit, row_counts
from tests.postgres.test_backup_verify import DAMAGE, Dumped, data_key, reseal, rewrite

_dumped: dict[int, Dumped] = {}


@pytest.fixture
def kit(postgres: Postgres, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """A good backup `orders-1` of two databases, laid into a bucket of its own."""
    server = postgres(18)
    if server.major not in _dumped:
        source = make_kit(server, s3, tmp_path_factory.mktemp("dumped"), databases=2)
        manifest = source.good_dump(backupName="orders-1").manifest
        assert manifest is not None
        _dumped[server.major] = Dumped(source, manifest, {key: source.read(key) for key in source.run_keys()})
    made = replace(_dumped[server.major].kit, folder=tmp_path_factory.mktemp("kit"), bucket="")
    for key, body in _dumped[server.major].objects.items():
        made.overwrite(key, body)
    return made


@pytest.fixture
def manifest(kit: Kit) -> str:
    return _dumped[kit.server.major].manifest


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def fetch(kit: Kit, *words: str, backup: str = "orders-1", identity: str = "identity") -> Result:
    return command(kit, "fetch", backup, *place(kit), "--identity-file", str(kit.folder / identity), *words)


def verify(
    kit: Kit, *words: str, backup: str = "orders-1", identity: str = "identity", login: str = "reader"
) -> Result:
    programs = ["--programs-folder", str(kit.programs)] if "--programs-folder" not in words else []
    file = ["--identity-file", str(kit.folder / identity)]
    return command(kit, "verify", backup, *place(kit, login), *file, *programs, *words)


def both_name(
    kit: Kit, out: Path, reason: str, text: str, *, backup: str = "orders-1", identity: str = "identity"
) -> None:
    """Each command says what is wrong by its name, and nothing is left behind."""
    words = ("--database", kit.databases[0], "-o", str(out / "file"))
    refused(fetch(kit, *words, backup=backup, identity=identity), 1, f"{reason}: ", text)
    assert list(out.iterdir()) == []
    done = verify(kit, "-o", "json", backup=backup, identity=identity)
    (told,) = json.loads(done.stdout)["backups"]
    assert done.exit_code == 1 and (told["outcome"], told["reason"]) == ("Failed", reason)
    assert text in told["message"]
    assert not [key for key in kit.run_keys() if "verified" in key]


def restore(server: PostgresServer, kit: Kit, archive: Path) -> str:
    database = server.fresh_database("fetched")
    program = [str(kit.programs / "pg_restore"), "--exit-on-error", "--no-owner", "-d", server.dsn(dbname=database)]
    done = subprocess.run([*program, str(archive)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return database


def test_what_is_fetched_restores_to_what_was_dumped(kit: Kit, manifest: str, out: Path) -> None:
    for number, name in enumerate(kit.databases):
        file = out / f"db-{number}"
        done = fetch(kit, "--database", name, "-o", str(file))
        assert done.exit_code == 0, (done.output, done.exception)
        assert f"{name} of orders-1" in done.stderr and "opened with verify" in done.stderr and done.stdout == ""
        assert file.stat().st_mode & 0o777 == 0o600
        assert row_counts(kit.server, restore(kit.server, kit, file)) == row_counts(kit.server, name)
    assert sorted(path.name for path in out.iterdir()) == ["db-0", "db-1"]
    # by its manifest's key, into a pipe, with the identity of another recipient, which the environment names
    kit.write("other", f"# escrow\n{kit.escrow}\n")
    words = ["fetch", manifest, *place(kit), "--database", kit.databases[0], "-o", "-"]
    done = command(kit, *words, env={"PGTEND_AGE_IDENTITY_FILE": str(kit.folder / "other")})
    assert done.exit_code == 0 and "opened with escrow" in done.stderr, (done.stderr, done.exception)
    assert done.stdout_bytes == (out / "db-0").read_bytes()
    done = fetch(kit, "--globals", "-o", str(out / "globals.sql"))
    assert done.exit_code == 0 and f"CREATE ROLE {kit.role.user}" in (out / "globals.sql").read_text()


def test_nothing_is_overwritten(kit: Kit, out: Path) -> None:
    file = out / "precious"
    file.write_text("mine")
    refused(fetch(kit, "--database", kit.databases[0], "-o", str(file)), 1, "exists and is not overwritten", str(file))
    assert file.read_text() == "mine"
    (out / "link").symlink_to(out / "nowhere")
    refused(fetch(kit, "--database", kit.databases[0], "-o", str(out / "link")), 1, "not overwritten")
    refused(fetch(kit, "--database", kit.databases[0], "-o", str(out / "no" / "folder")), 1, "No such file")
    assert sorted(path.name for path in out.iterdir()) == ["link", "precious"]


def test_what_is_not_in_the_backup_is_named(kit: Kit, out: Path) -> None:
    file = str(out / "file")
    done = refused(fetch(kit, "--database", "ghost", "-o", file), 1, "not ghost", *kit.databases)
    refused(fetch(kit, "--database", "x", "-o", file, backup="absent"), 1, "ObjectMissing", "holds no backup absent")
    refused(verify(kit, backup="absent"), 1, "ObjectMissing", "holds no backup absent")
    refused(fetch(kit, "-o", file), 2, "exactly one of --database and --globals")
    refused(fetch(kit, "--globals", "--database", "x", "-o", file), 2, "exactly one of --database and --globals")
    assert done.stdout == "" and list(out.iterdir()) == []


def test_a_good_backup_is_whole_and_its_evidence_is_what_the_pods_write(kit: Kit, manifest: str) -> None:
    evidence = f"{manifest.rpartition('/')[0]}/verified-read.json"
    done = verify(kit)
    assert done.exit_code == 0 and "orders-1: whole: " in done.stdout, (done.output, done.exception)
    assert f"{2 * len(TABLES)} tables, rows counted and compared" in done.stdout
    assert "no evidence written" in done.stdout and evidence not in kit.run_keys() and done.stderr == ""
    done = verify(kit, "-o", "json", backup=manifest, login="admin")
    (told,) = json.loads(done.stdout)["backups"]
    assert done.exit_code == 0 and (told["outcome"], told["evidence"]) == ("Succeeded", "Written")
    assert {one["name"]: one["rows"] for one in told["databases"]} == dict.fromkeys(kit.databases, sum(TABLES.values()))
    assert evidence in kit.run_keys()
    listed = json.loads(command(kit, "list", *place(kit), "-o", "json").stdout)["backups"]
    assert [one["verified"]["level"] for one in listed] == ["Read"]
    # several at once: each is told, and one that is not whole is enough for the exit code
    done = command(
        kit, "verify", "absent", "orders-1", *place(kit), "--identity-file", str(kit.folder / "identity"),
        "--programs-folder", str(kit.programs),
    )  # fmt: skip
    refused(done, 1, "absent: ObjectMissing")
    assert "orders-1: whole" in done.stdout


def test_each_key_that_does_not_open_it_is_told(kit: Kit, out: Path) -> None:
    kit.write("stranger", f"{pyrage.x25519.Identity.generate()}\n")
    both_name(kit, out, "KeyMissing", "verify, escrow", identity="stranger")
    kit.write("nonsense", "AGE-SECRET-KEY-1NONSENSE\n")
    both_name(kit, out, "InvalidIdentity", "no age secret key", identity="nonsense")
    assert "NONSENSE" not in fetch(kit, "--globals", "-o", "-", identity="nonsense").output
    both_name(kit, out, "SecretMissing", "absent", identity="absent")


def test_a_manifest_that_promises_our_key_does_not_help(kit: Kit, manifest: str, out: Path) -> None:
    stranger = pyrage.x25519.Identity.generate()
    rewrite(kit, manifest, lambda m: m["recipients"][0].update(publicKey=str(stranger.to_public())))
    kit.write("stranger", f"{stranger}\n")
    both_name(kit, out, "KeyMissing", data_key(kit, manifest), identity="stranger")


@pytest.mark.parametrize("damage", ["one byte short", "empty", "a bit in the middle", "other bytes"])
def test_damage_in_the_store_is_told(kit: Kit, manifest: str, out: Path, damage: str) -> None:
    harm, reason = DAMAGE[damage]
    key = data_key(kit, manifest)
    kit.overwrite(key, harm(kit.read(key)))
    both_name(kit, out, reason, key)


def test_what_is_gone_or_in_anothers_place_is_told(kit: Kit, manifest: str, out: Path) -> None:
    first, second = (f"{manifest.rpartition('/')[0]}/{name}.dump.zst.age" for name in kit.databases)
    one, other = kit.read(first), kit.read(second)
    assert one != other
    kit.overwrite(first, other)
    kit.overwrite(second, one)
    reason = "ChecksumMismatch" if len(other) >= len(one) else "TruncatedArchive"
    both_name(kit, out, reason, first)
    # what is read by a pipe was believed too early: the exit code says so
    refused(fetch(kit, "--database", kit.databases[0], "-o", "-"), 1, reason, first)
    refused(verify(kit), 1, f"orders-1: {reason}: ", first)
    # the other database of the same backup is still to be had
    kit.overwrite(second, other)
    assert fetch(kit, "--database", kit.databases[1], "-o", str(out / "whole")).exit_code == 0
    (out / "whole").unlink()
    kit.s3.client().delete_object(Bucket=kit.bucket, Key=first)
    both_name(kit, out, "ObjectMissing", first)


def test_a_manifest_in_anothers_place_is_told(kit: Kit, manifest: str, out: Path) -> None:
    folder = manifest.rpartition("/")[0]
    moved = f"{folder.rpartition('/')[0]}/20200101-000000-abcd/manifest.json"
    kit.overwrite(moved, kit.read(manifest))
    both_name(kit, out, "ObjectMissing", "which is not beside it", backup=moved)
    refused(fetch(kit, "--globals", "-o", "-"), 1, "2 backups are named orders-1", moved, manifest)
    kit.overwrite(moved, b"{}")
    both_name(kit, out, "ManifestUnreadable", moved, backup=moved)


CUT: dict[str, Callable[[bytes], bytes]] = {"cut": lambda raw: raw[:-5], "rubbish": lambda raw: b"PGDMX" + raw[5:]}


@pytest.mark.parametrize("harm", sorted(CUT))
def test_what_only_postgresql_can_see_is_seen_by_verify(kit: Kit, manifest: str, out: Path, harm: str) -> None:
    """Damage from before it was sealed: `fetch` gives what was stored, `verify` says what that is worth."""
    reseal(kit, manifest, CUT[harm])
    assert fetch(kit, "--database", kit.databases[0], "-o", str(out / "file")).exit_code == 0
    refused(verify(kit), 1, "TruncatedArchive" if harm == "cut" else "ArchiveUnreadable", data_key(kit, manifest))


def test_an_old_pg_restore_is_not_taken_for_damage(kit: Kit, out: Path) -> None:
    old = out / "pg_restore"
    old.write_text("#!/bin/sh\necho 'pg_restore (PostgreSQL) 12.3'\n")
    old.chmod(0o755)
    refused(verify(kit, "--programs-folder", str(out)), 1, "VersionMismatch: pg_restore 12.3 is older")
    old.unlink()
    refused(verify(kit, "--programs-folder", str(out)), 1, "VersionMismatch: pg_restore does not run")
