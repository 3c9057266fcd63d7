"""One object read from its beginning to its end as a stream, over as many requests as the network makes of it."""

from __future__ import annotations

import hashlib
from typing import Any

from botocore.exceptions import BotoCoreError

from pgtend.objectstore.errors import NotFound, StoreError, StoreReason
from pgtend.objectstore.s3 import Store

_ATTEMPTS = 5


class ObjectReader:
    """A file-like source. Goes on where a connection broke, but never with another object of the same name.

    `size` and `sha256` are of what was read so far. Raises StoreError, NotFound.
    """

    def __init__(self, *, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self._body: Any = None
        self._etag: str | None = None
        self._digest = hashlib.sha256()
        self._expected = -1
        self._failures = 0
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def read(self, size: int) -> bytes:
        while True:
            if self.size == self._expected:
                return b""
            try:
                if self._body is None:
                    self._open()
                    continue
                data = bytes(self._body.read(size))
                if not data and self.size < self._expected:
                    raise OSError(f"the store ended the answer {self._expected - self.size} bytes early")
            except NotFound:
                raise
            except (StoreError, BotoCoreError, OSError) as error:
                self._retry(error)
                continue
            self.size += len(data)
            self._digest.update(data)
            return data

    def drain(self) -> None:
        """Read the rest for its checksum's sake."""
        while self.read(1 << 20):
            pass

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def _open(self) -> None:
        self._body, self._etag, length = self._store.open(self._key, start=self.size, etag=self._etag)
        self._expected = self.size + length

    def _retry(self, error: Exception) -> None:
        self.close()
        self._failures += 1
        final = isinstance(error, StoreError) and error.reason == StoreReason.BUCKET_DENIED
        if final or self._failures >= _ATTEMPTS:
            if isinstance(error, StoreError):
                raise error
            raise StoreError(StoreReason.READ_FAILED, f"read of {self._key} at byte {self.size}: {error}") from error
