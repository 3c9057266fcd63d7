"""What of a run's items a status has room for: it stays below 32 KiB, however many items there are and however long
their names. What does not fit is in a ConfigMap.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

from pgtend.api.base import ApiModel
from pgtend.tasks.protocol import Item

MOST = 50
ITEMS_BYTES = 12_000
"""Of names and of what finds an item again; each stands in the journal, too, while the item is open."""
ROWS_BYTES = 15_000
Row = TypeVar("Row", bound=ApiModel)


def room(items: Sequence[Item]) -> int:
    """How many items are listed, from the first."""
    left = ITEMS_BYTES
    for number, item in enumerate(items[:MOST]):
        left -= 2 * _bytes(item.object) + _bytes({**item.facts, "": (item.database, item.schema, item.name)})
        if left < 0:
            return number
    return min(len(items), MOST)


def fitted(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows; where they are too long without their SQL, and then without their messages, the last ones first."""
    made, size = list(rows), sum(_bytes(row.to_wire()) for row in rows)
    for field in ("sql", "message"):
        for number in reversed(range(len(made))):
            if size <= ROWS_BYTES:
                return tuple(made)
            if (text := getattr(made[number], field)) is not None:
                made[number] = made[number].model_copy(update={field: None})
                size -= _bytes(text) + len(field) + 4
    return tuple(made)


def _bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
