"""The plan, by example and by property: after applying it is empty, from wherever it starts; nothing that another
granted, and nothing that no spec can say, is taken away; no secret shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.thorough import cases

from pgtend.api.databaseuser import MemberOf
from pgtend.api.grants import DefaultPrivilege, Grant
from pgtend.api.privileges import MEMBER_OF, PRESETS
from pgtend.api.reasons import UserReason as R
from pgtend.api.settings import elements
from pgtend.core.actions import Action
from pgtend.core.redaction import Sensitive
from pgtend.users.actions import (
    NO_END,
    AlterRole,
    ChangeSetting,
    CreateRole,
    GrantMembership,
    GrantPrivileges,
    MembershipAction,
    PrivilegeAction,
    RevokeMembership,
    RevokePrivileges,
    RoleOptions,
    SetPassword,
)
from pgtend.users.plan import Credential, Plan, plan
from pgtend.users.state import DatabaseView, Given, GroupState, Held, Membership, ObjectState, Observed, RoleState
from pgtend.users.wanted import Wanted
from pgtend.users.wishes import expand, member_of

MARK = "[pgtend:1:test:shop/app]"
ROLE = "shop_app"
TABLE = ("Select", "Insert", "Update", "Delete")
GROUPS = ("reporting", "batch")
SETTINGS = ("work_mem", "search_path", "statement_timeout")


def database(name: str = "orders", tables: Iterable[str] = ("items", "lines"), **rest: Any) -> DatabaseView:
    def item(kind: str, called: str, schema: str | None, words: Iterable[str]) -> ObjectState:
        return ObjectState(
            kind=kind,
            database=name,
            name=called,
            schema=schema,
            owner="owner",
            grantable=frozenset(words),  # type: ignore[arg-type]
        )

    return DatabaseView(
        itself=item("Database", name, None, ["Connect"]),
        schemas={schema: item("Schema", schema, None, ["Usage"]) for schema in ("shop", "other")},
        tables={"shop": {table: item("Table", table, "shop", TABLE) for table in tables}},
        **rest,
    )


def world(role: RoleState | None = None, *views: DatabaseView) -> Observed:
    found = views or (database(),)
    return Observed(
        roles={} if role is None else {role.name: role},
        databases={view.itself.name: view for view in found},
        settable=EVERY,
        groups={name: GroupState(name=name) for name in GROUPS},
        settings=dict.fromkeys(SETTINGS, True),
    )


def grant(kind: str, *privileges: str, **rest: Any) -> Grant:
    return Grant.model_validate({"database": "orders", "kind": kind, "privileges": list(privileges), **rest})


TRIO = (
    grant("Database", "Connect"),
    grant("Schema", "Usage", names=["shop"]),
    grant("Table", "Select", "Insert", schema="shop"),
)


def want(*grants: Grant, **rest: Any) -> Wanted:
    return Wanted(role=ROLE, mark=MARK, grants=grants, **rest)


EVERY = frozenset({"SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS"})


def marked(**rest: Any) -> RoleState:
    return RoleState(name=ROLE, comment=MARK, **rest)


# A model of what the actions do


def applied(actions: Iterable[Action], observed: Observed) -> Observed:
    for action in actions:
        if isinstance(action, CreateRole):
            state = _set(RoleState(name=action.role), action.options)
            observed = replace(observed, roles={**observed.roles, action.role: replace(state, comment=action.comment)})
        elif isinstance(action, AlterRole):
            state = _set(observed.roles[action.role], action.options)
            observed = replace(observed, roles={**observed.roles, action.role: state})
        elif isinstance(action, ChangeSetting | MembershipAction):
            state = _changed(observed.roles[action.role], action, observed)
            observed = replace(observed, roles={**observed.roles, action.role: state})
        elif isinstance(action, PrivilegeAction):
            view = _change(observed.databases[action.database], action)
            observed = replace(observed, databases={**observed.databases, action.database: view})
        else:
            assert isinstance(action, SetPassword)
    return observed


def _changed(state: RoleState, action: ChangeSetting | MembershipAction, observed: Observed) -> RoleState:
    if isinstance(action, ChangeSetting):
        assert observed.settings.get(action.name.lower()), "the server would refuse this"
        kept = dict(state.settings.get(action.database, {}))
        before = kept.pop(action.name, None)
        if action.values is not None:
            kept[action.name] = ", ".join(action.values)
        assert kept.get(action.name) != before, "an ALTER ROLE without effect rewrites the catalog"
        return replace(state, settings={**state.settings, action.database: kept})
    others = tuple(m for m in state.memberships if not (m.ours and m.role == action.group))
    (mine,) = [m for m in state.memberships if m.ours and m.role == action.group] or [None]
    if isinstance(action, RevokeMembership):
        assert mine is not None, "a REVOKE of what others granted has no effect"
        return replace(state, memberships=(*others, replace(mine, admin=False)) if action.admin_only else others)
    assert isinstance(action, GrantMembership)
    assert observed.groups[action.group].grantable, "the server would refuse this"
    inherit, set_ = action.inherit is not False, action.set_ is not False
    made = Membership(role=action.group, admin=action.admin, inherit=inherit, set_=set_, ours=True)
    assert made != mine, "without effect"
    return replace(state, memberships=(*others, made))


def _set(state: RoleState, options: RoleOptions) -> RoleState:
    return replace(
        state,
        login=state.login if options.login is None else options.login,
        inherit=state.inherit if options.inherit is None else options.inherit,
        connection_limit=state.connection_limit if options.connection_limit is None else options.connection_limit,
        valid_until=state.valid_until
        if options.valid_until is None
        else None
        if options.valid_until == NO_END
        else options.valid_until,
        elevated=state.elevated - set(options.without) | set(options.having),
    )


def _change(view: DatabaseView, action: PrivilegeAction) -> DatabaseView:
    def changed(item: ObjectState) -> ObjectState:
        if (item.kind, item.schema) != (action.kind, action.schema) or item.name not in action.names:
            return item
        held = item.held.get(action.role, Held(frozenset()))
        if action.columns and item.column not in action.columns:
            return item
        if item.column is not None and not action.columns:
            if not isinstance(action, RevokePrivileges) or action.role not in item.held:
                return item
            # what a table's REVOKE does to its columns
            gone = action.privileges & held.ours
            if action.option_only:
                return replace(item, held={**item.held, action.role: replace(held, grantable=held.grantable - gone)})
            after = Held(held.all - gone, held.grantable - gone, held.ours - gone)
            return replace(item, held={**item.held, action.role: after})
        if isinstance(action, GrantPrivileges):
            assert action.privileges <= item.grantable, "the server would refuse this"
            effect = held.grantable if action.option else held.all
            assert not action.privileges <= effect, "a GRANT without effect rewrites the catalog"
            handed = held.grantable | action.privileges if action.option else held.grantable
            after = Held(held.all | action.privileges, handed, held.ours | action.privileges)
        else:
            assert isinstance(action, RevokePrivileges)
            if item.column is None:
                assert action.privileges <= held.ours, "a REVOKE of what others granted has no effect"
            if action.option_only:
                after = Held(held.all, held.grantable - action.privileges, held.ours)
            else:
                gone = action.privileges
                after = Held(held.all - gone, held.grantable - gone, held.ours - gone)
        return replace(item, held={**item.held, action.role: after})

    return DatabaseView(
        itself=changed(view.itself),
        schemas={name: changed(item) for name, item in view.schemas.items()},
        tables={s: {name: changed(item) for name, item in found.items()} for s, found in view.tables.items()},
        others=tuple(changed(item) for item in view.others),
    )


def done(wanted: Wanted, observed: Observed, credential: Credential | None = None) -> tuple[Plan, Plan]:
    first = plan(wanted=wanted, observed=observed, credential=credential or Credential())
    after = applied(first.actions, observed)
    return first, plan(wanted=wanted, observed=after, credential=Credential())


# By example


def test_a_new_role_with_the_classic_trio() -> None:
    first, second = done(want(*TRIO, connection_limit=5), world())
    assert [type(action).__name__ for action in first.actions] == ["CreateRole"] + ["GrantPrivileges"] * 3
    assert (first.privileges, first.databases) == (6, 1)
    assert first.differences[0] == "role shop_app does not exist"
    assert "Select, Insert on 2 tables of schema shop of database orders (items, lines) is missing" in first.differences
    assert second.actions == second.differences == ()


def test_what_is_as_wanted_is_not_touched() -> None:
    _, second = done(want(*TRIO), world())
    assert second.actions == ()


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"login": False}, "login is false, not true"),
        ({"inherit": False}, "inherit is false, not true"),
        ({"connection_limit": 3}, "connectionLimit is 3, not unlimited"),
        ({"valid_until": 0}, "validUntil is 1970-01-01T00:00:00Z, not never"),
        ({"valid_until": -1}, "validUntil is 1969-12-31T23:59:59Z, not never"),
        ({"elevated": frozenset({"SUPERUSER"})}, "the role has SUPERUSER"),
        ({"settings": {None: {"work_mem": "1MB"}}}, "setting work_mem is 1MB, and not in the spec"),
        (
            {"settings": {"orders": {"work_mem": "1MB"}}},
            "setting work_mem in database orders is 1MB, and not in the spec",
        ),
        ({"memberships": (Membership(role="batch", ours=True),)}, "membership in batch is beyond the spec"),
    ],
)
def test_each_attribute_is_drift(state: dict[str, Any], text: str) -> None:
    first, second = done(want(), world(marked(**state)))
    assert first.differences == (text,)
    assert len(first.actions) == 1
    assert second.actions == ()


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({"inherit": False}, ["inherit is true, not false"]),
        ({"attributes": frozenset({"CREATEDB"})}, ["the role has no CREATEDB"]),
        ({"settings": {None: {"work_mem": "64MB"}}}, ["setting work_mem is not set, not 64MB"]),
        (
            {"settings": {"orders": {"Search_Path": "Shop"}}},
            ["setting Search_Path in database orders is not set, not Shop"],
        ),
        ({"member_of": (MemberOf(role="batch"),)}, ["membership in batch is missing"]),
    ],
)
def test_each_wish_is_a_difference_until_it_is_met(given: dict[str, Any], texts: list[str]) -> None:
    first, second = done(want(**given), world(marked()))
    assert list(first.differences) == texts
    assert second == Plan(memberships=second.memberships)
    # a role that is made has them from the beginning
    first, second = done(want(**given), world())
    assert second == Plan(memberships=second.memberships)


@pytest.mark.parametrize("kept", ['shop, "$user"', 'shop,"$user"', '"shop", "$user"'])
def test_a_list_is_compared_name_by_name(kept: str) -> None:
    found = plan(
        wanted=want(settings={None: {"search_path": 'Shop ,  "$user"'}}),
        observed=world(marked(settings={None: {"search_path": kept}})),
        credential=Credential(),
    )
    assert found.differences == ()


def test_an_administrators_setting_is_left_alone_and_cannot_be_asked_for() -> None:
    role = marked(settings={None: {"log_statement": "all"}})
    assert plan(wanted=want(), observed=world(role), credential=Credential()) == Plan()
    asked = want(settings={None: {"log_statement": "none", "work_mem": "1MB"}})
    found = plan(wanted=asked, observed=world(role), credential=Credential())
    assert [p.reason for p in found.problems] == [R.SETTING_NOT_ALLOWED]
    assert "GRANT SET ON PARAMETER log_statement TO pgtend_users" in found.problems[0].message
    assert [a.name for a in found.actions if isinstance(a, ChangeSetting)] == ["work_mem"]
    old = plan(wanted=asked, observed=replace(world(role), version=14), credential=Credential())
    assert "GRANT SET" not in old.problems[0].message


@pytest.mark.parametrize(
    ("mine", "others", "want_", "does"),
    [
        (None, [Membership(role="batch", admin=True)], {}, None),
        (None, [Membership(role="batch", inherit=False)], {}, GrantMembership),
        (Membership(role="batch", admin=True, ours=True), [], {}, GrantMembership),
        (Membership(role="batch", ours=True), [Membership(role="batch", admin=True)], {"admin": True}, GrantMembership),
        (Membership(role="batch", set_=False, ours=True), [], {"set": False}, None),
    ],
)
def test_memberships_of_others_are_enough_or_left(
    mine: Membership | None, others: list[Membership], want_: dict[str, Any], does: type[Action] | None
) -> None:
    wanted = want(member_of=(MemberOf.model_validate({"role": "batch", **want_}),))
    held = (*others, *([mine] if mine else []), Membership(role="reporting"))
    first, second = done(wanted, world(marked(memberships=held)))
    assert [type(a) for a in first.actions] == ([does] if does else [])
    assert second.actions == second.differences == ()


@pytest.mark.parametrize(
    ("group", "version", "asked", "reason"),
    [
        (None, 18, {}, R.OBJECT_MISSING),
        (GroupState(name="batch", powerful=True), 18, {}, R.NOT_PERMITTED),
        (GroupState(name="batch", grantable=False), 18, {}, R.MISSING_PRIVILEGE),
        (GroupState(name="batch"), 15, {"inherit": False}, R.NOT_SUPPORTED),
    ],
)
def test_memberships_that_cannot_be(group: GroupState | None, version: int, asked: dict[str, Any], reason: R) -> None:
    observed = replace(world(marked()), version=version, groups={"batch": group} if group else {})
    wanted = want(member_of=(MemberOf.model_validate({"role": "batch", **asked}),))
    found = plan(wanted=wanted, observed=observed, credential=Credential())
    assert [p.reason for p in found.problems] == [reason]
    assert found.actions == () and found.differences == ("membership in batch is missing",)


def test_before_16_admin_is_taken_away_alone_and_anothers_membership_stays_anothers() -> None:
    old = replace(world(marked(memberships=(Membership(role="batch", admin=True, ours=True),))), version=15)
    found = plan(wanted=want(member_of=(MemberOf(role="batch"),)), observed=old, credential=Credential())
    (action,) = found.actions
    assert isinstance(action, RevokeMembership) and action.admin_only
    old = replace(world(marked(memberships=(Membership(role="batch"),))), version=15)
    found = plan(wanted=want(member_of=(MemberOf(role="batch", admin=True),)), observed=old, credential=Credential())
    assert found.actions == () and found.problems[0].reason == R.MISSING_PRIVILEGE


@pytest.mark.parametrize(
    ("credential", "sets"),
    [
        (Credential(ready=True, applied=True, matches=None), False),
        (Credential(ready=True, applied=False, matches=None), True),
        (Credential(ready=True, applied=True, matches=False), True),
        (Credential(ready=True, applied=False, matches=True), False),
        (Credential(ready=False, applied=False, matches=None), False),
        (Credential(ready=False, applied=True, matches=False), False),
    ],
)
def test_when_the_password_is_set(credential: Credential, sets: bool) -> None:
    found = plan(wanted=want(), observed=world(marked()), credential=credential)
    assert found.sets_password is sets
    assert bool(found.differences) is sets


@pytest.mark.parametrize(
    ("state", "sql"),
    [
        ({"elevated": frozenset({"CREATEDB", "BYPASSRLS"})}, "NOBYPASSRLS"),
        ({"elevated": frozenset({"SUPERUSER"}), "alterable": False}, "NOSUPERUSER"),
        ({"login": False, "alterable": False}, "GRANT shop_app TO pgtend_users WITH ADMIN OPTION"),
    ],
)
def test_what_we_may_not_alter_is_told_and_the_rest_is_done(state: dict[str, Any], sql: str) -> None:
    observed = replace(world(marked(**state)), settable=frozenset({"CREATEDB"}))
    found = plan(wanted=want(TRIO[0]), observed=observed, credential=Credential())
    assert [p.reason for p in found.problems] == [R.MISSING_PRIVILEGE]
    assert sql in found.problems[0].message
    assert [type(a) for a in found.actions if not isinstance(a, PrivilegeAction)] == (
        [AlterRole] if state.get("alterable", True) else []
    )
    assert [type(a) for a in found.actions if isinstance(a, PrivilegeAction)] == [GrantPrivileges]


def test_without_a_password_no_role_is_made() -> None:
    found = plan(wanted=want(*TRIO), observed=world(), credential=Credential(ready=False))
    assert found.actions == ()
    assert found.differences


def held(view: DatabaseView, table: str, entry: Held) -> DatabaseView:
    item = replace(view.tables["shop"][table], held={ROLE: entry})
    return replace(view, tables={"shop": {**view.tables["shop"], table: item}})


def test_what_we_granted_and_the_spec_no_longer_says_is_revoked() -> None:
    view = held(database(), "items", Held(frozenset(["Select", "Delete"]), ours=frozenset(["Select", "Delete"])))
    first, second = done(want(grant("Table", "Select", schema="shop", names=["items"])), world(marked(), view))
    assert [(type(a).__name__, sorted(a.privileges)) for a in first.actions] == [("RevokePrivileges", ["Delete"])]  # type: ignore[attr-defined]
    assert second.actions == ()


def test_all_prunes_what_others_granted_where_we_may() -> None:
    theirs = Given("giver", frozenset(["Select", "Delete"]), revocable=True)
    others = Given("stranger", frozenset(["Update"]), revocable=False)
    everything = frozenset(["Select", "Delete", "Update"])
    view = held(database(), "items", Held(everything, others=(theirs, others)))
    select = grant("Table", "Select", schema="shop", names=["items"])
    assert plan(wanted=want(select), observed=world(marked(), view), credential=Credential()).differences == ()
    found = plan(wanted=want(select, prunes_others=True), observed=world(marked(), view), credential=Credential())
    (action,) = found.actions
    assert isinstance(action, RevokePrivileges)
    assert (action.grantor, action.privileges) == ("giver", frozenset(["Delete"]))
    assert found.differences == (
        "Update on table shop.items of database orders, granted by stranger, is beyond the spec",
        "Delete on table shop.items of database orders, granted by giver, is beyond the spec",
    )
    (problem,) = found.problems
    assert problem.message.endswith(
        f"run SET ROLE stranger; REVOKE UPDATE ON TABLE shop.items FROM {ROLE}; RESET ROLE in database orders"
    )


def test_all_ends_memberships_of_others_but_none_that_the_server_gave() -> None:
    given = (
        Membership(role="batch", grantor="giver", revocable=True),
        Membership(role="reporting", admin=True, grantor="stranger", revocable=False),
        Membership(role="made", admin=True, inherit=False, set_=False, grantor="postgres", automatic=True),
    )
    wanted = want(prunes_others=True, member_of=(MemberOf(role="reporting"),))
    found = plan(wanted=wanted, observed=world(marked(memberships=given)), credential=Credential())
    assert [(type(a), a.object) for a in found.actions] == [(RevokeMembership, "batch")]
    assert isinstance(found.actions[0], RevokeMembership) and found.actions[0].grantor == "giver"
    (problem,) = found.problems
    assert problem.message.endswith(f"run REVOKE reporting FROM {ROLE} GRANTED BY stranger")


def test_a_database_that_left_the_spec_is_emptied() -> None:
    view = held(database(), "items", Held(frozenset(["Select"]), ours=frozenset(["Select"])))
    view = replace(
        view, itself=replace(view.itself, held={ROLE: Held(frozenset(["Connect"]), ours=frozenset(["Connect"]))})
    )
    first, second = done(want(), world(marked(), view))
    assert {action.kind for action in first.actions} == {"Database", "Table"}  # type: ignore[attr-defined]
    assert second.actions == ()


def test_what_somebody_else_granted_stays() -> None:
    view = held(database(), "items", Held(frozenset(["Delete"]), ours=frozenset()))
    first, _ = done(want(), world(marked(), view))
    assert first.actions == first.differences == ()


def test_the_right_to_hand_on_is_taken_back() -> None:
    words = frozenset(["Select"])
    view = held(database(), "items", Held(words, grantable=words, ours=words))  # type: ignore[arg-type]
    first, second = done(want(grant("Table", "Select", schema="shop", names=["items"])), world(marked(), view))
    assert [a.option_only for a in first.actions] == [True]  # type: ignore[attr-defined]
    assert second.actions == ()


def test_what_does_not_exist_is_named_and_the_rest_is_done() -> None:
    grants = (
        *TRIO,
        grant("Table", "Select", schema="shop", names=["gone", "it*"]),
        grant("Schema", "Usage", names=["gone"]),
        grant("Table", "Select", schema="nowhere"),
        grant("Database", "Connect", database="absent"),
    )
    first, second = done(want(*grants), world())
    assert {(p.reason, p.object) for p in first.problems} == {
        (R.OBJECT_MISSING, "shop.gone"),
        (R.OBJECT_MISSING, "gone"),
        (R.OBJECT_MISSING, "nowhere"),
        (R.OBJECT_MISSING, "absent"),
    }
    assert len(first.actions) == 4
    assert second.actions == ()


def test_a_pattern_that_finds_nothing_is_no_problem() -> None:
    first, _ = done(want(grant("Table", "Select", schema="shop", names=["x*", "[items]*"])), world(marked()))
    assert first.problems == first.actions == ()


def test_what_we_may_not_grant_is_told_with_the_statement() -> None:
    view = database()
    item = replace(view.tables["shop"]["items"], grantable=frozenset())
    view = replace(view, tables={"shop": {"items": item}})
    found = plan(wanted=want(*TRIO), observed=world(marked(), view), credential=Credential())
    assert [p.reason for p in found.problems] == [R.MISSING_PRIVILEGE]
    assert "as an administrator run GRANT owner TO pgtend_users in database orders" in found.problems[0].message
    super_ = replace(item, owner="postgres", owner_is_superuser=True)
    view = replace(view, tables={"shop": {"items": super_}})
    found = plan(wanted=want(*TRIO), observed=world(marked(), view), credential=Credential())
    assert "GRANT SELECT, INSERT ON TABLE shop.items TO pgtend_users WITH GRANT OPTION" in found.problems[0].message


def test_what_everybody_has_and_we_may_not_grant_is_in_force() -> None:
    view = database()
    view = replace(view, itself=replace(view.itself, grantable=frozenset(), public=frozenset(["Connect"])))
    found = plan(wanted=want(TRIO[0]), observed=world(marked(), view), credential=Credential())
    assert found.actions == found.problems == found.differences == ()


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("ReadOnly", {"Database": "Connect", "Schema": "Usage", "Table": "Select", "Sequence": "Select"}),
        ("Monitor", {"Database": "Connect"}),
    ],
)
def test_what_presets_expand_to(preset: str, expected: dict[str, str]) -> None:
    given = Grant.model_validate({"database": "orders", "preset": preset})
    assert {wish.kind: ", ".join(sorted(wish.words)) for wish in expand([given])} == expected
    brings = [one.role for one in member_of([], [given])]
    assert brings == (["pg_monitor"] if preset == "Monitor" else [])
    assert [one.admin for one in member_of([MemberOf(role="pg_monitor", admin=True)], [given])][:1] == [True]


def test_default_privileges_are_for_creators_and_what_they_made_keeps_them() -> None:
    wish = {"database": "orders", "schema": "shop", "kind": "Table", "privileges": ["Select"]}
    auto = DefaultPrivilege.model_validate({**wish, "creators": {"auto": {}}})
    named = DefaultPrivilege.model_validate({**wish, "creators": {"names": ["owner"]}})

    def creator(name: str, **rest: Any) -> ObjectState:
        words = frozenset(TABLE)
        return ObjectState(
            kind="DefaultTable", database="orders", schema="shop", name=name, owner=name, grantable=words, **rest
        )

    pairs = (creator("owner"), creator("maker", auto=True), creator(ROLE, auto=True))
    view = held(database(), "items", Held(frozenset(["Select"]), ours=frozenset(["Select"])))
    observed = world(marked(), replace(view, others=pairs))
    for wanted, name in ((named, "owner"), (auto, "maker")):
        first, second = done(want(default_privileges=(wanted,)), observed)
        given = [a for a in first.actions if isinstance(a, GrantPrivileges)]
        # a role needs no grant on what it makes itself
        assert [(a.kind, a.schema, a.names) for a in given] == [("DefaultTable", "shop", (name,))]
        # the table is owner's: while owner's are asked for it keeps what it was made with
        taken = [a for a in first.actions if isinstance(a, RevokePrivileges)]
        assert bool(taken) is (name != "owner")
        assert second.actions == second.differences == ()
    gone = plan(wanted=want(default_privileges=(named,)), observed=world(marked(), view), credential=Credential())
    assert [p.object for p in gone.problems] == ["owner"]


def test_without_pruning_nothing_is_taken_away_nor_a_difference() -> None:
    words = frozenset(["Select", "Delete"])
    view = held(database(), "items", Held(words, grantable=words, ours=words))  # type: ignore[arg-type]
    role = marked(settings={None: {"work_mem": "1MB"}}, memberships=(Membership(role="batch", ours=True),))
    observed = world(role, view)
    kept = want(grant("Table", "Select", schema="shop", names=["items"]), prunes=False)
    assert plan(wanted=kept, observed=observed, credential=Credential()) == Plan(privileges=1, databases=1)
    assert len(plan(wanted=replace(kept, prunes=True), observed=observed, credential=Credential()).actions) == 4


def test_every_preset_is_printed_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "users.md").read_text()
    for name, parts in PRESETS.items():
        (line,) = [row for row in page.splitlines() if row.startswith(f"| `{name}` |")]
        told = [f"{part.kind}: {', '.join(part.words)}" for part in parts]
        told += [f"and membership in {MEMBER_OF[name]}"] if name in MEMBER_OF else []
        assert line == f"| `{name}` | {'; '.join(told)} |", "that, and nothing more"


def test_no_pattern_and_no_name_hold_up_the_operator() -> None:
    """Both are written by people who may be anybody: tried one way after the other, this would take for ever."""
    view = database(tables=["a" * 63])
    view = replace(view, schemas={**view.schemas, "a" * 63: view.schemas["shop"]})
    evil = "*a" * 30 + "*b"
    named = want(grant("Table", "Select", schema="shop", names=[evil]))
    assert plan(wanted=named, observed=world(marked(), view), credential=Credential()).privileges == 0
    assert view.schemas_of(evil, loose=True) == []


def test_an_owner_needs_no_grant() -> None:
    view = database(tables=["items"])
    view = replace(view, tables={"shop": {"items": replace(view.tables["shop"]["items"], owner=ROLE)}})
    found = plan(wanted=want(TRIO[2]), observed=world(marked(), view), credential=Credential())
    assert found.actions == ()


# By property

words = st.sampled_from(TABLE)
entries = st.builds(
    lambda every, grantable, ours: Held(every, grantable & every, ours & every),
    st.frozensets(words), st.frozensets(words), st.frozensets(words),
)  # fmt: skip
names = st.sampled_from(["items", "lines", "orders", "a*b"])


@st.composite
def views(draw: st.DrawFn) -> DatabaseView:
    base = database(tables=draw(st.frozensets(names)))
    tables = {}
    for name, item in base.tables["shop"].items():
        held_by = draw(st.dictionaries(st.sampled_from([ROLE, "other"]), entries, max_size=2))
        grantable = draw(st.sampled_from([frozenset(TABLE), frozenset(), frozenset(["Select"])]))
        # what is ours was granted by us, so we may grant it
        mine = {who: replace_ours(entry, grantable) for who, entry in held_by.items()}
        owner = draw(st.sampled_from(["owner", "owner", ROLE]))
        mine = {who: entry for who, entry in mine.items() if who != owner}
        tables[name] = replace(item, held=mine, grantable=grantable, owner=owner)
    others = []
    for kind, words_ in OTHERS.items():
        for name in sorted(draw(st.frozensets(names, max_size=2))) if kind != "Column" else sorted(tables):
            entry = draw(st.none() | st.builds(_entry, st.frozensets(st.sampled_from(words_)), st.booleans()))
            table = tables.get(name) if kind == "Column" else None
            # what is done to a table is done to its column: they have one owner, and we the same rights to both
            others.append(
                ObjectState(
                    kind="Table" if kind == "Column" else kind,
                    database="orders",
                    schema="shop",
                    name=name,
                    column="id" if kind == "Column" else None,
                    owner=table.owner if table else "owner",
                    grantable=(table.grantable if table else frozenset(words_)) & frozenset(words_),
                    held={ROLE: entry}
                    if entry and (table is None or (table.owner != ROLE and entry.all <= table.grantable))
                    else {},
                )
            )
    return replace(base, tables={"shop": tables}, others=tuple(others))


OTHERS = {"Column": ("Select", "Insert", "Update"), "Sequence": ("Usage", "Select"), "Function": ("Execute",)}


def _entry(every: frozenset[Any], handed: bool) -> Held:
    return Held(every, every if handed else frozenset(), every)


def replace_ours(entry: Held, grantable: frozenset[Any]) -> Held:
    return Held(entry.all, entry.grantable, entry.ours & grantable)


values = st.sampled_from(["1MB", "shop", "30s"])
roles = st.none() | st.builds(
    lambda **given: RoleState(name=ROLE, comment=MARK, verifier=Sensitive("SCRAM-SHA-256$secret"), **given),
    login=st.booleans(),
    inherit=st.booleans(),
    connection_limit=st.integers(-1, 3),
    valid_until=st.none() | st.integers(-1, 10**15),
    elevated=st.frozensets(st.sampled_from(sorted(EVERY))),
    alterable=st.booleans(),
    settings=st.dictionaries(
        st.sampled_from([None, "orders"]), st.dictionaries(st.sampled_from([*SETTINGS, "log_statement"]), values)
    ),
    memberships=st.lists(
        st.builds(
            lambda role, **rest: Membership(role=role, **rest),
            st.sampled_from([*GROUPS, "foreign"]),
            admin=st.booleans(),
            inherit=st.booleans(),
            set_=st.booleans(),
            ours=st.booleans(),
        ),
        max_size=4,
        unique_by=lambda m: (m.role, m.ours),
    ).map(tuple),
)
grants = st.builds(
    lambda kind, found, privileges, option: {
        "Database": grant("Database", "Connect"),
        "Schema": grant("Schema", "Usage", names=["shop", "oth*"]),
        "Table": grant("Table", *privileges, schema="shop", **({"names": sorted(found)} if found else {}), **option),
        "Column": grant("Table", "Select", "Update", schema="shop", columns=["id"], **option),
        "Sequence": grant("Sequence", "All", schema="shop", names=["*s", "a*b"]),
        "Function": grant("Function", "Execute", schema="shop", **option),
        "Preset": Grant.model_validate({"database": "orders", "preset": "ReadWrite", "schemas": ["sh*"]}),
    }[kind],
    st.sampled_from(["Database", "Schema", "Table", "Table", "Column", "Sequence", "Function", "Preset"]),
    st.frozensets(names),
    st.lists(words, min_size=1, max_size=4, unique=True),
    st.sampled_from([{}, {"grantOption": True}]),
)


@cases(300)
@given(
    role=roles,
    view=views(),
    asked=st.lists(grants, max_size=4),
    login=st.booleans(),
    limit=st.integers(-1, 3),
    until=st.none() | st.integers(1, 10**15),
    ready=st.booleans(),
    attributes=st.frozensets(st.sampled_from(sorted(EVERY))),
    settable=st.frozensets(st.sampled_from(sorted(EVERY))),
    settings_=st.dictionaries(st.sampled_from([None, "orders"]), st.dictionaries(st.sampled_from(SETTINGS), values)),
    member_of=st.lists(
        st.builds(
            lambda role, admin, inherit, set_: MemberOf.model_validate(
                {"role": role, "admin": admin, "inherit": inherit, "set": set_}
            ),
            st.sampled_from(GROUPS),
            st.booleans(),
            st.booleans(),
            st.booleans(),
        ),
        unique_by=lambda m: m.role,
    ).map(tuple),
)
def test_the_plan_after_applying_is_empty(
    role: RoleState | None,
    view: DatabaseView,
    asked: list[Grant],
    login: bool,
    limit: int,
    until: int | None,
    ready: bool,
    attributes: frozenset[str],
    settable: frozenset[str],
    settings_: dict[str | None, dict[str, str]],
    member_of: tuple[MemberOf, ...],
) -> None:
    wanted = want(
        *asked,
        login=login,
        connection_limit=limit,
        valid_until=until,
        attributes=attributes,
        settings=settings_,
        member_of=member_of,
    )
    observed = replace(world(role, view), settable=settable)
    credential = Credential(ready=ready, applied=False)
    first = plan(wanted=wanted, observed=observed, credential=credential)
    after = applied(first.actions, observed)
    second = plan(wanted=wanted, observed=after, credential=replace(credential, applied=True))
    assert second.actions == ()
    # what remains to be told is told with what stands in the way
    has = role.elevated if role is not None else frozenset()
    stuck = (has ^ attributes) - settable or (role is not None and first.differences and not role.alterable)
    if not stuck or (role is None and not ready):
        assert bool(second.differences) == (role is None and not ready)
    else:
        assert not second.differences or second.problems[0].reason == R.MISSING_PRIVILEGE
    if role is not None:
        assert [m for m in after.roles[ROLE].memberships if not m.ours] == [m for m in role.memberships if not m.ours]
    for table, item in after.databases["orders"].tables["shop"].items():
        before = view.tables["shop"][table]
        # what others have, and what others gave, is as it was
        assert item.held.get("other") == before.held.get("other")
        foreign = before.held.get(ROLE, Held(frozenset()))
        assert foreign.all - foreign.ours <= item.held.get(ROLE, Held(frozenset())).all
    assert "SCRAM" not in repr(first) + repr(observed)


@cases(200)
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), min_size=1, max_size=4))
def test_a_quoted_list_comes_apart_as_it_was(written: list[str]) -> None:
    text = ", ".join('"' + name.replace('"', '""') + '"' for name in written)
    assert elements("Search_Path", text) == tuple(written)
    assert elements("application_name", text) == (text,)


@pytest.mark.parametrize("wrong", ['"open', "a,", ",a", "a b", 'a"b'])
def test_what_is_no_list_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no list of names"):
        elements("search_path", wrong)


@cases(100)
@given(view=views(), asked=st.lists(grants, max_size=4))
def test_exactly_what_is_asked_is_in_force_where_we_may_grant(view: DatabaseView, asked: list[Grant]) -> None:
    every = frozenset(TABLE)
    tables = {n: replace(i, owner="owner", grantable=every, held={}) for n, i in view.tables["shop"].items()}
    observed = world(marked(), replace(view, tables={"shop": tables}))  # type: ignore[arg-type]
    first = plan(wanted=want(*asked), observed=observed, credential=Credential())
    after = applied(first.actions, observed)
    for name, item in after.databases["orders"].tables["shop"].items():
        expected = set()
        for one in asked:
            if one.preset is not None:
                expected |= set(TABLE)
            if (
                one.kind == "Table"
                and one.columns is None
                and (one.names is None or name in one.names or ("a*b" in one.names and name == "a*b"))
            ):
                expected |= set(one.privileges)
        assert item.held.get(ROLE, Held(frozenset())).all == expected
