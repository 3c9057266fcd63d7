"""A status stays below 32 KiB, however many items there are and however long their names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from pgtend.api.base import ApiModel
from pgtend.gate.classes import TaskType
from pgtend.maintenance import runs
from pgtend.maintenance.memory import key_of
from pgtend.operations import telling
from pgtend.tasks.protocol import Item, ItemResult, Outcome, TaskPlan
from pgtend.tasks.room import MOST, room

MOMENT = datetime(2026, 11, 22, 2, tzinfo=UTC)
# what conditions and worst take besides: each message is cut, and there are few
CONDITIONS = 4096


def items(count: int, letter: str, length: int) -> list[Item]:
    made = []
    for number in range(count):
        name = f"{number:04}{letter * length}"[:63]
        facts = {"database": name, "schema": name, "name": name, "oid": "4294967295", "table": "4294967295"}
        made.append(
            Item(
                type=TaskType.REINDEX,
                object=f"{name}.{name}.{name}",
                verb="reindex",
                sql=f"REINDEX INDEX CONCURRENTLY {name}.{name}",
                database=name,
                schema=name,
                name=name,
                estimate=123456.0,
                size_before=1 << 40,
                facts={**facts, "horizon": "1" * 20},
            )
        )
    return made


def size(status: ApiModel) -> int:
    return len(json.dumps(status.to_wire(), ensure_ascii=False).encode())


@pytest.mark.parametrize(("letter", "length"), [("x", 1), ("x", 20), ("x", 63), ("界", 20), ("界", 63)])
@pytest.mark.parametrize("count", [1, 50, 400])
@pytest.mark.parametrize("message", ["", "w" * 300, "界" * 300])
def test_it_stays_below_32_kib(letter: str, length: int, count: int, message: str) -> None:
    planned = items(count, letter, length)
    plan = TaskPlan(
        type=TaskType.REINDEX, items=tuple(planned), plan_hash="sha256:" + "0" * 64, sql=tuple(i.sql for i in planned)
    )
    said = ItemResult(outcome=Outcome.FAILED, actual=99999.0, sql_state="57014", message=message)
    for done in (0, count // 2, count):
        results = {item.object: said for item in planned[:done]}
        for finished in (None, MOMENT):
            for status in (
                telling.status_of(
                    mark="m" * 64, plan=plan, results=results, started_at=MOMENT, finished_at=finished, claimed_by="me"
                ),
                runs.status_of(
                    mark="m" * 64,
                    items=planned,
                    results={key_of(item): said for item in planned[:done]},
                    started_at=MOMENT,
                    finished_at=finished,
                    claimed_by="me",
                    claimed=planned[done:],
                ),
            ):
                assert size(status) + CONDITIONS < 32 * 1024
                listed: Sequence[object] = status.items
                assert len(listed) == min(count, room(planned)) > 0
                assert bool(status.truncated) is (len(listed) < count)


def test_items_of_ordinary_names_are_listed_up_to_fifty() -> None:
    assert room(items(60, "x", 4)) == MOST
