"""Keeps aiohttp from reading the system's root certificates when it is imported.

It makes a TLS context of its own then, for sessions that bring none: over two megabytes, and nobody asks for it. Our
sessions bring theirs (kube/config.py), with the cluster's own authority or, where a kubeconfig names none, with these
very roots.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_PLACES = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}


@contextmanager
def unread() -> Iterator[None]:
    """Contexts that are made meanwhile know no authority at all, and refuse whomever they are asked about."""
    before = {name: os.environ.get(name) for name in _PLACES}
    os.environ.update(_PLACES)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
