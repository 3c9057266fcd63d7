"""Rows are counted right however the text is cut into blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.backups.jobs.archive import ArchiveRows, count_toc_data

identifiers = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r\n", exclude_categories=["Cs"]), min_size=1, max_size=12
)
values = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


def quoted(name: str) -> str:
    if name.isascii() and name.isidentifier() and name.islower():
        return name
    return '"' + name.replace('"', '""') + '"'


def escaped(value: str) -> str:
    """As COPY writes a value."""
    for plain, code in (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        value = value.replace(plain, code)
    return value


tables = st.dictionaries(st.tuples(identifiers, identifiers), st.lists(values, max_size=6), max_size=5)


@given(tables, st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_every_row_is_counted_wherever_the_blocks_are_cut(
    content: dict[tuple[str, str], list[str]], cuts: list[int]
) -> None:
    text = "--\n-- PostgreSQL database dump\n--\n\nSET statement_timeout = 0;\n\n"
    for (schema, name), rows in content.items():
        text += f"--\n-- Data for Name: {name}; Type: TABLE DATA; Schema: {schema}\n--\n\n"
        text += f'COPY {quoted(schema)}.{quoted(name)} (id, "FROM stdin") FROM stdin;\n'
        text += "".join(f"1\t{escaped(v)}\n" for v in rows) + "\\.\n\n\n"
        text += "SELECT pg_catalog.setval('shop.orders_id_seq', 5, true);\n\n"
    raw = text.encode()
    counter = ArchiveRows()
    position = number = 0
    while position < len(raw):
        step = cuts[number % len(cuts)]
        counter.feed(raw[position : position + step])
        position += step
        number += 1
    counter.finish()
    assert counter.rows == {table: len(rows) for table, rows in content.items()}


def test_a_table_without_columns_and_lines_that_look_like_ends() -> None:
    counter = ArchiveRows()
    counter.feed(
        b"COPY public.nothing  FROM stdin;\n\n\n\\.\nCOPY a.b (t) FROM stdin;\n\\\\.\nCOPY x.y (z) FROM stdin;\n\\.\n"
    )
    counter.finish()
    assert counter.rows == {("public", "nothing"): 2, ("a", "b"): 2}


def test_data_without_an_end_is_an_error() -> None:
    counter = ArchiveRows()
    counter.feed(b"COPY shop.orders (id) FROM stdin;\n1\n2\n")
    with pytest.raises(ValueError, match=r"shop\.orders does not end"):
        counter.finish()


def test_memory_is_bounded_in_a_row_without_end() -> None:
    counter = ArchiveRows()
    counter.feed(b"COPY shop.orders (id) FROM stdin;\n")
    for _ in range(100):
        counter.feed(b"x" * 100_000)
    assert len(counter._rest) < 8
    with pytest.raises(ValueError, match="a statement of more than"):
        ArchiveRows().feed(b"y" * (1 << 25))


def test_the_table_of_contents_is_counted_by_its_entries() -> None:
    listing = (
        b";\n; Archive created at 2026-11-22\n;\n219; 1259 16390 TABLE shop orders owner\n"
        b"3370; 0 16390 TABLE DATA shop orders owner\n3371; 0 16400 TABLE DATA shop TABLE DATA owner\n"
        b"3372; 0 0 SEQUENCE SET shop orders_id_seq owner\n"
    )
    assert count_toc_data(listing) == 2
