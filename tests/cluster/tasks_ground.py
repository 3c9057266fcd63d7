"""A target whose databases want tending, and operations that ask for it."""

from __future__ import annotations

from typing import Any

from tests.cluster.harness import Cluster
from tests.cluster.test_operations import enforced, moment
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.roles import init_roles

from pgtend.postgres.init_sql import init_sql

WORDS = ["VacuumAnalyze", "Reindex", "VacuumFull"]


def neglected(server: PostgresServer, *, mine: bool = True, more: int = 0) -> str:
    """A database: `shop.items` and `shop.orders` mostly empty, their indexes too, half of the rows of `shop.orders`
    dead; `scratch.items` the same, for what is left out; `more` small tables besides. Returns its name."""
    owner = server.fresh_role("owner").user
    name = server.fresh_database("orders", owner=owner)
    for schema in ("shop", "scratch"):
        for table in ("items", "orders"):
            for statement in (
                f"CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {owner}",
                f"SET ROLE {owner}; CREATE TABLE {schema}.{table} (id int, t text,"
                f" CONSTRAINT {schema}_{table}_pkey PRIMARY KEY (id)) WITH (autovacuum_enabled = off)",
                f"INSERT INTO {schema}.{table} SELECT i, repeat('x', 40) FROM generate_series(1, 20000) AS i",  # noqa: S608
                f"DELETE FROM {schema}.{table} WHERE id % 10 <> 0",  # noqa: S608
            ):
                server.execute(statement, dbname=name)
    for number in range(more):
        server.execute(f"SET ROLE {owner}; CREATE TABLE shop.many_{number} (id int)", dbname=name)
    server.execute("VACUUM (ANALYZE, TRUNCATE false)", dbname=name)
    server.execute("DELETE FROM shop.orders WHERE id % 20 <> 0; ANALYZE shop.orders", dbname=name)
    init_roles(server, init_sql(["maintenance"], databases=[name], owners=[owner] if mine else []))
    return name


def tended(cluster: Cluster, space: str, server: PostgresServer, *, words: list[str] | None = None) -> None:
    """The target `orders` in Enforce, with consent to these types for its own namespace."""
    entry = {
        "name": "own",
        "namespaces": {"names": [space]},
        "kinds": ["PostgresOperation"],
        "operations": WORDS if words is None else words,
    }
    enforced(cluster, space, server, access=[entry])


def ask(space: str, name: str, type_: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "pgtend.dev/v1alpha1",
        "kind": "PostgresOperation",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "targetRef": {"name": "orders"},
            "type": type_,
            "reason": "ticket 4712",
            "requestedBy": "dba@example.com",
            "notAfter": moment(hours=1),
            **spec,
        },
    }


def file_of(server: PostgresServer, database: str, relation: str) -> int:
    return int(server.execute("SELECT pg_relation_filenode(%s::regclass)::int8", [relation], dbname=database)[0][0])


def invalid(server: PostgresServer, database: str) -> list[str]:
    rows = server.execute(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1", dbname=database
    )
    return [row[0] for row in rows]
