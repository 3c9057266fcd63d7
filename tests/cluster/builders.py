"""Objects that several cluster tests need, as small as they can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cluster.harness import Cluster
from tests.fixtures.postgres import PostgresServer

MONITOR_PASSWORD = "monitor-password-0123456789"


def monitor_role(server: PostgresServer, *, name: str = "pgtend_monitor", see: bool = True) -> None:
    """The role that reads, made once per server."""
    with server.superuser_connect() as connection:
        exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
        if not exists:
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{MONITOR_PASSWORD}'")
        connection.execute(f"{'GRANT' if see else 'REVOKE'} pg_monitor {'TO' if see else 'FROM'} {name}")


def target(
    cluster: Cluster, namespace: str, *members: PostgresServer, name: str = "orders", **spec: Any
) -> dict[str, Any]:
    """A PostgresTarget of these servers, named a, b, ..., with its Secrets, applied. Returns the object."""
    for server in members:
        if server.primary is None:
            monitor_role(server)
    cluster.secret(namespace, f"{name}-monitor", {"password": MONITOR_PASSWORD})
    cluster.secret(namespace, f"{name}-ca", {"ca.crt": Path(members[0].ca_path).read_text()})
    body = {
        "apiVersion": "pgtend.dev/v1alpha1",
        "kind": "PostgresTarget",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "members": [
                {"name": "abcdef"[i], "host": server.host, "port": server.port} for i, server in enumerate(members)
            ],
            "tls": {"ca": {"secretRef": {"name": f"{name}-ca"}}},
            "credentials": {"monitor": {"password": {"secretRef": {"name": f"{name}-monitor"}}}},
            "probeInterval": "5s",
            **spec,
        },
    }
    cluster.apply(body)
    return body
