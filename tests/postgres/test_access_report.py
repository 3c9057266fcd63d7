"""`pgtend access report` on real servers: the command itself, by a connection string, as an administrator runs it."""

from __future__ import annotations

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result
from tests.fixtures.postgres import Login, PostgresServer
from tests.postgres.users_ground import Shop, tend, user
from tests.postgres.users_ground import reached as reached_server

from pgtend.__main__ import main

ROOT = Path(__file__).parents[2]
ODD = "Odd \"role\", <b>&'Ünï' $(id)"
SCHEMA = json.loads((ROOT / "docs/reference/access-report.schema.json").read_text())


def command(*words: str) -> Result:
    """In a thread of its own: the command brings its own event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(CliRunner().invoke, main, ["access", "report", *words]).result()


@dataclass
class Ground:
    """A shop with something of everything that the report looks for, and the command before it."""

    server: PostgresServer
    shop: Shop
    folder: Path

    def run(self, *words: str, user: Login | None = None) -> Result:
        path = self.folder / "dsn"
        path.write_text(self.server.dsn(user))
        return command("--dsn-file", str(path), *words)

    def report(self, *words: str, user: Login | None = None) -> dict[str, Any]:
        done = self.run("-o", "json", *words, user=user)
        assert done.exit_code == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        jsonschema.validate(found, SCHEMA)
        return found

    def target(self, waivers: list[dict[str, Any]]) -> Path:
        path = self.folder / "target.yaml"
        spec = {
            "members": [{"name": "a", "host": "127.0.0.1"}],
            "credentials": {"monitor": {"password": {"secretRef": {"name": "monitor"}}}},
            "waivers": waivers,
        }
        body = {"apiVersion": "pgtend.dev/v1alpha1", "kind": "PostgresTarget"}
        path.write_text(
            yaml.safe_dump({**body, "metadata": {"name": "orders", "namespace": "databases"}, "spec": spec})
        )
        return path


@pytest.fixture
def ground(server: PostgresServer, tmp_path: Path) -> Ground:
    return Ground(server, Shop.open(server), tmp_path)


def of(report: dict[str, Any], finding: str, role: str) -> list[dict[str, Any]]:
    return [one for one in report["findings"] if one["finding"] == finding and one["role"] == role]


def may(report: dict[str, Any], role: str, name: str) -> set[tuple[str, str, str | None]]:
    """What of an object, by what."""
    return {
        (word, row["via"], row["viaRole"])
        for row in report["privileges"]
        if (row["role"], row["object"]) == (role, name)
        for word in row["privileges"]
    }


async def test_who_may_do_what_and_by_what(ground: Ground) -> None:
    server, shop = ground.server, ground.shop
    outer, inner, apart = (server.fresh_role(name).user for name in ("outer", "inner", "apart"))
    person = user(server, grants=shop.trio("Select"))
    async with reached_server(server) as target:
        assert (await tend(target, person)).clean()
    with server.superuser_connect(shop.name) as connection:
        connection.execute(f"GRANT UPDATE ON shop.items TO {inner} WITH GRANT OPTION")
        connection.execute(f"GRANT DELETE ON shop.lines TO {apart}")
        connection.execute(f"GRANT UPDATE (id) ON shop.lines TO {outer}")
        connection.execute("GRANT INSERT ON shop.lines TO PUBLIC")
        connection.execute(f"GRANT {inner} TO {outer}")
        connection.execute(f'GRANT {outer} TO "{person.role}"')
        connection.execute(f"ALTER ROLE {outer} NOINHERIT" if server.major < 16 else "SELECT 1")
    report = ground.report()
    # before 16 it is the member in the middle that does not hand on
    inherited = {("Update", "Role", inner)} if server.major >= 16 else set()
    assert may(report, person.role, "items") == {("Select", "Direct", None)} | inherited
    assert may(report, person.role, "lines") == {("Select", "Direct", None), ("Update", "Role", outer)}
    assert may(report, "PUBLIC", "lines") == {("Insert", "Public", None)}
    assert ("Select", "Owner", None) in may(report, shop.owner, "items")
    assert may(report, person.role, outer) == {("Member", "Direct", None)}
    [role] = [role for role in report["roles"] if role["name"] == person.role]
    assert role["effective"]["direct"] == 4
    assert ("Insert", "Public", None) in may(ground.report("--role", person.role), person.role, "lines")
    assert {row["role"] for row in ground.report("--role", person.role)["privileges"]} == {person.role}
    [handed] = [r for r in report["privileges"] if r["role"] == inner and r["object"] == "items"]
    assert handed["grantOption"] == ["Update"]


async def test_each_finding_is_made_and_found(ground: Ground) -> None:
    server, shop = ground.server, ground.shop
    name, quoted = server.fresh_name("all"), '"' + ODD.replace('"', '""') + '"'
    declared = user(server, grants=shop.trio())
    async with reached_server(server) as target:
        assert (await tend(target, declared)).clean()
    with server.superuser_connect(shop.name) as connection:
        connection.execute("SET password_encryption = 'md5'")
        connection.execute(f"CREATE ROLE {name} SUPERUSER LOGIN PASSWORD 'a-password-to-be-hashed'")
        connection.execute(f"CREATE ROLE {quoted} LOGIN VALID UNTIL '2040-01-01'")
        connection.execute("GRANT SELECT ON shop.items TO PUBLIC")
        body = "LANGUAGE sql SECURITY DEFINER {} AS 'SELECT 1'"
        connection.execute(f"CREATE FUNCTION shop.open() RETURNS int {body.format('')}")
        connection.execute(f"CREATE FUNCTION shop.shut() RETURNS int {body.format('SET search_path = pg_catalog')}")
    try:
        report = ground.report()
        for finding in ("Superuser", "RoleWithoutExpiry", "NonScramVerifier", "UndeclaredRole"):
            assert len(of(report, finding, name)) == 1, finding
        assert not of(report, "RoleWithoutExpiry", ODD)
        assert of(report, "UndeclaredRole", ODD) and not of(report, "UndeclaredRole", declared.role)
        assert not of(report, "NonScramVerifier", declared.role)
        public = [one["message"] for one in of(report, "PublicGrant", "PUBLIC")]
        assert f"PUBLIC has Select on table items in schema shop of database {shop.name}" in public
        unsafe = [one["object"] for one in report["findings"] if one["finding"].startswith("SecurityDefiner")]
        assert f"shop.open() of database {shop.name}" in unsafe
        assert f"shop.shut() of database {shop.name}" not in unsafe
        [check] = [one for one in report["checks"] if one["finding"] == "UnusedLogin"]
        assert (check["state"], "pg_stat_statements" in check["message"]) == ("Unknown", True)
        # in all shapes a name is a name
        page = ground.run("-o", "html").stdout
        assert "<b>" not in page and ODD in _Texts.of(page)
        lines = list(csv.DictReader(io.StringIO(ground.run("-o", "csv").stdout)))
        assert {"Server"} == {line["kind"] for line in lines if line["role"] == name and line["via"] == "Superuser"}
        assert ODD in ground.run().stdout
        assert "SCRAM-SHA-256$" not in page and "md5" not in json.dumps(report["roles"]).lower().replace('"md5"', "")
    finally:
        for role in (name, quoted):
            server.execute(f"DROP ROLE IF EXISTS {role}")


@pytest.mark.covers(
    "PostgresTarget.spec.waivers.name",
    "PostgresTarget.spec.waivers.finding",
    "PostgresTarget.spec.waivers.role",
    "PostgresTarget.spec.waivers.until",
    "PostgresTarget.spec.waivers.reason",
)
def test_what_is_waived_is_marked_until_its_day(ground: Ground) -> None:
    server = ground.server
    batch = server.fresh_role("batch").user
    later, gone = ((datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ") for days in (30, -1))
    waiver = {"name": "legacy", "finding": "RoleWithoutExpiry", "role": batch, "until": later, "reason": "ticket 88"}
    path = ground.target([waiver])
    [one] = of(ground.report("--target-file", str(path)), "RoleWithoutExpiry", batch)
    assert one["waived"] and one["waiver"] == {"name": "legacy", "until": later, "reason": "ticket 88"}
    # of this role and this finding alone
    assert not of(ground.report("--target-file", str(path)), "UndeclaredRole", batch)[0]["waived"]
    path = ground.target([{**waiver, "until": gone}])
    [one] = of(ground.report("--target-file", str(path)), "RoleWithoutExpiry", batch)
    assert not one["waived"] and one["waiver"]["until"] == gone
    assert f"legacy expired {gone}" in ground.run("--target-file", str(path)).stdout
    assert ground.run("--findings-only").exit_code == 0
    assert ground.run("--findings-only", "--fail").exit_code == 2


def test_what_may_not_be_seen_is_unknown_and_a_password_is_no_argument(ground: Ground) -> None:
    server = ground.server
    plain = server.fresh_role("plain")
    shut = server.fresh_database("shut")
    server.execute(f"REVOKE CONNECT ON DATABASE {shut} FROM PUBLIC")
    report = ground.report(user=plain)
    [check] = [one for one in report["checks"] if one["finding"] == "NonScramVerifier"]
    assert check["state"] == "Unknown" and "may not read pg_authid" in check["message"]
    assert {role["verifier"] for role in report["roles"]} == {"Unknown"}
    assert {"database": shut, "message": f"{plain.user} may not connect to it"} in report["unread"]
    refused = command("--dsn", "host=127.0.0.1 password=hunter22")
    assert refused.exit_code == 1 and "seen by everybody" in refused.stderr
    assert "hunter22" not in refused.stderr + refused.stdout


def test_logins_without_a_statement_are_told_where_there_is_a_record(ground: Ground) -> None:
    server = ground.server
    busy, idle = server.fresh_role("busy"), server.fresh_role("idle")
    server.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    # one that had to drop entries is no record, as after many other tests
    server.execute("SELECT 1 FROM pg_stat_statements_reset()")
    try:
        with server.connect(busy) as connection:
            connection.execute("SELECT 1")
        report = ground.report()
    finally:
        server.execute("DROP EXTENSION pg_stat_statements")
    assert of(report, "UnusedLogin", idle.user) and not of(report, "UnusedLogin", busy.user)


class _Texts(HTMLParser):
    """All texts of a page, as a browser reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    @classmethod
    def of(cls, page: str) -> str:
        reader = cls()
        reader.feed(page)
        return "\n".join(reader.found)

    def handle_data(self, data: str) -> None:
        self.found.append(data)
