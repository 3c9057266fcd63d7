"""Who leads, by one's own clock only, against a Lease that lives in memory as the API server would keep it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from pgtend.core.clock import FakeClock
from pgtend.engine import lease as module
from pgtend.engine.brake import BLIND, Brake
from pgtend.engine.lease import DURATION, RENEW_WITHIN, Elector
from pgtend.kube.client import AlreadyExists, Conflict, NotFound, Unavailable


class Api:
    """One Lease with optimistic locking; `fail` makes every request fail, `hang` never answers."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.fail = self.hang = False
        self.before_replace: Callable[[], None] | None = None

    async def _reach(self) -> None:
        if self.hang:
            await asyncio.Event().wait()
        if self.fail:
            raise Unavailable(0, "Unreachable", "no route")

    async def get(self, *_: Any) -> dict[str, Any]:
        await self._reach()
        if self.lease is None:
            raise NotFound(404, "NotFound", "")
        return copy.deepcopy(self.lease)

    async def create(self, resource: Any, namespace: str, body: dict[str, Any]) -> None:
        await self._reach()
        if self.lease is not None:
            raise AlreadyExists(409, "AlreadyExists", "")
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = "1"

    async def replace(self, resource: Any, namespace: str, name: str, body: dict[str, Any]) -> None:
        await self._reach()
        if self.before_replace is not None:
            self.before_replace()
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "")
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] += "1"

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        found: dict[str, Any] = self.lease["spec"]
        return found


class Candidate:
    def __init__(self, api: Api, name: str, *, ahead: timedelta = timedelta()) -> None:
        self.clock = FakeClock()
        self.clock._now += ahead
        self.lost = 0
        self.elector = Elector(
            client=api,  # type: ignore[arg-type]
            namespace="pgtend",
            name="leader",
            identity=name,
            clock=self.clock,
            on_lost=self._lose,
        )

    def _lose(self) -> None:
        self.lost += 1

    async def turn(self) -> bool:
        """One round of `run`, without its pause."""
        task = asyncio.create_task(self.elector.run())
        for _ in range(20):
            await asyncio.sleep(0)
        self.ended = task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return self.elector.valid()


async def test_the_first_leads_and_the_second_waits() -> None:
    api = Api()
    a, b = Candidate(api, "a"), Candidate(api, "b")
    assert await a.turn()
    assert not await b.turn()
    assert a.elector.acquired.is_set() and not b.elector.acquired.is_set()
    assert api.spec["holderIdentity"] == "a"
    assert api.spec["leaseTransitions"] == 0


async def test_of_two_that_create_at_once_one_leads() -> None:
    api = Api()
    a, b = Candidate(api, "a"), Candidate(api, "b")
    found = await asyncio.gather(a.elector._try(), b.elector._try(), return_exceptions=True)
    assert [f for f in found if f is True] == [True]


async def test_of_two_that_take_an_abandoned_lease_one_leads() -> None:
    api = Api()
    await Candidate(api, "gone").turn()
    a, b = Candidate(api, "a"), Candidate(api, "b")
    for one in (a, b):
        await one.turn()
        one.clock.advance(DURATION + 1)
    held = await asyncio.gather(a.elector._try(), b.elector._try())
    assert sorted(held) == [False, True]


async def test_a_renewal_seen_late_restarts_the_wait_and_clocks_are_never_compared() -> None:
    api = Api()
    a, b = Candidate(api, "a"), Candidate(api, "b", ahead=timedelta(days=1))
    await a.turn()
    assert not await b.turn(), "by the stamps alone the lease ended yesterday"
    b.clock.advance(DURATION - 0.5)
    assert not await b.turn()
    a.clock.advance(2)
    await a.turn()
    b.clock.advance(DURATION - 0.5)
    assert not await b.turn(), "it was renewed in between"
    b.clock.advance(DURATION + 0.1)
    assert await b.turn()
    assert api.spec["holderIdentity"] == "b"
    assert api.spec["leaseTransitions"] == 1
    assert b.elector.transitions == 1


async def test_who_was_overtaken_has_lost_at_once() -> None:
    api = Api()
    a, b = Candidate(api, "a"), Candidate(api, "b")
    await a.turn()
    await b.turn()
    b.clock.advance(DURATION + 1)
    await b.turn()
    assert a.elector.valid(), "by its own clock no time has passed: it was stopped"
    assert not await a.turn()
    assert (a.lost, a.ended) == (1, True)
    assert api.spec["holderIdentity"] == "b"


async def test_validity_ends_before_anybody_can_take_over() -> None:
    api = Api()
    a = Candidate(api, "a")
    await a.turn()
    a.clock.advance(RENEW_WITHIN - 0.1)
    assert a.elector.valid()
    a.clock.advance(0.1)
    assert not a.elector.valid()
    assert RENEW_WITHIN + module.ATTEMPT < DURATION, "and the process has ended before, even where the API hangs"


@pytest.mark.parametrize("how", ["fail", "hang"])
async def test_an_api_server_that_is_away_loses_the_lease_in_time(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPT", 0.005)
    monkeypatch.setattr(module, "RETRY", 0.001)
    api = Api()
    a = Candidate(api, "a")
    await a.turn()
    setattr(api, how, True)
    task = asyncio.create_task(a.elector.run())
    await asyncio.sleep(0.02)
    assert not task.done(), "a short absence is survived"
    a.clock.advance(RENEW_WITHIN)
    async with asyncio.timeout(5):
        await task
    assert (a.lost, a.elector.valid()) == (1, False)


async def test_a_lost_race_is_no_renewal() -> None:
    api = Api()
    a = Candidate(api, "a")
    await a.turn()
    renewed = a.elector._renewed

    def meanwhile() -> None:
        assert api.lease is not None
        api.lease["metadata"]["resourceVersion"] += "x"

    a.clock.advance(5)
    api.before_replace = meanwhile
    assert await a.turn(), "still within its time"
    assert a.elector._renewed == renewed


async def test_a_restarted_process_takes_up_its_own_lease_at_once() -> None:
    api = Api()
    await Candidate(api, "a").turn()
    again = Candidate(api, "a")
    assert await again.turn()
    assert api.spec["leaseTransitions"] == 0


async def test_release_lets_the_next_one_start_at_once_and_takes_nothing_from_another() -> None:
    api = Api()
    a, b = Candidate(api, "a"), Candidate(api, "b")
    await a.turn()
    await a.elector.release()
    assert not a.elector.valid()
    assert await b.turn()
    await a.elector.release()
    assert api.spec["holderIdentity"] == "b"
    api.fail = True
    await b.elector.release()
    assert not b.elector.valid()


class Key:
    """The brake's ConfigMap."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] | Exception = NotFound(404, "NotFound", "")

    async def get(self, *_: Any) -> dict[str, Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "on"),
    [
        (NotFound(404, "NotFound", ""), False),
        ({"data": {"paused": "true"}}, True),
        ({"data": {"paused": "True"}}, True),
        ({"data": {"paused": "false"}}, False),
        ({"data": {}}, False),
        ({}, False),
    ],
)
async def test_the_brake_is_one_key(answer: Any, on: bool) -> None:
    key = Key()
    key.answer = answer
    brake = Brake(client=key, namespace="pgtend", clock=FakeClock())  # type: ignore[arg-type]
    assert brake.on(), "before it was read it is on"
    await brake.read()
    assert brake.on() is on


async def test_a_brake_that_cannot_be_read_is_on_after_a_while() -> None:
    key, clock = Key(), FakeClock()
    brake = Brake(client=key, namespace="pgtend", clock=clock)  # type: ignore[arg-type]
    await brake.read()
    key.answer = Unavailable(0, "Unreachable", "no route")
    clock.advance(BLIND)
    await brake.read()
    assert not brake.on()
    clock.advance(0.1)
    assert brake.on()
    key.answer = NotFound(404, "NotFound", "")
    await brake.read()
    assert not brake.on()
