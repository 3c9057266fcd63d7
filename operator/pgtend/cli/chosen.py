"""Which backup a command is about: by its name, as `backup list` prints it, or by its manifest's key, which is quicker
and tells apart what has the same name."""

from __future__ import annotations

from dataclasses import dataclass

from pgtend.backups.bucket import read_all
from pgtend.backups.catalog import MANIFEST
from pgtend.backups.jobs.opening import read_manifest
from pgtend.backups.manifest import Manifest, StoredData
from pgtend.core.errors import PgtendError
from pgtend.objectstore.errors import StoreReason
from pgtend.objectstore.s3 import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """`manifest` is the key, `record` what lies there."""

    manifest: str
    record: Manifest

    def dump(self, database: str) -> StoredData:
        """Raises ValueError."""
        for data in self.record.objects:
            if data.kind == "Dump" and data.database == database:
                return data
        names = ", ".join(data.database for data in self.record.objects if data.database is not None)
        raise ValueError(f"{self.record.backup_name} holds {names or 'no database'}, not {database}")

    def roles(self) -> StoredData:
        """Raises ValueError."""
        for data in self.record.objects:
            if data.kind == "Globals":
                return data
        raise ValueError(f"{self.record.backup_name} was taken without globals")


def choose(store: Store, name: str) -> Chosen:
    """Raises PgtendError, ValueError."""
    key = name if name.endswith(f"/{MANIFEST}") else _by_name(store, name)
    record, _ = read_manifest(store, key)
    folder = f"{key.rpartition('/')[0]}/"
    elsewhere = next((data.key for data in record.objects if not data.key.startswith(folder)), None)
    if elsewhere is not None:
        text = f"{key} names {elsewhere}, which is not beside it: it is another backup's manifest, or was moved"
        raise PgtendError(StoreReason.OBJECT_MISSING, text, object=elsewhere, transient=False)
    return Chosen(manifest=key, record=record)


def _by_name(store: Store, name: str) -> str:
    found = [one.run.location.manifest for one in read_all(store).backups if one.manifest.backup_name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{len(found)} backups are named {name}: give the manifest's key: {', '.join(found)}")
    raise PgtendError(
        StoreReason.OBJECT_MISSING,
        f"{store.config.location} holds no backup {name}: pgtend backup list shows those that there are",
        object=name,
        transient=False,
    )
