"""What the process does to stay small: it goes without what libraries load and nobody uses, and gives back what it has
freed. Each figure is of resident memory, and each was measured."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import mimetypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

EVERY = 60.0
_MEANWHILE = {
    # aiohttp makes a TLS context when it is imported, for sessions that bring none: two megabytes of root certificates.
    # Ours bring theirs, with the cluster's own authority or, where a kubeconfig names none, with these very roots.
    "SSL_CERT_FILE": os.devnull,
    "SSL_CERT_DIR": os.devnull,
    # its lists that can be frozen are in C++, whose library takes a megabyte; we freeze five of them
    "FROZENLIST_NO_EXTENSIONS": "1",
}


@contextmanager
def importing() -> Iterator[None]:
    """Around the first import of the libraries. TLS contexts that are made meanwhile know no authority at all, and
    refuse whomever they are asked about."""
    mimetypes.knownfiles.clear()  # a third of a megabyte of what aiohttp would call files that it serves
    before = {name: os.environ.get(name) for name in _MEANWHILE}
    os.environ.update(_MEANWHILE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def settle() -> None:
    """Once everything is there that stays: a hundred thousand objects, which the collector need not look at again."""
    gc.collect()
    gc.freeze()


async def run() -> None:
    """Give back what is free, for ever. The C library keeps the gaps that lists and passes leave; Python's own memory
    is not its affair."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(EVERY)
        trim(0)
    await asyncio.Event().wait()
