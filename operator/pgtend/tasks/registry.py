"""From a type and its options to the task; one line per type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgtend.api.postgresoperation import TerminateQueriesOptions
from pgtend.api.tasks import (
    IndexNames,
    ReindexOptions,
    SelectIndexes,
    SelectTables,
    TableNames,
    VacuumAnalyzeOptions,
    VacuumFullOptions,
)
from pgtend.gate.classes import TaskType
from pgtend.tasks.protocol import Task
from pgtend.tasks.reindex import Reindex
from pgtend.tasks.relations import Names, Select
from pgtend.tasks.terminate import TerminateQueries
from pgtend.tasks.vacuum import VacuumAnalyze
from pgtend.tasks.vacuumfull import VacuumFull
from pgtend.tasks.victims import Selector


def _terminate(options: TerminateQueriesOptions) -> Task:
    select = options.select
    selector = Selector(
        states=select.states,
        longer_than=select.longer_than.seconds,
        databases=select.databases,
        users=select.users,
        applications=select.applications,
        pids=select.pids,
    )
    return TerminateQueries(selector=selector, max_victims=options.max_victims)


def _vacuum(options: VacuumAnalyzeOptions | None) -> Task:
    given = options or VacuumAnalyzeOptions()
    return VacuumAnalyze(select=_select(given.select), min_dead=given.min_dead_tuples.fraction)


def _reindex(options: ReindexOptions | None) -> Task:
    given = options or ReindexOptions()
    return Reindex(select=_select(given.select), min_bloat=given.min_bloat.fraction, exact=given.measure == "Exact")


def _vacuum_full(options: VacuumFullOptions | None) -> Task:
    given = options or VacuumFullOptions()
    return VacuumFull(
        select=_select(given.select),
        min_bloat=given.min_bloat.fraction,
        min_reclaim=given.min_reclaim.bytes,
        allow_unknown_disk=given.allow_unknown_disk,
    )


def _select(given: SelectTables | SelectIndexes) -> Select:
    return Select(names=_names(given), exclude=_names(given.exclude))


def _names(given: TableNames) -> Names:
    indexes = given.indexes if isinstance(given, IndexNames) else ()
    return Names(databases=given.databases, schemas=given.schemas, tables=given.tables, indexes=indexes)


_FACTORIES: dict[TaskType, Callable[[Any], Task]] = {
    TaskType.TERMINATE_QUERIES: _terminate,
    TaskType.VACUUM_ANALYZE: _vacuum,
    TaskType.REINDEX: _reindex,
    TaskType.VACUUM_FULL: _vacuum_full,
}


def task(type_: TaskType, options: Any) -> Task:
    """The task of this type with the options of the API (None where the spec gives none: api.tasks.options_of). Raises
    KeyError."""
    return _FACTORIES[type_](options)


_TYPES = {str(type_): type_ for type_ in TaskType}


def type_of(word: str) -> TaskType:
    """The type of this name. Raises KeyError."""
    return _TYPES[word]
