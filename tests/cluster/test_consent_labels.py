"""Consent by the labels of the asking namespace, which only an operator that may read Namespaces can give."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, OperatorProcess, wait
from tests.cluster.tasks_ground import ask
from tests.cluster.users_ground import KIND, open_target, ready, secret, user
from tests.cluster.windows_ground import window
from tests.fixtures.plugin import Postgres
from tests.postgres.users_ground import Shop


@pytest.mark.covers("PostgresTarget.spec.access.namespaces.selector.matchLabels")
@pytest.mark.timeout(180)
def test_a_namespace_is_admitted_by_its_labels(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    """One that carries all of them, and not one that carries some."""
    server = postgres(18)
    shop = Shop.open(server)
    space, labelled, bare = tenant.namespace(), tenant.namespace("team"), tenant.namespace("team")
    cluster.kubectl("label", "namespace", labelled, "team=shop", "stage=test")
    cluster.kubectl("label", "namespace", bare, "team=shop")
    process = operator([space, labelled, bare])
    entry = {
        "name": "teams",
        "namespaces": {"selector": {"matchLabels": {"team": "shop", "stage": "test"}}},
        "kinds": ["DatabaseUser"],
        "users": {"databases": [shop.name], "maxPrivileges": ["Connect"]},
    }
    open_target(cluster, space, server, access=[entry])
    with reading_labels(cluster, process):
        for asking in (labelled, bare):
            grants = shop.trio()[:1]
            cluster.apply(user(asking, "app", target=space, roleName=f"{asking}_app", grants=grants))
        ready(cluster, labelled, ["app"])
        assert server.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [f"{labelled}_app"]) == [(True,)]
        cluster.wait_condition(KIND, bare, "app", "Accepted", "False", "NotPermitted")
        assert not server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [f"{bare}_app"])


@pytest.mark.covers(
    "DatabaseUser.reason.SelectorNeedsClusterMode",
    "MaintenanceWindow.reason.SelectorNeedsClusterMode",
    "PostgresOperation.reason.SelectorNeedsClusterMode",
)
def test_who_may_not_read_labels_says_so(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    """With the rights of namespaced mode no selector fits, and nobody is left to wonder why."""
    server = postgres(18)
    shop = Shop.open(server)
    space, team = tenant.namespace(), tenant.namespace("team")
    cluster.kubectl("label", "namespace", team, "team=shop")
    operator([space, team])
    entry = {
        "name": "teams",
        "namespaces": {"selector": {"matchLabels": {"team": "shop"}}},
        "kinds": ["DatabaseUser", "MaintenanceWindow", "PostgresOperation"],
        "operations": ["VacuumAnalyze"],
        "tasks": ["VacuumAnalyze"],
        "users": {"databases": [shop.name], "maxPrivileges": ["Connect"]},
    }
    open_target(cluster, space, server, access=[entry])
    there = {"name": "orders", "namespace": space}
    objects = [
        user(team, "app", target=space, roleName=f"{team}_app", grants=shop.trio()[:1]),
        window(team, targetRefs=[there]),
        ask(team, "tidy", "VacuumAnalyze", targetRef=there),
    ]
    for body in objects:
        cluster.apply(body)
    for body in objects:
        kind, name = str(body["kind"]).lower(), body["metadata"]["name"]
        found = cluster.wait_condition(kind, team, name, "Accepted", "False", "SelectorNeedsClusterMode")
        assert f"list {team} in its namespaces.names" in found["message"]
    assert not server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [f"{team}_app"])


@contextmanager
def reading_labels(cluster: Cluster, process: OperatorProcess, verbs: str = "get") -> Iterator[None]:
    """The right that the chart gives in cluster mode, or a part of it."""
    name = f"{process.namespace}-labels"
    cluster.kubectl("create", "clusterrole", name, f"--verb={verbs}", "--resource=namespaces")
    try:
        account = f"{process.namespace}:pgtend"
        cluster.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", f"--serviceaccount={account}")
        yield
    finally:
        cluster.kubectl("delete", "clusterrolebinding,clusterrole", name, "--ignore-not-found")


@pytest.mark.timeout(300)
def test_a_label_that_is_lost_and_restored_fails_no_session(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    """Within the grace nothing happens to the login; after it the login is off, and comes back with the label. Each
    change of the label is acted on within ten seconds, on a busy machine within thrice that."""
    server = postgres(18)
    shop = Shop.open(server)
    space, team = tenant.namespace(), tenant.namespace("team")
    process = operator([space, team], run=False)
    process.labels = True
    entry = {
        "name": "teams",
        "namespaces": {"selector": {"matchLabels": {"team": "shop"}}},
        "kinds": ["DatabaseUser"],
        "users": {"databases": [shop.name], "maxPrivileges": ["Connect"]},
    }
    terms = {"access": [entry], "onWithdrawal": "Disable"}
    role = f"{team}_app"

    def label(value: str) -> None:
        cluster.kubectl("label", "--overwrite", "namespace", team, f"team{value}")

    def seen(status: str, reason: str) -> None:
        """By itself: nobody touches the object, and it would be looked at every five minutes."""
        started = time.monotonic()
        cluster.wait_condition(KIND, team, "app", "Accepted", status, reason, seconds=30)
        print(f"{reason} {time.monotonic() - started:.1f} s after the label")

    def can_log_in() -> bool:
        return server.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [role]) == [(True,)]

    with reading_labels(cluster, process, "get,list,watch"):
        process.start()
        label("=shop")
        open_target(cluster, space, server, **terms, withdrawalGrace="1h")
        cluster.apply(user(team, "app", target=space, roleName=role, grants=shop.trio()[:1]))
        ready(cluster, team, ["app"])
        uri = secret(cluster, team, "app")["uri"]
        with psycopg.connect(uri, autocommit=True) as session:
            label("-")
            seen("False", "NotPermitted")
            assert can_log_in()
            psycopg.connect(uri).close()
            label("=shop")
            seen("True", "Accepted")
            ready(cluster, team, ["app"])
            assert session.execute("SELECT 1").fetchone() == (1,)
            assert (cluster.get(KIND, team, "app") or {})["status"].get("withdrawnAt") is None

            # the grace is over
            open_target(cluster, space, server, **terms, withdrawalGrace="1s")
            label("-")
            seen("False", "NotPermitted")
            wait("the login is off", lambda: not can_log_in(), seconds=60)
            status = wait(
                "the sessions are told",
                lambda: (s := (cluster.get(KIND, team, "app") or {})["status"]).get("remainingSessions") == 1 and s,
                seconds=60,
            )
            assert status["withdrawnAt"]
            cluster.wait_condition(KIND, team, "app", "Ready", "False", "LoginDisabled")
            assert session.execute("SELECT 1").fetchone() == (1,)
            label("=shop")
            seen("True", "Accepted")
            ready(cluster, team, ["app"])
            psycopg.connect(uri).close()
