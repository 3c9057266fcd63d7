"""For whom a target that is deleted stays, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from pgtend.api.databaseuser import DATABASE_USER
from pgtend.api.postgrestarget import POSTGRES_TARGET
from pgtend.core.clock import FakeClock
from pgtend.kube.client import Conflict
from pgtend.kube.index import Index, Record, record_of
from pgtend.targets.controller import TargetController
from pgtend.targets.hold import FINALIZER, LIVING_SECONDS, MOST_SECONDS, finalizers, holds


def record(kind: Any, **meta: Any) -> Record:
    metadata = {"name": "x", "namespace": "databases", "uid": "1", "resourceVersion": "1"}
    metadata |= {"creationTimestamp": "2026-11-22T10:00:00Z", **meta}
    return record_of(kind, {"metadata": metadata, "spec": {}})


LIVES = record(DATABASE_USER, finalizers=["pgtend.dev/user"])
GOES = record(DATABASE_USER, finalizers=["pgtend.dev/user"], deletionTimestamp="2026-11-22T11:00:00Z")


@pytest.mark.parametrize(
    ("dependents", "waited", "held"),
    [
        ([], 0.0, False),
        # with a namespace all go one after another; a target that is deleted alone does not wait for its users
        ([LIVES], 0.0, True),
        ([LIVES], LIVING_SECONDS, False),
        ([LIVES, GOES], LIVING_SECONDS, True),
        ([GOES], MOST_SECONDS - 1, True),
        ([GOES], MOST_SECONDS, False),
    ],
)
def test_a_target_stays_for_those_who_are_being_deleted_and_never_for_ever(
    dependents: list[Record], waited: float, held: bool
) -> None:
    assert holds(dependents, waited=waited) is held


@pytest.mark.parametrize(
    ("has", "dependents", "wanted"),
    [
        ([], [], ()),
        ([], [LIVES], (FINALIZER,)),
        ([FINALIZER], [LIVES, GOES], (FINALIZER,)),
        ([FINALIZER], [], ()),
        (["else.example/x"], [LIVES], ("else.example/x", FINALIZER)),
        ([FINALIZER, "else.example/x"], [], ("else.example/x",)),
    ],
)
def test_the_finalizer_is_there_while_users_have_one(
    has: list[str], dependents: list[Record], wanted: tuple[str, ...]
) -> None:
    assert finalizers(record(POSTGRES_TARGET, finalizers=has), dependents) == wanted


def test_no_write_where_the_order_alone_differs() -> None:
    there = record(POSTGRES_TARGET, finalizers=[FINALIZER, "else.example/x"])
    assert finalizers(there, [LIVES]) == there.finalizers


class Client:
    """Answers as the API server does, or refuses what is stale."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.stale = False

    async def merge_patch(self, resource: Any, namespace: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if self.stale:
            raise Conflict(409, "Conflict", "the object has been modified")
        assert (resource.plural, namespace, name) == ("postgrestargets", "databases", "x")
        assert body["metadata"].keys() == {"finalizers", "resourceVersion"}
        self.sent.append(body["metadata"]["finalizers"])
        metadata = {"name": name, "namespace": namespace, "uid": "1", "creationTimestamp": "2026-11-22T10:00:00Z"}
        return {"metadata": {**metadata, "finalizers": self.sent[-1], "resourceVersion": "2"}, "spec": {}}


class Ground:
    def __init__(self) -> None:
        self.client, self.index, self.clock = Client(), Index(), FakeClock()
        self.dependents: list[Record] = []
        self.braked = False
        none = cast(Any, None)
        self.controller = TargetController(
            client=cast(Any, self.client),
            index=self.index,
            registry=cast(Any, self),
            status=none,
            secrets=none,
            installation="tests",
            clock=self.clock,
            standing_changed=none,
            holders=lambda key: self.dependents,
            braked=lambda: self.braked,
            backups=lambda key: None,
        )

    def going(self, key: object) -> None:
        pass


async def test_one_write_sets_it_and_one_takes_it_away() -> None:
    ground = Ground()
    lives = record(POSTGRES_TARGET)
    assert await ground.controller._finalized(lives) is lives and ground.client.sent == []
    ground.dependents = [LIVES]
    ground.braked = True
    assert await ground.controller._finalized(lives) is lives, "an uninstallation has just released it"
    ground.braked = False
    held = await ground.controller._finalized(lives)
    assert held.finalizers == (FINALIZER,) and ground.index.get(lives.key) is held
    assert await ground.controller._finalized(held) is held
    ground.dependents = []
    ground.braked = True
    assert (await ground.controller._finalized(held)).finalizers == ()
    assert ground.client.sent == [[FINALIZER], []]


async def test_a_target_is_looked_at_though_its_finalizer_cannot_be_set() -> None:
    ground = Ground()
    ground.dependents, ground.client.stale = [LIVES], True
    lives = record(POSTGRES_TARGET)
    assert await ground.controller._finalized(lives) is lives


async def test_one_that_is_deleted_is_let_go_when_nobody_needs_it_or_it_has_lasted_too_long() -> None:
    ground = Ground()
    going = record(POSTGRES_TARGET, finalizers=[FINALIZER, "else.example/x"], deletionTimestamp="2026-11-22T11:00:00Z")
    ground.dependents = [GOES]
    assert await ground.controller._held(going)
    ground.clock.advance(MOST_SECONDS - 1)
    assert await ground.controller._held(going) and ground.client.sent == []
    ground.client.stale = True
    ground.clock.advance(1)
    with pytest.raises(Conflict):
        await ground.controller._held(going)
    ground.client.stale = False
    assert not await ground.controller._held(going)
    assert ground.client.sent == [["else.example/x"]], "others' stay"
    theirs = record(POSTGRES_TARGET, finalizers=["else.example/x"], deletionTimestamp="2026-11-22T11:00:00Z")
    assert not await ground.controller._held(theirs) and len(ground.client.sent) == 1
