"""The options of each type of task: one spelling for a window's tasks and for operations.

A type is carried by `type` plus at most one member of its own name; without it every option has its default.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pgtend.api.base import ApiModel
from pgtend.api.types import Percentage, Quantity

NamePattern = Annotated[str, Field(min_length=1, max_length=128)]
NamePatterns = Annotated[tuple[NamePattern, ...], Field(max_length=64)]


class TableNames(ApiModel):
    """Names of tables and of where they are; patterns know `*` only."""

    databases: NamePatterns = ()
    schemas: NamePatterns = ()
    tables: NamePatterns = ()


class SelectTables(TableNames):
    """Which tables. A list that is left out means all."""

    exclude: TableNames = TableNames()
    """What is left alone: whatever any of these lists names."""


class IndexNames(TableNames):
    """Names of indexes and of where they are; patterns know `*` only."""

    indexes: NamePatterns = ()


class SelectIndexes(IndexNames):
    """Which indexes. A list that is left out means all."""

    exclude: IndexNames = IndexNames()
    """What is left alone: whatever any of these lists names."""


class VacuumAnalyzeOptions(ApiModel):
    select: SelectTables = SelectTables()
    min_dead_tuples: Percentage = Percentage("20%")
    """Of a table's rows; a table with fewer dead ones is left alone."""


class ReindexOptions(ApiModel):
    select: SelectIndexes = SelectIndexes()
    min_bloat: Percentage = Percentage("30%")
    """The empty share from which on an index is rebuilt; 0% is all, those too whose bloat cannot be known."""
    measure: Literal["Estimate", "Exact"] = "Estimate"
    """Estimate reads statistics. Exact reads the indexes whole, by the extension pgstattuple."""


class VacuumFullOptions(ApiModel):
    """A table is rewritten when both `minBloat` and `minReclaim` are reached; it is locked meanwhile."""

    select: SelectTables = SelectTables()
    min_bloat: Percentage = Percentage("50%")
    """The empty share of a table's own pages, without TOAST, estimated from statistics."""
    min_reclaim: Quantity = Quantity("5Gi")
    """What the empty share comes to."""
    allow_unknown_disk: bool = False
    """A rewritten table needs its size again, with its indexes, and as much WAL; how much disk is free is not known.
    Without this nothing is begun."""


TaskName = Literal["VacuumAnalyze", "Reindex", "VacuumFull"]
_MEMBERS = {"VacuumAnalyze": "vacuum_analyze", "Reindex": "reindex", "VacuumFull": "vacuum_full"}
_MESSAGE = "a type takes no options but those of its own name"


def _wire(member: str) -> str:
    first, *rest = member.split("_")
    return first + "".join(word.capitalize() for word in rest)


OPTION_RULES = tuple(
    (f"!has(self.{_wire(member)}) || self.type == '{type_}'", _MESSAGE) for type_, member in _MEMBERS.items()
)
"""For the `cel` of whatever carries a type and its options."""


def options_of(holder: ApiModel, type_: str) -> ApiModel | None:
    """The member of the type's own name, None where it is left out or the type has none."""
    found: ApiModel | None = getattr(holder, _MEMBERS[type_], None) if type_ in _MEMBERS else None
    return found


def check_options(holder: ApiModel, type_: str) -> None:
    """Raises ValueError where options of another type are given."""
    for name, member in _MEMBERS.items():
        if name != type_ and getattr(holder, member, None) is not None:
            raise ValueError(_MESSAGE)


class TaskOptions(ApiModel):
    """One type of work on relations with its options: the base of a window's task."""

    type: TaskName
    vacuum_analyze: VacuumAnalyzeOptions | None = None
    reindex: ReindexOptions | None = None
    vacuum_full: VacuumFullOptions | None = None

    @model_validator(mode="after")
    def _own_options(self) -> Self:
        check_options(self, self.type)
        return self

    @property
    def options(self) -> ApiModel | None:
        """The member of the type's own name, None where it is left out."""
        return options_of(self, self.type)
