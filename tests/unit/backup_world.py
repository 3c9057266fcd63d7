"""A bucket in memory for tests of pure code: keys, sizes and the contents of small objects."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pgtend.backups.catalog import Catalog, Listed, Location, read_catalog, run_identifier, sort_listing
from pgtend.backups.manifest import (
    DatabaseContents,
    Evidence,
    Manifest,
    PolicyRecord,
    Snapshot,
    StoredData,
    TableRows,
    Tombstone,
)
from pgtend.backups.retention import DeleteObject, Deletion, PutTombstone

PREFIX = "production"
INSTALLATION = "prod-eu"
POLICY = "orders"
NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


@dataclass
class World:
    sizes: dict[str, int] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    count: int = 0

    def add(self, name: str, body: bytes) -> None:
        self._put(f"{PREFIX}/{name}", body)

    def backup(
        self,
        *,
        age_days: float,
        verified: bool = False,
        policy: str = POLICY,
        installation: str = INSTALLATION,
        retain_until: datetime | None = None,
        locked_until: datetime | None = None,
    ) -> Location:
        self.count += 1
        finished = NOW - timedelta(days=age_days)
        where = Location(prefix=PREFIX, system_identifier="7437812650013388821",
                         identifier=run_identifier(finished - timedelta(minutes=10), self.count))  # fmt: skip
        snapshot = Snapshot(taken_at=finished - timedelta(minutes=9), lsn="5A/1A000028")
        keys = [where.dump("orders"), where.globals]
        manifest = Manifest(
            installation_id=installation,
            policy=PolicyRecord(namespace="databases", name=policy),
            backup_name=f"{policy}-{where.identifier[:15]}",
            retain_until=retain_until,
            locked_until=locked_until,
            system_identifier=where.system_identifier,
            timeline=3,
            server_version="17.7",
            client_version="17.7",
            writer_version="0.1.0",
            started_at=finished - timedelta(minutes=10),
            finished_at=finished,
            snapshot=snapshot,
            databases=(
                DatabaseContents(
                    name="orders", snapshot=snapshot, tables=(TableRows(schema_name="shop", name="o", rows=1),)
                ),
            ),
            globals="WithoutPasswords",
            objects=tuple(
                StoredData(key=k, kind="Dump", database="orders", size=100, raw_size=500, sha256="0" * 64, parts=1)
                for k in keys
            ),
            recipients=(),
        )
        for key in keys:
            self.sizes[key] = 100
        self._put(where.manifest, manifest.to_bytes())
        if verified:
            proof = Evidence(
                level="Read",
                verified_at=finished,
                manifest_sha256=hashlib.sha256(self.contents[where.manifest]).hexdigest(),
                verifier_version="0.1.0",
                recipient="verify",
                tables=1,
                rows=1,
                rows_compared=True,
                size=200,
            )
            self._put(where.folder + "verified-read.json", proof.to_bytes())
        return where

    def bury(self, where: Location) -> None:
        tombstone = Tombstone(
            installation_id=INSTALLATION,
            policy=PolicyRecord(namespace="databases", name=POLICY),
            deleted_at=NOW,
            keys=(where.dump("orders"), where.globals),
        )
        self._put(where.manifest, tombstone.to_bytes())

    def drop(self, key: str) -> None:
        self.sizes.pop(key, None)
        self.contents.pop(key, None)

    def catalog(self, *, adopt: bool = False) -> Catalog:
        listing = sort_listing(prefix=PREFIX, listed=[Listed(key=k, size=s) for k, s in sorted(self.sizes.items())])
        return read_catalog(
            listing=listing,
            contents=self.contents,
            installation=INSTALLATION,
            policy=("databases", POLICY),
            adopt=adopt,
        )

    def carry_out(self, deletion: Deletion, *, steps: int | None = None) -> None:
        """The steps of a deletion, or the first of them, as if a crash came then."""
        for step in deletion.steps[:steps]:
            match step:
                case PutTombstone(key=key, body=body):
                    self._put(key, body)
                case DeleteObject(key=key):
                    self.drop(key)

    def _put(self, key: str, body: bytes) -> None:
        self.sizes[key] = len(body)
        self.contents[key] = body
