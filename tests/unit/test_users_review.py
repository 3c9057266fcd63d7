"""`pgtend plan`: what is told of one DatabaseUser, whatever stands in its way, and that nothing of a password is."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from pgtend.__main__ import main
from pgtend.api.databaseuser import DATABASE_USER
from pgtend.api.postgrestarget import TargetSpec
from pgtend.cli.reach import as_served
from pgtend.cli.review import Review, Scene, review
from pgtend.core.findings import ObjectKey
from pgtend.kube.index import Record, record_of
from pgtend.server.consent import Requester
from pgtend.users.state import SERVER, DatabaseView, GroupState, ObjectState, Observed, RoleState

TARGET = ObjectKey("PostgresTarget", "databases", "orders")
MARK = "[pgtend:1:here:databases/app]"


def record(name: str = "app", **spec: Any) -> Record:
    body = {"metadata": {"name": name}, "spec": {"targetRef": {"name": "orders"}, **spec}}
    found = record_of(DATABASE_USER, as_served(body, "databases"))
    assert found.spec_error is None, found.spec_error
    return found


def scene(*there: Record, roles: dict[str, RoleState] | None = None, **rest: Any) -> Scene:
    words = {name: {"password": {"secretRef": {"name": name}}} for name in ("monitor", "users")}
    spec = {"mode": "Enforce", "members": [{"name": "a", "host": "a"}], "credentials": words}
    orders = ObjectState(
        kind="Database", database="orders", name="orders", owner="owner", grantable=frozenset({"Connect"})
    )
    observed = Observed(
        roles=roles or {},
        databases={
            "orders": DatabaseView(itself=orders, inside={}),
            SERVER: DatabaseView(itself=ObjectState(kind="Server", database=SERVER, name=SERVER)),
        },
        groups={"reporting": GroupState(name="reporting")},
    )
    return Scene(
        target=TARGET,
        spec=TargetSpec.model_validate({**spec, **rest}),
        observed=observed,
        there={one.key: one for one in there},
        requester=lambda space: Requester(namespace=space, labels=None),
        installation="here",
    )


def told(one: Record, at: Scene, *others: Record) -> Review:
    return review(one, at, others=(one, *others))


def test_statements_are_in_the_order_of_the_operator_and_hold_no_password() -> None:
    grant = {"database": "orders", "kind": "Database", "privileges": ["Connect"]}
    made = told(record(grants=[grant], memberOf=[{"role": "reporting"}]), scene())
    assert made.refused is None and made.is_change
    starts = [text.split(" ", 2)[0] for _, text in made.statements]
    assert starts == ["CREATE", "COMMENT", "GRANT", "GRANT"]
    assert "PASSWORD '***'" in made.statements[0][1] and MARK in made.statements[1][1]
    assert "PASSWORD NULL" in told(record(password={"none": {}}), scene()).statements[0][1]


def test_nothing_to_do_is_no_change() -> None:
    made = told(record(), scene(roles={"app": RoleState(name="app", comment=MARK)}))
    assert not made.is_change and made.statements == ()


@pytest.mark.parametrize(
    ("spec", "before", "words"),
    [
        ({"roleName": "other"}, {}, "roleName is immutable"),
        ({"targetRef": {"name": "orders", "namespace": "databases"}}, {}, "targetRef is immutable"),
        ({"roleName": "pg_app"}, None, "may not be tended"),
        ({"memberOf": [{"role": "pg_execute_server_program"}]}, None, "unless an access entry lists it"),
    ],
)
def test_what_would_be_refused(spec: dict[str, Any], before: dict[str, Any] | None, words: str) -> None:
    there = (record(**before),) if before is not None else ()
    made = told(record(**spec), scene(*there), *there)
    assert made.refused is not None and words in made.refused and made.is_change and not made.statements


def test_of_two_for_one_role_the_holder_of_the_mark_wins() -> None:
    first, second = record(), record("second", roleName="app")
    at = scene(roles={"app": RoleState(name="app", comment=MARK)})
    assert told(first, at, second).refused is None
    assert "databases/app" in str(told(second, at, first).refused)


def test_what_is_suspended_or_observed_is_said() -> None:
    made = told(record(suspend=True), scene())
    assert not made.is_change and "suspend" in made.notes[0]
    made = told(record(mode="Observe"), scene())
    assert made.is_change and made.statements and "it is in mode Observe" in made.notes[0]
    assert "target databases/orders is in mode Observe" in told(record(), scene(mode="Observe")).notes[0]


@pytest.mark.parametrize("words", [[], ["-f", "missing.yaml"], ["-f", ".", "--dsn", "service=a"]])
def test_usage(words: list[str]) -> None:
    assert CliRunner().invoke(main, ["plan", *words]).exit_code == 2
