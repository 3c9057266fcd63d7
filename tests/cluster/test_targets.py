"""PostgresTarget on a real API server and real PostgreSQL: what kubectl shows, and what it shows when things break."""

from __future__ import annotations

import re
import time

import pytest
from tests.cluster.builders import MONITOR_PASSWORD, monitor_role, target
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, writes
from tests.fixtures.plugin import Postgres

KIND = "postgrestarget"
HEADER = ["NAME", "READY", "HEALTH", "REASON", "SINCE", "PRIMARY", "VERSION", "LAG", "AGE"]


def row(cluster: Cluster, namespace: str) -> list[str]:
    lines = cluster.kubectl("get", "pgt", "-n", namespace).splitlines()
    assert lines[0].split() == HEADER
    return lines[1].split()


@pytest.mark.covers(
    "PostgresTarget.spec.members[].name",
    "PostgresTarget.spec.members[].host",
    "PostgresTarget.spec.members[].port",
    "PostgresTarget.spec.thresholds.replicationLag.for",
    "PostgresTarget.reason.ConnectionRefused",
    "PostgresTarget.reason.StandbyUnreachable",
    "PostgresTarget.reason.Observing",
    "PostgresTarget.reason.Connected",
    "PostgresTarget.reason.AsExpected",
    "PostgresTarget.reason.Accepted",
)
@pytest.mark.timeout(240)
def test_a_primary_and_its_standby_then_the_standby_stops(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    primary = postgres(18, fresh=True)
    standby = primary.make_standby()
    space = tenant.namespace()
    mark = cluster.audit_mark()
    process = operator([space])
    target(cluster, space, primary, standby)
    cluster.wait_condition(KIND, space, "orders", "Ready", "True", "Observing")
    cluster.wait_condition(KIND, space, "orders", "ReplicationHealthy", "True", "AsExpected", seconds=60)
    shown = row(cluster, space)
    assert shown[:4] == ["orders", "True", "Healthy", "Observing"]
    assert shown[5] == "a" and shown[6].startswith("18.") and shown[7] == "<1s"

    standby.stop("fast")
    found = cluster.wait_condition(KIND, space, "orders", "ReplicationHealthy", "False", "StandbyUnreachable")
    assert "standby b does not answer" in found["message"]
    assert row(cluster, space)[2:4] == ["Critical", "ConnectionRefused"]
    standby.start()
    cluster.wait_condition(KIND, space, "orders", "ReplicationHealthy", "True", "AsExpected", seconds=60)

    # three transitions, three writes of status, at most as many Events; nothing else was written
    counted = writes(cluster.audited(since=mark, user=process.user))
    assert counted.pop("create configmaps") == 1
    assert 3 <= counted.pop("patch postgrestargets/status") <= 4, counted
    assert counted.pop("create events") <= 4
    assert counted == {}


@pytest.mark.covers("PostgresTarget.spec.probeInterval")
@pytest.mark.timeout(180)
def test_steady_state_and_a_restart_write_nothing(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    space = tenant.namespace()
    process = operator([space])
    target(cluster, space, postgres(18))
    cluster.wait_condition(KIND, space, "orders", "Ready", "True", "Observing")
    mark = cluster.audit_mark()
    time.sleep(12)
    process.crash()
    time.sleep(8)
    assert writes(cluster.audited(since=mark, user=process.user)) == {}


BAD = {
    "unknown field": ({"colour": "red"}, "unknown field"),
    "no members": ({"members": []}, "members"),
    "bad duration": ({"probeInterval": "soon"}, "probeInterval"),
    "probing too often": ({"probeInterval": "1s"}, "probeInterval lies between 5s and 5m"),
    "CA mode without CA": ({"tls": {"mode": "VerifyFull"}}, "need tls.ca"),
    "two credentials": (
        {
            "credentials": {
                "monitor": {
                    "password": {"secretRef": {"name": "x"}},
                    "clientCertificate": {"secretRef": {"name": "y"}},
                }
            }
        },
        "exactly one of password and clientCertificate",
    ),
    "bad token": ({"acceptIdentity": "yes"}, "acceptIdentity"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_at_once(cluster: Cluster, tenant: Tenant, case: str) -> None:
    space = tenant.namespace()
    spec, expected = BAD[case]
    base = {
        "members": [{"name": "a", "host": "db.example.com"}],
        "credentials": {"monitor": {"password": {"secretRef": {"name": "m"}}}},
    }
    body = {
        "apiVersion": "pgtend.dev/v1alpha1",
        "kind": "PostgresTarget",
        "metadata": {"name": "bad", "namespace": space},
        "spec": {**base, **spec},
    }
    said = cluster.refused(body)
    assert expected in said, said


@pytest.mark.covers("PostgresTarget.reason.InvalidSpec", "PostgresTarget.reason.NotProbed")
@pytest.mark.timeout(90)
def test_what_the_schema_cannot_see_is_a_condition(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    space = tenant.namespace()
    operator([space])
    # of the right form, yet longer than any timer counts
    target(cluster, space, postgres(18), thresholds={"queryDuration": {"warning": "999999999d"}})
    found = cluster.wait_condition(KIND, space, "orders", "Accepted", "False", "InvalidSpec")
    assert "spec.thresholds.queryDuration.warning" in found["message"]
    assert cluster.wait_condition(KIND, space, "orders", "Reachable", "Unknown", "NotProbed")


@pytest.mark.covers(
    "PostgresTarget.spec.credentials.monitor.password.secretRef.name",
    "PostgresTarget.spec.credentials.monitor.password.secretRef.key",
    "PostgresTarget.spec.credentials.monitor.username",
    "PostgresTarget.reason.SecretMissing",
    "PostgresTarget.reason.SecretKeyMissing",
    "PostgresTarget.reason.AuthenticationFailed",
    "PostgresTarget.reason.NameNotResolved",
    "PostgresTarget.reason.DatabaseMissing",
    "PostgresTarget.spec.maintenanceDatabase",
)
@pytest.mark.timeout(180)
def test_what_is_missing_or_wrong_is_named_within_seconds(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(14)
    space = tenant.namespace()
    process = operator([space])
    body = target(cluster, space, server)
    cluster.wait_condition(KIND, space, "orders", "Ready", "True", "Observing")

    def variant(name: str, **spec: object) -> None:
        cluster.apply({**body, "metadata": {"name": name, "namespace": space}, "spec": {**body["spec"], **spec}})

    def monitor(**credential: object) -> dict[str, object]:
        return {"monitor": credential}

    cluster.secret(space, "wrong", {"password": "not-the-password"})
    member = body["spec"]["members"][0]
    variant("no-secret", credentials=monitor(password={"secretRef": {"name": "absent"}}))
    variant("no-key", credentials=monitor(password={"secretRef": {"name": "orders-monitor", "key": "other"}}))
    variant("wrong-password", credentials=monitor(password={"secretRef": {"name": "wrong"}}))
    variant("no-role", credentials=monitor(username="nobody", password={"secretRef": {"name": "orders-monitor"}}))
    variant("no-name", members=[{**member, "host": "does-not-exist.invalid"}])
    variant("no-database", maintenanceDatabase="absent")
    for name, reason, mentions in (
        ("no-secret", "SecretMissing", "Secret absent does not exist"),
        ("no-key", "SecretKeyMissing", "no key other"),
        ("wrong-password", "AuthenticationFailed", "pgtend_monitor"),
        ("no-role", "AuthenticationFailed", "nobody"),
        ("no-name", "NameNotResolved", "DNS"),
        ("no-database", "DatabaseMissing", "absent"),
    ):
        found = cluster.wait_condition(KIND, space, name, "Reachable", "False", reason)
        assert mentions in found["message"], found
        ready = cluster.condition(KIND, space, name, "Ready")
        assert ready and ready["status"] == "False"
    # the Secret appears, the user touches the annotation, and it is seen at once
    cluster.secret(space, "absent", {"password": MONITOR_PASSWORD})
    cluster.kubectl("annotate", KIND, "-n", space, "no-secret", "pgtend.dev/reconcile=1")
    cluster.wait_condition(KIND, space, "no-secret", "Ready", "True", "Observing")
    for text in (process.log, cluster.kubectl("get", "events,pgt", "-n", space, "-o", "yaml")):
        assert MONITOR_PASSWORD not in text
        assert "not-the-password" not in text


@pytest.mark.covers("PostgresTarget.reason.MissingPrivilege")
@pytest.mark.timeout(120)
def test_without_pg_monitor_nothing_unseen_is_true(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    primary = postgres(14, fresh=True)
    standby = primary.make_standby()
    space = tenant.namespace()
    operator([space])
    target(cluster, space, primary, standby, name="blind")
    monitor_role(primary, see=False)
    found = cluster.wait_condition(
        KIND, space, "blind", "ReplicationHealthy", "Unknown", "MissingPrivilege", seconds=60
    )
    assert "GRANT pg_monitor TO pgtend_monitor" in found["message"]
    status = (cluster.get(KIND, space, "blind") or {})["status"]
    assert status["missingPrivileges"][0]["sql"] == "GRANT pg_monitor TO pgtend_monitor"
    assert status["health"] == "Unknown"


@pytest.mark.covers(
    "PostgresTarget.spec.mode",
    "PostgresTarget.spec.suspend",
    "PostgresTarget.reason.NoStandby",
    "PostgresTarget.reason.InForce",
    "PostgresTarget.reason.Suspended",
    "PostgresTarget.reason.DuplicateServer",
)
@pytest.mark.timeout(120)
def test_enforce_suspend_and_a_second_target_of_the_same_server(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    operator([space])
    target(cluster, space, server, name="first", mode="Enforce")
    cluster.wait_condition(KIND, space, "first", "Ready", "True", "InForce")
    cluster.wait_condition(KIND, space, "first", "ReplicationHealthy", "True", "NoStandby")
    time.sleep(1.1)  # creation times have whole seconds
    target(cluster, space, server, name="second", mode="Enforce")
    found = cluster.wait_condition(KIND, space, "second", "Accepted", "False", "DuplicateServer")
    assert f"{space}/first" in found["message"]
    cluster.kubectl("patch", KIND, "-n", space, "second", "--type=merge", "-p", '{"spec":{"mode":"Observe"}}')
    cluster.wait_condition(KIND, space, "second", "Accepted", "True")
    cluster.kubectl("patch", KIND, "-n", space, "first", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    cluster.wait_condition(KIND, space, "first", "Ready", "True", "Suspended")
    assert re.match(r"first\s+True\s+Unknown\s+Suspended", cluster.kubectl("get", "pgt", "-n", space).splitlines()[1])
