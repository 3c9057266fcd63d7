"""Who may ask for an operation: the chart's admission policy and its roles for people, asked as those people on a real
API server. Each refusal stands beside the same request without the policy, which passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, OperatorProcess, wait
from tests.cluster.test_operations import KIND, clients, enforced, operation
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import Login

pytestmark = [pytest.mark.timeout(300), pytest.mark.alone]
ONCALL, DEVELOPER, READER = "oncall@example.com", "developer@example.com", "reader@example.com"
LOGIN = Login(user="anybody", password="x")


def bind(cluster: Cluster, space: str, role: str, user: str) -> None:
    cluster.kubectl(
        *("create", "rolebinding", f"{role.replace(':', '-')}-{user.split('@', maxsplit=1)[0]}", "-n", space),
        *(f"--clusterrole={role}", f"--user={user}"),
    )


def asked(cluster: Cluster, body: dict[str, Any], *, by: str, dry: bool = False) -> str:
    """What kubectl said when `by` created it."""
    words = ("--dry-run=server",) if dry else ()
    return cluster.kubectl("create", f"--as={by}", *words, "-f", "-", text=json.dumps(body), check=False)


def edited(cluster: Cluster, space: str, name: str, patch: str, *, by: str) -> str:
    return cluster.kubectl("patch", KIND, name, "-n", space, f"--as={by}", "--type=merge", "-p", patch, check=False)


def people(cluster: Cluster, process: OperatorProcess, space: str) -> None:
    """One of each, and the policy in force: the API server takes it up some seconds after it was made."""
    bind(cluster, space, f"pgtend:{process.namespace}:terminate", ONCALL)
    bind(cluster, space, f"pgtend:{process.namespace}:edit", DEVELOPER)
    bind(cluster, space, f"pgtend:{process.namespace}:view", DEVELOPER)
    bind(cluster, space, f"pgtend:{process.namespace}:view", READER)
    probe = operation(space, "probe", LOGIN, requestedBy="somebody@example.com")
    wait("the policy is in force", lambda: "must be who asks" in asked(cluster, probe, by=ONCALL, dry=True), seconds=60)


def test_who_may_ask_and_who_may_cancel(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, tmp_path: Path
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    process = operator([space], policy=True)
    people(cluster, process, space)
    enforced(cluster, space, server)
    login = server.fresh_role("asked")
    with clients(server, login, 1):
        # who has the verb, and says who they are
        said = asked(cluster, operation(space, "kill", login), by=ONCALL)
        assert "created" in said, said
        # the operator's own writes pass: it claims and ends in the status
        cluster.wait_condition(KIND, space, "kill", "Ready", "True", "Succeeded")
        accepted = cluster.condition(KIND, space, "kill", "Accepted")
        assert accepted is not None and accepted["message"] == "admitted by target orders"

    # who has the verb, and says to be another, or nobody
    for claim in (DEVELOPER, None):
        body = operation(space, "spoofed", login, requestedBy=claim)
        if claim is None:
            del body["spec"]["requestedBy"]
        said = asked(cluster, body, by=ONCALL)
        assert f'spec.requestedBy must be who asks: set it to "{ONCALL}"' in said and "created" not in said
    # the verb of one guarded word is not that of another
    wish = operation(space, "restored", login)
    del wish["spec"]["terminateQueries"]
    options = {"from": {"backupRef": {"name": "now"}}, "into": {"database": {"name": "copy"}}}
    wish["spec"] |= {"type": "Restore", "restore": options}
    said = asked(cluster, wish, by=ONCALL)
    assert "needs the verb restore on postgresoperations.pgtend.dev" in said and "created" not in said
    bind(cluster, space, f"pgtend:{process.namespace}:restore", ONCALL)
    wait("the verb is known", lambda: "created" in asked(cluster, wish, by=ONCALL, dry=True), seconds=30)
    # who may create and has not the verb, as a user and as a process with a token of its own
    said = asked(cluster, operation(space, "unasked", login, requestedBy=DEVELOPER), by=DEVELOPER)
    assert f"{DEVELOPER} may not ask for TerminateQueries in namespace {space}" in said
    assert "needs the verb terminate on postgresoperations.pgtend.dev" in said and "created" not in said
    assert (
        "created" not in (said := by_token(cluster, space, login, tmp_path))
        and "may not ask for TerminateQueries" in said
    )
    # and who may not create at all is told so by RBAC
    said = asked(cluster, operation(space, "read", login, requestedBy=READER), by=READER)
    assert 'cannot create resource "postgresoperations"' in said
    names = [item["metadata"]["name"] for item in listed(cluster, space)]
    assert names == ["kill"]

    # cancelling: a verb of its own; labels are no cancelling
    said = asked(cluster, operation(space, "later", login, targetRef={"name": "absent"}), by=ONCALL)
    assert "created" in said, said
    cluster.kubectl(
        *(
            "create",
            "role",
            "writer",
            "-n",
            space,
            "--verb=get,update,patch",
            "--resource=postgresoperations.pgtend.dev",
        )
    )
    cluster.kubectl("create", "rolebinding", "writer", "-n", space, "--role=writer", "--user=writer@example.com")
    cancel, label = '{"spec":{"cancel":true}}', '{"metadata":{"labels":{"team":"shop"}}}'
    said = edited(cluster, space, "later", cancel, by="writer@example.com")
    assert f"writer@example.com may not cancel later in namespace {space}" in said and "verb cancel" in said
    assert "patched" in edited(cluster, space, "later", label, by="writer@example.com")
    cluster.wait_condition(KIND, space, "later", "Ready", "False", "TargetNotFound")
    assert "patched" in edited(cluster, space, "later", cancel, by=DEVELOPER)
    cluster.wait_condition(KIND, space, "later", "Ready", "True", "Cancelled")


def may_write(cluster: Cluster, space: str, name: str, verbs: str, subject: str) -> None:
    """A role of nothing but these verbs on operations, bound."""
    resource = "--resource=postgresoperations.pgtend.dev"
    cluster.kubectl("create", "role", name, "-n", space, f"--verb={verbs}", resource)
    cluster.kubectl("create", "rolebinding", name, "-n", space, f"--role={name}", subject)


def by_token(cluster: Cluster, space: str, login: Login, folder: Path) -> str:
    """What a ServiceAccount that may create is told, really signed in."""
    cluster.kubectl("create", "serviceaccount", "pipeline", "-n", space)
    may_write(cluster, space, "asking", "create", f"--serviceaccount={space}:pipeline")
    config = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "yaml"))
    config["users"][0]["user"] = {"token": cluster.kubectl("create", "token", "pipeline", "-n", space).strip()}
    path = folder / "pipeline.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    body = operation(space, "piped", login, requestedBy=f"system:serviceaccount:{space}:pipeline")
    return cluster.kubectl("--kubeconfig", str(path), "create", "-f", "-", text=json.dumps(body), check=False)


def listed(cluster: Cluster, space: str) -> list[dict[str, Any]]:
    return cluster.list(KIND, space)


def test_without_the_policy_the_actor_is_a_claim_and_the_record_says_so(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    """The negative control of all of the above: the same requests pass."""
    server = postgres(18)
    space = tenant.namespace()
    operator([space])
    enforced(cluster, space, server)
    may_write(cluster, space, "asking", "create", f"--user={DEVELOPER}")
    # a policy of the test before is still in force for some seconds
    probe = operation(space, "probe", LOGIN, requestedBy=ONCALL)
    wait("no policy is in force", lambda: "created" in asked(cluster, probe, by=DEVELOPER, dry=True))
    for name, claim in (("spoofed", ONCALL), ("unnamed", None)):
        body = operation(space, name, LOGIN, requestedBy=claim)
        if claim is None:
            del body["spec"]["requestedBy"]
        assert "created" in asked(cluster, body, by=DEVELOPER)
        cluster.wait_condition(KIND, space, name, "Ready", "True", "Succeeded")
        found = cluster.condition(KIND, space, name, "Accepted")
        assert found is not None
        claimed = f"that {ONCALL} asks is a claim" if claim else "nobody says who asks"
        assert found["message"] == f"admitted by target orders; {claimed}: no admission policy checked it"


def test_what_people_may_do(cluster: Cluster, tenant: Tenant, operator: StartOperator) -> None:
    space = tenant.namespace()
    process = operator([space], run=False, policy=True)
    # as whoever installs a cluster binds them: to Kubernetes' own roles, which these aggregate into
    for role in ("view", "edit", "admin"):
        bind(cluster, space, role, f"{role}@example.com")
    bind(cluster, space, f"pgtend:{process.namespace}:terminate", ONCALL)

    def may(user: str, verb: str, what: str) -> bool:
        what, _, sub = what.partition("/")
        words = ("auth", "can-i", verb, what, f"--subresource={sub}", "-n", space, f"--as={user}@example.com")
        said = cluster.kubectl(*words, check=False)
        return said.split()[0] == "yes"

    wait("the roles are aggregated", lambda: may("admin", "create", "postgrestargets.pgtend.dev"), seconds=60)
    table = {
        # (verb, resource): who
        ("list", "postgrestargets.pgtend.dev"): {"view", "edit", "admin"},
        ("get", "postgresbackups.pgtend.dev"): {"view", "edit", "admin"},
        ("create", "databaseusers.pgtend.dev"): {"edit", "admin"},
        ("patch", "postgresbackuppolicies.pgtend.dev"): {"edit", "admin"},
        ("create", "postgrestargets.pgtend.dev"): {"admin"},
        ("delete", "backupdestinations.pgtend.dev"): {"admin"},
        ("create", "postgresoperations.pgtend.dev"): {"edit", "admin", "oncall"},
        ("cancel", "postgresoperations.pgtend.dev"): {"edit", "admin", "oncall"},
        ("terminate", "postgresoperations.pgtend.dev"): {"oncall"},
        ("restore", "postgresoperations.pgtend.dev"): set(),
        ("patch", "postgresoperations.pgtend.dev/status"): set(),
    }
    for (verb, what), who in table.items():
        assert {user for user in ("view", "edit", "admin", "oncall") if may(user, verb, what)} == who, (verb, what)
