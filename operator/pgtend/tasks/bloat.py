"""How much of an index or a table is empty, estimated from statistics alone: pages that it has against pages that its
rows need, packed as PostgreSQL packs them. Pure.

The layout is PostgreSQL's own: "Database Page Layout" in its manual, and nbtree's README for what a B-tree page keeps.
The idea is that of the well-known estimates by statistics (ioguix, check_postgres); what they round, alignment and the
bitmap of nulls, is counted here. Where columns are of fixed length no statistics are needed, so a role that may read no
table still learns about most primary keys. Deduplication (many equal keys) is not counted: such an index needs less
than we think, so its bloat is told too low, never too high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PAGE_HEADER = 24
LINE_POINTER = 4
BTREE_SPECIAL = 16
INDEX_TUPLE_HEADER = 8
HEAP_TUPLE_HEADER = 23
INNER_FILL = 0.7
MAXALIGN = 8
SMALLEST = 16
"""Pages: below, a share says nothing and there is nothing to win."""
_ALIGN = {"c": 1, "s": 2, "i": 4, "d": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`length` as in pg_attribute.attlen (negative where it varies), `align` as attalign; `width` and `nulls` (0 to 1)
    from pg_stats, None where there are none or the role may not read them."""

    length: int
    align: str
    width: float | None
    nulls: float | None


def columns_of(rows: Sequence[Sequence[object]] | None) -> tuple[Column, ...]:
    """From the SQL's [[attlen, attalign, avg_width, null_frac], ...]."""
    return tuple(
        Column(
            length=int(str(length)),
            align=str(align),
            width=None if width is None else float(str(width)),
            nulls=None if nulls is None else float(str(nulls)),
        )
        for length, align, width, nulls in rows or ()
    )


def btree_bloat(
    *, pages: int, tuples: float, fillfactor: int, columns: Sequence[Column], block: int = 8192
) -> float | None:
    """The empty share (0 to 1) of a B-tree; None where it cannot be known: never analyzed, or no statistics."""
    data = _data(columns)
    if tuples < 0 or data is None:
        return None
    width, with_nulls = data
    size = INDEX_TUPLE_HEADER + MAXALIGN * with_nulls + _aligned(width) + LINE_POINTER
    usable = block - PAGE_HEADER - BTREE_SPECIAL
    leaves = max(1, math.ceil(tuples / max(1, int(usable * fillfactor / 100 / size))))
    fan_out = max(2, int(usable * INNER_FILL / size))
    inner = math.ceil(leaves / (fan_out - 1)) if leaves > 1 else 0
    return _share(pages, 1 + leaves + inner)


def table_bloat(
    *, pages: int, tuples: float, fillfactor: int, columns: Sequence[Column], block: int = 8192
) -> float | None:
    """The empty share (0 to 1) of a table's own pages, without TOAST; None where it cannot be known."""
    data = _data(columns)
    if tuples < 0 or data is None:
        return None
    width, with_nulls = data
    bitmap = math.ceil(len(columns) / 8) * with_nulls
    size = _aligned(HEAP_TUPLE_HEADER + bitmap) + _aligned(width) + LINE_POINTER
    fit = max(1, int((block - PAGE_HEADER) * fillfactor / 100 / size))
    return _share(pages, math.ceil(tuples / fit))


def measured_bloat(
    *, pages: float, leaf_pages: float, inner_pages: float, leaf_density: float, fillfactor: int
) -> float:
    """The empty share of a B-tree from what pgstatindex has read. `leaf_density` in percent, NaN of an empty index."""
    density = 0.0 if math.isnan(leaf_density) else leaf_density
    needed = 1 + inner_pages + math.ceil(leaf_pages * density / fillfactor)
    return _share(pages, needed)


def _share(pages: float, needed: float) -> float:
    return max(0.0, 1 - needed / pages) if pages > 0 else 0.0


def _data(columns: Sequence[Column]) -> tuple[float, float] | None:
    """The mean width of the columns, each at its alignment, and the share of rows that have a null."""
    offset, complete = 0.0, 1.0
    for column in columns:
        width = float(column.length) if column.length > 0 else column.width
        if width is None:
            return None
        present = 1.0 - (column.nulls or 0.0)
        complete *= present
        if column.length > 0:
            step = _ALIGN.get(column.align, MAXALIGN)
            offset = math.ceil(offset / step) * step
        offset += width * present
    return offset, 1.0 - complete


def _aligned(size: float) -> float:
    return math.ceil(size / MAXALIGN) * MAXALIGN
