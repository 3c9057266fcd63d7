"""The commands that read a target of the cluster: by the kubeconfig, its Secrets and the DatabaseUsers that are there.
No operator runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result
from tests.cluster.builders import target
from tests.cluster.conftest import Tenant
from tests.cluster.harness import Cluster
from tests.cluster.users_ground import user
from tests.cluster.windows_ground import window
from tests.fixtures.plugin import Postgres
from tests.postgres.users_ground import PASSWORDS, Shop

from pgtend.__main__ import main


def test_report_import_and_plan_by_the_cluster(
    cluster: Cluster, tenant: Tenant, postgres: Postgres, tmp_path: Path
) -> None:
    server = postgres(18)
    Shop.open(server)
    space, other = tenant.namespace(), tenant.namespace()
    loose = server.fresh_role("loose").user
    cluster.secret(space, "orders-users", {"password": PASSWORDS["pgtend_users"]})
    target(
        cluster,
        space,
        server,
        credentials={name: {"password": {"secretRef": {"name": f"orders-{name}"}}} for name in ("monitor", "users")},
        mode="Enforce",
        waivers=[
            {
                "name": "loose",
                "finding": "RoleWithoutExpiry",
                "role": loose,
                "until": "2126-01-01T00:00:00Z",
                "reason": "ticket 88",
            }
        ],
    )
    body = user(space, server.fresh_name("declared").replace("_", "-"), roleName=server.fresh_name("declared"))
    cluster.apply(body)
    role = body["spec"]["roleName"]
    server.execute(f"CREATE ROLE {role}")

    def run(*words: str, at: str = f"{space}/orders") -> Result:
        place = ["--target", at] if words[0] != "plan" else []
        return CliRunner().invoke(main, [*words, *place, "--kubeconfig", cluster.environment["KUBECONFIG"]])

    def read(done: Result, exit_code: int = 0) -> Any:
        assert done.exit_code == exit_code, done.output + str(done.exception)
        assert PASSWORDS["pgtend_users"] not in done.output
        return json.loads(done.stdout)

    report = read(run("access", "report", "-o", "json"))
    assert report["target"] == f"{space}/orders"
    declared = {one["name"]: one["declaredBy"] for one in report["roles"]}
    assert declared[role] == f"{space}/{body['metadata']['name']}"
    assert declared["pgtend_users"] == "credentials.users" and declared[loose] is None
    [waived] = [o for o in report["findings"] if (o["finding"], o["role"]) == ("RoleWithoutExpiry", loose)]
    assert waived["waived"] and waived["waiver"]["name"] == "loose"
    assert not [o for o in report["findings"] if (o["finding"], o["role"]) == ("UndeclaredRole", role)]

    done = run("user", "import", "--namespace", other, "--role", "loose*", "--role", role)
    [imported] = [one for one in yaml.safe_load_all(done.stdout) if one["spec"]["roleName"] == loose]
    assert imported["spec"]["targetRef"] == {"name": "orders", "namespace": space}
    assert role not in done.stdout and f"{space}/{body['metadata']['name']} declares it" in done.stderr
    # what was printed is what the API server takes
    cluster.apply(imported)

    body["spec"]["connectionLimit"] = 5
    fresh = user(other, "fresh", target=space, roleName=server.fresh_name("fresh"))
    path = tmp_path / "users.yaml"
    path.write_text(yaml.safe_dump_all([body, fresh]))
    first, second = read(run("plan", "-f", str(path), "-o", "json"), 2)["users"]
    # the role is there and not marked, and the spec does not say that it may be adopted
    assert "was not made by pgtend" in first["refused"]
    assert f"no access entry admits namespace {other}" in second["refused"]
    body["spec"]["adoption"] = "IfUnowned"
    server.execute(f"GRANT {role} TO pgtend_users WITH ADMIN OPTION")
    path.write_text(yaml.safe_dump(body))
    [adopted] = read(run("plan", "-f", str(path), "-o", "json"), 2)["users"]
    assert adopted["refused"] is None and any("CONNECTION LIMIT 5" in one["sql"] for one in adopted["statements"])
    assert run("access", "report", at=f"{space}/missing").exit_code == 1


def test_windows_of_the_cluster_are_simulated(cluster: Cluster, tenant: Tenant) -> None:
    """As the API server has them: with its defaults, and with what a policy's schedule is there."""
    space = tenant.namespace()
    cluster.apply(window(space, schedule={"weekly": {"days": ["Sunday"], "at": "02:00"}}, closing=None, duration=None))
    policy = {"targetRef": {"name": "orders"}, "destinationRef": {"name": "s3"}}
    kind = {"apiVersion": "pgtend.dev/v1alpha1", "kind": "PostgresBackupPolicy"}
    cluster.apply({**kind, "metadata": {"name": "orders", "namespace": space}, "spec": policy})
    words = ["window", "simulate", "-n", space, "--from", "2027-01-01", "--days", "31", "-o", "json"]
    done = CliRunner().invoke(main, [*words, "--kubeconfig", cluster.environment["KUBECONFIG"]])
    assert done.exit_code == 0, done.output + str(done.exception)
    told = json.loads(done.stdout)["openings"]
    assert [one["startsAt"] for one in told] == [f"2027-01-{day:02}T02:00:00Z" for day in (3, 10, 17, 24, 31)]
    assert all(len(one["dumps"]) == 1 for one in told), "the default of a policy is every day at two"
