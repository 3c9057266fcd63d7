"""A rotation with two logins from end to end on a real API server: consent for their names, a crash on the way, what
people see of it, and what is left when the object is deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, wait
from tests.cluster.users_ground import KIND, open_target, ready, secret, user
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import Shop

from pgtend.core.clock import parse_rfc3339, rfc3339

DUAL = {"interval": "30d", "strategy": "DualRole", "grace": "5s", "sessions": "Terminate"}


def password(cluster: Cluster, space: str, name: str) -> dict[str, Any]:
    found = cluster.get(KIND, space, name)
    assert found is not None
    return dict(found["status"]["password"])


def roles(server: PostgresServer, name: str) -> dict[str, bool]:
    """Which of the user's roles there are, and whether each may log in."""
    query = "SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = ANY(%s)"
    return dict(server.execute(query, [[name, f"{name}_a", f"{name}_b"]]))


@pytest.mark.covers("DatabaseUser.reason.InvalidSchedule")
@pytest.mark.parametrize("point", ["after_proof", pytest.param("before_proof", marks=pytest.mark.matrix)])
@pytest.mark.timeout(240)
def test_a_rotation_killed_on_the_way_from_end_to_end(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, point: str
) -> None:
    server = postgres(18)
    shop, name = Shop.open(server), server.fresh_name("app").replace("_", "-")
    databases, space = tenant.namespace("databases"), tenant.namespace("shop")
    process = operator([databases, space], failpoints=f"users.rotation.{point}=kill")
    entry: dict[str, Any] = {
        "name": "shop",
        "namespaces": {"names": [space]},
        "kinds": ["DatabaseUser"],
        "users": {"rolePattern": name, "databases": [shop.name], "maxPrivileges": ["Connect", "Usage", "Select"]},
    }
    open_target(cluster, databases, server, access=[entry])

    def body(**rest: Any) -> dict[str, Any]:
        spec = {"grants": shop.trio(), "rotation": DUAL, "deletionPolicy": "Drop", **rest}
        return user(space, name, target=databases, **spec)

    nowhere = {"schedule": {"daily": {"at": "03:00"}}, "timeZone": "Europe/Atlantis"}
    cluster.apply(body(rotation=nowhere))
    found = cluster.wait_condition(KIND, space, name, "Accepted", "False", "InvalidSchedule")
    assert "timeZone 'Europe/Atlantis' is unknown" in found["message"]
    cluster.apply(body())
    found = cluster.wait_condition(KIND, space, name, "Accepted", "False", "NotPermitted")
    assert f"does not admit role {name} with its logins {name}_a and {name}_b" in found["message"]
    assert secret(cluster, space, name) == {} and roles(server, name) == {}
    entry["users"]["rolePattern"] = f"{name}*"
    open_target(cluster, databases, server, access=[entry])
    ready(cluster, space, [name])
    first = secret(cluster, space, name)
    assert first["username"] == f"{name}_a"
    assert roles(server, name) == {name: False, f"{name}_a": True}

    # the new login has proved itself, and the process dies before anybody is told
    changed = parse_rfc3339(password(cluster, space, name)["changedAt"])
    cluster.apply(body(rotateIfOlderThan=rfc3339(changed + timedelta(seconds=1))))
    process.killed(point)
    assert secret(cluster, space, name) == first
    held = psycopg.connect(first["uri"])
    mark = cluster.audit_mark()
    process.start()
    wait("the Secret has changed over", lambda: secret(cluster, space, name)["username"] == f"{name}_b", seconds=60)
    second = secret(cluster, space, name)
    with psycopg.connect(second["uri"]) as connection:
        assert connection.execute("SELECT session_user, current_user").fetchone() == (f"{name}_b", name)
        connection.execute("SELECT FROM shop.items")
    cluster.wait_condition(KIND, space, name, "RotationCurrent", "True", "AsExpected")

    def retired() -> bool:
        return "retiringLogin" not in password(cluster, space, name)

    wait(
        "the login before has ended",
        lambda: roles(server, name) == {name: False, f"{name}_a": False, f"{name}_b": True},
    )
    wait("and its session", retired)
    with pytest.raises(psycopg.errors.AdminShutdown):
        held.execute("SELECT 1")
    found = cluster.get(KIND, space, name)
    assert found is not None
    assert found["status"]["password"]["activeLogin"] == f"{name}_b"
    assert found["status"]["drift"] == {"total": 0, "differences": []}
    ready(cluster, space, [name])
    told = wait("an event tells", lambda: [e for e in cluster.list("event", space) if e["reason"] == "PasswordRotated"])
    assert len(told) == 1
    # once: the next look at it, here asked for, finds nothing to do
    written = [event for event in cluster.audited(since=mark, user=process.user) if event["verb"] != "get"]
    secrets = [event for event in written if event["objectRef"]["resource"] == "secrets"]
    assert len(secrets) == 1, secrets
    assert first["password"] not in process.log and second["password"] not in process.log

    cluster.kubectl("delete", KIND, "-n", space, name, "--wait=false")
    wait("it is gone", lambda: cluster.get(KIND, space, name) is None, seconds=60)
    assert roles(server, name) == {} and secret(cluster, space, name) == {}
