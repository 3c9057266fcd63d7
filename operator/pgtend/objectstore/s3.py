"""A bucket as the rest of pgtend sees it. Blocking: pods call it directly, the operator from its bounded pool of
threads. Nothing here decides: what to upload, keep or delete is decided by pure code elsewhere. The library is in
boto.py.
"""

from __future__ import annotations

import os
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from pgtend.core.failpoints import failpoint
from pgtend.objectstore.config import Credentials, StoreConfig
from pgtend.objectstore.errors import AlreadyExists, NotFound, StoreError, StoreReason

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One line of a listing. `modified` is set by the store and changes when a bucket is copied: no age is read off."""

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IncompleteUpload:
    key: str
    upload_id: str
    initiated: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    size: int
    etag: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class Store:
    """A bucket and prefix with one set of credentials. All keys are whole keys, prefix included.

    Every method raises StoreError. Safe to share between threads.
    """

    def __init__(
        self,
        *,
        config: StoreConfig,
        credentials: Credentials,
        ca_pem: str | None = None,
        read_timeout: float = 60,
        attempts: int = 4,
        locked_until: datetime | None = None,
    ) -> None:
        """`ca_pem` is for callers that hold the certificate in memory; else `config.ca_file` is read. Until
        `locked_until` the store keeps what is written here, where `config.object_lock` asks for that."""
        from pgtend.objectstore import boto  # ten megabytes, which an operator without a BackupDestination does not pay

        self.config, self.locked_until = config, locked_until
        self._ca_fd = -1
        verify: str | bool = True
        if ca_pem is not None:
            self._ca_fd = os.memfd_create("ca")
            os.write(self._ca_fd, ca_pem.encode())
            verify = f"/proc/self/fd/{self._ca_fd}"
        elif config.ca_file is not None:
            verify = str(config.ca_file)
        self._boto = boto
        try:
            self._client = boto.client(config, credentials, verify=verify, read_timeout=read_timeout, attempts=attempts)
        except boto.FAILURES as error:  # such as a profile of the environment that does not exist
            raise boto.explain(config, "read", "", error) from error

    def close(self) -> None:
        self._client.close()
        if self._ca_fd >= 0:
            os.close(self._ca_fd)
            self._ca_fd = -1

    # Writing

    def put(
        self,
        key: str,
        body: bytes | bytearray,
        *,
        if_absent: bool,
        metadata: Mapping[str, str] | None = None,
        lock: bool = True,
    ) -> str:
        """Write a whole object in one request; returns its ETag. Raises AlreadyExists where `if_absent` forbids it."""
        arguments = self._encryption() | {"ChecksumCRC32": _crc32(body), "Metadata": dict(metadata or {})}
        arguments |= self._lock() if lock else {}
        if if_absent:
            arguments["IfNoneMatch"] = "*"
        answer = self._call("write", key, self._client.put_object, Key=key, Body=body, **arguments)
        return str(answer.get("ETag", ""))

    def honors_conditional_writes(self, key: str) -> bool:
        """Whether a write with If-None-Match leaves an existing object alone. Leaves a small object under `key`.

        One request where the object is there already, two the first time.
        """
        for _ in range(2):
            try:
                self.put(
                    key, b"pgtend tests here whether this store honors If-None-Match\n", if_absent=True, lock=False
                )
            except AlreadyExists:
                return True
        return False

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        """Begin a multipart upload; returns its id."""
        failpoint("objectstore.create_upload.before")
        answer = self._call(
            "write",
            key,
            self._client.create_multipart_upload,
            Key=key,
            Metadata=dict(metadata),
            ChecksumAlgorithm="CRC32",
            **self._encryption(),
            **self._lock(),
        )
        failpoint("objectstore.create_upload.after")
        return str(answer["UploadId"])

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes | bytearray) -> dict[str, Any]:
        """Send one part; returns what `complete_upload` wants to know of it."""
        crc = _crc32(body)
        answer = self._call(
            "write",
            key,
            self._client.upload_part,
            Key=key,
            UploadId=upload_id,
            PartNumber=number,
            Body=body,
            ChecksumCRC32=crc,
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": crc}

    def complete_upload(self, key: str, upload_id: str, parts: list[dict[str, Any]]) -> str:
        """Make the object appear; returns its ETag. Raises AlreadyExists where one of this name is there."""
        failpoint("objectstore.complete_upload.before")
        answer = self._call(
            "write",
            key,
            self._client.complete_multipart_upload,
            Key=key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
            IfNoneMatch="*",
        )
        failpoint("objectstore.complete_upload.after")
        return str(answer.get("ETag", ""))

    def abort_upload(self, key: str, upload_id: str, *, attempts: int = 5) -> None:
        """End an upload and free its parts. A part that was on its way may arrive after the first request, so it is
        repeated until the store no longer knows the upload. Raises StoreError when it still does after `attempts`."""
        for _ in range(attempts):
            with suppress(NotFound):
                self._call("abort", key, self._client.abort_multipart_upload, Key=key, UploadId=upload_id)
            try:
                self._call("abort", key, self._client.list_parts, Key=key, UploadId=upload_id, MaxParts=1)
            except NotFound:
                return
            except StoreError as error:
                # A credential that may only write need not be allowed to list: then the answer to the abort counts.
                if error.reason == StoreReason.BUCKET_DENIED:
                    return
                raise
        raise StoreError(StoreReason.UPLOAD_FAILED, f"upload {upload_id} of {key} does not end after {attempts} aborts")

    # Reading

    def head(self, key: str) -> Head:
        """Size, ETag and metadata. Raises NotFound."""
        answer = self._call("read", key, self._client.head_object, Key=key)
        return Head(size=answer["ContentLength"], etag=answer["ETag"], metadata=answer.get("Metadata", {}))

    def get(self, key: str, *, limit: int = 64 << 20) -> bytes:
        """A small object whole. Raises NotFound, and StoreError where it is larger than `limit` bytes."""
        answer = self._call("read", key, self._client.get_object, Key=key)
        with answer["Body"] as body:
            if answer["ContentLength"] > limit:
                raise StoreError(StoreReason.READ_FAILED, f"{key} has {answer['ContentLength']} bytes, limit {limit}")
            return self._guard("read", key, lambda: bytes(body.read()))

    def open(self, key: str, *, start: int = 0, etag: str | None = None) -> tuple[Any, str, int]:
        """Begin to read at byte `start`: (body with read(n) and close(), ETag, bytes that follow).

        With `etag` an object that was replaced meanwhile is an error instead of a mixture.
        """
        arguments: dict[str, Any] = {"IfMatch": etag} if etag else {}
        if start:
            arguments["Range"] = f"bytes={start}-"
        answer = self._call("read", key, self._client.get_object, Key=key, **arguments)
        return answer["Body"], answer["ETag"], answer["ContentLength"]

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`, in the order of keys, a page at a time."""
        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=self.config.bucket, Prefix=prefix))
        while (page := self._guard("list", prefix, lambda: next(pages, None))) is not None:
            for item in page.get("Contents", ()):
                yield StoredObject(
                    key=item["Key"], size=item["Size"], etag=item.get("ETag", ""), modified=item["LastModified"]
                )

    def incomplete_uploads(self, prefix: str) -> Iterator[IncompleteUpload]:
        """Every multipart upload below `prefix` that was neither completed nor aborted."""
        paginator = self._client.get_paginator("list_multipart_uploads")
        pages = iter(paginator.paginate(Bucket=self.config.bucket, Prefix=prefix))
        while (page := self._guard("list", prefix, lambda: next(pages, None))) is not None:
            for item in page.get("Uploads", ()):
                yield IncompleteUpload(key=item["Key"], upload_id=item["UploadId"], initiated=item["Initiated"])

    def expiring_rules(self) -> list[dict[str, Any]]:
        """The bucket's enabled lifecycle rules that delete objects, as the store spells them."""
        try:
            answer = self._call("read", "", self._client.get_bucket_lifecycle_configuration)
        except NotFound:
            return []
        kinds = ("Expiration", "NoncurrentVersionExpiration")
        rules = [r for r in answer.get("Rules", ()) if r.get("Status") == "Enabled"]
        return [r for r in rules if any(set(r.get(k, {})) - {"ExpiredObjectDeleteMarker"} for k in kinds)]

    def locks_objects(self) -> bool | None:
        """Whether the bucket can keep objects from being deleted; None where the credential may not know."""
        try:
            answer = self._call("read", "", self._client.get_object_lock_configuration)
        except NotFound:
            return False
        except StoreError as error:
            if error.reason == StoreReason.BUCKET_DENIED:
                return None
            raise
        return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    # Deleting

    def delete(self, key: str) -> None:
        """Delete one object; one that is not there is no error."""
        with suppress(NotFound):
            self._call("delete", key, self._client.delete_object, Key=key)

    def _encryption(self) -> dict[str, Any]:
        wanted = self.config.server_side_encryption
        if wanted is None:
            return {}
        if wanted.type == "AES256":
            return {"ServerSideEncryption": "AES256"}
        key = {"SSEKMSKeyId": wanted.kms_key_id} if wanted.kms_key_id else {}
        return {"ServerSideEncryption": "aws:kms"} | key

    def _lock(self) -> dict[str, Any]:
        wanted = self.config.object_lock
        if wanted is None or self.locked_until is None:
            return {}
        return {"ObjectLockMode": wanted.mode, "ObjectLockRetainUntilDate": self.locked_until}

    def _call(self, what: str, key: str, method: Callable[..., Any], **arguments: Any) -> Any:
        return self._guard(what, key, lambda: method(Bucket=self.config.bucket, **arguments))

    def _guard(self, what: str, key: str, act: Callable[[], _T]) -> _T:
        try:
            return act()
        except self._boto.FAILURES as error:
            raise self._boto.explain(self.config, what, key, error) from error


def _crc32(body: bytes | bytearray) -> str:
    return b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
