"""A database with one mostly empty index, one that is full, and everything that REINDEX CONCURRENTLY cannot take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from tests.fixtures.postgres import PostgresServer
from tests.postgres.tasks_ground import initialize

from pgtend.tasks.reindex import Reindex
from pgtend.tasks.relations import Names, Select


def bloated(server: PostgresServer, *, mine: bool = True, rows: int = 30000) -> str:
    """`shop.items` with `items_pkey` nine tenths empty and `items_full` packed; owned by a role that `maintenance` is a
    member of. Returns the database."""
    owner = server.fresh_role("owner").user
    name = server.fresh_database("orders", owner=owner)
    for statement in (
        f"CREATE SCHEMA shop AUTHORIZATION {owner}",
        f"SET ROLE {owner}; CREATE TABLE shop.items (id int PRIMARY KEY, t text, n int)"
        " WITH (autovacuum_enabled = off)",
        f"INSERT INTO shop.items SELECT i, 'text ' || i, i FROM generate_series(1, {rows}) AS i",  # noqa: S608
        "DELETE FROM shop.items WHERE id % 10 <> 0",
    ):
        server.execute(statement, dbname=name)
    server.execute("VACUUM (ANALYZE) shop.items", dbname=name)
    server.execute(f"SET ROLE {owner}; CREATE INDEX items_full ON shop.items (n)", dbname=name)
    initialize(server, databases=[name], owners=[owner] if mine else [])
    return name


def reindex(name: str, *, min_bloat: float = 0.3, exact: bool = False, indexes: tuple[str, ...] = ()) -> Reindex:
    names = Names(databases=(name,), schemas=("shop",), indexes=indexes)
    return Reindex(select=Select(names=names), min_bloat=min_bloat, exact=exact)


def index(server: PostgresServer, name: str, index_name: str) -> tuple[int, int, bool]:
    """oid, file and validity."""
    rows = server.execute(
        "SELECT c.oid::int8, pg_relation_filenode(c.oid)::int8, x.indisvalid FROM pg_class AS c JOIN pg_index AS x"
        " ON x.indexrelid = c.oid WHERE c.relname = %s",
        [index_name],
        dbname=name,
    )
    return rows[0]


def invalid(server: PostgresServer, name: str) -> list[str]:
    rows = server.execute(
        "SELECT c.relname FROM pg_class AS c JOIN pg_index AS x ON x.indexrelid = c.oid WHERE NOT x.indisvalid"
        " ORDER BY 1",
        dbname=name,
    )
    return [row[0] for row in rows]


@contextmanager
def writer(server: PostgresServer, name: str) -> Iterator[psycopg.Connection]:
    """A transaction that has written to the table and stays open: REINDEX CONCURRENTLY waits for its end."""
    with server.superuser_connect(name) as other, other.transaction():
        other.execute("UPDATE shop.items SET t = 'y' WHERE id = 10")
        yield other


@contextmanager
def old_snapshot(server: PostgresServer, name: str) -> Iterator[None]:
    """A transaction that has seen the database and holds no lock in it: REINDEX CONCURRENTLY waits for its end too."""
    with server.superuser_connect(name) as other, other.transaction():
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1")
        yield


def abort(server: PostgresServer, name: str, index_name: str) -> None:
    """Somebody else's rebuilding, aborted in the middle: it leaves an invalid index behind."""
    with writer(server, name), server.superuser_connect(name) as other:
        other.execute("SET statement_timeout = 1500")
        with pytest.raises(psycopg.errors.QueryCanceled):
            other.execute(sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier("shop", index_name)))
