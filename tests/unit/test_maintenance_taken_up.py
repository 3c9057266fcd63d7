"""A run that another process began: what it had done is known from the record, and else from the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pgtend.api.maintenancerun import MAINTENANCE_RUN
from pgtend.gate.classes import TaskType
from pgtend.kube.index import Record, record_of
from pgtend.maintenance.memory import Memory
from pgtend.maintenance.observe import look
from pgtend.maintenance.score import Key
from pgtend.tasks.protocol import Ground, Item, ItemResult, Outcome, Task, TaskPlan


def item(name: str, horizon: str = "new") -> Item:
    facts = {"oid": "1", "horizon": horizon}
    return Item(type=TaskType.REINDEX, object=name, verb="reindex", sql=f"REINDEX {name}", facts=facts)


class Rebuilding:
    """A task by which everything is due at any time, and which knows what of it was done."""

    def __init__(self, *due: str, done: Sequence[str] = ()) -> None:
        self.due, self.done, self.calls = due, set(done), list[tuple[str, tuple[str, ...]]]()
        self.horizons: list[str] = []

    async def plan(self, ground: Ground) -> TaskPlan:
        self.calls.append(("plan", ()))
        return TaskPlan(type=TaskType.REINDEX, items=tuple(map(item, self.due)), plan_hash="sha256:x", sql=())

    async def sweep(self, ground: Ground, items: Sequence[Item]) -> tuple[str, ...]:
        self.calls.append(("sweep", tuple(one.object for one in items)))
        self.horizons += [one.facts["horizon"] for one in items]
        return ()

    async def find(self, ground: Ground, items: Sequence[Item]) -> Mapping[str, ItemResult]:
        self.calls.append(("find", tuple(one.object for one in items)))
        return {one.object: ItemResult(outcome=Outcome.SUCCEEDED) for one in items if one.object in self.done}


def record(**outcomes: str) -> Record:
    rows = [{"type": "Reindex", "object": name, "outcome": outcome} for name, outcome in outcomes.items()]
    meta: dict[str, Any] = {"name": "now", "namespace": "databases", "uid": "1", "resourceVersion": "1"}
    meta |= {"generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    spec = {
        "windowRef": {"name": "now"},
        "targetRef": {"name": "orders"},
        "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "2026-01-01T12:00:00Z",
        "planHash": "sha256:x",
    }
    return record_of(MAINTENANCE_RUN, {"metadata": meta, "spec": spec, "status": {"items": rows}})


async def taken_up(task: Rebuilding, claimed: Sequence[str], **outcomes: str) -> Memory:
    ground = cast(Ground, None)
    looked = await look(ground, {"Reindex": cast(Task, task)}, sweep=[item(name, "old") for name in claimed])
    memory = Memory(uid="1")
    memory.arrange(looked, resume=None)
    memory.take_up(record(**outcomes))
    return memory


def still_open(memory: Memory) -> list[str]:
    return [one.object for one in memory.items if memory.is_open(Key("Reindex", one.object))]


async def test_what_was_claimed_and_is_done_is_not_done_again_though_it_is_due() -> None:
    task = Rebuilding("a", "b", "c", done=["b"])
    memory = await taken_up(task, ["b", "c"], a="Succeeded", b="Planned", c="Planned")
    calls = [("sweep", ("b", "c")), ("plan", ()), ("sweep", ("a",)), ("find", ("b", "c"))]
    assert task.calls == calls, "what is left over is swept before it is looked at"
    # as it was claimed: by the facts of the new plan nothing of the first try would be ours
    assert task.horizons == ["old", "old", "new"]
    assert still_open(memory) == ["c"]


async def test_what_failed_stays_failed_and_what_is_not_due_is_over() -> None:
    memory = await taken_up(Rebuilding("c", done=["a"]), ["a", "b", "c"], a="Failed", b="Planned", c="Planned")
    assert memory.results[Key("Reindex", "a")].outcome is Outcome.FAILED, "the record knows better"
    assert memory.results[Key("Reindex", "b")].outcome is Outcome.SUCCEEDED
    assert still_open(memory) == ["c"]


async def test_a_first_look_asks_nothing_of_the_kind() -> None:
    task = Rebuilding("a", done=["a"])
    looked = await look(cast(Ground, None), {"Reindex": cast(Task, task)})
    assert task.calls == [("plan", ())] and looked.found == {}
