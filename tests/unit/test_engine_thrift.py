"""What the process goes without while its libraries are imported, and what it gives back."""

from __future__ import annotations

import asyncio
import ctypes
import os
import ssl
from typing import Any

import pytest

from pgtend.engine import thrift


def test_no_root_certificates_are_read_while_libraries_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/own.pem")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.delenv("FROZENLIST_NO_EXTENSIONS", raising=False)
    with thrift.importing():
        context = ssl.create_default_context()
        assert context.get_ca_certs() == []
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert os.environ["SSL_CERT_FILE"] == "/etc/own.pem"
    assert not {"SSL_CERT_DIR", "FROZENLIST_NO_EXTENSIONS"} & os.environ.keys()


class Library:
    def __init__(self) -> None:
        self.trimmed = 0

    def malloc_trim(self, pad: int) -> None:
        self.trimmed += 1


@pytest.mark.parametrize(("library", "trimmed"), [(Library(), True), (object(), False)])
async def test_what_is_free_is_given_back_where_the_library_can(
    library: Any, trimmed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(thrift, "EVERY", 0.0)
    task = asyncio.create_task(thrift.run())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bool(getattr(library, "trimmed", 0)) is trimmed
