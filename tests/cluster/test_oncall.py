"""What somebody on call types: the board as the operator keeps it, and what its words mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.cluster.builders import target
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster
from tests.cluster.users_ground import user
from tests.fixtures.plugin import Postgres

from pgtend.__main__ import main


@pytest.mark.timeout(180)
def test_the_board_and_what_its_words_mean(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    space = tenant.namespace()
    process = operator([space])
    target(cluster, space, postgres(18))
    cluster.apply(user(space, "lost", target="elsewhere"))
    cluster.wait_condition("postgrestarget", space, "orders", "Ready", "True")
    cluster.wait_condition("databaseuser", space, "lost", "Accepted", "False")

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, [*words, "-n", space, "--kubeconfig", cluster.environment["KUBECONFIG"]])

    def board(*words: str) -> Any:
        return json.loads(run("status", "-o", "json", "--operator-namespace", process.namespace, *words).stdout)

    found = board()
    assert found["operator"]["holder"] and not found["operator"]["gone"], found["operator"]
    levels = {(one["kind"], one["name"]): one["level"] for one in found["objects"]}
    assert levels == {("DatabaseUser", "lost"): "Wrong", ("PostgresTarget", "orders"): "Well"}
    text = run("status")
    assert text.exit_code == 0 and f"{space}/lost" in text.output and f"{space}/orders" not in text.output
    assert "2 objects: 1 wrong, 1 well" in text.output and "operator: unknown (no Lease pgtend/" in text.output
    assert run("status", "--fail").exit_code == 2

    said = run("explain", "dbu/lost")
    status = cluster.get("databaseuser", space, "lost")["status"]
    reason = next(c["reason"] for c in status["conditions"] if c["type"] == "Accepted")
    assert f"Accepted=False/{reason}" in said.output and "What to do: " in said.output
    # what nobody asked for is not told, and that nothing is backed up is
    well = run("explain", "pgt/orders").output
    assert well.startswith("BackedUp=Unknown/NoPolicy since ") and "PoolHealthy" not in well
    assert "PoolHealthy=Unknown/NotRequested" in run("explain", "pgt/orders", "PoolHealthy").output
    missing = run("explain", "pgt/nothing")
    assert missing.exit_code == 1 and f"there is no PostgresTarget {space}/nothing" in missing.output
