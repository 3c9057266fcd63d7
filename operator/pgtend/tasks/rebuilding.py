"""From the indexes that were seen to a plan of what is rebuilt, with what people should know besides. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pgtend.gate.classes import TaskType
from pgtend.postgres.quoting import identifier
from pgtend.tasks.indexes import Index, Indexes, due
from pgtend.tasks.protocol import Breach, Item, LockLevel, Objection, TaskPlan, plan_hash
from pgtend.tasks.relations import MOST

# bytes per second over two reads of the table and one writing of the index: rather too slow
PACE = 30 << 20
BROKEN = range(140000, 140004)
"""REINDEX CONCURRENTLY of 14.0 to 14.3 corrupts indexes (fixed in 14.4)."""


def corrupting(version: int) -> str | None:
    """Why indexes are not rebuilt on a server of this version, or None."""
    if version not in BROKEN:
        return None
    return (
        f"PostgreSQL 14.{version % 10000} corrupts indexes that are rebuilt concurrently: nothing is rebuilt before the"
        " update to 14.4 or later"
    )


def plan_of(seen: Indexes, *, exact: bool, min_bloat: float, system_identifier: str) -> TaskPlan:
    """What is due, the emptiest bytes first, with what people should know besides. Pure."""
    chosen = sorted((i for i in seen.found if due(i, min_bloat)), key=lambda i: (-(i.bloat or 0.0) * i.bytes, i.object))
    items = tuple(_item(index, seen.horizon[index.database]) for index in chosen[:MOST])
    return TaskPlan(
        type=TaskType.REINDEX,
        items=items,
        plan_hash=plan_hash(type=TaskType.REINDEX, system_identifier=system_identifier, items=items),
        sql=tuple(item.sql for item in items[:10]),
        notes=tuple(_notes(seen, chosen, min_bloat)),
        objection=_objection(seen, exact),
    )


def _objection(seen: Indexes, exact: bool) -> Objection | None:
    if exact and seen.horizon and len(seen.unmeasured) == len(seen.horizon):
        names = ", ".join(seen.unmeasured[:5])
        return Objection(
            breach=Breach.EXTENSION_MISSING,
            message=f"measure Exact needs the extension pgstattuple, and no selected database has it ({names}): run"
            " CREATE EXTENSION pgstattuple there as an administrator, or use measure Estimate",
            object="pgstattuple",
        )
    return None


def _notes(seen: Indexes, chosen: Sequence[Index], min_bloat: float) -> list[str]:
    notes = list(seen.notes)
    if len(chosen) > MOST:
        notes.append(f"{len(chosen) - MOST} more are left for another run")
    notes += [f"in {name} nothing was measured: run CREATE EXTENSION pgstattuple there" for name in seen.unmeasured[:3]]
    left = [i for i in seen.found if i.leftover and not i.valid]
    notes += [f"an earlier rebuilding left {i.object}: run DROP INDEX CONCURRENTLY {i.shown}" for i in left[:3]]
    invalid = [i for i in seen.found if not i.valid and not i.leftover]
    if invalid:
        notes.append(f"{_named_few(invalid)} invalid, not bloated: rebuild or drop by hand")
    exclusions = [i for i in seen.found if i.exclusion]
    if exclusions:
        notes.append(f"{_named_few(exclusions)} of exclusion constraints, which cannot be rebuilt concurrently")
    if min_bloat > 0:
        unknown = [i for i in seen.found if i.valid and not i.exclusion and i.bloat is None]
        other = [i for i in unknown if i.method != "btree"]
        blind = [i for i in unknown if i.method == "btree" and i.database not in seen.unmeasured]
        if other:
            notes.append(f"{_named_few(other)} no B-tree, whose bloat cannot be known: name them with minBloat 0%")
        if blind and not seen.notes:
            notes.append(
                f"{_named_few(blind)} without statistics that {seen.role} may read: run ANALYZE, and GRANT"
                f" pg_read_all_data TO {identifier(seen.role)} or membership in the owner"
            )
    if chosen and seen.standbys:
        notes.append(
            "queries on standbys that use an index when it is exchanged may be cancelled after"
            " max_standby_streaming_delay"
        )
    return notes


def _named_few(indexes: Sequence[Index]) -> str:
    rest = f" and {len(indexes) - 1} more are" if len(indexes) > 1 else " is"
    return f"{indexes[0].object}{rest}"


def _item(index: Index, horizon: str) -> Item:
    return Item(
        type=TaskType.REINDEX,
        object=index.object,
        verb="reindex",
        sql=f"REINDEX INDEX CONCURRENTLY {index.shown}",
        lock=LockLevel.SHARE_UPDATE_EXCLUSIVE,
        database=index.database,
        schema=index.schema,
        name=index.name,
        estimate=2.0 + (2 * index.table_bytes + index.bytes) / PACE,
        size_before=index.bytes,
        facts={
            "database": index.database,
            "schema": index.schema,
            "name": index.name,
            "oid": index.oid,
            "table": index.table_oid,
            "horizon": horizon,
        },
    )
