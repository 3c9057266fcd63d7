"""What an import says of a role: exactly what it is, or that it cannot, and never more by accident."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.thorough import cases

from pgtend.api.databaseuser import UserSpec
from pgtend.api.privileges import PRIVILEGES
from pgtend.users.imports import Imported, importable, imported, object_names
from pgtend.users.state import SERVER, DatabaseView, Held, Membership, ObjectState, Observed, RoleState


def table(name: str, *words: str, grantable: tuple[str, ...] = (), **rest: Any) -> ObjectState:
    held = Held(frozenset(words), frozenset(grantable), frozenset(words))  # type: ignore[arg-type]
    base = {"kind": "Table", "database": "orders", "schema": "shop", "owner": "owner"}
    return ObjectState(**{**base, "name": name, "held": {"app": held} if words else {}, **rest})


def view(*tables: ObjectState, others: tuple[ObjectState, ...] = ()) -> DatabaseView:
    schema = ObjectState(kind="Schema", database="orders", name="shop", owner="owner")
    return DatabaseView(
        itself=ObjectState(kind="Database", database="orders", name="orders", owner="owner"),
        schemas={"shop": schema},
        tables={"shop": {one.name: one for one in tables if one.column is None}},
        others=(*others, *(one for one in tables if one.column is not None)),
    )


def said(seen: DatabaseView | None = None, *, major: int = 18, verifier: str = "Scram", **rest: Any) -> Imported:
    role = RoleState(name="app", **rest)
    databases = {
        "orders": seen or view(),
        SERVER: DatabaseView(itself=ObjectState(kind="Server", database="", name="")),
    }
    observed = Observed(roles={"app": role}, databases=databases, version=major)
    return imported(role, observed, target={"name": "orders"}, name="app", namespace="shop", verifier=verifier)


def test_alike_objects_share_a_grant_and_what_may_be_handed_on_is_apart() -> None:
    made = said(view(table("a", "Select"), table("b", "Select"), table("c", "Select", "Insert", grantable=("Insert",))))
    assert made.exact and made.spec is not None
    base = {"database": "orders", "kind": "Table", "schema": "shop"}
    assert made.spec["grants"] == [
        {**base, "names": ["c"], "privileges": ["Insert"], "grantOption": True},
        {**base, "names": ["a", "b", "c"], "privileges": ["Select"]},
    ]
    assert made.spec["adoption"] == "IfUnowned" and "pruning" not in made.spec


def test_a_name_that_is_a_pattern_of_others_is_left_alone() -> None:
    alone = said(view(table("a*b", "Select")))
    assert alone.exact and "pruning" not in alone.spec  # type: ignore[operator]
    made = said(view(table("a*b", "Select"), table("axb")))
    assert made.exact and made.spec is not None
    assert "grants" not in made.spec and made.spec["pruning"] == "None"
    assert any("pattern" in note for note in made.notes)


def test_more_names_than_a_spec_holds_become_all_where_they_are_all() -> None:
    many = [table(f"t{n}", "Select") for n in range(64 * 64 + 1)]
    made = said(view(*many))
    assert made.exact and made.spec is not None
    assert made.spec["grants"] == [{"database": "orders", "kind": "Table", "schema": "shop", "privileges": ["Select"]}]
    assert any("new ones" in note for note in made.notes)
    none = said(view(*many, table("other")))
    assert none.spec is None and "grants" in none.notes[0]


def test_what_a_spec_cannot_say_is_told_and_left_alone() -> None:
    held = Held(frozenset({"Select"}), frozenset({"Select"}), frozenset({"Select"}))
    future = ObjectState(kind="DefaultTable", database="orders", name="migrator", held={"app": held})
    made = said(view(others=(future,)))
    assert made.exact and made.spec is not None and made.spec["pruning"] == "None"
    made = said(memberships=tuple(Membership(role=f"group_{n}") for n in range(33)))
    assert made.spec is None and "memberOf" in made.notes[0]


@pytest.mark.parametrize(
    ("verifier", "login", "password"),
    [
        ("Scram", True, {"secretRef": {"name": "app-password"}}),
        ("Unknown", True, {"secretRef": {"name": "app-password"}}),
        ("Md5", False, {"secretRef": {"name": "app-password"}}),
        ("None", True, {"none": {}}),
        ("None", False, {"none": {}}),
        ("Unknown", False, {"none": {}}),
    ],
)
def test_the_password_stays_the_one_it_is(verifier: str, login: bool, password: dict[str, Any]) -> None:
    made = said(verifier=verifier, login=login)
    assert made.spec is not None and made.spec["password"] == password


def test_who_is_never_imported() -> None:
    assert importable(RoleState(name="app"), logins=()) is None
    assert importable(RoleState(name="pgtend_users"), logins={"pgtend_users"}) is not None
    assert importable(RoleState(name="rds_iam"), logins=()) is not None
    assert importable(RoleState(name="app", powerful=True), logins=()) is not None


@given(st.sets(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=63), max_size=30))
def test_objects_have_names_of_their_own(roles: set[str]) -> None:
    found = object_names(sorted(roles))
    assert found.keys() == roles and len(set(found.values())) == len(roles)
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 52 for name in found.values())


WORDS = PRIVILEGES["Table"]
_held = st.sets(st.sampled_from(WORDS), min_size=1).flatmap(
    lambda words: st.builds(
        lambda handed, ours: Held(frozenset(words), frozenset(handed), frozenset(ours)),
        st.sets(st.sampled_from(sorted(words))),
        st.sets(st.sampled_from(sorted(words))),
    )
)


@cases(200)
@given(
    tables=st.dictionaries(st.text("ab*\"' ü.", min_size=1, max_size=4), st.none() | _held, max_size=8),
    memberships=st.lists(
        st.builds(
            Membership,
            role=st.sampled_from(["one", "two"]),
            admin=st.booleans(),
            inherit=st.booleans(),
            set_=st.booleans(),
            ours=st.booleans(),
        ),
        max_size=4,
        unique_by=lambda one: (one.role, one.ours),
    ),
    valid_until=st.none() | st.integers(-1, 4_000_000_000_000_000),
    limit=st.integers(-1, 100),
    login=st.booleans(),
    elevated=st.sets(st.sampled_from(["CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS"])),
)
def test_the_plan_of_what_is_imported_is_empty(
    tables: dict[str, Held | None],
    memberships: list[Membership],
    valid_until: int | None,
    limit: int,
    login: bool,
    elevated: set[str],
) -> None:
    items = [table(name, held={"app": held} if held is not None else {}) for name, held in tables.items()]
    made = said(
        view(*items),
        memberships=tuple(memberships),
        valid_until=valid_until,
        connection_limit=limit,
        login=login,
        elevated=frozenset(elevated),
    )
    # `exact` is what the plan itself said of it
    assert made.exact, made
    UserSpec.model_validate(made.spec)
