"""A store that was opened is used again, for exactly the credentials that it was opened with, and not kept for ever."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from pgtend.api.backupdestination import S3
from pgtend.backups.stores import Stores
from pgtend.core.redaction import Sensitive
from pgtend.kube.secrets import SecretData, SecretReader
from pgtend.objectstore.s3 import Store


class Values:
    """Secrets by name, as a dictionary."""

    def __init__(self) -> None:
        self.secret = "first"

    async def get(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData:
        values = {"id": Sensitive(name), "secret": Sensitive(self.secret)}
        return SecretData(name=name, resource_version="1", values=values, annotations={})


def s3(name: str) -> S3:
    key = {"id": {"secretRef": {"name": name}}, "secret": {"secretRef": {"name": name}}}
    return S3.model_validate(
        {
            "bucket": "backups",
            "prefix": "p",
            "endpoint": "https://store.example",
            "credentials": {"write": {"accessKey": key}},
        }
    )


@pytest.mark.parametrize("idle", [0.0, 900.0])
async def test_a_store_is_opened_once_per_credential_and_closed_when_nobody_asks(
    monkeypatch: pytest.MonkeyPatch, idle: float
) -> None:
    closed: list[Store] = []
    close = Store.close

    def note(store: Store) -> None:
        closed.append(store)
        close(store)

    monkeypatch.setattr(Store, "close", note)
    values = Values()
    stores = Stores(secrets=cast(SecretReader, values), most=2, idle=idle)

    async def ask(name: str) -> Store:
        return await stores.ask(s3(name), namespace="n", use="read", act=lambda store: store)

    try:
        first = await ask("a")
        if not idle:
            await ask("b")
            assert first in closed, "it holds a credential that nobody has asked with"
            return
        assert await ask("a") is first
        values.secret = "second"
        rotated = await ask("a")
        assert rotated is not first
        assert await ask("b") not in (first, rotated)
        assert closed == [first], "the longest unused beyond the bound"
    finally:
        stores.close()
    assert len(closed) == 3


async def test_a_store_in_use_is_not_closed_under_its_user() -> None:
    stores = Stores(secrets=cast(SecretReader, Values()), most=1)
    begun, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(store: Store) -> Any:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)
        return store._client.meta.endpoint_url, store._ca_fd

    try:
        waiting = asyncio.create_task(stores.ask(s3("a"), namespace="n", use="read", act=slow))
        await begun.wait()
        for name in ("b", "c"):
            await stores.ask(s3(name), namespace="n", use="read", act=lambda store: store)
        entries = [entry for entry in stores._open.values() if entry.users]
        assert len(entries) == 1, "the one in use is still there"
        go.set()
        assert (await waiting)[0] == "https://store.example"
        assert len(stores._open) == 1
    finally:
        stores.close()
