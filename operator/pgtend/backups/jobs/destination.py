"""A job's way to the bucket, with whichever credential it was given."""

from __future__ import annotations

from datetime import datetime, timedelta

from pgtend.backups.jobs.config import Destination, JobReason
from pgtend.backups.jobs.report import Report
from pgtend.core.errors import PgtendError
from pgtend.objectstore.config import AccessKey, CredentialFiles, load_credentials
from pgtend.objectstore.errors import StoreError, StoreReason
from pgtend.objectstore.s3 import Store


def open_store(
    destination: Destination,
    report: Report,
    *,
    credentials: CredentialFiles | None = None,
    started: datetime | None = None,
) -> Store:
    """A client; no request is made yet. Its secret is known to the report from then on, which keeps it out of texts.
    `started` is given by a run whose objects are to be locked from that moment on, where the destination asks for it.

    Raises PgtendError(SecretMissing).
    """
    try:
        found = load_credentials(credentials or destination.credentials)
    except (OSError, ValueError) as error:
        raise PgtendError(JobReason.SECRET_MISSING, f"credentials of the store: {error}", transient=False) from None
    if isinstance(found, AccessKey):
        report.secrets.append(found.secret)
    lock = destination.store.object_lock
    until = started + timedelta(seconds=lock.seconds) if started is not None and lock is not None else None
    return Store(config=destination.store, credentials=found, locked_until=until)


def try_out(store: Store) -> None:
    """Tells at once whether bucket, credential and network are in order, and whether a commit can be safe
    and what is written can be locked as asked."""
    config = store.config
    # a credential that may only write need not know: then the store refuses the first object
    if config.object_lock is not None and store.locks_objects() is False:
        raise StoreError(
            StoreReason.UPLOAD_FAILED,
            f"bucket {config.bucket} has no object lock, which spec.s3.objectLock asks for: use one that has",
            transient=False,
        )
    if not store.honors_conditional_writes(f"{config.prefix}/.pgtend/conditional-write"):
        raise StoreError(
            StoreReason.CONDITIONAL_WRITES_NOT_HONORED,
            f"{config.location} overwrites what must not be overwritten",
            transient=False,
        )
