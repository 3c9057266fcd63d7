"""`pgtend plan -f` on real servers: what it prints is what has to be done, by the operator's own login, and no more."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import PASSWORDS, Shop

from pgtend.__main__ import main

INSTALLATION = "testing"


@dataclass
class Ground:
    server: PostgresServer
    shop: Shop
    folder: Path

    def plan(self, *users: dict[str, Any], output: str = "json", **target: Any) -> Result:
        (self.folder / "dsn").write_text(self.server.dsn("pgtend_users", password=PASSWORDS["pgtend_users"]))
        credentials = {name: {"password": {"secretRef": {"name": name}}} for name in ("monitor", "users")}
        spec = {"mode": "Enforce", "members": [{"name": "a", "host": "127.0.0.1"}], "credentials": credentials}
        self._write("target.yaml", _object("PostgresTarget", "databases", "orders", {**spec, **target}))
        self._write("users.yaml", {"apiVersion": "v1", "kind": "List", "items": list(users)})
        words = ["--dsn-file", "dsn", "--target-file", "target.yaml", "-f", "users.yaml"]
        words = [str(self.folder / word) if "." in word or word == "dsn" else word for word in words]
        with ThreadPoolExecutor(1) as pool:
            given = ["plan", *words, "-o", output, "--installation-id", INSTALLATION]
            return pool.submit(CliRunner().invoke, main, given).result()

    def users(self, *users: dict[str, Any], exit_code: int = 2, **target: Any) -> list[dict[str, Any]]:
        done = self.plan(*users, **target)
        assert done.exit_code == exit_code, done.output + str(done.exception)
        return list(json.loads(done.stdout)["users"])

    def carry_out(self, user: dict[str, Any]) -> None:
        """What was printed, as it was printed, by the login that the operator would use."""
        for one in user["statements"]:
            with self.server.connect(
                "pgtend_users", one["database"] or "postgres", password=PASSWORDS["pgtend_users"]
            ) as connection:
                connection.execute(one["sql"])

    def _write(self, name: str, body: dict[str, Any]) -> None:
        (self.folder / name).write_text(yaml.safe_dump(body))


def _object(kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "pgtend.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


@pytest.fixture
def ground(server: PostgresServer, tmp_path: Path) -> Ground:
    return Ground(server, Shop.open(server), tmp_path)


def user(ground: Ground, role: str, *, namespace: str = "databases", **spec: Any) -> dict[str, Any]:
    name = ground.server.fresh_name("u").replace("_", "-")
    ref = {"name": "orders", "namespace": "databases"}
    return _object("DatabaseUser", namespace, name, {"targetRef": ref, "roleName": role, **spec})


def test_what_is_printed_is_what_has_to_be_done(ground: Ground) -> None:
    server, shop = ground.server, ground.shop
    role = server.fresh_name('Odd "ü')
    body = user(ground, role, grants=shop.trio("Select", "Update"), settings={"work_mem": "8MB"}, connectionLimit=3)
    [made] = ground.users(body)
    assert made["differences"][0] == f"role {role} does not exist" and not made["problems"]
    create = next(one["sql"] for one in made["statements"] if one["sql"].startswith("CREATE ROLE"))
    assert "PASSWORD '***'" in create
    assert not server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]), "it writes nothing"
    text = ground.plan(body, output="text").stdout
    assert create in text and f"-- in database {shop.name}" in text and "1 to change, 0 refused" in text
    ground.carry_out(made)
    [after] = ground.users(body, exit_code=0)
    assert after["differences"] == after["statements"] == [] and after["refused"] is None
    assert "nothing to do" in ground.plan(body, output="text").stdout

    # drift, and a spec that has changed
    with server.superuser_connect(shop.name) as connection:
        connection.execute(f"SET ROLE {shop.owner}")
        connection.execute('GRANT DELETE ON shop.items TO "{}"'.format(role.replace('"', '""')))
    body["spec"]["connectionLimit"] = 4
    [drifted] = ground.users(body)
    assert len(drifted["differences"]) == len(drifted["statements"]) == 2
    ground.carry_out(drifted)
    ground.users(body, exit_code=0)


def test_who_would_be_refused_is_told_with_the_next_step(ground: Ground) -> None:
    server, shop = ground.server, ground.shop
    taken = server.fresh_role("taken").user
    access = [
        {
            "name": "shop",
            "namespaces": {"names": ["shop"]},
            "kinds": ["DatabaseUser"],
            "users": {"rolePattern": "*", "databases": [shop.name], "maxPrivileges": ["Connect"], "adoption": "Always"},
        }
    ]
    beyond = user(ground, server.fresh_name("a"), namespace="shop", grants=shop.trio("Delete"))
    stranger = user(ground, server.fresh_name("b"), namespace="other")
    exists = user(ground, taken, namespace="shop")
    adopts = user(ground, taken, namespace="shop", adoption="IfUnowned")
    one, two, three = ground.users(beyond, stranger, exists, access=access)
    assert "does not admit privilege" in one["refused"] and "ask its owner" in one["refused"]
    assert two["refused"] and three["refused"] and "adoption" in three["refused"]
    assert not any(made["statements"] for made in (one, two, three))
    [four] = ground.users(adopts, access=access)
    if server.major < 16:
        assert four["refused"] is None
        assert any(one["sql"].startswith("COMMENT ON ROLE") for one in four["statements"])
        assert any("not compared here" in text for text in four["differences"])
    else:  # without ADMIN OPTION it may not be altered
        assert "WITH ADMIN OPTION" in four["refused"]
    # two objects in one file for one role
    first, second = (user(ground, taken_name, grants=[]) for taken_name in [server.fresh_name("c")] * 2)
    both = ground.users(first, second)
    assert sum(made["refused"] is not None for made in both) == 1
    # a mode that writes nothing says so
    [observed] = ground.users(first, mode="Observe")
    assert any("mode Observe" in note for note in observed["notes"]) and observed["statements"]


def test_what_cannot_be_told_is_an_error_and_no_plan(ground: Ground) -> None:
    wrong = user(ground, "x" * 70)
    done = ground.plan(wrong)
    assert done.exit_code == 1 and "spec" in done.stderr and not done.stdout
    elsewhere = user(ground, "fine")
    elsewhere["spec"]["targetRef"]["name"] = "another"
    done = ground.plan(elsewhere)
    assert done.exit_code == 1 and "databases/another" in done.stderr


def test_two_logins_are_planned_with_the_role_that_they_act_as(ground: Ground) -> None:
    role = ground.server.fresh_name("app")
    body = user(ground, role, grants=ground.shop.trio(), rotation={"strategy": "DualRole"})
    (told,) = ground.users(body)
    assert (
        told["differences"][0] == f"role {role} does not exist"
        and f"role {role}_a does not exist" in told["differences"]
    )
    shown = [one["sql"] for one in told["statements"]]
    assert any(text.startswith(f'CREATE ROLE "{role}" NOLOGIN') and text.endswith("PASSWORD NULL") for text in shown)
    assert f'ALTER ROLE "{role}_a" SET "role" TO \'{role}\'' in shown and not any(f"{role}_b" in text for text in shown)
    ground.carry_out(told)
    ground.users(body, exit_code=0)
    # another's role is no login, and nothing is done for the rest of it
    ground.server.execute(f"CREATE ROLE {role}_b LOGIN")
    (told,) = ground.users(body)
    assert f"role {role}_b exists and was not made by pgtend" in told["refused"] and told["statements"] == []
