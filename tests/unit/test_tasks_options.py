"""From the options as people write them to the task that is carried out."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pgtend.api.tasks import TaskOptions
from pgtend.gate.classes import TaskType
from pgtend.tasks.registry import task
from pgtend.tasks.relations import Names, Select
from pgtend.tasks.vacuum import VacuumAnalyze


def test_without_options_every_default_holds() -> None:
    given = TaskOptions.model_validate({"type": "VacuumAnalyze"})
    assert given.options is None
    assert task(TaskType.VACUUM_ANALYZE, given.options) == VacuumAnalyze(select=Select(), min_dead=0.2)


def test_what_is_written_reaches_the_task() -> None:
    given = TaskOptions.model_validate(
        {
            "type": "VacuumAnalyze",
            "vacuumAnalyze": {
                "minDeadTuples": "5%",
                "select": {"databases": ["orders"], "tables": ["order_*"], "exclude": {"schemas": ["scratch"]}},
            },
        }
    )
    select = Select(names=Names(databases=("orders",), tables=("order_*",)), exclude=Names(schemas=("scratch",)))
    assert task(TaskType.VACUUM_ANALYZE, given.options) == VacuumAnalyze(select=select, min_dead=0.05)
    assert select.takes(schema="shop", table="order_lines")
    assert not select.takes(schema="scratch", table="order_lines")


def test_a_table_task_knows_no_indexes() -> None:
    with pytest.raises(ValidationError, match="indexes"):
        TaskOptions.model_validate({"type": "VacuumAnalyze", "vacuumAnalyze": {"select": {"indexes": ["a"]}}})
