"""What the watch keeps from the log, and what not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import kopf
import pytest

from pgtend.kube.watch import _tell, watch


async def infinite_watch() -> AsyncIterator[int]:
    try:
        yield 1
    finally:
        raise RuntimeError("not closed in order")


async def anything_else() -> AsyncIterator[int]:
    try:
        yield 1
    finally:
        raise RuntimeError("not closed in order")


@pytest.mark.parametrize(("generator", "told"), [(infinite_watch, False), (anything_else, True)])
def test_a_watch_that_the_end_has_cut_off_is_no_error(
    generator: Callable[[], AsyncIterator[int]], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(_tell)
    left = generator()  # it is referred to until the end, else it is closed at once

    async def begin() -> int:
        return await anext(left)

    with caplog.at_level(logging.WARNING):
        assert loop.run_until_complete(begin()) == 1
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert ("closing of asynchronous generator" in caplog.text) is told


async def test_who_watches_is_told_when_the_signals_may_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """kopf takes them over when it starts, and is ready after that."""
    told: list[str] = []

    async def operator(*, ready_flag: asyncio.Event, stop_flag: asyncio.Event, **_: object) -> None:
        told.append("signals taken")
        await asyncio.sleep(0)
        ready_flag.set()
        await stop_flag.wait()

    monkeypatch.setattr(kopf, "operator", operator)
    stop = asyncio.Event()

    def started() -> None:
        told.append("started")
        stop.set()

    nothing = cast(Any, None)
    await watch(config=nothing, kinds=(), namespaces=(), intake=nothing, stop=stop, started=started)
    assert told == ["signals taken", "started"]
