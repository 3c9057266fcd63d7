"""`pgtend backup now` and `backup list` by the cluster: the wish, what came of it, and the record, as a person has them
from the command line."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.cluster.backup_ground import Ground, body
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, wait
from tests.fixtures.plugin import Postgres
from tests.fixtures.s3 import S3Server

from pgtend.__main__ import main

BACKUP, POLICY = "postgresbackup", "postgresbackuppolicy"


def command(cluster: Cluster, *words: str) -> Result:
    """In a thread of its own: the command brings its own event loop."""
    with ThreadPoolExecutor(1) as pool:
        place = ["--kubeconfig", cluster.environment["KUBECONFIG"]]
        return pool.submit(CliRunner().invoke, main, ["backup", *words, *place]).result()


def names(cluster: Cluster, space: str) -> set[str]:
    return {item["metadata"]["name"] for item in cluster.list("postgresbackups", space)}


def test_a_wish_is_made_each_time_anew(cluster: Cluster, tenant: Tenant) -> None:
    """No operator runs."""
    space = tenant.namespace()
    done = command(cluster, "now", f"{space}/orders")
    assert done.exit_code == 1 and f"PostgresBackupPolicy {space}/orders does not exist" in done.stderr
    assert names(cluster, space) == set()
    spec = {"targetRef": {"name": "orders"}, "destinationRef": {"name": "s3"}}
    cluster.apply(body("PostgresBackupPolicy", space, "orders", spec))
    first, second = (command(cluster, "now", f"{space}/orders", "--reason", "before 2.4") for _ in range(2))
    assert first.exit_code == second.exit_code == 0, (first.output, first.exception)
    made = names(cluster, space)
    assert len(made) == 2 and all(name.startswith("orders-") for name in made)
    assert {done.stdout.strip() for done in (first, second)} == {f"{space}/{name}: Created" for name in made}
    assert {one["spec"]["reason"] for one in cluster.list("postgresbackups", space)} == {"before 2.4"}
    # a time that is none never reaches the API server; nobody answers, and the wait has an end
    assert command(cluster, "now", f"{space}/orders", "--not-after", "soon").exit_code == 1
    done = command(cluster, "now", f"{space}/orders", "--name", "mine", "--wait", "--timeout", "1s", "-o", "json")
    told = json.loads(done.stdout)
    assert done.exit_code == 1 and (told["name"], told["result"]) == ("mine", "TimedOut")
    assert "no operator has looked at it" in told["message"]
    done = command(cluster, "now", f"{space}/orders", "--name", "mine")
    assert done.exit_code == 1 and "AlreadyExists" in done.stderr
    assert len(names(cluster, space)) == 3
    told = json.loads(command(cluster, "list", "-n", space, "-o", "json").stdout)
    assert told["backups"] == []
    assert {one["where"] for one in told["notBackups"]} == {f"{space}/{name}" for name in (*made, "mine")}


@pytest.mark.timeout(400)
def test_whoever_waits_is_told_what_came_of_it(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, s3: S3Server, tmp_path: Path
) -> None:
    space = tenant.namespace()
    ground = Ground(cluster=cluster, space=space, server=postgres(18), s3=s3, folder=tmp_path)
    operator([space])
    ground.destination()
    ground.target()
    ground.policy()
    cluster.wait_condition(POLICY, space, "orders", "Ready", "True", "InForce", seconds=90)

    def asked(name: str, *words: str) -> Any:
        """The command, begun; its wish is there when this returns."""
        place = ["--name", name, "--wait", "--timeout", "5m", "-o", "json", *words]
        running = pool.submit(command, cluster, "now", f"{space}/orders", *place)
        wait("the wish is there", lambda: running.done() or name in names(cluster, space), seconds=60)
        return running

    with ThreadPoolExecutor(1) as pool:
        running = asked("first", "--until", "Verified")
        assert ground.run_pod("first-dump")["outcome"] == "Succeeded"
        assert ground.run_pod("first-verify")["outcome"] == "Succeeded"
        done = running.result(120)
        told = json.loads(done.stdout)
        assert done.exit_code == 0 and told["result"] == "Verified", done.output
        assert told["manifest"].endswith("/manifest.json") and told["size"]

        running = asked("second")
        assert ground.run_pod("second-dump")["outcome"] == "Succeeded"
        done = running.result(120)
        assert done.exit_code == 0 and json.loads(done.stdout)["result"] == "Complete", done.output

        # the role loses what it needs: the reason is the job's own, and the exit code says it
        assert ground.role is not None
        ground.server.execute(f"ALTER ROLE {ground.role.user} NOBYPASSRLS")
        ground.server.execute("ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY", dbname=ground.database)
        running = asked("third")
        assert ground.run_pod("third-dump")["reason"] == "RowSecurity"
        done = running.result(120)
        told = json.loads(done.stdout)
        assert done.exit_code == 1 and (told["result"], told["reason"]) == ("Failed", "RowSecurity"), done.output

        done = asked("late", "--not-after", "2026-01-01T00:00:00Z").result(120)
        told = json.loads(done.stdout)
        assert done.exit_code == 1 and (told["result"], told["reason"]) == ("NotTaken", "Expired"), done.output

    found = json.loads(command(cluster, "list", "-n", space, "-o", "json", "--policy", "orders").stdout)
    by_name = {one["name"]: one for one in found["backups"]}
    assert set(by_name) == {"first", "second"}
    assert by_name["first"]["verified"]["level"] == "Read" and by_name["first"]["recipients"] == ["verify", "escrow"]
    assert by_name["first"]["databases"] == [ground.database]
    others = {one["where"].rpartition("/")[2]: one["message"] for one in found["notBackups"]}
    assert "RowSecurity" in others["third"] and "Expired" in others["late"]
