"""What a part of a database takes, and what pg_dump is told of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pgtend.api.postgresbackuppolicy import DumpedDatabase
from pgtend.backups.jobs.selection import EVERYTHING, Selection


def part(**spec: Any) -> Selection:
    return Selection(DumpedDatabase.model_validate({"name": "orders", **spec}))


def test_without_patterns_it_is_everything() -> None:
    for selection in (EVERYTHING, part()):
        assert selection.everything and selection.whole
        assert selection.takes("shop", "orders") and selection.arguments() == [] and selection.told() == ""


@pytest.mark.parametrize(
    ("spec", "taken", "left"),
    [
        ({"schemas": {"include": ["sh*"]}}, [("shop", "a")], [("Shop", "a"), ("public", "shop")]),
        ({"schemas": {"include": ["sh*"], "exclude": ["shop"]}}, [("shed", "a")], [("shop", "a")]),
        ({"schemas": {"exclude": ["scratch*"]}}, [("shop", "a")], [("scratch_1", "a")]),
        ({"tables": {"exclude": ["shop.c*"]}}, [("shop", "a"), ("other", "c")], [("shop", "cache")]),
        ({"tables": {"include": ["shop.orders"]}}, [("shop", "orders")], [("shop", "order"), ("other", "orders")]),
        # a star in the schema's part does not reach into the table's
        ({"tables": {"include": ["sh*.t"]}}, [("shop", "t")], [("shop", "q.t")]),
        ({"tables": {"include": ["shop.q.t"]}}, [("shop", "q.t")], [("shop.q", "t")]),
        ({"tables": {"include": ["*.*"], "exclude": ["*.secret*"]}}, [("a", "b")], [("a", "secrets")]),
        ({"schemas": {"include": ["shop"]}, "tables": {"exclude": ["*.b"]}}, [("shop", "a")], [("shop", "b")]),
    ],
)
def test_what_is_taken(spec: dict[str, Any], taken: list[tuple[str, str]], left: list[tuple[str, str]]) -> None:
    selection = part(**spec)
    assert not selection.everything
    assert all(selection.takes(*table) for table in taken)
    assert not any(selection.takes(*table) for table in left)


def test_a_sequence_comes_with_its_table() -> None:
    selection = part(tables={"include": ["shop.orders"]})
    assert selection.takes("shop", "orders_id_seq", owner=("shop", "orders"))
    assert not selection.takes("shop", "other_seq", owner=("shop", "other"))
    assert not selection.takes("shop", "orders_id_seq")


def test_what_pg_dump_is_told_is_literal_but_for_the_stars() -> None:
    selection = part(schemas={"include": ["Shop"], "exclude": ["a*b"]}, tables={"exclude": ['s.x*"?', "*.*"]})
    assert selection.arguments() == [
        '--schema="Shop"',
        '--exclude-schema="a"*"b"',
        '--exclude-table="s"."x"*"""?"',
        "--exclude-table=*.*",
    ]
    assert selection.told() == 'schemas include Shop, schemas exclude a*b, tables exclude s.x*"? *.*'


@pytest.mark.parametrize(
    "spec",
    [
        {"tables": {"include": ["orders"]}},
        {"tables": {"include": ["shop."]}},
        {"tables": {"include": ["shop.orders"]}, "schemas": {"include": ["shop"]}},
        {"tables": {"include": ["shop.orders"]}, "schemas": {"exclude": ["x"]}},
    ],
)
def test_what_makes_no_sense_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        part(**spec)
