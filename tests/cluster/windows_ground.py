"""What tests of maintenance windows share: a target that admits them, tables with something to do, and windows that are
open now or never."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.cluster.builders import target
from tests.cluster.harness import Cluster, wait
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.roles import init_roles

from pgtend.postgres.init_sql import init_sql

WINDOW, RUN = "maintenancewindow", "maintenancerun"
PASSWORD = "maintenance-password-0123456789"
OWNER = "shop_owner"


def maintainer(primary: PostgresServer) -> None:
    """The maintenance role of init-sql, a member of the tables' owner."""
    with primary.superuser_connect() as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [OWNER]).fetchone():
            connection.execute(f"CREATE ROLE {OWNER}")
    init_roles(primary, init_sql(["maintenance"], owners=[OWNER]))
    with primary.superuser_connect() as connection:
        connection.pgconn.change_password(b"pgtend_maintenance", PASSWORD.encode())


def tended(cluster: Cluster, space: str, *servers: PostgresServer, name: str = "orders", **spec: Any) -> None:
    """A target in Enforce with the maintenance role of init-sql."""
    maintainer(servers[0])
    cluster.secret(space, f"{name}-maintenance", {"password": PASSWORD})
    credentials = {
        purpose: {"password": {"secretRef": {"name": f"{name}-{purpose}"}}} for purpose in ("monitor", "maintenance")
    }
    target(cluster, space, *servers, name=name, **{"mode": "Enforce", "credentials": credentials, **spec})
    cluster.wait_condition("postgrestarget", space, name, "Reachable", "True", seconds=90)


def tables(
    server: PostgresServer, database: str, names: list[str], *, rows: int = 1000, schema: str = "public", dead: int = 50
) -> None:
    """Tables with so many percent of their rows dead, left alone by autovacuum."""
    with server.superuser_connect(database) as connection:
        if schema != "public":
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {OWNER}")
        for name in names:
            connection.execute(
                f"CREATE TABLE {schema}.{name} (id int PRIMARY KEY, note text) WITH (autovacuum_enabled = off)"
            )
            connection.execute(f"ALTER TABLE {schema}.{name} OWNER TO {OWNER}")
            connection.execute(
                f"INSERT INTO {schema}.{name} SELECT i, repeat('x', 100) FROM generate_series(1, {rows}) i"  # noqa: S608
            )
            connection.execute(f"DELETE FROM {schema}.{name} WHERE id % 100 < {dead}")  # noqa: S608
    # in another session: what this one has counted arrives when it ends
    with server.superuser_connect(database) as connection:
        for name in names:
            connection.execute(f"ANALYZE {schema}.{name}")


def vacuums(server: PostgresServer, database: str) -> dict[str, int]:
    """How often each table was vacuumed by hand."""
    with server.superuser_connect(database) as connection:
        rows = connection.execute("SELECT relname, vacuum_count FROM pg_stat_user_tables").fetchall()
    return {row[0]: row[1] for row in rows}


def window(
    space: str, name: str = "now", *, cron: str | None = None, duration: str = "12h", **spec: Any
) -> dict[str, Any]:
    """A window that is open and stays so, unless told otherwise: it starts twice a day, for half a day, and the hour in
    which one ends and the next begins is far from now."""
    hour = (datetime.now(UTC).hour + 6) % 12
    body: dict[str, Any] = {
        "apiVersion": "pgtend.dev/v1alpha1",
        "kind": "MaintenanceWindow",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "targetRefs": [{"name": "orders"}],
            "schedule": {"cron": cron or f"0 {hour},{hour + 12} * * *"},
            "duration": duration,
            "closing": {"lastStart": "2s", "cancel": "1s"},
            "tasks": [{"type": "VacuumAnalyze"}],
            **spec,
        },
    }
    body["spec"] = {field: value for field, value in body["spec"].items() if value is not None}
    return body


def elsewhen(hours: int = 6) -> dict[str, Any]:
    """Fields of a window that opens in some hours."""
    at = datetime.now(UTC) + timedelta(hours=hours)
    return {"schedule": {"daily": {"at": f"{at:%H:%M}"}}, "duration": "1h"}


def runs(cluster: Cluster, space: str, name: str = "now") -> list[dict[str, Any]]:
    """The runs of a window, the oldest first."""
    found = cluster.list(RUN, space, labels=f"pgtend.dev/window={name}")
    return sorted(found, key=lambda item: str(item["spec"]["startsAt"]))


def condition(body: dict[str, Any], type_: str) -> dict[str, Any]:
    found = next((c for c in body.get("status", {}).get("conditions", []) if c["type"] == type_), None)
    return found or {"status": "", "reason": "", "message": ""}


def wait_run(
    cluster: Cluster, space: str, type_: str, reason: str, *, name: str = "now", seconds: float = 60.0
) -> dict[str, Any]:
    """The first run of a window with such a condition."""

    def holds() -> Any:
        return next((run for run in runs(cluster, space, name) if condition(run, type_)["reason"] == reason), None)

    def seen() -> str:
        return str([(r["metadata"]["name"], r.get("status")) for r in runs(cluster, space, name)])[-4000:]

    try:
        return dict(wait(f"a run of {space}/{name} with {type_}/{reason}", holds, seconds=seconds))
    except AssertionError as error:
        raise AssertionError(f"{error}\n{seen()}\nwindow: {cluster.get(WINDOW, space, name)}") from None
