"""One object, written as it comes, within a bound on memory, and gone without a trace unless it is completed.

The caller writes bytes; full parts go to a few threads; a writer that is too fast waits. Nothing is visible under the
key before `commit`, and that is called only by somebody who knows that the bytes are all there: the end of the bytes
proves nothing (a dump that died ends too).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pgtend.core.failpoints import failpoint
from pgtend.objectstore.errors import StoreError, StoreReason
from pgtend.objectstore.parts import MOST_IN_FLIGHT, PartPlan
from pgtend.objectstore.s3 import Store

_HELD = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was stored: bytes, number of parts, hexadecimal sha256 of the stored bytes."""

    key: str
    size: int
    parts: int
    sha256: str


class Upload:
    """A file-like sink (`write`, `flush`) for one object: write, `finish`, `commit`. Leaving it as a context without
    `commit` aborts. One thread writes; `cancel` may be called by another. Raises StoreError.
    """

    def __init__(
        self,
        *,
        store: Store,
        key: str,
        plan: PartPlan,
        metadata: Mapping[str, str] | None = None,
        pace: Callable[[int], None] | None = None,
    ) -> None:
        """`pace` is called with the size of each part before it is sent and may sleep: the rate limit."""
        self.key = key
        self._store = store
        self._plan = plan
        self._metadata = dict(metadata or {})
        self._pace = pace
        self._limit = store.config.limits.object_size
        self._digest = hashlib.sha256()
        self._size = 0
        # Buffers are used again: fresh memory costs more than copying into it.
        self._buffer = bytearray(plan.size(1))
        self._filled = 0
        self._spare: list[bytearray] = []
        self._index = 0
        self._upload_id: str | None = None
        self._futures: list[Future[dict[str, Any]]] = []
        self._done: list[dict[str, Any]] = []
        self._slots = threading.Condition()
        self._busy = 0
        self._failure: BaseException | None = None
        self._closed = False
        self._pool = ThreadPoolExecutor(MOST_IN_FLIGHT, thread_name_prefix="upload")

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not self._closed:
            self.abort()

    def write(self, data: bytes) -> int:
        """Take bytes; blocks while as many parts as memory allows are on their way."""
        self._check()
        self._digest.update(data)
        self._size += len(data)
        if self._size > self._limit:
            raise StoreError(
                StoreReason.OBJECT_TOO_LARGE, f"{self.key} exceeds {self._limit} bytes, the limit of the store"
            )
        view = memoryview(data)
        while view:
            taken = view[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            view = view[len(taken) :]
            if self._filled == len(self._buffer):
                self._send()
        return len(data)

    def flush(self) -> None:
        """Nothing to do: what is smaller than a part waits for `finish`."""

    def finish(self) -> Written:
        """Send the rest and wait until the store has every part. Still nothing exists under the key; only `commit` and
        `abort` are left."""
        self._check()
        del self._buffer[self._filled :]
        if self._upload_id is not None or self._filled > _HELD:
            # Not held in memory: a run with many databases finishes all of them before it commits the first.
            if self._filled:
                self._send()
            self._done = [future.result() for future in self._futures]
            self._buffer = bytearray()
        self._spare.clear()
        self._pool.shutdown()
        return Written(key=self.key, size=self._size, parts=max(1, len(self._done)), sha256=self._digest.hexdigest())

    def commit(self) -> None:
        """Make the object appear. Raises AlreadyExists where one of this name is there."""
        self._check()
        failpoint("objectstore.upload.commit.before")
        if self._upload_id is None:
            self._store.put(self.key, self._buffer, if_absent=True, metadata=self._metadata)
        else:
            self._store.complete_upload(self.key, self._upload_id, self._done)
        self._closed = True
        failpoint("objectstore.upload.commit.after")

    def cancel(self) -> None:
        """Make a writer in another thread stop with an error; `abort` follows when it has."""
        with self._slots:
            self._failure = self._failure or StoreError(StoreReason.UPLOAD_FAILED, f"{self.key} was aborted")
            self._slots.notify_all()

    def abort(self) -> None:
        """Leave nothing behind. Raises StoreError when the store does not let the upload go."""
        self.cancel()
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._buffer, self._spare = bytearray(), []
        if self._upload_id is not None:
            failpoint("objectstore.upload.abort.before")
            self._store.abort_upload(self.key, self._upload_id)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _send(self) -> None:
        """Hand the buffer to a thread and begin the next one, once there is room for it."""
        if self._upload_id is None:
            self._upload_id = self._store.create_upload(self.key, metadata=self._metadata)
        self._index += 1
        if self._index > self._plan.parts:
            raise StoreError(
                StoreReason.OBJECT_TOO_LARGE,
                f"{self.key} needs more than {self._plan.parts} parts at {self._size} bytes",
            )
        allowed = self._plan.in_flight(self._index)
        with self._slots:
            self._slots.wait_for(lambda: self._busy < allowed or self._failure is not None)
            self._check()
            self._busy += 1
        body = self._buffer
        self._futures.append(self._pool.submit(self._upload, self._index, body))
        size = self._plan.size(min(self._index + 1, self._plan.parts))
        with self._slots:
            fitting = [b for b in self._spare if len(b) == size]
            self._spare = fitting[1:]
        self._buffer = fitting[0] if fitting else bytearray(size)
        self._filled = 0

    def _upload(self, number: int, body: bytearray) -> dict[str, Any]:
        try:
            if self._pace is not None:
                self._pace(len(body))
            assert self._upload_id is not None  # noqa: S101 - _send sets it before it submits
            done = self._store.upload_part(self.key, self._upload_id, number, body)
            with self._slots:
                self._spare.append(body)
            return done
        except BaseException as error:
            with self._slots:
                self._failure = self._failure or error
            raise
        finally:
            with self._slots:
                self._busy -= 1
                self._slots.notify_all()


class Pace:
    """At most so many bytes per second over all uploads that share it."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._next = time.monotonic()

    def __call__(self, size: int) -> None:
        with self._lock:
            start = max(self._next, time.monotonic())
            self._next = start + size / self._rate
        with suppress(ValueError):
            time.sleep(max(0.0, start - time.monotonic()))
