"""From a BackupDestination and its Secrets to a store that can be asked, and the bounded pool in which it is asked:
the S3 library blocks, and a store that never answers must not take the operator's threads with it."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

from pgtend.api.backupdestination import S3, StoreCredential
from pgtend.backups.inputs import store_config
from pgtend.core.redaction import Sensitive
from pgtend.kube.secrets import SecretReader
from pgtend.objectstore.config import AccessKey, StoreConfig
from pgtend.objectstore.errors import StoreError, StoreReason
from pgtend.objectstore.s3 import Store
from pgtend.server.credentials import value

Use = Literal["write", "read", "delete"]
T = TypeVar("T")
THREADS = 8
MOST_OPEN = 32
IDLE = 900.0


def credential(s3: S3, use: Use) -> StoreCredential:
    """What is left out is as `write`."""
    given = s3.credentials
    return {"write": given.write, "read": given.read, "delete": given.delete}[use] or given.write


@dataclass(slots=True)
class _Open:
    """A store that is kept open. `users` are the calls that go on, `used` the moment of the last."""

    store: Store
    users: int = 0
    used: float = 0.0


class Stores:
    """Opens stores and runs blocking calls on them, at most eight at a time. A store is kept, with its connections, as
    long as somebody asks with the very same settings and credentials: opening one costs a tenth of a second of CPU."""

    def __init__(self, *, secrets: SecretReader, most: int = MOST_OPEN, idle: float = IDLE) -> None:
        self._secrets, self._most, self._idle = secrets, most, idle
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self._lock = threading.Lock()
        self._open: dict[bytes, _Open] = {}

    async def ask(self, s3: S3, *, namespace: str, use: Use, act: Callable[[Store], T], seconds: float = 45.0) -> T:
        """`act` in a thread with a store of this credential. Raises PgtendError (SecretMissing, SecretKeyMissing),
        StoreError, and StoreError BucketUnreachable after `seconds`; what hangs is left to its own timeouts."""
        key = credential(s3, use).access_key
        identifier = await value(
            self._secrets, namespace=namespace, name=key.id.secret_ref.name, key=key.id.secret_ref.key or "id"
        )
        secret = await value(
            self._secrets,
            namespace=namespace,
            name=key.secret.secret_ref.name,
            key=key.secret.secret_ref.key or "secret",
        )
        ca = None
        if s3.ca is not None:
            ref = s3.ca.secret_ref
            ca = (await value(self._secrets, namespace=namespace, name=ref.name, key=ref.key or "ca.crt")).reveal()
        credentials = AccessKey(id=identifier.reveal().strip(), secret=Sensitive(secret.reveal().strip()))

        def work() -> T:
            with self._opened(store_config(s3), credentials, ca, quick=seconds <= 10) as store:
                return act(store)

        where = s3.endpoint or f"AWS in {s3.region}"
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except TimeoutError:
            raise StoreError(
                StoreReason.BUCKET_UNREACHABLE, f"{where} did not answer within {seconds:.0f} s: check DNS and network"
            ) from None

    @contextmanager
    def _opened(self, config: StoreConfig, credentials: AccessKey, ca: str | None, *, quick: bool) -> Iterator[Store]:
        """`quick` gives up after one attempt of 8 s."""
        told = (config.model_dump_json(), credentials.id, credentials.secret.reveal(), ca or "", str(quick))
        name = hashlib.sha256("\0".join(told).encode()).digest()
        with self._lock:
            entry = self._open.get(name)
            if entry is None:
                store = Store(
                    config=config,
                    credentials=credentials,
                    ca_pem=ca,
                    read_timeout=8.0 if quick else 20.0,
                    attempts=1 if quick else 2,
                )
                entry = self._open[name] = _Open(store)
            entry.users += 1
        try:
            yield entry.store
        finally:
            with self._lock:
                entry.users -= 1
                entry.used = time.monotonic()
                self._drop_idle(entry.used)

    def _drop_idle(self, now: float) -> None:
        """Close what nobody has used for long (it holds credentials), and the longest unused beyond the bound."""
        free = sorted((item for item in self._open.items() if not item[1].users), key=lambda item: item[1].used)
        surplus = len(self._open) - self._most
        for number, (name, entry) in enumerate(free):
            if number < surplus or now - entry.used > self._idle:
                del self._open[name]
                entry.store.close()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for entry in self._open.values():
                if not entry.users:
                    entry.store.close()
            self._open.clear()
