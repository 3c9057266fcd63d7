"""What outlives the cluster: roles, passwords, what could not be undone. An operator each, whose installation stays."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import psycopg
import pytest
from tests.cluster.builders import target
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, OperatorProcess, wait
from tests.cluster.users_ground import KIND, open_target, ready, secret, user
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import PASSWORDS, Shop

COUNT = 50


def ledger(cluster: Cluster, process: OperatorProcess) -> list[dict[str, Any]]:
    found = cluster.get("configmap", process.namespace, "pgtend-ledger") or {}
    return list(json.loads(found.get("data", {}).get("abandoned.json", "[]")))


def roles(server: PostgresServer, names: list[str]) -> set[str]:
    return {row[0] for row in server.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [names])}


def stored(server: PostgresServer, names: list[str]) -> dict[str, str]:
    """The verifiers: whoever sets a password makes another."""
    rows = server.execute("SELECT rolname, rolpassword FROM pg_authid WHERE rolname = ANY(%s)", [names])
    return dict(rows)


def without(cluster: Cluster, space: str, *names: str) -> None:
    """Secrets, target and users are deleted, one right after another, as with their namespace."""
    cluster.kubectl("delete", "secret", "-n", space, *names)
    cluster.kubectl("delete", "--wait=false", "pgt", "-n", space, "orders")
    cluster.kubectl("delete", "--wait=false", KIND, "-n", space, "--all")


def finalizers(cluster: Cluster, space: str) -> list[str]:
    return list((cluster.get("pgt", space, "orders") or {"metadata": {}})["metadata"].get("finalizers", []))


def gone(cluster: Cluster, space: str) -> bool:
    return not cluster.list(KIND, space) and not cluster.list("postgrestarget", space)


@pytest.mark.timeout(400)
def test_fifty_that_go_with_their_target_and_its_secrets_are_dropped(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    shop, space = Shop.open(server), tenant.namespace()
    process = operator([space])
    open_target(cluster, space, server)
    assert finalizers(cluster, space) == []
    names = [server.fresh_name("gone").replace("_", "-") for _ in range(COUNT)]
    bodies = [user(space, name, grants=shop.trio("Select"), deletionPolicy="Drop") for name in names]
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": bodies})
    ready(cluster, space, names, seconds=120)
    wait("the target has one, too", lambda: finalizers(cluster, space) == ["pgtend.dev/target"], seconds=60)

    started = time.monotonic()
    without(cluster, space, "orders-users", "orders-monitor", "orders-ca")
    wait("all are gone, the target too", lambda: gone(cluster, space), seconds=90)
    print(f"{COUNT} users were gone after {time.monotonic() - started:.1f} s")
    # in this order: what is remembered may be undone between the two looks
    remembered = {entry["role"] for entry in ledger(cluster, process)}
    assert roles(server, names) <= remembered, "what was not dropped is remembered"
    # what met with a momentary failure is tried again with what is in memory, without a target
    wait("what was left is undone", lambda: not roles(server, names), seconds=120)
    wait("the ledger is empty", lambda: not ledger(cluster, process), seconds=60)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_what_lacks_a_credential_is_undone_by_another_target_of_that_server(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    """Nothing may be written while they are deleted, and the process that knew the passwords ends."""
    server = postgres(18)
    shop, space = Shop.open(server), tenant.namespace()
    process = operator([space])
    open_target(cluster, space, server)
    names = [server.fresh_name("left").replace("_", "-") for _ in range(3)]
    cluster.apply(*(user(space, name, grants=shop.trio("Select"), deletionPolicy="Drop") for name in names))
    ready(cluster, space, names)
    wait("the target has a finalizer", lambda: finalizers(cluster, space) == ["pgtend.dev/target"], seconds=60)
    cluster.kubectl("create", "configmap", "-n", process.namespace, "pgtend-brake", "--from-literal=paused=true")
    wait("the brake is seen", lambda: '"brake", "on": true' in process.log)
    started = time.monotonic()
    without(cluster, space, "orders-users", "orders-monitor", "orders-ca")
    wait("all are gone, the target too", lambda: gone(cluster, space), seconds=90)
    print(f"under the brake all were gone after {time.monotonic() - started:.1f} s")
    system = str(server.system_identifier)
    assert {(entry["role"], entry["system"]) for entry in ledger(cluster, process)} == {(n, system) for n in names}
    assert roles(server, names) == set(names), "the brake was on"

    process.stop()
    cluster.kubectl("delete", "configmap", "-n", process.namespace, "pgtend-brake")
    process.start()

    def lacking() -> bool:
        return all(entry["reason"].startswith("NeedsCredential: ") for entry in ledger(cluster, process))

    wait("it says what it lacks", lacking, seconds=60)
    for entry in ledger(cluster, process):
        assert entry["retry"] and entry["sql"] == f'DROP ROLE "{entry["role"]}"' and system in entry["reason"]
    # by a target of another name
    credentials = {name: {"password": {"secretRef": {"name": f"again-{name}"}}} for name in ("monitor", "users")}
    cluster.secret(space, "again-users", {"password": PASSWORDS["pgtend_users"]})
    target(cluster, space, server, name="again", mode="Enforce", credentials=credentials)
    wait("what was left is undone", lambda: not roles(server, names), seconds=150)
    wait("the ledger is empty", lambda: not ledger(cluster, process), seconds=60)


def uninstalled(cluster: Cluster, process: OperatorProcess, space: str) -> str:
    """What the chart's pre-delete job runs; the chart's own is in the tests of the images. What it said."""
    words = ["uninstall", "--namespace", process.namespace, "--watch-namespace", space]
    words += ["--kubeconfig", cluster.environment["KUBECONFIG"]]
    return cluster.run(sys.executable, "-m", "pgtend", *words)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [pytest.param(6, id="6"), pytest.param(COUNT, id="50", marks=pytest.mark.matrix)])
def test_who_goes_after_an_uninstallation_is_in_the_ledger(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, count: int
) -> None:
    """Half of them are being deleted while pgtend goes, half are deleted when it has gone: none hangs, none is
    forgotten, and the next installation undoes what was asked for."""
    server = postgres(18)
    shop, space = Shop.open(server), tenant.namespace()
    process = operator([space])
    open_target(cluster, space, server, maxDestructivePerPass=50)
    names = [server.fresh_name("left").replace("_", "-") for _ in range(count)]
    going, living = names[: count // 2], names[count // 2 :]
    bodies = [user(space, name, grants=shop.trio("Select"), deletionPolicy="Drop") for name in names]
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": bodies})
    ready(cluster, space, names, seconds=120)
    wait("the target has a finalizer", lambda: finalizers(cluster, space) == ["pgtend.dev/target"], seconds=60)
    cluster.kubectl("create", "configmap", "-n", process.namespace, "pgtend-brake", "--from-literal=paused=true")
    wait("the brake is seen", lambda: '"brake", "on": true' in process.log)
    cluster.kubectl("delete", "--wait=false", KIND, "-n", space, *going)
    said = uninstalled(cluster, process, space)
    process.stop()
    assert f"the ConfigMap pgtend-ledger lists {count} roles with the SQL" in said
    cluster.kubectl("delete", "configmap", "-n", process.namespace, "pgtend-brake")

    started = time.monotonic()
    without(cluster, space, "orders-users", "orders-monitor", "orders-ca")
    wait("all are gone, the target too", lambda: gone(cluster, space), seconds=60)
    print(f"{count} users were gone {time.monotonic() - started:.1f} s after an uninstallation")
    assert roles(server, names) == set(names), "nobody was there to drop them"
    listed = {entry["role"]: entry for entry in ledger(cluster, process)}
    assert listed.keys() == set(names)
    assert {name for name, entry in listed.items() if entry.get("lived")} == set(living)
    for name, entry in listed.items():
        assert (entry["retry"], entry["sql"]) == (True, f'DROP ROLE "{name}"')
        assert entry["system"] == str(server.system_identifier)

    # installed again with the same installationID; one of them is back before the roles would be dropped
    process.start(identity="again")
    back = living[0]
    cluster.apply(user(space, back, grants=shop.trio("Select"), deletionPolicy="Drop"))
    open_target(cluster, space, server, maxDestructivePerPass=50)
    ready(cluster, space, [back], seconds=120)
    wait("what was being deleted is undone", lambda: not roles(server, going), seconds=150)
    wait("the rest is waited for", lambda: {e["role"] for e in ledger(cluster, process)} == set(living[1:]), seconds=60)
    assert roles(server, living) == set(living)


@pytest.mark.timeout(300)
def test_who_goes_with_a_suspended_target_is_dropped_when_it_has_gone(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    """While it is suspended nothing is written; what it takes to undo is not forgotten meanwhile."""
    server = postgres(18)
    shop, space = Shop.open(server), tenant.namespace()
    process = operator([space])
    open_target(cluster, space, server)
    names = [server.fresh_name("rest").replace("_", "-") for _ in range(3)]
    cluster.apply(*(user(space, name, grants=shop.trio("Select"), deletionPolicy="Drop") for name in names))
    ready(cluster, space, names)
    wait("the target has a finalizer", lambda: finalizers(cluster, space) == ["pgtend.dev/target"], seconds=60)
    open_target(cluster, space, server, suspend=True)
    cluster.wait_condition("pgt", space, "orders", "Ready", "True", "Suspended")
    started = time.monotonic()
    without(cluster, space, "orders-users", "orders-monitor", "orders-ca")
    wait("all are gone, the target too", lambda: gone(cluster, space), seconds=90)
    print(f"of a suspended target all were gone after {time.monotonic() - started:.1f} s")
    wait("what was left is undone", lambda: not roles(server, names), seconds=120)
    wait("the ledger is empty", lambda: not ledger(cluster, process), seconds=60)


@pytest.mark.timeout(300)
def test_a_target_is_held_by_who_needs_it_and_not_for_ever(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    Shop.open(server)
    space = tenant.namespace()
    operator([space])
    open_target(cluster, space, server)
    name = server.fresh_name("held").replace("_", "-")
    cluster.apply(user(space, name, deletionPolicy="Disable"))
    ready(cluster, space, [name])
    wait("the target has a finalizer", lambda: finalizers(cluster, space) == ["pgtend.dev/target"], seconds=60)
    cluster.apply(user(space, name, deletionPolicy="Retain"))
    wait("it is not needed any more", lambda: finalizers(cluster, space) == [], seconds=60)
    cluster.apply(user(space, name, deletionPolicy="Disable"))
    wait("it is needed again", lambda: finalizers(cluster, space) == ["pgtend.dev/target"], seconds=60)
    # nobody deletes the user
    cluster.kubectl("delete", "--timeout=60s", "pgt", "-n", space, "orders")
    assert cluster.get(KIND, space, name) is not None
    # what is kept of the target is for its end alone
    cluster.wait_condition(KIND, space, name, "Ready", "False", "TargetNotFound", seconds=60)
    cluster.kubectl("delete", "--timeout=60s", KIND, "-n", space, name)
    rows = server.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [name])
    assert rows == [(False,)], "it was disabled, though the target had gone before"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("secrets", ["restored", "lost"])
def test_a_cluster_that_is_built_anew_takes_up_its_own(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, secrets: str
) -> None:
    server = postgres(18)
    shop, space = Shop.open(server), tenant.namespace()
    process = operator([space])
    open_target(cluster, space, server)
    names = [server.fresh_name("kept").replace("_", "-") for _ in range(5)]
    bodies = [user(space, name, grants=shop.trio("Select")) for name in names]
    cluster.apply(*bodies)
    ready(cluster, space, names)
    before = stored(server, names)
    uris = {name: secret(cluster, space, name)["uri"] for name in names}
    kept = [cluster.get("secret", space, name) or {} for name in names]

    # nothing is left but Git, the Helm values, and perhaps a backup of the Secrets
    process.stop()
    cluster.kubectl("delete", KIND, "-n", space, *names)
    cluster.kubectl("delete", "secret", "-n", space, *names)
    cluster.kubectl("delete", "pgt", "-n", space, "orders")
    if secrets == "restored":
        for body in kept:
            meta = {key: body["metadata"][key] for key in ("name", "namespace", "annotations", "labels")}
            cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": body["data"]})
    process.start()
    open_target(cluster, space, server)
    cluster.apply(*bodies)
    if secrets == "restored":
        ready(cluster, space, names)
        assert {name: secret(cluster, space, name)["uri"] for name in names} == uris, "no password was changed"
    else:
        for name in names:
            cluster.wait_condition(KIND, space, name, "CredentialsReady", "False", "SecretLost")
            assert secret(cluster, space, name) == {}
        assert stored(server, names) == before, "nothing is touched"
    for uri in uris.values():
        psycopg.connect(uri).close()


@pytest.mark.timeout(300)
def test_a_role_that_exists_is_adopted_with_a_word_of_object_and_target(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    shop, space, team = Shop.open(server), tenant.namespace(), tenant.namespace("team")
    operator([space, team])
    entry = {"name": "team", "namespaces": {"names": [team]}, "kinds": ["DatabaseUser"]}
    limits = {"rolePattern": "theirs_*", "databases": [shop.name], "maxPrivileges": ["Connect", "Usage", "Select"]}
    open_target(cluster, space, server, access=[{**entry, "users": limits}])
    role = server.fresh_role("theirs").user
    server.execute(f"GRANT {role} TO pgtend_users WITH ADMIN OPTION; COMMENT ON ROLE {role} IS 'of the warehouse'")
    before = stored(server, [role])
    body = user(team, "app", target=space, roleName=role, grants=shop.trio("Select"), adoption="IfUnowned")
    cluster.apply(body)
    told = cluster.wait_condition(KIND, team, "app", "Unique", "False", "RoleExists")["message"]
    assert "The target's access admits adoption: Never (ask its owner for users.adoption: IfUnowned)" in told
    assert stored(server, [role]) == before and secret(cluster, team, "app") == {}

    open_target(cluster, space, server, access=[{**entry, "users": {**limits, "adoption": "IfUnowned"}}])
    ready(cluster, team, ["app"])
    with psycopg.connect(secret(cluster, team, "app")["uri"]) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (role,)
    comment = server.execute("SELECT shobj_description(%s::regrole, 'pg_authid')", [role])[0][0]
    assert comment.startswith("of the warehouse [pgtend:1:") and comment.endswith(f":{team}/app]")
    found = wait(
        "it is told",
        lambda: [e for e in cluster.list("event", team) if e["reason"] == "RoleAdopted"],
    )
    # of either API group
    assert f"role {role} exists and was not made by pgtend" in (found[0].get("note") or found[0]["message"])
