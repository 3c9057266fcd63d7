"""Labels of namespaces: told by the watch where there is one, asked for by name where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from pgtend.api.kinds import KINDS
from pgtend.app.routing import ASKING, Routing
from pgtend.core.clock import FakeClock
from pgtend.core.findings import ObjectKey
from pgtend.kube.client import ApiError, Forbidden, KubeClient, NotFound, Unavailable
from pgtend.kube.index import record_of
from pgtend.kube.namespaces import RECENT, NamespaceLabels


def body(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels} if labels else {"name": name}}


class Api:
    """Namespaces by name; `error` is raised instead."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.bodies = {one["metadata"]["name"]: one for one in bodies}
        self.error: ApiError | None = None
        self.asked = 0

    async def get(self, resource: object, namespace: None, name: str) -> dict[str, Any]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        if name not in self.bodies:
            raise NotFound(404, "NotFound", name)
        return self.bodies[name]

    async def list(self, resource: object) -> AsyncIterator[dict[str, Any]]:
        for one in self.bodies.values():
            yield one


class World:
    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.api, self.clock, self.changed = Api(*bodies), FakeClock(), list[str]()
        self.labels = NamespaceLabels(client=cast(KubeClient, self.api), clock=self.clock, changed=self.changed.append)


async def test_what_is_told_is_not_asked_for_and_a_change_wakes() -> None:
    world = World(body("shop", team="a"), body("bare"))
    await world.labels.see()
    assert (await world.labels.of("shop"), await world.labels.of("bare")) == ({"team": "a"}, {})
    world.labels.take("MODIFIED", body("shop", team="a"))
    world.labels.take("ADDED", body("new", team="b"))
    assert world.changed == [], "nobody has judged by what is new"
    world.labels.take("MODIFIED", body("shop", team="b"))
    world.labels.take(None, body("bare", team="b"))
    assert world.changed == ["shop", "bare"]
    assert await world.labels.of("shop") == {"team": "b"}
    assert world.api.asked == 0


async def test_without_a_watch_one_is_asked_for_at_most_every_two_seconds() -> None:
    world = World(body("shop", team="a"))
    for _ in range(3):
        assert await world.labels.of("shop") == {"team": "a"}
    assert world.api.asked == 1
    world.clock.advance(RECENT)
    world.api.error = Forbidden(403, "Forbidden", "namespaces")
    assert await world.labels.of("shop") is None
    assert await world.labels.of("absent") is None


async def test_that_nobody_can_tell_is_not_taken_for_no_labels() -> None:
    world = World()
    world.api.error = Unavailable(503, "Unavailable", "namespaces")
    with pytest.raises(Unavailable):
        await world.labels.of("shop")


async def test_one_that_was_asked_for_before_it_was_told_wakes_where_it_differs() -> None:
    world = World()
    assert await world.labels.of("late") is None
    world.labels.take("ADDED", body("late", team="a"))
    assert world.changed == ["late"]
    world.labels.take("DELETED", body("late", team="a"))
    assert await world.labels.of("late") is None, "it is asked for again"
    world.labels.take("MODIFIED", {})
    assert world.changed == ["late"], "an event that cannot be read changes nothing"


def test_who_asks_from_a_namespace_is_looked_at_when_its_labels_change() -> None:
    routing = Routing(clock=FakeClock())
    for kind in KINDS:
        for space in ("shop", "other"):
            meta = {"name": "one", "namespace": space, "uid": f"{kind.name}-{space}", "resourceVersion": "1"}
            meta |= {"generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}  # type: ignore[dict-item]
            routing.index.put(record_of(kind, {"metadata": meta, "spec": {}}))
    woken: list[ObjectKey] = []
    routing.queue.add = lambda key, **_: woken.append(key)  # type: ignore[method-assign, misc, assignment]
    routing.relabelled("shop")
    assert woken == [ObjectKey(kind.name, "shop", "one") for kind in ASKING]
