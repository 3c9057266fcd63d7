"""What the operator asks a bucket about a policy's backups: the listing, the manifests and the evidence, never data."""

from __future__ import annotations

from collections.abc import Iterable

from pgtend.backups.catalog import Backup, Catalog, Listed, read_catalog, sort_listing
from pgtend.backups.manifest import Tombstone, parse_manifest
from pgtend.objectstore.errors import NotFound
from pgtend.objectstore.s3 import Store


def read_policy(store: Store, *, installation: str, policy: tuple[str, str]) -> Catalog:
    """All backups of a policy, (namespace, name). Raises StoreError."""
    prefix = store.config.prefix
    listing = sort_listing(prefix=prefix, listed=_listed(store, f"{prefix}/"))
    keys = [item.key for run in listing.runs if run.manifest for item in (run.manifest, *run.evidence)]
    return read_catalog(listing=listing, contents=_contents(store, keys), installation=installation, policy=policy)


def read_backup(store: Store, manifest: str) -> Backup | None:
    """One backup by its manifest's key, None where it is not there any more. Raises StoreError."""
    folder = manifest.rpartition("/")[0] + "/"
    listing = sort_listing(prefix=store.config.prefix, listed=_listed(store, folder))
    run = next((run for run in listing.runs if run.manifest is not None and run.manifest.key == manifest), None)
    if run is None:
        return None
    contents = _contents(store, [manifest, *(item.key for item in run.evidence)])
    record = parse_manifest(contents.get(manifest, b""))
    if record is None or isinstance(record, Tombstone):
        return None
    catalog = read_catalog(
        listing=listing,
        contents=contents,
        installation=record.installation_id,
        policy=(record.policy.namespace, record.policy.name),
    )
    return next((backup for backup in catalog.backups if backup.run.location.manifest == manifest), None)


def _listed(store: Store, prefix: str) -> list[Listed]:
    return [Listed(key=item.key, size=item.size, etag=item.etag) for item in store.objects(prefix)]


def _contents(store: Store, keys: Iterable[str]) -> dict[str, bytes]:
    found = {}
    for key in keys:
        try:
            found[key] = store.get(key)
        except NotFound:
            continue  # deleted since the listing: counts as unreadable, never as good
    return found
