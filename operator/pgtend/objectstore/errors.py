"""Every way in which a store fails us, with a reason that a condition can show."""

from __future__ import annotations

from pgtend.api.conditions import Reason
from pgtend.core.errors import PgtendError


class StoreReason(Reason):
    """Reasons that come from the object store."""

    BUCKET_MISSING = (
        "BucketMissing",
        "The bucket does not exist at this endpoint.",
        "Create it, or correct `spec.s3.bucket`, `region` or `endpoint`.",
    )
    BUCKET_DENIED = (
        "BucketDenied",
        "The store refuses the credential, or the credential lacks the right for this request.",
        "Correct the Secret or the role's policy; the message names the request that was refused.",
    )
    BUCKET_UNREACHABLE = (
        "BucketUnreachable",
        "The endpoint does not answer, or its certificate does not verify.",
        "Check `spec.s3.endpoint`, `region`, `ca`, DNS and NetworkPolicy.",
    )
    CREDENTIALS_MISSING = (
        "CredentialsMissing",
        "No credential was found for the store.",
        "Name one in `spec.s3.credentials`, or give the pod's service account an identity.",
    )
    CONDITIONAL_WRITES_NOT_HONORED = (
        "ConditionalWritesNotHonored",
        "The store overwrites an object although the request forbids it, so a backup cannot be committed safely.",
        "Use a store that honors If-None-Match, or upgrade it.",
    )
    OBJECT_EXISTS = (
        "ObjectExists",
        "An object of this name is already there, and is not overwritten.",
        "Nothing: the next run uses another name.",
    )
    OBJECT_MISSING = (
        "ObjectMissing",
        "An object that the manifest names is not in the bucket.",
        "Look for lifecycle rules or people who deleted it; take a new backup.",
    )
    OBJECT_TOO_LARGE = (
        "ObjectTooLarge",
        "The data does not fit the store's limits of parts and object size.",
        "Raise `spec.s3.limits` if the store allows more.",
    )
    UPLOAD_FAILED = (
        "UploadFailed",
        "The store failed while data was written; the upload was aborted.",
        "See the message; the next run starts anew.",
    )
    READ_FAILED = "ReadFailed", "The store failed while data was read.", "See the message; it is tried again."


class StoreError(PgtendError):
    """A failure of the store. `reason` is a StoreReason."""


class AlreadyExists(StoreError):
    """A conditional write found an object: If-None-Match was honored."""


class NotFound(StoreError):
    """The object is not there."""
