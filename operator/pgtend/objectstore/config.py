"""What must be known to reach a store, as values without any client behind them, so that controllers can build and
compare them without importing an S3 library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pgtend.api.base import ApiModel
from pgtend.core.redaction import Sensitive

MIB = 1 << 20
TIB = 1 << 40


class Limits(ApiModel):
    """Limits of the store: parts of one upload, bytes of one object."""

    parts: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    object_size: Annotated[int, Field(ge=5 * MIB)] = 5 * TIB


class ServerSideEncryption(ApiModel):
    """What the store itself is asked to do on top of the encryption on our side."""

    type: Literal["AES256", "KMS"]
    kms_key_id: str | None = None


class ObjectLock(ApiModel):
    """Objects of a backup cannot be deleted for so many seconds from its start."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    seconds: Annotated[int, Field(ge=1)]


class StoreConfig(ApiModel):
    """One bucket and prefix. `endpoint` None means AWS of the region; `ca_file` None means the system's roots."""

    bucket: Annotated[str, Field(min_length=3, max_length=63)]
    prefix: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^/].*[^/]$|^[^/]$")]
    region: str = "us-east-1"
    endpoint: Annotated[str | None, Field(pattern=r"^https?://[^\s@]+$")] = None
    addressing: Literal["VirtualHost", "Path"] = "VirtualHost"
    ca_file: Path | None = None
    server_side_encryption: ServerSideEncryption | None = None
    object_lock: ObjectLock | None = None
    limits: Limits = Limits()
    upload_rate: Annotated[int | None, Field(ge=MIB)] = None
    """Bytes per second of one process; None is unlimited."""

    @property
    def location(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


class AccessKeyFiles(ApiModel):
    """A key pair in two mounted files."""

    id_file: Path
    secret_file: Path


class WebIdentityFiles(ApiModel):
    """A role assumed with a projected service account token. Without `token_file` the platform's variable names it."""

    role_arn: Annotated[str, Field(alias="roleARN")]
    token_file: Path | None = None


class CredentialFiles(ApiModel):
    """Where a pod finds its credentials; neither member means the pod's own identity (instance, EKS pod identity)."""

    access_key: AccessKeyFiles | None = None
    web_identity: WebIdentityFiles | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    id: str
    secret: Sensitive


@dataclass(frozen=True, slots=True, kw_only=True)
class WebIdentity:
    role_arn: str
    token_file: Path | None = None


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """Whatever the platform gives the process; asked for by the S3 library's own chain."""


Credentials = AccessKey | WebIdentity | PodIdentity


def load_credentials(files: CredentialFiles) -> Credentials:
    """Read the mounted files. Raises OSError where one is missing, ValueError where one is empty."""
    if files.access_key is not None:
        key = files.access_key.id_file.read_text(encoding="utf-8").strip()
        secret = files.access_key.secret_file.read_text(encoding="utf-8").strip()
        if not key or not secret:
            raise ValueError(f"{files.access_key.id_file} or {files.access_key.secret_file} is empty")
        return AccessKey(id=key, secret=Sensitive(secret))
    if files.web_identity is not None:
        return WebIdentity(role_arn=files.web_identity.role_arn, token_file=files.web_identity.token_file)
    return PodIdentity()
