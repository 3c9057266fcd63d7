"""Git applied to an empty cluster: all examples are accepted, and what was asked for once and is over is not done
again, not one statement of it, whatever status came along."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.backup_ground import Ground, body
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import ROOT, Cluster
from tests.cluster.test_operations import KIND, PASSWORD, active, clients, moment, operation
from tests.fixtures.counters import SqlCounter
from tests.fixtures.plugin import Postgres
from tests.fixtures.roles import init_roles
from tests.fixtures.s3 import S3Server

from pgtend.api.base import GROUP
from pgtend.postgres.init_sql import init_sql

EXAMPLES = ROOT / "examples"
RECIPIENT = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"
FINISHED = "2026-01-01T00:00:00Z"
# as a backup of a cluster would bring it back: finished, and begun but never ended
FORGED: tuple[dict[str, Any], ...] = (
    {"finishedAt": FINISHED, "journal": {"mark": "another/uid", "claimedAt": FINISHED}},
    {
        "startedAt": FINISHED,
        "journal": {
            "mark": "another/uid",
            "claimedAt": FINISHED,
            "deadline": "2030-01-01T00:00:00Z",
            "unfinished": [{"object": "pid 1", "facts": {"pid": "1"}}],
        },
    },
)


def examples(spaces: dict[str, str]) -> list[dict[str, Any]]:
    """Every object of ours in examples/, in these namespaces instead of its own."""
    found = []
    for path in sorted(EXAMPLES.rglob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text().replace("AGE_RECIPIENT", RECIPIENT)):
            if one and str(one.get("apiVersion", "")).startswith(f"{GROUP}/"):
                text = json.dumps(one)
                for name, space in spaces.items():
                    text = text.replace(f'"namespace": "{name}"', f'"namespace": "{space}"')
                found.append(json.loads(text))
    return found


def test_all_examples_are_accepted(cluster: Cluster, tenant: Tenant) -> None:
    spaces = {name: tenant.namespace(name) for name in ("databases", "shop")}
    for one in examples(spaces):
        cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", text=json.dumps(one))


def sent(seen: SqlCounter, role: str) -> list[str]:
    """What could only be of a one-shot: victims looked for or ended, and whatever the backup role says."""
    looked = re.compile(r"pg_terminate_backend|pg_stat_activity")
    return [
        line.text
        for line in seen.lines()
        if line.user == role or (re.match(r"pgtend/[^/]+/signal/", line.application_name) and looked.search(line.text))
    ]


@pytest.mark.covers("PostgresBackup.spec.notAfter")
@pytest.mark.timeout(300)
def test_what_was_done_once_is_not_done_again(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, s3: S3Server, tmp_path: Path
) -> None:
    server = postgres(18)
    space, shop = tenant.namespace(), tenant.namespace()
    process = operator([space, shop])
    ground = Ground(cluster=cluster, space=space, server=server, s3=s3, folder=tmp_path)
    assert ground.role is not None
    everything_works(ground)
    process.kill9()
    login = server.fresh_role("spared")
    with clients(server, login, 1) as pids:
        one_shots: list[tuple[str, str]] = []
        for number, past in enumerate(("2026-01-01T00:00:00Z", moment(seconds=-1))):
            for forged in (None, *FORGED):
                name = f"over-{len(one_shots)}"
                one = operation(space, name, login, notAfter=past)
                apply_with_status(cluster, one, forged)
                one_shots.append((KIND, name))
            name = f"over-{number}"
            spec = {"policyRef": {"name": "orders"}, "reason": "before the release", "notAfter": past}
            apply_with_status(cluster, body("PostgresBackup", space, name, spec), None)
            one_shots.append(("postgresbackup", name))
        # the examples besides, over the objects that this cluster has already
        here = {"PostgresTarget", "BackupDestination", "PostgresBackupPolicy", "PostgresBackup"}
        for one in examples({"databases": space, "shop": shop}):
            if one["kind"] not in here:
                cluster.kubectl("create", "-f", "-", text=json.dumps(one))

        seen = SqlCounter(server)
        process.start()
        for kind, name in one_shots:
            cluster.wait_condition(kind, space, name, "Ready", "True", "Expired", seconds=90)
        for item in cluster.list(KIND, space):
            cluster.wait_condition(KIND, space, item["metadata"]["name"], "Ready", "True", "Expired", seconds=90)
        assert sent(seen, ground.role.user) == []
        assert ground.jobs() == []
        assert active(server, pids) == pids
        # the negative control: one whose time has not come is carried out, and the search finds it
        cluster.apply(operation(space, "now", login))
        cluster.wait_condition(KIND, space, "now", "Ready", "True", "Succeeded", seconds=60)
        assert active(server, pids) == []
        assert sent(seen, ground.role.user) != []


def everything_works(ground: Ground) -> None:
    """A target, a bucket and a policy with which every one-shot could be carried out."""
    cluster, space, server = ground.cluster, ground.space, ground.server
    assert ground.role is not None
    init_roles(server, init_sql(["maintenance"]))
    with server.superuser_connect() as connection:
        connection.pgconn.change_password(b"pgtend_maintenance", PASSWORD.encode())
    cluster.secret(space, "maintenance", {"password": PASSWORD})
    ground.target(
        access=[
            {
                "name": "oncall",
                "namespaces": {"names": [space]},
                "kinds": ["*"],
                "operations": ["TerminateQueries"],
            }
        ],
        credentials={
            "monitor": {"password": {"secretRef": {"name": "monitor"}}},
            "maintenance": {"password": {"secretRef": {"name": "maintenance"}}},
            "backup": {"username": ground.role.user, "password": {"secretRef": {"name": "backup"}}},
        },
    )
    ground.destination()
    ground.policy()
    cluster.wait_condition("pgbp", space, "orders", "Ready", "True", seconds=90)


def apply_with_status(cluster: Cluster, one: dict[str, Any], status: dict[str, Any] | None) -> None:
    """As a restore tool does it: the object with its status, and then the status by itself."""
    cluster.apply(one if status is None else {**one, "status": status})
    if status is not None:
        meta = one["metadata"]
        words = ("patch", one["kind"], meta["name"], "-n", meta["namespace"], "--type=merge", "--subresource=status")
        cluster.kubectl(*words, "-p", json.dumps({"status": status}))
