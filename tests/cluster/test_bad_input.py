"""Everything that people get wrong first, in one table: within ten seconds it is an error of the API server, or a
condition with a reason, what is wrong, and what to do next. The times are printed; a busy machine has thrice that.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.backup_ground import Ground
from tests.cluster.builders import MONITOR_PASSWORD, monitor_role
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, wait
from tests.cluster.users_ground import user
from tests.fixtures.plugin import Poolers, Postgres
from tests.fixtures.s3 import S3Server

TARGET, POLICY, DESTINATION, USER = "postgrestarget", "postgresbackuppolicy", "backupdestination", "databaseuser"
PROMISED = 10.0
# (kind, name): condition, status, reason, what its message must name, and what it must say to do
EXPECTED: dict[tuple[str, str], tuple[str, str, str, str, str]] = {
    (POLICY, "wrong-cron"): ("Accepted", "False", "InvalidSchedule", "25", "write"),
    (POLICY, "wrong-zone"): ("Accepted", "False", "InvalidSchedule", "Europe/Berlyn", "did you mean Europe/Berlin"),
    (POLICY, "no-target"): ("Accepted", "False", "TargetNotFound", "nobody", "create"),
    (TARGET, "no-name"): ("Reachable", "False", "NameNotResolved", "does-not-exist.invalid", "DNS"),
    (TARGET, "wrong-password"): ("Reachable", "False", "AuthenticationFailed", "pgtend_monitor", "Secret"),
    (TARGET, "no-secret"): ("Reachable", "False", "SecretMissing", "absent", "create"),
    (TARGET, "a-pooler"): ("Reachable", "False", "PoolerNotAllowed", "a connection pooler", "name the server itself"),
    (TARGET, "blind"): ("ConnectionsHealthy", "Unknown", "MissingPrivilege", "pgtend_blind", "GRANT pg_monitor TO"),
    (DESTINATION, "no-bucket"): (
        "Reachable",
        "False",
        "BucketMissing",
        "there-is-no-such-bucket",
        "create it, or correct spec.s3.bucket",
    ),
    (USER, "uninvited"): ("Accepted", "False", "NotPermitted", "namespace", "ask the target's owner"),
}


@pytest.mark.timeout(240)
def test_what_is_wrong_is_told_within_ten_seconds(
    cluster: Cluster,
    tenant: Tenant,
    operator: StartOperator,
    postgres: Postgres,
    pgbouncer: Poolers,
    s3: S3Server,
    tmp_path: Path,
) -> None:
    server = postgres(18)
    space, other = tenant.namespace(), tenant.namespace()
    operator([space, other])
    ground = Ground(cluster=cluster, space=space, server=server, s3=s3, folder=tmp_path)
    ground.target()
    ground.destination()
    cluster.wait_condition(TARGET, space, "orders", "Ready", "True", seconds=60)
    cluster.wait_condition(DESTINATION, space, "s3", "Ready", "True", seconds=60)
    good = (cluster.get(TARGET, space, "orders") or {})["spec"]
    member = good["members"][0]
    pooler = pgbouncer(server)
    monitor_role(server, name="pgtend_blind", see=False)
    cluster.secret(space, "wrong", {"password": "not-the-password"})

    def login(secret: str, **more: str) -> dict[str, Any]:
        return {"mode": "Observe", "credentials": {"monitor": {"password": {"secretRef": {"name": secret}}, **more}}}

    specs: dict[tuple[str, str], dict[str, Any]] = {
        (POLICY, "wrong-cron"): ground.policy_spec(schedule={"cron": "0 25 * * *"}),
        (POLICY, "wrong-zone"): ground.policy_spec(timeZone="Europe/Berlyn"),
        (POLICY, "no-target"): ground.policy_spec(targetRef={"name": "nobody"}),
        (TARGET, "no-name"): {**good, **login("monitor"), "members": [{**member, "host": "does-not-exist.invalid"}]},
        (TARGET, "wrong-password"): {**good, **login("wrong")},
        (TARGET, "no-secret"): {**good, **login("absent")},
        (TARGET, "a-pooler"): {
            **good,
            **login("monitor"),
            "members": [{**member, "host": pooler.host, "port": pooler.port}],
        },
        (TARGET, "blind"): {**good, **login("monitor", username="pgtend_blind")},
        (DESTINATION, "no-bucket"): ground.destination_spec(bucket="there-is-no-such-bucket"),
    }
    for (kind, name), spec in specs.items():
        names = {TARGET: "PostgresTarget", POLICY: "PostgresBackupPolicy", DESTINATION: "BackupDestination"}
        ground.apply(names[kind], name, spec)
    cluster.apply(user(other, "uninvited", target=space))
    applied = time.monotonic()

    waiting = dict(EXPECTED)
    slowest: dict[tuple[str, str], float] = {}

    def told() -> bool:
        for (kind, name), (condition, status, reason, *words) in tuple(waiting.items()):
            place = other if kind == USER else space
            found = cluster.condition(kind, place, name, condition)
            if found is not None and (found["status"], found["reason"]) == (status, reason):
                for word in words:
                    assert word in found["message"], (name, found["message"])
                slowest[kind, name] = time.monotonic() - applied
                del waiting[kind, name]
        return not waiting

    try:
        wait("each is told", told, seconds=3 * PROMISED + 10, every=0.1)
    finally:
        for key in waiting:
            print(f"NOT TOLD {key}: {json.dumps((cluster.get(key[0], space, key[1]) or {}).get('status'))}")
    for (kind, name), seconds in slowest.items():
        print(f"{kind} {name}: {EXPECTED[kind, name][2]} after {seconds:.1f} s")
    assert max(slowest.values()) <= 3 * PROMISED
    for (kind, name), _ in EXPECTED.items():
        place = other if kind == USER else space
        conditions = (cluster.get(kind, place, name) or {})["status"]["conditions"]
        ready = next(c for c in conditions if c["type"] == "Ready")
        assert ready["status"] == ("True" if name == "blind" else "False"), (name, ready)
    status = (cluster.get(TARGET, space, "blind") or {})["status"]
    states = {c["type"]: c["status"] for c in status["conditions"]}
    for condition in ("ConnectionsHealthy", "QueriesHealthy", "LocksHealthy", "WraparoundSafe", "ArchivingHealthy"):
        assert states[condition] == "Unknown", "what cannot be seen is never True"
    unseen = {entry["sql"] for entry in status["missingPrivileges"]}
    assert unseen == {"GRANT pg_monitor TO pgtend_blind"}
    shown = cluster.kubectl("get", "pgtend,events", "-n", space, "-o", "yaml")
    assert MONITOR_PASSWORD not in shown and "not-the-password" not in shown


def test_an_unknown_field_is_an_error_or_a_warning(cluster: Cluster, tenant: Tenant) -> None:
    """From kubectl and server-side apply an error that names it; for who asks for less it is pruned with a warning."""
    space = tenant.namespace()
    body = user(space, "typo", connectionLimits=5)
    for words in (("apply",), ("apply", "--server-side"), ("create",)):
        said = cluster.kubectl(*words, "-f", "-", text=json.dumps(body), check=False)
        assert "connectionLimits" in said, said
        assert "unknown field" in said or "field not declared" in said, said
        assert cluster.get(USER, space, "typo") is None
    said = cluster.kubectl("create", "--validate=warn", "-f", "-", text=json.dumps(body), check=False)
    assert 'unknown field "spec.connectionLimits"' in said
    assert "connectionLimits" not in (cluster.get(USER, space, "typo") or {})["spec"]
