"""A catalog is read from keys and manifests alone, and believes nothing that it cannot prove."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.backup_world import INSTALLATION, NOW, POLICY, PREFIX, World

from pgtend.backups.catalog import (
    Listed,
    Location,
    encode_database,
    location_of,
    read_catalog,
    run_identifier,
    sort_listing,
)
from pgtend.backups.manifest import Evidence, Manifest, Tombstone, parse_manifest

databases = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@given(databases, databases)
def test_names_of_databases_become_keys_of_their_own(a: str, b: str) -> None:
    where = Location(prefix=PREFIX, system_identifier="7", identifier=run_identifier(NOW, 1))
    assert unquote(encode_database(a)) == a
    assert (where.dump(a) == where.dump(b)) is (a == b)
    assert where.dump(a) not in (where.globals, where.manifest)
    assert location_of(prefix=PREFIX, key=where.dump(a)) == where


@given(st.integers(1_600_000_000, 4_000_000_000), st.integers(0, 65535))
def test_a_run_tells_when_it_began(second: int, nonce: int) -> None:
    aware = datetime.fromtimestamp(second, UTC)
    where = Location(prefix=PREFIX, system_identifier="7", identifier=run_identifier(aware, nonce))
    assert where.started_at == aware


@pytest.mark.parametrize(
    "key",
    [
        f"{PREFIX}/notes.txt",
        f"{PREFIX}/7/dump/20261122-020003-4f1c",
        f"{PREFIX}/7/dump/20261122-020003-4f1c/sub/manifest.json",
        f"{PREFIX}/7/dump/20261399-020003-4f1c/manifest.json",
        f"{PREFIX}/7/dump/20261122-020003-4F1C/manifest.json",
        f"{PREFIX}/x/dump/20261122-020003-4f1c/manifest.json",
        f"{PREFIX}/7/base/20261122-020003-4f1c/manifest.json",
        f"other/{PREFIX}/7/dump/20261122-020003-4f1c/manifest.json",
        f"{PREFIX}x/7/dump/20261122-020003-4f1c/manifest.json",
    ],
)
def test_keys_of_another_shape_are_foreign(key: str) -> None:
    assert location_of(prefix=PREFIX, key=key) is None
    listing = sort_listing(prefix=PREFIX, listed=[Listed(key=key, size=1)])
    assert [item.key for item in listing.foreign] == [key] and not listing.runs


def test_our_own_marker_is_neither_a_run_nor_foreign() -> None:
    listing = sort_listing(prefix=PREFIX, listed=[Listed(key=f"{PREFIX}/.pgtend/conditional-write", size=1)])
    assert not listing.runs and not listing.foreign


def test_what_the_catalog_tells_apart() -> None:
    world = World()
    good = world.backup(age_days=1, verified=True)
    unverified = world.backup(age_days=2)
    other = world.backup(age_days=3, policy="shop")
    elsewhere = world.backup(age_days=4, installation="another-one")
    broken = world.backup(age_days=5)
    world.contents[broken.manifest] = b"{"
    unfetched = world.backup(age_days=6)
    del world.contents[unfetched.manifest]
    dying = world.backup(age_days=7)
    world.bury(dying)
    died = world.backup(age_days=8)
    world.drop(died.manifest)
    world.add("notes.txt", b"x")
    catalog = world.catalog()
    assert [b.run.location for b in catalog.backups] == [unverified, good]
    assert catalog.newest is not None and catalog.newest.run.location == good
    assert catalog.newest_verified is not None and catalog.newest_verified.run.location == good
    assert {r.location for r in catalog.others} == {other, elsewhere}
    assert {r.location for r in catalog.unreadable} == {broken, unfetched}
    assert [r.location for r, _ in catalog.dying] == [dying]
    assert [r.location for r in catalog.uncommitted] == [died]
    assert [f.key for f in catalog.foreign] == [f"{PREFIX}/notes.txt"]
    assert [r.location for r in catalog.abandoned(now=NOW, older_than=timedelta(days=1))] == [died]
    assert catalog.abandoned(now=NOW, older_than=timedelta(days=30)) == ()


def test_evidence_of_another_manifest_proves_nothing() -> None:
    world = World()
    where = world.backup(age_days=1, verified=True)
    world.contents[where.manifest] += b" "
    (backup,) = world.catalog().backups
    assert not backup.evidence and not backup.verified


def test_evidence_that_does_not_parse_proves_nothing() -> None:
    world = World()
    where = world.backup(age_days=1, verified=True)
    world.contents[where.folder + "verified-read.json"] = b"{}"
    assert not world.catalog().backups[0].verified


@pytest.mark.parametrize("change", ["gone", "shorter"])
def test_a_backup_whose_data_is_not_all_there_is_not_verified(change: str) -> None:
    world = World()
    where = world.backup(age_days=1, verified=True)
    if change == "gone":
        world.drop(where.dump("orders"))
    else:
        world.sizes[where.dump("orders")] -= 1
    (backup,) = world.catalog().backups
    assert backup.missing == (where.dump("orders"),) and not backup.verified


def test_records_survive_the_way_through_the_bucket_and_unknown_fields_do_not_hurt() -> None:
    world = World()
    where = world.backup(age_days=1)
    raw = world.contents[where.manifest]
    manifest = parse_manifest(raw)
    assert isinstance(manifest, Manifest) and manifest.to_bytes() == raw
    later = raw.replace(b'{\n "formatVersion"', b'{\n "brandNew": 1, "formatVersion"')
    assert later != raw and parse_manifest(later) == manifest
    assert parse_manifest(raw.replace(b'"formatVersion": 1', b'"formatVersion": 2')) is None
    assert b"expiresAt" not in raw


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_none(raw: bytes) -> None:
    assert parse_manifest(raw) is None or isinstance(parse_manifest(raw), Manifest | Tombstone)


def test_an_empty_bucket_is_an_empty_catalog() -> None:
    listing = sort_listing(prefix=PREFIX, listed=[])
    catalog = read_catalog(listing=listing, contents={}, installation=INSTALLATION, policy=("databases", POLICY))
    assert catalog.newest is None and catalog.newest_verified is None and not catalog.backups


def test_evidence_names_the_manifests_bytes() -> None:
    world = World()
    where = world.backup(age_days=1, verified=True)
    proof = Evidence.model_validate_json(world.contents[where.folder + "verified-read.json"])
    assert proof.manifest_sha256 == hashlib.sha256(world.contents[where.manifest]).hexdigest()


def test_what_another_installation_took_for_a_policy_of_this_name_can_be_adopted() -> None:
    world = World()
    ours = world.backup(age_days=1)
    lost = world.backup(age_days=2, verified=True, installation="lost-cluster")
    world.backup(age_days=3, installation="lost-cluster", policy="other")
    found = world.catalog()
    assert [b.run.location for b in found.backups] == [ours]
    assert [b.run.location for b in found.adoptable] == [lost] and not found.adopted
    assert len(found.others) == 2
    found = world.catalog(adopt=True)
    assert [b.run.location for b in found.backups] == [lost, ours]
    assert [b.run.location for b in found.adopted] == [lost] and not found.adoptable
    assert found.newest_verified is not None and len(found.others) == 1
