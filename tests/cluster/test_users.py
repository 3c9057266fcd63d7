"""DatabaseUser on a real API server and real PostgreSQL: what people write, what they get, and what is never done.

One operator and one target serve all tests of this module; each test has roles and objects of its own.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from tests.cluster.conftest import Tenant
from tests.cluster.harness import Cluster, OperatorProcess, wait
from tests.cluster.users_ground import KIND, open_target, ready, secret, touch, user
from tests.fixtures.plugin import _session
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import Shop

HEADER = ["NAME", "TARGET", "ROLE", "READY", "INSYNC", "REASON", "SINCE", "SECRET", "AGE"]
ACCESS = {
    "name": "shop",
    "kinds": ["DatabaseUser"],
    "users": {"rolePattern": "shop_*", "databases": ["*"], "maxPrivileges": ["Connect", "Usage", "Select"]},
}


@dataclass
class Tended:
    """`databases` holds the target, `shop` is admitted to it by name, `strange` is not."""

    cluster: Cluster
    process: OperatorProcess
    server: PostgresServer
    shop: Shop
    databases: str
    admitted: str
    strange: str

    def name(self, prefix: str = "app") -> str:
        return self.server.fresh_name(prefix).replace("_", "-")

    def condition(self, name: str, type_: str, status: str, reason: str, *, space: str | None = None) -> str:
        """Waits for a condition and returns its message."""
        found = self.cluster.wait_condition(KIND, space or self.databases, name, type_, status, reason)
        return str(found["message"])

    def role(self, role: str) -> tuple[Any, ...] | None:
        rows = self.server.execute(
            "SELECT rolcanlogin, rolconnlimit, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s",
            [role],
        )
        return rows[0] if rows else None

    def in_force(self, *bodies: dict[str, Any]) -> None:
        """Apply, and wait until all of them are in force."""
        self.cluster.apply(*bodies)
        ready(self.cluster, self.databases, [body["metadata"]["name"] for body in bodies])

    def ledger(self) -> list[dict[str, Any]]:
        found = self.cluster.get("configmap", self.process.namespace, "pgtend-ledger") or {}
        return list(json.loads(found.get("data", {}).get("abandoned.json", "[]")))

    def gone(self, name: str, *, space: str | None = None) -> None:
        where = space or self.databases
        wait(f"{name} is gone", lambda: self.cluster.get(KIND, where, name) is None)


@pytest.fixture(scope="module")
def tended(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tended]:
    server = _session(request.config).shared(18, "primary")
    tenant = Tenant(cluster=cluster, names=[])
    databases, admitted, strange = (tenant.namespace(prefix) for prefix in ("databases", "shop", "strange"))
    process = OperatorProcess(
        cluster,
        namespace=tenant.namespace("pgtend"),
        watched=[databases, admitted, strange],
        folder=tmp_path_factory.mktemp("users"),
        installation=f"test-{secrets.token_hex(3)}",
    )
    process.install()
    process.start()
    shop = Shop.open(server)
    open_target(cluster, databases, server, access=[{**ACCESS, "namespaces": {"names": [admitted]}}])
    yield Tended(
        cluster=cluster,
        process=process,
        server=server,
        shop=shop,
        databases=databases,
        admitted=admitted,
        strange=strange,
    )
    process.stop()
    said = process.log
    cluster.forget(tenant.names)
    assert "Traceback" not in said, said[-6000:]


@pytest.fixture(autouse=True)
def shown(tended: Tended) -> Iterator[None]:
    """The operator's log of the test is printed where it fails."""
    start = len(tended.process.log)
    yield
    print(tended.process.log[start:][-5000:])


@pytest.mark.covers(
    "DatabaseUser.spec.targetRef.name",
    "DatabaseUser.spec.password.generate.length",
    "DatabaseUser.spec.password.generate.alphabet",
    "DatabaseUser.reason.InForce",
    "DatabaseUser.reason.Accepted",
    "DatabaseUser.reason.AsExpected",
)
def test_ten_users_log_in_with_their_secrets(tended: Tended) -> None:
    names = [tended.name() for _ in range(10)]
    rule = {"generate": {"length": 40, "alphabet": "Alphanumeric"}}
    grants = tended.shop.trio("Select", "Insert")
    tended.in_force(*(user(tended.databases, name, grants=grants, password=rule) for name in names))
    for name in names:
        values = secret(tended.cluster, tended.databases, name)
        assert set(values) == {"username", "password", "host", "port", "dbname", "uri", "jdbc-uri", "pgpass"}
        assert len(values["password"]) == 40 and values["password"].isalnum()
        with psycopg.connect(values["uri"]) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (name,)
            connection.execute("INSERT INTO shop.items VALUES (1)")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DELETE FROM shop.items")
    lines = tended.cluster.kubectl("get", "dbu", "-n", tended.databases, names[0]).splitlines()
    assert lines[0].split() == HEADER
    first = lines[1].split()
    assert first[:6] == [names[0], "orders", names[0], "True", "True", "InForce"] and first[7] == names[0]
    found = tended.cluster.get(KIND, tended.databases, names[0])
    assert found is not None
    messages = {c["type"]: c["message"] for c in found["status"]["conditions"]}
    assert messages["PrivilegesInSync"] == "6 privileges in 1 database"
    tried = [f"Secret {names[0]} logs in through 1 of 1 members", f"Secret {names[0]} holds the password set at"]
    assert messages["CredentialsReady"].startswith(tuple(tried)), "of ten at once five are tried at once"
    listed = tended.cluster.kubectl(
        "get", "dbu", "-n", tended.databases, "--field-selector", "spec.targetRef.name=other", "-o", "name"
    )
    assert listed == ""


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"colour": "red"}, "unknown field"),
    "preset": (
        {"grants": [{"database": "o", "preset": "ReadOnly", "kind": "Table"}]},
        "a grant takes either a preset",
    ),
    "nothing": ({"grants": [{"database": "o"}]}, "a grant takes either a preset"),
    "wide": (
        {"grants": [{"database": "o", "kind": "Parameter", "names": ["work_mem"], "privileges": ["Set"]}]},
        "kind Parameter takes names, no database",
    ),
    "columns": (
        {
            "grants": [
                {"database": "o", "kind": "Table", "schema": "s", "columns": ["c"], "privileges": ["Delete"]},
            ]
        },
        "columns are of kind Table",
    ),
    "auto": (
        {
            "defaultPrivileges": [
                {"database": "o", "creators": {"auto": {}}, "kind": "Table", "privileges": ["Select"]},
            ]
        },
        "creators auto is of one schema",
    ),
    "attribute": ({"attributes": ["Root"]}, "Unsupported value"),
    "both": ({"password": {"generate": {}, "secretRef": {"name": "x"}}}, "exactly one of generate, secretRef and none"),
    "lost": ({"password": {"none": {}, "onLostSecret": "Rotate"}}, "onLostSecret Rotate is of a generated password"),
    "unknown key": ({"secret": {"templates": {"DSN": "{{ .nothing }}"}}}, "between {{ and }} stands one of"),
    "own key": ({"secret": {"templates": {"uri": "x"}}}, "a key is one of the Secret's own"),
    "no password": (
        {"password": {"none": {}}, "secret": {"templates": {"DSN": "x:{{ .password }}"}}},
        "with password none there is no .password",
    ),
    "short": ({"password": {"generate": {"length": 21}}}, "should be greater than or equal to 22"),
    "shape": (
        {"grants": [{"database": "o", "kind": "Schema", "privileges": ["Usage"]}]},
        "kind Schema takes database, names and privileges of Usage, Create or All",
    ),
    "word": (
        {"grants": [{"database": "o", "kind": "Database", "privileges": ["Select"]}]},
        "kind Database takes database and privileges of Connect, Create, Temporary or All",
    ),
    "table": (
        {"grants": [{"database": "o", "kind": "Table", "privileges": ["Select"]}]},
        "kind Table takes database, schema, perhaps names, and privileges of",
    ),
    "system": (
        {"grants": [{"database": "o", "kind": "Table", "schema": "pg_catalog", "privileges": ["Update"]}]},
        "nothing is granted in pg_catalog",
    ),
    "predefined": ({"roleName": "pg_write_all_data"}, "which belong to the server"),
    "managed": ({"roleName": "rdsadmin"}, "which belong to the server"),
    "word2": ({"roleName": "public"}, "which belong to the server"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_wrong_specs_are_refused_at_once(tended: Tended, case: str) -> None:
    spec, text = REFUSED[case]
    assert text in tended.cluster.refused(user(tended.databases, tended.name(), **spec))


def test_what_is_immutable_says_so(tended: Tended) -> None:
    name = tended.name()
    tended.in_force(user(tended.databases, name))
    assert "roleName is immutable" in tended.cluster.refused(user(tended.databases, name, roleName="other"))
    body = user(tended.databases, name)
    body["spec"]["targetRef"]["name"] = "other"
    assert "targetRef is immutable" in tended.cluster.refused(body)
    # saying what was meant anyway is no change
    tended.in_force(user(tended.databases, name, roleName=name))


@pytest.mark.covers(
    "DatabaseUser.spec.targetRef.namespace",
    "DatabaseUser.reason.NotPermitted",
    "DatabaseUser.reason.NotAccepted",
    "PostgresTarget.spec.access.kinds",
    "PostgresTarget.spec.access.name",
    "PostgresTarget.spec.access.namespaces.names",
    "PostgresTarget.spec.access.users.databases",
    "PostgresTarget.spec.access.users.maxPrivileges",
    "PostgresTarget.spec.access.users.rolePattern",
    "PostgresTarget.spec.access.users.memberOf",
    "PostgresTarget.spec.access.users.attributes",
    "PostgresTarget.spec.access.users.grantOption",
)
def test_consent_across_namespaces_and_its_withdrawal(tended: Tended) -> None:
    cluster, space = tended.cluster, tended.admitted
    role = tended.server.fresh_name("shop_app")
    body = user(space, "app", target=tended.databases, roleName=role, grants=tended.shop.trio("Select"))
    cluster.apply(body)
    ready(cluster, space)
    uri = secret(cluster, space, "app")["uri"]
    psycopg.connect(uri).close()

    more = user(space, "app", target=tended.databases, roleName=role, grants=tended.shop.trio("Select", "Delete"))
    cluster.apply(more)
    told = tended.condition("app", "Accepted", "False", "NotPermitted", space=space)
    target = f"{tended.databases}/orders"
    assert told.startswith(
        f"access shop of target {target} does not admit privilege Delete (admits Connect, Usage, Select), since "
    )
    assert told.endswith("ask its owner to add it to users.maxPrivileges, or remove the grant")
    row = cluster.kubectl("get", "dbu", "-n", space).splitlines()[1].split()
    assert row[3:6] == ["False", "Unknown", "NotPermitted"]
    cluster.apply(body)
    ready(cluster, space)

    # attributes and memberships are admitted word by word too
    group = tended.server.fresh_name("group")
    tended.server.execute(f"CREATE ROLE {group} NOLOGIN; GRANT {group} TO pgtend_users WITH ADMIN OPTION")
    rich = user(
        space, "app", target=tended.databases, roleName=role, grants=tended.shop.trio("Select"),
        attributes=["CreateRole"], memberOf=[{"role": group}], settings={"search_path": "Shop"},
    )  # fmt: skip
    cluster.apply(rich)
    told = tended.condition("app", "Accepted", "False", "NotPermitted", space=space)
    assert "does not admit attribute CreateRole (admits none)" in told
    wide: dict[str, Any] = {**ACCESS, "namespaces": {"names": [space]}}
    wide["users"] = {**wide["users"], "attributes": ["CreateRole"], "memberOf": [group[:-1] + "*"]}
    open_target(cluster, tended.databases, tended.server, access=[wide])
    ready(cluster, space)
    assert tended.server.execute("SELECT rolcreaterole, rolconfig FROM pg_roles WHERE rolname = %s", [role]) == [
        (True, ["search_path=shop"])
    ]
    assert tended.server.execute("SELECT pg_has_role(%s, %s, 'USAGE')", [role, group]) == [(True,)]
    cluster.apply(body)
    ready(cluster, space)
    assert tended.server.execute("SELECT pg_has_role(%s, %s, 'USAGE')", [role, group]) == [(False,)]

    # who may have it may not hand it on for that
    *first, last = tended.shop.trio("Select")
    handing = user(space, "app", target=tended.databases, roleName=role, grants=[*first, {**last, "grantOption": True}])
    cluster.apply(handing)
    told = tended.condition("app", "Accepted", "False", "NotPermitted", space=space)
    assert f"access shop of target {target} admits privilege Select, and not to hand it on, since " in told
    wide["users"]["grantOption"] = True
    open_target(cluster, tended.databases, tended.server, access=[wide])
    ready(cluster, space)
    may = "SELECT has_table_privilege(%s, 'shop.items', 'SELECT WITH GRANT OPTION')"
    assert tended.server.execute(may, [role], dbname=tended.shop.name) == [(True,)]
    cluster.apply(body)
    ready(cluster, space)
    assert tended.server.execute(may, [role], dbname=tended.shop.name) == [(False,)]

    # withdrawn: reconciling stops, the login goes on
    open_target(cluster, tended.databases, tended.server, access=[])
    told = tended.condition("app", "Accepted", "False", "NotPermitted", space=space)
    assert f"no access entry admits namespace {space}" in told
    tended.server.execute(f"ALTER ROLE {role} CONNECTION LIMIT 7")
    psycopg.connect(uri).close()
    entry = {**ACCESS, "namespaces": {"names": [space]}}
    open_target(cluster, tended.databases, tended.server, access=[entry])
    ready(cluster, space)
    assert tended.role(role) == (True, -1, f"[pgtend:1:{tended.process.installation}:{space}/app]")

    strange = user(tended.strange, "app", target=tended.databases, roleName=role)
    cluster.apply(strange)
    told = tended.condition("app", "Accepted", "False", "NotPermitted", space=tended.strange)
    assert f"no access entry admits namespace {tended.strange}" in told
    assert secret(cluster, tended.strange, "app") == {}
    ready(cluster, space)


@pytest.mark.covers(
    "DatabaseUser.reason.TargetNotFound",
    "DatabaseUser.reason.TargetNotWatched",
    "DatabaseUser.reason.RoleNotAllowed",
)
def test_references_that_lead_nowhere(tended: Tended) -> None:
    nowhere, unwatched, ours = tended.name(), tended.name(), tended.name()
    body = user(tended.databases, nowhere)
    body["spec"]["targetRef"]["name"] = "absent"
    tended.cluster.apply(
        body,
        user(tended.databases, unwatched, target="default"),
        user(tended.databases, ours, roleName="pgtend_users"),
    )
    told = tended.condition(nowhere, "Accepted", "False", "TargetNotFound")
    assert f"PostgresTarget {tended.databases}/absent does not exist" in told
    tended.condition(unwatched, "Accepted", "False", "TargetNotWatched")
    told = tended.condition(ours, "Accepted", "False", "RoleNotAllowed")
    assert "pgtend_users is the login of target" in told


@pytest.mark.covers(
    "DatabaseUser.spec.secret.name",
    "DatabaseUser.reason.SecretNotOwned",
    "DatabaseUser.reason.SecretLost",
    "DatabaseUser.reason.NotCreated",
)
def test_secrets_are_neither_overwritten_nor_made_up(tended: Tended) -> None:
    cluster, name = tended.cluster, tended.name()
    foreign = f"{name}-foreign"
    cluster.secret(tended.databases, foreign, {"password": "not yours"})
    cluster.apply(user(tended.databases, name, secret={"name": foreign}))
    tended.condition(name, "CredentialsReady", "False", "SecretNotOwned")
    tended.condition(name, "PrivilegesInSync", "Unknown", "NotCreated")
    assert secret(cluster, tended.databases, foreign) == {"password": "not yours"}
    assert tended.role(name) is None

    tended.in_force(user(tended.databases, name))
    first = secret(cluster, tended.databases, name)
    tended.in_force(user(tended.databases, name, secret={"name": f"{name}-other"}))
    assert secret(cluster, tended.databases, f"{name}-other")["password"] == first["password"]
    assert secret(cluster, tended.databases, name) == first, "pods that still name it must be able to start"

    cluster.kubectl("delete", "secret", "-n", tended.databases, f"{name}-other", name)
    touch(cluster, tended.databases, name)
    told = tended.condition(name, "CredentialsReady", "False", "SecretLost")
    assert f"Secret {name}-other with its password is gone" in told
    assert secret(cluster, tended.databases, f"{name}-other") == {}
    psycopg.connect(first["uri"]).close()


@pytest.mark.covers(
    "DatabaseUser.spec.password.secretRef.name",
    "DatabaseUser.spec.password.secretRef.key",
    "DatabaseUser.reason.SecretMissing",
    "DatabaseUser.reason.SecretKeyMissing",
)
def test_a_given_password_and_its_change(tended: Tended) -> None:
    cluster, name = tended.cluster, tended.name()
    given = f"{name}-given"
    body = user(tended.databases, name, password={"secretRef": {"name": given, "key": "pw"}})
    cluster.apply(body)
    tended.condition(name, "CredentialsReady", "False", "SecretMissing")
    cluster.secret(tended.databases, given, {"password": "x"})
    touch(cluster, tended.databases, name)
    tended.condition(name, "CredentialsReady", "False", "SecretKeyMissing")
    for plain in ("p@ss/w:rd % 'quoted'", "Пароль №2 \u00aa"):
        cluster.secret(tended.databases, given, {"pw": plain})
        touch(cluster, tended.databases, name)
        wait("the Secret follows", lambda p=plain: secret(cluster, tended.databases, name).get("password") == p)
        ready(cluster, tended.databases, [name])
        uri = secret(cluster, tended.databases, name)["uri"]
        wait("the role follows", lambda u=uri: can_log_in(u))
    # back to a generated one: not the one that was given
    tended.in_force(user(tended.databases, name))
    values = secret(cluster, tended.databases, name)
    assert len(values["password"]) == 32
    wait("the role follows", lambda: can_log_in(values["uri"]))


def can_log_in(uri: str) -> bool:
    try:
        psycopg.connect(uri).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_password_that_was_changed_in_the_secret_is_set(tended: Tended) -> None:
    cluster, name = tended.cluster, tended.name()
    tended.in_force(user(tended.databases, name))
    cluster.kubectl(
        "patch",
        "secret",
        "-n",
        tended.databases,
        name,
        "--type=merge",
        "-p",
        json.dumps({"stringData": {"password": "chosen by hand 1"}}),
    )
    touch(cluster, tended.databases, name)
    wait("the forms agree", lambda: "chosen%20by%20hand%201" in secret(cluster, tended.databases, name)["uri"])
    wait("the role follows", lambda: can_log_in(secret(cluster, tended.databases, name)["uri"]))


@pytest.mark.covers("DatabaseUser.spec.mode", "DatabaseUser.reason.Observing", "DatabaseUser.reason.Drifted")
def test_observed_users_cause_no_write(tended: Tended) -> None:
    cluster, name = tended.cluster, tended.name()
    mark = tended.server.log_mark()
    cluster.apply(user(tended.databases, name, mode="Observe", grants=tended.shop.trio()))
    told = tended.condition(name, "Ready", "True", "Observing")
    assert told == "4 differences; nothing is written while this object is in mode Observe"
    tended.condition(name, "InSync", "False", "Drifted")
    found = cluster.get(KIND, tended.databases, name)
    assert found is not None
    assert found["status"]["drift"]["total"] == 4
    assert found["status"]["drift"]["differences"][0] == f"role {name} does not exist"
    assert secret(cluster, tended.databases, name) == {}
    assert f'"{name}"' not in tended.server.log_since(mark), "not one statement names it as an identifier"
    tended.in_force(user(tended.databases, name, grants=tended.shop.trio()))


@pytest.mark.covers("DatabaseUser.reason.Conflict", "DatabaseUser.reason.RoleExists", "DatabaseUser.reason.NotUnique")
def test_one_role_has_one_master(tended: Tended) -> None:
    cluster, first, second = tended.cluster, tended.name(), tended.name()
    role = tended.server.fresh_name("one")
    tended.in_force(user(tended.databases, first, roleName=role))
    cluster.apply(user(tended.databases, second, roleName=role, connectionLimit=3, deletionPolicy="Drop"))
    told = tended.condition(second, "Unique", "False", "Conflict")
    assert f"is tended by DatabaseUser {tended.databases}/{first}, which has its mark on the role" in told
    cluster.kubectl("delete", KIND, "-n", tended.databases, second)
    mark = f"[pgtend:1:{tended.process.installation}:{tended.databases}/{first}]"
    assert tended.role(role) == (True, -1, mark)

    theirs = tended.server.fresh_role("theirs").user
    name = tended.name()
    cluster.secret(tended.databases, f"{name}-given", {"password": "handed over"})
    given = {"secretRef": {"name": f"{name}-given"}}
    cluster.apply(user(tended.databases, name, roleName=theirs, login=False, password=given, deletionPolicy="Drop"))
    told = tended.condition(name, "Unique", "False", "RoleExists")
    tended.condition(name, "InSync", "Unknown", "NotUnique")
    assert tended.role(theirs) == (True, -1, None)
    # the message says how to hand it over
    tended.server.execute(told.partition("as an administrator run ")[2])
    tended.server.execute(f"GRANT {theirs} TO pgtend_users WITH ADMIN OPTION")
    touch(cluster, tended.databases, name)
    ready(cluster, tended.databases, [name])
    assert tended.role(theirs)[0] is False  # type: ignore[index]


@pytest.mark.covers("DatabaseUser.spec.suspend", "DatabaseUser.reason.Suspended")
def test_drift_is_set_right_and_told_and_a_suspended_user_is_left_alone(tended: Tended) -> None:
    cluster, name = tended.cluster, tended.name()
    tended.in_force(user(tended.databases, name))
    tended.server.execute(f'ALTER ROLE "{name}" CONNECTION LIMIT 2')
    touch(cluster, tended.databases, name)
    wait("drift is corrected", lambda: tended.role(name)[1] == -1)  # type: ignore[index]

    def events() -> str:
        listed = cluster.kubectl("get", "events", "-n", tended.databases, "-o", "json")
        return " ".join(e["message"] for e in json.loads(listed)["items"] if e["involvedObject"]["name"] == name)

    wait("an event tells", lambda: "1 difference set right: connectionLimit is 2, not unlimited" in events())
    cluster.apply(user(tended.databases, name, suspend=True))
    tended.condition(name, "Ready", "True", "Suspended")
    tended.server.execute(f'ALTER ROLE "{name}" CONNECTION LIMIT 2')
    touch(cluster, tended.databases, name)
    time.sleep(2)
    assert tended.role(name)[1] == 2  # type: ignore[index]


@pytest.mark.covers(
    "DatabaseUser.reason.PasswordExpired",
    "DatabaseUser.reason.ObjectMissing",
    "DatabaseUser.reason.MissingPrivilege",
    "DatabaseUser.reason.PasswordDiffers",
)
def test_what_is_missing_is_told_with_the_next_step(tended: Tended) -> None:
    expired, missing, denied = tended.name(), tended.name(), tended.name()
    table = {
        "database": tended.shop.name,
        "kind": "Table",
        "schema": "shop",
        "names": ["gone"],
        "privileges": ["Select"],
    }
    closed = Shop.open(tended.server, through=False)
    tended.cluster.apply(
        user(tended.databases, expired, validUntil="2020-01-01T00:00:00Z"),
        user(tended.databases, missing, grants=[*tended.shop.trio(), table]),
        user(tended.databases, denied, grants=closed.trio()),
    )
    tended.condition(expired, "CredentialsReady", "False", "PasswordExpired")
    told = tended.condition(missing, "PrivilegesInSync", "False", "ObjectMissing")
    assert told.startswith(f"table shop.gone does not exist in database {tended.shop.name}")
    told = tended.condition(denied, "PrivilegesInSync", "False", "MissingPrivilege")
    assert f"as an administrator run GRANT {closed.owner} TO pgtend_users" in told
    tended.server.execute(f"GRANT {closed.owner} TO pgtend_users")
    touch(tended.cluster, tended.databases, denied)
    ready(tended.cluster, tended.databases, [denied])


@pytest.mark.covers("DatabaseUser.reason.NotReached", "DatabaseUser.reason.InvalidSpec")
def test_a_target_that_cannot_be_used_and_a_name_that_is_too_long(tended: Tended) -> None:
    cluster, space, name, long = tended.cluster, tended.databases, tended.name(), tended.name()
    broken = cluster.get("postgrestarget", space, "orders")
    assert broken is not None
    body = {
        "apiVersion": broken["apiVersion"],
        "kind": broken["kind"],
        "metadata": {"name": "broken", "namespace": space},
        "spec": broken["spec"] | {"members": [{"name": "a", "host": "127.0.0.1", "port": 1}]},
    }
    cluster.apply(body)
    user_body = user(space, name, grants=tended.shop.trio())
    user_body["spec"]["targetRef"]["name"] = "broken"
    cluster.apply(user_body, user(space, long, roleName="ü" * 40))
    told = tended.condition(name, "Ready", "False", "ConnectionRefused")
    assert told.startswith(f"target {space}/broken: 0 of 1 members answer")
    tended.condition(name, "InSync", "Unknown", "NotReached")
    told = tended.condition(long, "Accepted", "False", "InvalidSpec")
    assert told.startswith("spec.roleName: ") and "at most 63 bytes" in told
    assert secret(cluster, space, name) == {}
    cluster.kubectl("delete", KIND, "-n", space, name, long)
    cluster.kubectl("delete", "postgrestarget", "-n", space, "broken")


def test_the_brake_stops_writes_and_only_those(tended: Tended) -> None:
    cluster, space, old, new = tended.cluster, tended.databases, tended.name(), tended.name()
    tended.in_force(user(space, old))
    where, before = ("-n", tended.process.namespace), len(tended.process.log)
    cluster.kubectl("create", "configmap", *where, "pgtend-brake", "--from-literal=paused=true")
    try:
        wait("the brake is seen", lambda: '"brake", "on": true' in tended.process.log[before:])
        cluster.apply(user(space, new, deletionPolicy="Drop"))
        tended.condition(new, "Ready", "False", "BrakeOn")
        touch(cluster, space, old)
        assert tended.role(new) is None
        assert secret(cluster, space, new) == {}
        body = cluster.get(KIND, space, new)
        assert body is not None and "finalizers" not in body["metadata"]
        tended.condition(old, "Ready", "True", "InForce")
    finally:
        cluster.kubectl("delete", "configmap", *where, "pgtend-brake")
    ready(cluster, space, [old, new])


@pytest.mark.covers("DatabaseUser.reason.SecretRefused")
def test_a_secret_that_the_api_server_refuses(tended: Tended) -> None:
    cluster, space = tended.cluster, tended.admitted
    role = tended.server.fresh_name("shop_quota")
    cluster.kubectl("create", "quota", "-n", space, "none", "--hard=count/secrets=0")
    wait(
        "the quota counts",
        lambda: (
            "count/secrets" in cluster.kubectl("get", "quota", "-n", space, "none", "-o", "jsonpath={.status.hard}")
        ),
    )
    cluster.apply(user(space, "quota", target=tended.databases, roleName=role))
    told = tended.condition("quota", "CredentialsReady", "False", "SecretRefused", space=space)
    assert told.startswith("the API server refuses Secret quota: ") and "exceeded quota" in told
    assert tended.role(role) is None
    cluster.kubectl("delete", "quota", "-n", space, "none")
    touch(cluster, space, "quota")
    ready(cluster, space, ["quota"])


# Deletion


@pytest.mark.covers(
    "DatabaseUser.spec.deletionPolicy", "DatabaseUser.reason.SessionsRemain", "DatabaseUser.reason.DropBlocked"
)
def test_deleting_does_what_the_policy_says(tended: Tended) -> None:
    cluster, space = tended.cluster, tended.databases
    retained, disabled, dropped = tended.name(), tended.name(), tended.name()
    policies = {retained: "Retain", disabled: "Disable", dropped: "Drop"}
    bodies = [user(space, name, deletionPolicy=policy, grants=tended.shop.trio()) for name, policy in policies.items()]
    tended.in_force(*bodies)
    finalizers = {name: (cluster.get(KIND, space, name) or {})["metadata"].get("finalizers") for name in policies}
    assert finalizers == {retained: None, disabled: ["pgtend.dev/user"], dropped: ["pgtend.dev/user"]}
    uris = {name: secret(cluster, space, name)["uri"] for name in policies}

    with psycopg.connect(uris[dropped]):
        cluster.kubectl("delete", "--wait=false", KIND, "-n", space, dropped)
        told = tended.condition(dropped, "Ready", "False", "SessionsRemain")
        assert told.startswith(f"role {dropped} has 1 session")
    tended.server.execute(
        f'CREATE TABLE shop.blocker (); ALTER TABLE shop.blocker OWNER TO "{dropped}"', dbname=tended.shop.name
    )
    touch(cluster, space, dropped)
    told = tended.condition(dropped, "Ready", "False", "DropBlocked")
    assert f"owns 1 object (table shop.blocker in database {tended.shop.name})" in told
    assert can_log_in(uris[dropped])
    tended.server.execute("DROP TABLE shop.blocker", dbname=tended.shop.name)
    touch(cluster, space, dropped)
    tended.gone(dropped)
    assert tended.role(dropped) is None
    assert secret(cluster, space, dropped) == {}

    cluster.kubectl("delete", KIND, "-n", space, retained, disabled)
    mark = f"[pgtend:1:{tended.process.installation}:{space}/{{}}]"
    assert tended.role(retained) == (True, -1, mark.format(retained))
    assert tended.role(disabled) == (False, -1, mark.format(disabled))
    assert can_log_in(uris[retained]) and not can_log_in(uris[disabled])
    # a recreated object takes its role and its Secret up again
    tended.in_force(*(body for body in bodies if body["metadata"]["name"] != dropped))
    assert secret(cluster, space, retained)["uri"] == uris[retained]
    assert secret(cluster, space, disabled)["uri"] == uris[disabled]
    assert can_log_in(uris[retained]) and can_log_in(uris[disabled])


def test_what_may_not_be_undone_is_listed_and_holds_nobody(tended: Tended) -> None:
    cluster, space, name = tended.cluster, tended.databases, tended.name()
    tended.in_force(user(space, name, deletionPolicy="Drop"))
    cluster.apply(user(space, name, deletionPolicy="Drop", mode="Observe"))
    tended.condition(name, "Ready", "True", "Observing")
    cluster.kubectl("delete", "--timeout=60s", KIND, "-n", space, name)
    assert tended.role(name) is not None
    (entry,) = [e for e in tended.ledger() if e["name"] == name]
    assert (entry["retry"], entry["sql"]) == (False, f'DROP ROLE "{name}"')
    assert entry["reason"].startswith("Observing: ")
    # it lives again: nothing is left behind any more
    tended.in_force(user(space, name, deletionPolicy="Retain"))
    wait("the ledger forgets it", lambda: not [e for e in tended.ledger() if e["name"] == name])
