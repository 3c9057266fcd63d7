"""The estimate of what is empty, and what a plan to rebuild makes of it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pgtend.tasks.bloat import Column, btree_bloat, columns_of, measured_bloat, table_bloat
from pgtend.tasks.indexes import Index, Indexes, due
from pgtend.tasks.protocol import Breach
from pgtend.tasks.rebuilding import corrupting, plan_of

INT = Column(length=4, align="i", width=None, nulls=None)
TEXT = Column(length=-1, align="i", width=20.0, nulls=0.0)


def test_a_packed_btree_of_integers_has_none() -> None:
    # 16 bytes and a line pointer a row, 367 rows a leaf at fillfactor 90: what CREATE INDEX makes of a million rows
    assert btree_bloat(pages=2745, tuples=1_000_000, fillfactor=90, columns=[INT]) == pytest.approx(0.0, abs=0.01)


def test_twice_the_pages_are_half_empty() -> None:
    assert btree_bloat(pages=5490, tuples=1_000_000, fillfactor=90, columns=[INT]) == pytest.approx(0.5, abs=0.01)


def test_fewer_pages_than_we_think_are_no_bloat() -> None:
    """Deduplication packs equal keys: too low, never below nothing."""
    assert btree_bloat(pages=900, tuples=1_000_000, fillfactor=90, columns=[INT]) == 0.0


@pytest.mark.parametrize(
    ("tuples", "columns"), [(-1.0, [INT]), (10.0, [Column(length=-1, align="i", width=None, nulls=None)])]
)
def test_what_is_not_known_is_not_guessed(tuples: float, columns: list[Column]) -> None:
    assert btree_bloat(pages=100, tuples=tuples, fillfactor=90, columns=columns) is None
    assert table_bloat(pages=100, tuples=tuples, fillfactor=100, columns=columns) is None


def test_columns_stand_at_their_alignment() -> None:
    """char, then bigint: seven bytes of padding; the other way round none."""
    char = Column(length=1, align="c", width=None, nulls=None)
    wide = Column(length=8, align="d", width=None, nulls=None)
    padded = table_bloat(pages=10_000, tuples=1_000_000, fillfactor=100, columns=[char, wide, char, wide])
    packed = table_bloat(pages=10_000, tuples=1_000_000, fillfactor=100, columns=[wide, wide, char, char])
    assert padded is not None and packed is not None and padded < packed


def test_an_empty_table_with_pages_is_all_bloat() -> None:
    assert table_bloat(pages=100, tuples=0, fillfactor=100, columns=[TEXT]) == 1.0
    assert table_bloat(pages=0, tuples=0, fillfactor=100, columns=[TEXT]) == 0.0


def test_of_what_is_measured() -> None:
    assert measured_bloat(pages=1001, leaf_pages=990, inner_pages=10, leaf_density=45, fillfactor=90) == pytest.approx(
        0.494, abs=0.01
    )
    assert measured_bloat(pages=2, leaf_pages=0, inner_pages=0, leaf_density=math.nan, fillfactor=90) == 0.5


def test_the_sql_gives_lists() -> None:
    assert columns_of([[4, "i", None, None], [-1, "i", 20, 0.5]]) == (
        INT,
        Column(length=-1, align="i", width=20.0, nulls=0.5),
    )
    assert columns_of(None) == ()


def index(name: str = "a", **rest: Any) -> Index:
    given: dict[str, Any] = {
        "database": "orders",
        "schema": "shop",
        "oid": "1",
        "table_oid": "2",
        "table": "items",
        "method": "btree",
        "bytes": 8192 * 100,
        "pages": 100,
        "table_bytes": 8192 * 1000,
        "fillfactor": 90,
        "valid": True,
        "exclusion": False,
        "leftover": False,
        "bloat": 0.5,
    }
    return Index(name=name, **{**given, **rest})


def seen(*found: Index, version: int = 180000, **rest: Any) -> Indexes:
    return Indexes(
        version=version, role="pgtend_maintenance", standbys=0, found=found, horizon={"orders": "700"}, **rest
    )


def test_what_is_due() -> None:
    assert due(index(), 0.3)
    assert not due(index(bloat=0.29), 0.3)
    assert not due(index(bloat=None), 0.3)
    assert not due(index(pages=15), 0.3), "small ones gain nothing"
    assert due(index(bloat=None, method="gin", pages=1), 0.0), "0% is all"
    assert not due(index(exclusion=True), 0.0)
    assert not due(index(valid=False), 0.0)


@pytest.mark.parametrize(("version", "refused"), [(140000, True), (140003, True), (140004, False), (180000, False)])
def test_the_versions_that_corrupt_are_refused(version: int, refused: bool) -> None:
    assert (corrupting(version) is not None) is refused


def test_the_emptiest_bytes_come_first() -> None:
    small, large = index("a", bytes=8192 * 20, bloat=0.9), index("b", bloat=0.4)
    plan = plan_of(seen(small, large), exact=False, min_bloat=0.3, system_identifier="1")
    assert [item.name for item in plan.items] == ["b", "a"]
    assert plan.items[0].facts["horizon"] == "700"
    assert plan.items[0].estimate == pytest.approx(2.0 + (2000 + 100) * 8192 / (30 << 20))


def test_exact_without_the_extension_anywhere_is_refused_and_somewhere_is_noted() -> None:
    plan = plan_of(seen(index(bloat=None), unmeasured=("orders",)), exact=True, min_bloat=0.3, system_identifier="1")
    assert plan.objection is not None and plan.objection.breach is Breach.EXTENSION_MISSING
    two = Indexes(
        version=180000,
        role="me",
        standbys=2,
        found=(index(), index("b", database="audit", bloat=None)),
        horizon={"orders": "7", "audit": "7"},
        unmeasured=("audit",),
    )
    plan = plan_of(two, exact=True, min_bloat=0.3, system_identifier="1")
    assert plan.objection is None and [item.name for item in plan.items] == ["a"]
    assert "in audit nothing was measured: run CREATE EXTENSION pgstattuple there" in plan.notes
    assert any("max_standby_streaming_delay" in note for note in plan.notes)
