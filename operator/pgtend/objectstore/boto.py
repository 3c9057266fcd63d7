"""The only module that imports the S3 library: a client made as we want it, and what its errors mean to us.

Requests are signed and retried by botocore (boto3's own core, without its resource layer, which would cost another
ten megabytes).
"""

from __future__ import annotations

import os
from typing import Any

import botocore.credentials
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    SSLError,
)
from botocore.utils import FileWebIdentityTokenLoader

from pgtend.objectstore.config import AccessKey, Credentials, PodIdentity, StoreConfig, WebIdentity
from pgtend.objectstore.errors import AlreadyExists, NotFound, StoreError, StoreReason

FAILURES = (BotoCoreError, ClientError, OSError)
"""What a request raises."""
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403"}
_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "301", "IllegalLocationConstraintException"}


def client(
    config: StoreConfig, credentials: Credentials, *, verify: str | bool, read_timeout: float, attempts: int
) -> Any:
    """`verify` is the path of a CA bundle, or whether to verify at all."""
    session = botocore.session.Session()
    _install(session, credentials)
    return session.create_client(
        "s3",
        region_name=config.region,
        endpoint_url=config.endpoint,
        verify=verify,
        config=Config(
            connect_timeout=5,
            read_timeout=read_timeout,
            max_pool_connections=8,
            retries={"mode": "standard", "total_max_attempts": attempts},
            # Over TLS a part is guarded by its CRC32, which the store verifies: a second sha256 of every byte, for
            # the signature, would only cost time. In clear text it is what guards it, so there it stays.
            s3={"addressing_style": "path" if config.addressing == "Path" else "virtual"}
            | ({} if (config.endpoint or "https:").startswith("http:") else {"payload_signing_enabled": False}),
            # Trailing checksums, on by default since boto 1.36, break stores other than AWS: some write them into
            # the object. We send a header per part instead and keep a sha256 in the manifest.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            user_agent_extra="pgtend",
        ),
    )


def _install(session: Any, credentials: Credentials) -> None:
    match credentials:
        case AccessKey():
            session.set_credentials(credentials.id, credentials.secret.reveal())
        case WebIdentity():
            token = credentials.token_file or os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE", "")
            fetcher = botocore.credentials.AssumeRoleWithWebIdentityCredentialFetcher(
                client_creator=session.create_client,
                web_identity_token_loader=FileWebIdentityTokenLoader(str(token)),
                role_arn=credentials.role_arn,
                extra_args={"RoleSessionName": "pgtend"},
            )
            session._credentials = botocore.credentials.DeferredRefreshableCredentials(
                refresh_using=fetcher.fetch_credentials, method="assume-role-with-web-identity"
            )
        case PodIdentity():
            pass  # the library's own chain finds what the platform gives


def explain(config: StoreConfig, what: str, key: str, error: Exception) -> StoreError:
    where = f"{what} of s3://{config.bucket}/{key}"
    at = config.endpoint or f"AWS in {config.region}"
    if isinstance(error, (NoCredentialsError, CredentialRetrievalError)):
        return StoreError(StoreReason.CREDENTIALS_MISSING, f"{where}: {error}")
    if isinstance(error, (SSLError, ConnectionError, HTTPClientError)):
        remedy = "check spec.s3.endpoint, region and ca, DNS and NetworkPolicy"
        return StoreError(StoreReason.BUCKET_UNREACHABLE, f"{where} at {at}: {error}: {remedy}")
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = f"{where}: the store says {code} ({status}) {error.response.get('Error', {}).get('Message', '')}"
        if code in {"PreconditionFailed", "412", "ConditionalRequestConflict"}:
            return AlreadyExists(StoreReason.OBJECT_EXISTS, said)
        if code == "NoSuchBucket":
            remedy = "create it, or correct spec.s3.bucket, region or endpoint"
            return StoreError(StoreReason.BUCKET_MISSING, f"{said} at {at}: {remedy}", transient=False)
        if status == 404:
            return NotFound(StoreReason.OBJECT_MISSING, said)
        if code in _REGION:
            return StoreError(StoreReason.BUCKET_UNREACHABLE, f"{said}: is the region {config.region} right?")
        if code in _DENIED or status in {401, 403}:
            # Some stores say this of a bucket that is not there, too, to whoever may not list.
            remedy = "correct the Secret, or the rights of its key"
            return StoreError(StoreReason.BUCKET_DENIED, f"{said} (does the bucket exist?): {remedy}", transient=False)
        return StoreError(_failed(what), said)
    return StoreError(_failed(what), f"{where}: {type(error).__name__} {error}")


def _failed(what: str) -> StoreReason:
    return StoreReason.READ_FAILED if what in {"read", "list"} else StoreReason.UPLOAD_FAILED
