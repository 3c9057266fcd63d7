"""Why a condition of BackupDestination is as it is."""

from __future__ import annotations

from pgtend.api.conditions import Reason


class DestinationReason(Reason):
    """Reasons of BackupDestination."""

    IN_FORCE = "InForce", "The store accepts writing, reading and listing under the prefix.", "Nothing."
    ACCEPTED = "Accepted", "The spec is valid.", "Nothing."
    AS_EXPECTED = "AsExpected", "Nothing is out of the ordinary.", "Nothing."
    CONNECTED = "Connected", "The store answers.", "Nothing."
    INVALID_SPEC = (
        "InvalidSpec",
        "The spec does not parse; the message names the field. The CRD in the cluster is of another version.",
        "Correct the field that the message names.",
    )
    INVALID_RECIPIENT = (
        "InvalidRecipient",
        "A recipient is not an age X25519 public key.",
        "Give a key as `age-keygen` prints it; it begins with age1.",
    )
    SECRET_MISSING = (
        "SecretMissing",
        "A Secret that the spec names does not exist in the object's namespace.",
        "Create it, then touch the annotation `pgtend.dev/reconcile` or wait a minute.",
    )
    SECRET_KEY_MISSING = (
        "SecretKeyMissing",
        "The Secret exists but lacks the key, or the key is empty.",
        "Add the key, or name another with `key`.",
    )
    NOT_ACCEPTED = "NotAccepted", "Not looked at, since the object is not accepted.", "See the condition Accepted."
    NOT_REACHED = "NotReached", "Nothing is known while the store is not reached.", "See the condition Reachable."
    BRAKE_ON = (
        "BrakeOn",
        "The brake pauses every write of this installation, and the test of conditional writes is one.",
        "Remove the key from the brake ConfigMap.",
    )
    LIFECYCLE_CONFLICT = (
        "LifecycleConflict",
        "A lifecycle rule of the bucket deletes backups earlier than the policies do.",
        "Exclude the prefix from the rule that the message names.",
    )
    OBJECT_LOCK_UNAVAILABLE = (
        "ObjectLockUnavailable",
        "`spec.s3.objectLock` asks for what the bucket does not have; it is decided when a bucket is made.",
        "Use a bucket with object lock and versions, or leave `objectLock` out.",
    )
    IDENTITY_ONLY_IN_CLUSTER = (
        "IdentityOnlyInCluster",
        "Every private key that opens the backups is a Secret of the cluster that they are to protect.",
        "Add a recipient without `identity` whose private key is kept outside: backups from then on have it.",
    )
    MISSING_PRIVILEGE = (
        "MissingPrivilege",
        "No credential may read the bucket's lifecycle rules or object lock, so nothing is claimed about them.",
        "Give the credential `read` the right that the message names on the bucket.",
    )
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
    CONDITIONAL_WRITES_NOT_HONORED = (
        "ConditionalWritesNotHonored",
        "The store overwrites an object although the request forbids it, so a backup cannot be committed safely.",
        "Use a store that honors If-None-Match, or upgrade it.",
    )
    UPLOAD_FAILED = (
        "UploadFailed",
        "The store failed while data was written; the upload was aborted.",
        "See the message; the next run starts anew.",
    )
    READ_FAILED = "ReadFailed", "The store failed while data was read.", "See the message; it is tried again."
