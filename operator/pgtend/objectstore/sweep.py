"""Carries out what retention decided, and removes what crashed writers left: the only code that deletes.

Takes steps as plain values (keys and bodies), so that it knows nothing of backups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from pgtend.core.failpoints import failpoint
from pgtend.objectstore.errors import NotFound
from pgtend.objectstore.s3 import IncompleteUpload, Store


def carry_out(store: Store, orders: Iterable[tuple[str, bytes | None]]) -> None:
    """Do these in their order: (key, body) overwrites the object, (key, None) deletes it. Raises StoreError at the
    first that fails; repeating the whole is safe."""
    for key, body in orders:
        if body is not None:
            failpoint("objectstore.sweep.overwrite.before")
            store.put(key, body, if_absent=False)
            failpoint("objectstore.sweep.overwrite.after")
        else:
            failpoint("objectstore.sweep.delete.before")
            store.delete(key)
            failpoint("objectstore.sweep.delete.after")


def abort_stale_uploads(
    store: Store,
    *,
    prefix: str,
    now: datetime,
    ours: Callable[[str], bool],
    older_than: timedelta = timedelta(hours=24),
) -> list[IncompleteUpload]:
    """Abort uploads below `prefix` begun before `now - older_than` whose key `ours` accepts; returns them.

    `older_than` must exceed the longest run, or a run that goes on is cut.
    """
    ended = []
    for upload in store.incomplete_uploads(prefix):
        if ours(upload.key) and upload.initiated + older_than < now:
            failpoint("objectstore.sweep.abort.before")
            store.abort_upload(upload.key, upload.upload_id)
            ended.append(upload)
    return ended


def delete_abandoned(store: Store, *, keys: Iterable[str], owner: Mapping[str, str]) -> list[str]:
    """Delete those of `keys` whose metadata carries every pair of `owner`; returns them. Others are left alone.

    Data without a manifest has nothing else that tells whose it is.
    """
    deleted = []
    for key in keys:
        try:
            metadata = store.head(key).metadata
        except NotFound:
            continue
        if owner and all(metadata.get(name) == value for name, value in owner.items()):
            carry_out(store, [(key, None)])
            deleted.append(key)
    return deleted
