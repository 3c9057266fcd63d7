"""What the operator and the command line ask a bucket about backups: the listing, the manifests and the evidence, never
data."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from pgtend.backups.catalog import Backup, Catalog, Listed, Listing, read_catalog, sort_listing
from pgtend.backups.manifest import Tombstone, parse_manifest
from pgtend.objectstore.errors import NotFound
from pgtend.objectstore.s3 import Store

AT_ONCE = 8
"""As many connections as a store keeps."""


def read_policy(store: Store, *, installation: str, policy: tuple[str, str], adopt: bool = False) -> Catalog:
    """All backups of a policy, (namespace, name); with `adopt` those of other installations too. Raises StoreError."""
    listing = _listing(store)
    contents = _contents(store, _telling(listing))
    return read_catalog(listing=listing, contents=contents, installation=installation, policy=policy, adopt=adopt)


def read_all(store: Store) -> Catalog:
    """All backups below the prefix, whoever took them: several requests at a time, since a person waits. Raises
    StoreError."""
    listing = _listing(store)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bucket") as pool:
        parts = list(pool.map(lambda key: _contents(store, [key]), _telling(listing)))
    contents = {key: body for part in parts for key, body in part.items()}
    return read_catalog(listing=listing, contents=contents, installation=None, policy=None)


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


def _listing(store: Store) -> Listing:
    prefix = store.config.prefix
    return sort_listing(prefix=prefix, listed=_listed(store, f"{prefix}/"))


def _telling(listing: Listing) -> list[str]:
    """The keys of what tells of the backups: small objects beside the data."""
    return [item.key for run in listing.runs if run.manifest for item in (run.manifest, *run.evidence)]


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
