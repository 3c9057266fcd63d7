"""Steady state costs nothing: with one object of each kind in force and nothing to do, the operator writes nothing at
all, neither to the API server nor to PostgreSQL. Briefly in every run; PGTEND_SOAK_SECONDS (300) in `make soak`."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from tests.cluster.backup_ground import Ground
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, wait, writes
from tests.cluster.test_operations import moment, operation
from tests.cluster.users_ground import user
from tests.fixtures.counters import SqlCounter
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import Login
from tests.fixtures.s3 import S3Server
from tests.postgres.users_ground import PASSWORDS, Shop

# what `one_of_each` makes; a new kind is added there
MADE = {
    "PostgresTarget",
    "DatabaseUser",
    "BackupDestination",
    "PostgresBackupPolicy",
    "PostgresBackup",
    "PostgresOperation",
}
LENGTHS = [
    pytest.param(25.0, id="short"),
    pytest.param(float(os.environ.get("PGTEND_SOAK_SECONDS", "300")), id="soak", marks=pytest.mark.soak),
]
# beginnings of statements that change something; a session's own settings and its transactions are no change
CHANGES = re.compile(
    r"\s*(?!BEGIN|COMMIT|ROLLBACK|START|SET|SHOW|SELECT|WITH|VALUES|FETCH|CLOSE|DECLARE|DISCARD)\w", re.I
)


@pytest.mark.long
@pytest.mark.timeout(3900)
@pytest.mark.parametrize("seconds", LENGTHS)
def test_steady_state_writes_nothing(
    cluster: Cluster,
    tenant: Tenant,
    operator: StartOperator,
    postgres: Postgres,
    s3: S3Server,
    tmp_path: Path,
    seconds: float,
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    process = operator([space])
    one_of_each(Ground(cluster=cluster, space=space, server=server, s3=s3, folder=tmp_path))
    settled(cluster, space)
    mark, seen = cluster.audit_mark(), SqlCounter(server)
    time.sleep(seconds)
    assert writes(cluster.audited(since=mark, user=process.user)) == {}
    statements = [line for line in seen.statements() if CHANGES.match(line)]
    assert statements == []
    asked = len(seen.statements())
    print(
        f"{seconds:.0f} s with {len(MADE)} kinds: no write; {asked} statements read, {seen.connections()} connections"
    )
    assert asked > 0, "it went on looking"
    # the negative control: what is to be done is done, and counted
    cluster.kubectl("patch", "dbu", "steady", "-n", space, "--type=merge", "-p", '{"spec":{"connectionLimit":3}}')
    wait("the change is seen", lambda: [s for s in seen.statements() if CHANGES.match(s)], seconds=60)
    wait("and told", lambda: writes(cluster.audited(since=mark, user=process.user)), seconds=60)


def one_of_each(ground: Ground) -> None:
    """Every kind once: tended, verified, and finished."""
    cluster, space = ground.cluster, ground.space
    shop = Shop.open(ground.server)
    assert ground.role is not None
    cluster.secret(space, "users", {"password": PASSWORDS["pgtend_users"]})
    access = [
        {
            "name": "oncall",
            "namespaces": {"selector": {"matchLabels": {"kubernetes.io/metadata.name": space}}},
            "kinds": ["PostgresOperation"],
            "operations": ["TerminateQueries"],
        }
    ]
    ground.target(
        access=access,
        credentials={
            "monitor": {"password": {"secretRef": {"name": "monitor"}}},
            "backup": {"username": ground.role.user, "password": {"secretRef": {"name": "backup"}}},
            "users": {"password": {"secretRef": {"name": "users"}}},
        },
    )
    ground.destination()
    ground.policy()
    cluster.wait_condition("pgbp", space, "orders", "Ready", "True", seconds=90)
    cluster.apply(user(space, "steady", roleName=ground.server.fresh_name("steady"), grants=shop.trio("Select")))
    cluster.apply(operation(space, "late", Login(user="nobody", password="x"), notAfter=moment(seconds=-1)))
    ground.apply("PostgresBackup", "now", {"policyRef": {"name": "orders"}, "reason": "steady"})
    cluster.wait_condition("pgb", space, "now", "Complete", "Unknown", "Running", seconds=90)
    ground.run_pod("now-dump")
    wait("the Job that verifies", lambda: "now-verify" in ground.jobs(), seconds=90)
    ground.run_pod("now-verify")
    cluster.wait_condition("pgb", space, "now", "Verified", "True", seconds=90)


def settled(cluster: Cluster, space: str) -> None:
    """Everything is Ready, and no object has changed between two looks some seconds apart."""
    seen: list[dict[str, str]] = []

    def quiet() -> bool:
        found = json.loads(cluster.kubectl("get", "pgtend,pgtend-records", "-n", space, "-o", "json"))["items"]
        assert {item["kind"] for item in found} == MADE
        conditions = [{c["type"]: c["status"] for c in item.get("status", {}).get("conditions", [])} for item in found]
        now = {f"{i['kind']}/{i['metadata']['name']}": i["metadata"]["resourceVersion"] for i in found}
        same = bool(seen) and seen[-1] == now
        seen.append(now)
        return same and all(c.get("Ready") == "True" for c in conditions)

    wait("all objects of the kinds are Ready and still", quiet, seconds=120, every=8)
