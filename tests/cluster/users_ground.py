"""A target whose users are tended, and DatabaseUsers, on a real API server."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from tests.cluster.builders import target
from tests.cluster.harness import Cluster, wait
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import PASSWORDS, Shop

KIND = "databaseuser"


def open_target(cluster: Cluster, space: str, *members: PostgresServer, **spec: Any) -> None:
    """A PostgresTarget `orders` in Enforce with the credential for users. Call after Shop.open on the server."""
    cluster.secret(space, "orders-users", {"password": PASSWORDS["pgtend_users"]})
    credentials = {name: {"password": {"secretRef": {"name": f"orders-{name}"}}} for name in ("monitor", "users")}
    target(cluster, space, *members, **{"mode": "Enforce", "credentials": credentials, **spec})
    cluster.wait_condition("postgrestarget", space, "orders", "Ready", "True", seconds=60)


def user(space: str, name: str, *, target: str | None = None, **spec: Any) -> dict[str, Any]:
    """A DatabaseUser whose role is called like it, below the namespace's prefix where the target is elsewhere."""
    ref = {"name": "orders"} | ({"namespace": target} if target else {})
    return {
        "apiVersion": "pgtend.dev/v1alpha1",
        "kind": "DatabaseUser",
        "metadata": {"name": name, "namespace": space},
        "spec": {"targetRef": ref, **spec},
    }


def secret(cluster: Cluster, space: str, name: str) -> dict[str, str]:
    """A Secret's values, decoded; empty where there is none."""
    found = cluster.get("secret", space, name)
    return {key: base64.b64decode(value).decode() for key, value in ((found or {}).get("data") or {}).items()}


def ready(cluster: Cluster, space: str, names: Iterable[str] | None = None, *, seconds: float = 60.0) -> dict[str, Any]:
    """Wait until all DatabaseUsers of the namespace (or those named) are Ready with InForce; returns them by name."""
    wanted = set(names) if names is not None else None

    def check() -> dict[str, Any] | None:
        found = {item["metadata"]["name"]: item for item in cluster.list(KIND, space)}
        chosen = found if wanted is None else {name: item for name, item in found.items() if name in wanted}
        late = [name for name, item in chosen.items() if not _in_force(item)]
        if wanted is not None and chosen.keys() != wanted:
            late.append("missing")
        return chosen if chosen and not late else None

    return dict(wait(f"every DatabaseUser of {space} in force", check, seconds=seconds, every=0.5))


def _in_force(item: dict[str, Any]) -> bool:
    return any(
        c["type"] == "Ready"
        and c["status"] == "True"
        and c["reason"] == "InForce"
        and c["observedGeneration"] == item["metadata"]["generation"]
        for c in item.get("status", {}).get("conditions", [])
    )


def touch(cluster: Cluster, space: str, name: str) -> None:
    """Have it looked at now."""
    cluster.touch(KIND, space, name)


__all__ = ["KIND", "Shop", "open_target", "ready", "secret", "touch", "user"]
