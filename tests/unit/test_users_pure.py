"""What is decided about a DatabaseUser without looking anywhere: consent, whose role it is, passwords, conditions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError
from tests.unit.thorough import cases

from pgtend.api.conditions import Verdict, merge, worst_of
from pgtend.api.databaseuser import DATABASE_USER, Generate, UserSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import TargetReason
from pgtend.api.reasons import UserReason as R
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.server.consent import Requester
from pgtend.users import judge as judges
from pgtend.users.admission import Admitted, Adoption, Refusal, admit
from pgtend.users.claim import Claim, Claimant, judge_claim
from pgtend.users.exposure import exposed
from pgtend.users.finalize import BLOCKED_SECONDS
from pgtend.users.judge import Facts, PasswordFacts
from pgtend.users.password import agrees, endpoints, generate, secret_values
from pgtend.users.plan import Plan
from pgtend.users.state import Observed, Problem, RoleState
from pgtend.users.wanted import Wanted, microseconds

ME = ObjectKey("DatabaseUser", "shop", "shop-app")
TARGET = ObjectKey("PostgresTarget", "databases", "orders")
NOW = datetime(2026, 11, 22, 9, 58, tzinfo=UTC)
GRANTS = [
    {"database": "orders", "kind": "Database", "privileges": ["Connect"]},
    {"database": "orders", "kind": "Schema", "names": ["shop"], "privileges": ["Usage"]},
    {"database": "orders", "kind": "Table", "schema": "shop", "privileges": ["Select", "Delete"]},
]


def spec(**rest: Any) -> UserSpec:
    return UserSpec.model_validate(
        {"targetRef": {"name": "orders", "namespace": "databases"}, "roleName": "shop_app", **rest}
    )


def target(*access: dict[str, Any], members: int = 1, **rest: Any) -> TargetSpec:
    return TargetSpec.model_validate(
        {
            "members": [{"name": "abc"[i], "host": f"{'abc'[i]}.example", "port": 5432 + i} for i in range(members)],
            "credentials": {
                "monitor": {"password": {"secretRef": {"name": "m"}}},
                "users": {"password": {"secretRef": {"name": "u"}}},
            },
            "access": list(access),
            **rest,
        }
    )


SHOP = {
    "name": "shop",
    "namespaces": {"names": ["shop"]},
    "kinds": ["DatabaseUser"],
    "users": {
        "rolePattern": "{namespace}_*",
        "databases": ["orders"],
        "maxPrivileges": ["Connect", "Usage", "Select", "Insert"],
    },
}


def asked(user: UserSpec, of: TargetSpec, *, namespace: str = "shop", labels: dict[str, str] | None = None) -> Any:
    key = ObjectKey("DatabaseUser", namespace, "shop-app")
    requester = Requester(namespace=namespace, labels=labels)
    return admit(key=key, spec=user, target=TARGET, target_spec=of, requester=requester)


def future(kind: str, *privileges: str, **rest: Any) -> dict[str, Any]:
    given = {"database": "orders", "schema": "shop", "kind": kind, "privileges": list(privileges), **rest}
    return {name: value for name, value in given.items() if value is not None}


# The spec


@pytest.mark.parametrize(
    "wrong",
    [
        {"grants": [{"database": "o", "kind": "Database", "privileges": ["Select"]}]},
        {"grants": [{"database": "o", "kind": "Database", "schema": "s", "privileges": ["Connect"]}]},
        {"grants": [{"database": "o", "kind": "Schema", "privileges": ["Usage"]}]},
        {"grants": [{"database": "o", "kind": "Schema", "names": ["pg_catalog"], "privileges": ["Usage"]}]},
        {"grants": [{"database": "o", "kind": "Table", "privileges": ["Select"]}]},
        {"grants": [{"database": "o", "kind": "Table", "schema": "information_schema", "privileges": ["Select"]}]},
        {"grants": [{"database": "o", "kind": "Table", "schema": "s", "privileges": ["Usage"]}]},
        {"roleName": "ü" * 32},
        {"roleName": "a\0b"},
        {"password": {}},
        {"password": {"generate": {}, "secretRef": {"name": "x"}}},
        {"password": {"generate": {"length": 21}}},
        {"password": {"none": {}, "secretRef": {"name": "x"}}},
        {"password": {"none": {}}, "secret": {"templates": {"DSN": "x:{{ .password }}"}}},
        {"secret": {"templates": {"DSN": "{{ .nothing }}"}}},
        {"secret": {"templates": {"DSN": "{{ .host"}}},
        {"secret": {"templates": {"DSN": "{{ .host | upper }}"}}},
        {"secret": {"templates": {"uri": "x"}}},
        {"secret": {"templates": {"a b": "x"}}},
        {"connectionLimit": -1},
        {"attributes": ["SuperUser"]},
        {"settings": {"work mem": "1MB"}},
        {"settings": {"work_mem": "1MB", "WORK_MEM": "2MB"}},
        {"settings": {"search_path": "a,"}},
        {"settings": {"work_mem": 1}},
        {"memberOf": [{"role": ""}]},
        {"grants": [{"database": "o"}]},
        {"defaultPrivileges": [future("Table", "Select", creators={})]},
        {"defaultPrivileges": [future("Table", "Select", creators={"auto": {}, "names": ["a"]})]},
        {"defaultPrivileges": [future("Table", "Select", creators={"auto": {}}, schema=None)]},
        {"defaultPrivileges": [future("Type", "Select", creators={"names": ["a"]})]},
        {"defaultPrivileges": [future("Schema", "Usage", creators={"names": ["a"]})]},
        {"grants": [{"database": "o", "preset": "ReadOnly", "kind": "Table"}]},
        {"grants": [{"preset": "ReadOnly"}]},
        {"grants": [{"database": "o", "kind": "Schema", "names": ["s"], "schemas": ["s"], "privileges": ["Usage"]}]},
        {"grants": [{"database": "o", "kind": "Parameter", "names": ["work_mem"], "privileges": ["Set"]}]},
        {"grants": [{"kind": "Table", "schema": "s", "privileges": ["Select"]}]},
        {"grants": [{"database": "o", "kind": "LargeObject", "names": ["x"], "privileges": ["Select"]}]},
        {"grants": [{"database": "o", "kind": "Language", "privileges": ["Usage"]}]},
        {"grants": [{"database": "o", "kind": "Table", "schema": "s", "columns": ["c"], "privileges": ["Delete"]}]},
        {"grants": [{"database": "o", "kind": "Sequence", "schema": "s", "columns": ["c"], "privileges": ["All"]}]},
        {"unknown": 1},
    ],
)
def test_specs_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**wrong)


# Consent


def test_the_own_namespace_is_admitted_without_a_word() -> None:
    assert isinstance(asked(spec(grants=GRANTS), target(), namespace="databases"), Admitted)


def test_the_refusal_of_the_example() -> None:
    refusal = asked(spec(grants=GRANTS), target(SHOP))
    assert isinstance(refusal, Refusal)
    told = judges.refused(refusal, role="shop_app", previous={}, now=NOW)
    accepted = told.verdicts[0]
    assert accepted.message == (
        "access shop of target databases/orders does not admit privilege Delete"
        " (admits Connect, Usage, Select, Insert), since 2026-11-22T09:58:00Z:"
        " ask its owner to add it to users.maxPrivileges, or remove the grant"
    )
    assert (accepted.reason, accepted.object) == (R.NOT_PERMITTED, "Delete")
    assert told.verdicts[-1].message == "not tended since 2026-11-22T09:58:00Z, the role is as it was; see Accepted"
    assert next(v for v in told.verdicts if v.type == "InSync").reason == R.NOT_ACCEPTED


@pytest.mark.parametrize(
    ("access", "role", "about"),
    [
        ({"namespaces": {"names": ["other"]}}, "shop_app", "shop"),
        ({"kinds": []}, "shop_app", "shop"),
        ({"users": None}, "shop_app", "shop_app"),
        ({}, "other_app", "other_app"),
        ({"users": {**SHOP["users"], "databases": []}}, "shop_app", "orders"),  # type: ignore[dict-item]
        ({"users": {**SHOP["users"], "maxPrivileges": []}}, "shop_app", "Connect"),  # type: ignore[dict-item]
    ],
)
def test_what_is_left_out_admits_nothing(access: dict[str, Any], role: str, about: str) -> None:
    refusal = asked(spec(roleName=role, grants=GRANTS), target({**SHOP, **access}))
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.about) == (R.NOT_PERMITTED, about)
    assert refusal.next_step


def test_entries_add_up_but_each_privilege_needs_one_whole_entry() -> None:
    more = {**SHOP, "name": "more", "users": {"rolePattern": "*", "databases": ["archive"], "maxPrivileges": ["*"]}}
    assert isinstance(asked(spec(grants=GRANTS), target(SHOP, more)), Refusal)
    whole = {**SHOP, "name": "whole", "users": {"rolePattern": "*", "databases": ["*"], "maxPrivileges": ["*"]}}
    admitted = asked(spec(grants=GRANTS), target(SHOP, whole))
    assert admitted == Admitted(by="target databases/orders, access shop, whole")


MORE = {**SHOP, "users": {**SHOP["users"], "memberOf": ["report*", "pg_*"], "attributes": ["CreateDB"]}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("asked_for", "about"),
    [
        ({"attributes": ["CreateDB"], "memberOf": [{"role": "reporting"}, {"role": "pg_monitor"}]}, None),
        ({"attributes": ["CreateDB", "Replication"]}, "Replication"),
        ({"memberOf": [{"role": "owner"}]}, "owner"),
        ({"memberOf": [{"role": "pg_execute_server_program"}]}, "pg_execute_server_program"),
        ({"databaseSettings": [{"database": "archive", "settings": {"work_mem": "1MB"}}]}, "archive"),
        ({"memberOf": [{"role": "pgtend_users"}]}, "pgtend_users"),
        ({"memberOf": [{"role": "shop_app"}]}, "shop_app"),
    ],
)
def test_attributes_and_memberships_are_admitted_by_entries(asked_for: dict[str, Any], about: str | None) -> None:
    answer = asked(spec(**asked_for), target(MORE))
    assert isinstance(answer, Admitted) if about is None else (answer.about, bool(answer.next_step)) == (about, True)
    if asked_for.get("attributes") or about == "owner":
        assert isinstance(asked(spec(**asked_for), target(SHOP)), Refusal), "what is left out admits nothing"


def test_who_may_have_something_may_not_hand_it_on_for_that() -> None:
    """Else a namespace that is admitted to something decides who else is, everybody for one."""
    handing: list[dict[str, Any]] = [
        {"grants": [{**GRANTS[0], "grantOption": True}]},
        {"memberOf": [{"role": "reporting", "admin": True}]},
    ]
    let: dict[str, Any] = {**MORE, "users": {**MORE["users"], "grantOption": True}}  # type: ignore[dict-item]
    nothing = {**SHOP, "name": "nothing", "users": {"rolePattern": "*", "grantOption": True}}
    for words, about in zip(handing, ("Connect", "reporting"), strict=True):
        answer = asked(spec(**words), target(MORE))
        assert isinstance(answer, Refusal) and (answer.about, answer.withdrawn) == (about, False)
        assert "and not to hand it on" in answer.what and "users.grantOption" in answer.next_step
        assert isinstance(asked(spec(**words), target(MORE, nothing)), Refusal), "by an entry that admits the thing"
        assert isinstance(asked(spec(**words), target(let)), Admitted)
        assert isinstance(asked(spec(**words), target(), namespace="databases"), Admitted), "the target's own"


def test_default_privileges_are_admitted_like_grants() -> None:
    def answer(kind: str, word: str, **rest: Any) -> Any:
        return asked(spec(defaultPrivileges=[future(kind, word, creators={"auto": {}}, **rest)]), target(SHOP))

    assert isinstance(answer("Table", "Select"), Admitted)
    assert answer("Table", "Delete").about == "Delete"
    assert answer("Table", "Select", database="archive").about == "archive"


def test_a_preset_is_admitted_by_what_it_stands_for() -> None:
    reading = spec(grants=[{"database": "orders", "preset": "ReadOnly"}])
    assert isinstance(asked(reading, target(SHOP)), Admitted)
    writing = asked(spec(grants=[{"database": "orders", "preset": "ReadWrite"}]), target(SHOP))
    assert isinstance(writing, Refusal) and writing.about == "Update"
    watching = asked(spec(grants=[{"database": "orders", "preset": "Monitor"}]), target(SHOP))
    assert isinstance(watching, Refusal) and watching.about == "pg_monitor"


@pytest.mark.parametrize(
    "words",
    [
        {"attributes": ["Superuser"]},
        {"attributes": ["CreateRole"]},
        {"attributes": ["Replication"]},
        {"memberOf": [{"role": "pg_write_server_files"}]},
        {"grants": [{"kind": "Parameter", "names": ["archive_command"], "privileges": ["AlterSystem"]}]},
    ],
)
def test_what_makes_a_superuser_is_always_listed_by_name(words: dict[str, Any]) -> None:
    assert isinstance(asked(spec(**words), target(), namespace="databases"), Refusal)
    every = {"rolePattern": "*", "databases": ["*"], "maxPrivileges": ["*"], "memberOf": ["*"], "attributes": ["*"]}
    own = {**SHOP, "namespaces": {"names": ["databases"]}, "users": every}
    assert isinstance(asked(spec(**words), target(own), namespace="databases"), Refusal)
    own["users"] = {
        **every,
        "attributes": ["Superuser", "CreateRole", "Replication"],
        "memberOf": ["pg_write_server_files"],
        "maxPrivileges": ["AlterSystem"],
    }
    assert isinstance(asked(spec(**words), target(own), namespace="databases"), Admitted)
    others = spec(attributes=["CreateDB", "BypassRLS"], memberOf=[{"role": "anything"}])
    assert isinstance(asked(others, target(), namespace="databases"), Admitted)


def test_a_selector_needs_labels_that_can_be_read() -> None:
    entry = {**SHOP, "namespaces": {"selector": {"matchLabels": {"team": "shop"}}}}
    few = spec(grants=GRANTS[:2])
    assert isinstance(asked(few, target(entry), labels={"team": "shop"}), Admitted)
    assert isinstance(asked(few, target(entry), labels={"team": "other"}), Refusal)
    assert isinstance(asked(few, target(entry), labels=None), Refusal)


@pytest.mark.parametrize(
    "role", ["pg_write_all_data", "public", "none", "rdsadmin", "cloudsqlsuperuser", "azure_pg_admin", "alloydbadmin",
             "pgtend_users", "pgtend_monitor"]
)  # fmt: skip
def test_roles_that_are_nobodys(role: str) -> None:
    refusal = asked(spec(roleName=role), target(), namespace="databases")
    assert isinstance(refusal, Refusal)
    assert refusal.reason == R.ROLE_NOT_ALLOWED


# Whose role it is

WANTED = Wanted(role="shop_app", mark="[pgtend:1:here:shop/shop-app]")
OLDER = Claimant(key=ObjectKey("DatabaseUser", "shop", "older"), created=NOW - timedelta(days=1))
YOUNGER = Claimant(key=ObjectKey("DatabaseUser", "shop", "younger"), created=NOW + timedelta(days=1))


def claim(comment: str | None, *rivals: Claimant, role: bool = True) -> Verdict:
    return adoption(comment, *rivals, asks="Never", role=role).verdict


def adoption(
    comment: str | None,
    *rivals: Claimant,
    asks: Adoption,
    admitted: Adoption = "Always",
    role: bool = True,
    lives: bool = False,
    tended: bool = False,
    **state: Any,
) -> Claim:
    found = {"shop_app": RoleState(name="shop_app", comment=comment, **state)} if role else {}
    return judge_claim(
        wanted=WANTED,
        observed=Observed(roles=found),
        me=Claimant(key=ME, created=NOW, asks=asks, admitted=admitted),
        rivals=rivals,
        installation="here",
        lives=lambda name: lives,
        tended=tended,
    )


def test_the_mark_decides_and_age_only_where_there_is_no_role() -> None:
    assert claim(None, YOUNGER, role=False).status == "True"
    assert claim(None, OLDER, YOUNGER, role=False).reason == R.CONFLICT
    assert claim("kept text [pgtend:1:here:shop/shop-app]", OLDER).status == "True"
    younger = claim("[pgtend:1:here:shop/younger]", YOUNGER)
    assert (younger.reason, younger.object) == (R.CONFLICT, "shop/younger")


@pytest.mark.parametrize(
    ("comment", "told"),
    [
        (None, "was not made by pgtend"),
        ("somebody's", "was not made by pgtend"),
        ("[pgtend:1:elsewhere:shop/shop-app]", "of the installation elsewhere"),
        ("[pgtend:1:here:shop/gone]", "which does not ask for it any more"),
    ],
)
def test_a_role_that_is_not_ours_is_not_touched(comment: str | None, told: str) -> None:
    verdict = claim(comment, OLDER)
    assert verdict.reason == R.ROLE_EXISTS
    assert told in verdict.message
    assert re.search(r"COMMENT ON ROLE shop_app IS '.*\[pgtend:1:here:shop/shop-app\]'$", verdict.message)


@pytest.mark.parametrize("heir", ["postgres_own", "pgtend_users", "shop_app", "pg_monitor", "rds_superuser", "keeper"])
def test_who_may_be_given_what_a_dropped_role_owns(heir: str) -> None:
    user = spec(drop={"reassignOwnedTo": heir})
    limits: dict[str, Any] = dict(SHOP["users"])  # type: ignore[call-overload]
    wide = {**SHOP, "users": {**limits, "memberOf": ["keep*"]}}
    assert isinstance(asked(user, target(wide)), Admitted) == (heir == "keeper")
    assert isinstance(asked(user, target(SHOP)), Refusal)
    own = asked(user, target(), namespace="databases")
    assert isinstance(own, Admitted) == (heir in ("postgres_own", "keeper"))


THEIRS, DEAD = "[pgtend:1:elsewhere:shop/shop-app]", "[pgtend:1:here:shop/gone]"


@pytest.mark.parametrize(
    ("asks", "admitted", "adopted"),
    [
        ("Never", "Always", set()),
        ("Always", "Never", set()),
        ("IfUnowned", "IfUnowned", {None}),
        ("IfUnowned", "Always", {None}),
        ("Always", "IfUnowned", {None}),
        ("Always", "Always", {None, THEIRS, DEAD}),
    ],
)
def test_a_role_is_adopted_where_both_say_so(asks: Adoption, admitted: Adoption, adopted: set[str | None]) -> None:
    for comment in (None, THEIRS, DEAD):
        found = adoption(comment, asks=asks, admitted=admitted)
        assert (found.verdict.status == "True") == found.adopts == (comment in adopted), comment
        if not found.adopts:
            assert "COMMENT ON ROLE" in found.verdict.message
            whose = "ask its owner" if admitted != "Always" and asks == "Always" else "set adoption"
            assert whose in found.verdict.message


def test_who_lives_keeps_its_role() -> None:
    held = adoption(DEAD, asks="Always", lives=True)
    assert (held.verdict.reason, held.adopts) == (R.ROLE_EXISTS, False)
    assert "shop/gone, which exists" in held.verdict.message
    rival = adoption("[pgtend:1:here:shop/older]", OLDER, asks="Always")
    assert rival.verdict.reason == R.CONFLICT
    # of two that may adopt, the older one does; who may not is no rival
    willing = Claimant(key=OLDER.key, created=OLDER.created, asks="IfUnowned", admitted="Always")
    assert adoption(None, willing, asks="Always").verdict.reason == R.CONFLICT
    assert adoption(THEIRS, willing, asks="Always").adopts
    assert adoption(None, OLDER, asks="IfUnowned").adopts


def test_two_installations_do_not_fight_over_a_role() -> None:
    lost = adoption(THEIRS, asks="Always", tended=True)
    assert (lost.verdict.reason, lost.adopts) == (R.TAKEN_OVER, False)
    # a mark that somebody took away, or of an object that is gone, is no fight
    assert adoption(None, asks="IfUnowned", tended=True).adopts
    assert adoption(DEAD, asks="Always", tended=True).adopts


@pytest.mark.parametrize(
    ("state", "reason", "told"),
    [
        ({"powerful": True}, R.ROLE_NOT_ALLOWED, "never adopted"),
        ({"alterable": False}, R.MISSING_PRIVILEGE, "GRANT shop_app TO pgtend_users WITH ADMIN OPTION"),
        ({"elevated": frozenset({"REPLICATION"})}, R.MISSING_PRIVILEGE, "ALTER ROLE shop_app NOREPLICATION"),
    ],
)
def test_what_nobody_could_ask_for_is_not_adopted(state: dict[str, Any], reason: R, told: str) -> None:
    found = adoption(None, asks="Always", **state)
    assert (found.verdict.status, found.verdict.reason, found.adopts) == ("False", reason, False)
    assert told in found.verdict.message


def test_consent_to_adoption_is_the_targets() -> None:
    assert asked(spec(), target(), namespace="databases").adoption == "Always"
    assert asked(spec(), target(SHOP)).adoption == "Never"
    limits: dict[str, Any] = dict(SHOP["users"])  # type: ignore[call-overload]
    wide = {**SHOP, "name": "wide", "users": {**limits, "adoption": "IfUnowned"}}
    other = {**wide, "name": "other", "users": {**limits, "rolePattern": "x_*", "adoption": "Always"}}
    assert asked(spec(), target(SHOP, wide, other)).adoption == "IfUnowned"


# Passwords and what the Secret says

texts = st.text(min_size=1, max_size=20, alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",)))


@cases(200)
@given(role=texts, password=texts, database=texts, members=st.integers(1, 3))
def test_every_form_says_the_same(role: str, password: str, database: str, members: int) -> None:
    user = spec(grants=[{"database": database, "kind": "Database", "privileges": ["Connect"]}])
    values = secret_values(role=role, password=Sensitive(password), spec=user, target=target(members=members))
    plain = {key: value.reveal() for key, value in values.items()}
    parsed = conninfo_to_dict(plain["uri"])
    assert (parsed["user"], parsed["password"], parsed["dbname"]) == (role, password, database)
    assert (parsed["host"], parsed["port"]) == (plain["host"], plain["port"])
    assert parsed.get("target_session_attrs") == (None if members == 1 else "read-write")
    jdbc = dict(part.split("=", 1) for part in plain["jdbc-uri"].partition("?")[2].split("&"))
    assert (unquote(jdbc["user"]), unquote(jdbc["password"])) == (role, password)
    assert agrees(values)
    assert not agrees({**values, "password": Sensitive(password + "x")})
    if plain["pgpass"]:
        assert len(plain["pgpass"].splitlines()) >= members
    assert repr(values) == repr(dict.fromkeys(values, Sensitive("")))


def test_pgpass_is_escaped() -> None:
    values = secret_values(role="a:b", password=Sensitive("x\\y:z"), spec=spec(), target=target(members=2))
    assert values["pgpass"].reveal() == ("a.example:5432:*:a\\:b:x\\\\y\\:z\nb.example:5433:*:a\\:b:x\\\\y\\:z\n")
    broken = secret_values(role="a", password=Sensitive("two\nlines"), spec=spec(), target=target())
    assert broken["pgpass"].reveal() == ""


def plain_values(of: TargetSpec, held: str | None, **rest: Any) -> dict[str, str]:
    password = None if held is None else Sensitive(held)
    values = secret_values(role="shop app", password=password, spec=spec(**rest), target=of)
    return {key: value.reveal() for key, value in values.items()}


def test_a_secret_that_leads_to_the_pooler() -> None:
    of = target(members=2, pooler={"host": "pool.example"})
    values = plain_values(of, "p@", secret={"endpoint": "Pooler", "database": "orders 2"})
    assert (values["host"], values["port"], values["dbname"]) == ("pool.example", "6432", "orders 2")
    assert values["uri"] == "postgresql://shop%20app:p%40@pool.example:6432/orders%202?sslmode=require"
    assert values["pgpass"] == "pool.example:6432:*:shop app:p@\n"
    assert not endpoints(spec(secret={"endpoint": "Pooler"}), target(members=2))


def test_a_secret_without_a_password() -> None:
    values = plain_values(target(), None, password={"none": {}}, secret={"templates": {"WHO": "{{.username}}"}})
    assert set(values) == {"username", "host", "port", "dbname", "uri", "jdbc-uri", "WHO"}
    assert conninfo_to_dict(values["uri"])["user"] == "shop app" and "password" not in conninfo_to_dict(values["uri"])
    assert "password" not in values["jdbc-uri"]


def test_templates_say_what_the_keys_say_and_are_read_once() -> None:
    made = {"DSN": "{{ .username }}@{{.host}}/{{ .dbname }} {x}", "all": "{{ .uri }}\n{{ .jdbc-uri }}"}
    values = plain_values(target(), "{{ .host }}", secret={"templates": {**made, "PW": "<{{ .password }}>"}})
    assert values["DSN"] == "shop app@a.example/postgres {x}"
    assert values["all"] == f"{values['uri']}\n{values['jdbc-uri']}"
    assert values["PW"] == "<{{ .host }}>", "a value is no template"


@pytest.mark.parametrize(
    ("logging", "failed", "expected"),
    [
        ({}, False, set()),
        ({"log_statement": "none", "log_min_duration_statement": "-1"}, False, set()),
        ({"log_statement": "ddl"}, False, {"Log"}),
        ({"log_min_duration_statement": "1000"}, False, {"Log"}),
        ({"log_min_duration_sample": "0", "log_statement_sample_rate": "0.5"}, False, {"Log"}),
        ({"log_min_duration_sample": "0", "log_statement_sample_rate": "0"}, False, set()),
        ({"log_transaction_sample_rate": "0.1"}, False, {"Log"}),
        ({"log_min_error_statement": "error"}, False, set()),
        ({"log_min_error_statement": "error"}, True, {"Log"}),
        ({"log_min_error_statement": "panic", "log_statement": "ddl"}, True, set()),
        ({"pg_stat_statements.track": "top", "pg_stat_statements.track_utility": "on"}, False, {"PgStatStatements"}),
        ({"pg_stat_statements.track": "top", "pg_stat_statements.track_utility": "off"}, False, set()),
        ({"pg_stat_statements.track": "none", "pg_stat_statements.track_utility": "on"}, False, set()),
    ],
)
def test_what_could_have_recorded_a_verifier(logging: dict[str, str], failed: bool, expected: set[str]) -> None:
    assert exposed(logging, failed=failed) == expected


@pytest.mark.parametrize("alphabet", ["URLSafe", "Alphanumeric"])
def test_generated_passwords(alphabet: str) -> None:
    rule = Generate.model_validate({"alphabet": alphabet, "length": 22})
    made = {generate(rule).reveal() for _ in range(500)}
    assert len(made) == 500
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{21}", one) for one in made)
    assert any(re.search(r"[_-]", one) for one in made) == (alphabet == "URLSafe")


# Conditions

ADMITTED = Admitted(by="target databases/orders, access shop")
UNIQUE = Verdict("Unique", "True", R.AS_EXPECTED, "shop_app is tended by this object alone")
ROTATION = Verdict("RotationCurrent", "True", R.AS_EXPECTED, "due")
PASSWORD = PasswordFacts(
    secret="shop-app", source="Generate", written=True, set_at="2026-11-22T09:00:00Z", rotation=ROTATION
)


def facts(**rest: Any) -> Facts:
    base: dict[str, Any] = {
        "wanted": WANTED, "admitted": ADMITTED, "unique": UNIQUE, "plan": Plan(privileges=14, databases=1),
        "password": PASSWORD, "role_exists": True,
    }  # fmt: skip
    return Facts(**{**base, **rest})


def told(one: Facts) -> tuple[dict[str, tuple[str, str]], str]:
    """The conditions, and the reason that the column shows."""
    judged = judges.judge(one, previous={}, now=NOW)
    when = "2026-11-22T09:58:00Z"
    conditions = merge(previous=(), verdicts=judged.verdicts, generation=1, now=when)
    worst = worst_of(previous={}, verdicts=judged.verdicts, conditions=conditions, now=when)
    assert {c.type for c in conditions} == {*DATABASE_USER.conditions, "Ready"}
    for verdict in judged.verdicts:
        assert verdict.message and isinstance(verdict.reason, R | TargetReason)
    return {c.type: (c.status, c.reason) for c in conditions}, worst.reason


def test_all_is_well() -> None:
    found, worst = told(facts())
    assert worst == "InForce"
    assert {status for status, _ in found.values()} == {"True"}


problem = Problem(reason=R.OBJECT_MISSING, object="shop.gone", message="table shop.gone does not exist")
of_role = Problem(reason=R.MISSING_PRIVILEGE, object="shop_app", message="may not", of_role=True)
lost = Problem(reason=R.SECRET_LOST, object="shop-app", message="gone")
failed = Problem(reason=R.WRITE_FAILED, object="shop_app", message="deadlock", transient=True)


MOMENT = "2026-11-22T09:00:00Z"


def password(**rest: Any) -> PasswordFacts:
    return PasswordFacts(**{"secret": "shop-app", "source": "Generate", "written": True, "set_at": MOMENT, **rest})


WAYS: list[tuple[dict[str, Any], dict[str, str], str]] = [
    (
        {"plan": Plan(problems=(problem,))},
        {"PrivilegesInSync": "ObjectMissing", "Ready": "ObjectMissing"},
        "ObjectMissing",
    ),
    (
        {"plan": Plan(problems=(of_role,), differences=("the role has SUPERUSER",))},
        {"PrivilegesInSync": "AsExpected", "InSync": "Drifted", "Ready": "MissingPrivilege"},
        "Drifted",
    ),
    ({"password": password(problem=lost)}, {"CredentialsReady": "SecretLost", "Ready": "SecretLost"}, "SecretLost"),
    (
        {"role_exists": False, "password": password(problem=lost, set_at=None), "plan": Plan(differences=("no",))},
        {"CredentialsReady": "SecretLost", "PrivilegesInSync": "NotCreated", "InSync": "Drifted"},
        "SecretLost",
    ),
    (
        {"role_exists": False, "failed": failed, "password": password(set_at=None), "plan": Plan(differences=("no",))},
        {"CredentialsReady": "WriteFailed", "PrivilegesInSync": "NotCreated", "Ready": "WriteFailed"},
        "WriteFailed",
    ),
    ({"plan": Plan(differences=("x",))}, {"InSync": "Diverged", "Ready": "Diverged"}, "Diverged"),
    (
        {"observing": "this object", "plan": Plan(differences=("x", "y"))},
        {"CredentialsReady": "Observing", "InSync": "Drifted", "Ready": "Observing"},
        "Drifted",
    ),
    ({"observing": "this object"}, {"InSync": "AsExpected", "Ready": "Observing"}, "Observing"),
    (
        {"wanted": Wanted(role="shop_app", mark="", valid_until=1)},
        {"CredentialsReady": "PasswordExpired", "Ready": "InForce"},
        "PasswordExpired",
    ),
    (
        {"password": password(compared=False), "plan": Plan(differences=("x",))},
        {"CredentialsReady": "PasswordDiffers", "Ready": "Diverged"},
        "PasswordDiffers",
    ),
]


@pytest.mark.parametrize(("rest", "expected", "worst"), WAYS)
def test_each_way_not_to_be_well(rest: dict[str, Any], expected: dict[str, str], worst: str) -> None:
    found, shown = told(facts(**rest))
    assert expected.items() <= {name: reason for name, (_, reason) in found.items()}.items()
    assert shown == worst


def test_what_is_known_of_the_password_outlives_a_time_without_a_look() -> None:
    previous = {
        "secretName": "shop-app",
        "password": {"source": "Generate", "changedAt": "2026-11-22T09:00:00Z", "exposure": ["Log"]},
        "conditions": [],
    }
    refusal = Refusal(reason=R.NOT_PERMITTED, about="x", what="w", next_step="n")
    trouble = Problem(reason=TargetReason.NO_PRIMARY, message="none")  # type: ignore[arg-type]
    for judged in (
        judges.refused(refusal, role="shop_app", previous=previous, now=NOW),
        judges.suspended(role="shop_app", previous=previous),
        judges.invalid("spec.x: wrong", previous=previous),
        judges.unreachable(trouble, ADMITTED, target="databases/orders", role="shop_app", previous=previous),
        judges.not_unique(UNIQUE, ADMITTED, role="shop_app", previous=previous),
        judges.undropped(lost, role="shop_app", previous=previous),
    ):
        wire = judged.status.to_wire()
        assert wire["password"] == previous["password"]
        assert wire["secretName"] == "shop-app"


def test_a_refusal_tells_since_when_it_stands() -> None:
    refusal = Refusal(reason=R.NOT_PERMITTED, about="x", what="w", next_step="n")
    condition = {"type": "Accepted", "status": "False", "reason": "NotPermitted"}
    condition["lastTransitionTime"] = "2026-11-20T01:02:03Z"
    judged = judges.refused(refusal, role="r", previous={"conditions": [condition]}, now=NOW)
    assert judged.verdicts[0].message == "w, since 2026-11-20T01:02:03Z: n"
    later = judges.refused(refusal, role="r", previous={}, now=NOW, ends=NOW + timedelta(hours=24))
    assert later.verdicts[-1].message == (
        "not tended since 2026-11-22T09:58:00Z, the role is as it was; its login is disabled at 2026-11-23T09:58:00Z"
        " (onWithdrawal of the target); see Accepted"
    )


def test_a_message_names_whose_password_it_is_and_what_has_ended() -> None:
    def said(**rest: Any) -> str:
        judged = judges.judge(facts(**rest), previous={}, now=NOW)
        return next(v.message for v in judged.verdicts if v.type == "CredentialsReady")

    assert said(password=password(compared=False, login="shop_app_b")).startswith(
        "role shop_app_b has another password"
    )
    assert "validUntil 2026-11-22T09:57:59Z has passed" in said(
        wanted=Wanted(role="shop_app", mark="", valid_until=microseconds(NOW) - 1)
    )


@pytest.mark.parametrize(("reason", "told"), [(R.SESSIONS_REMAIN, True), (R.TOO_MANY_AT_ONCE, False)])
def test_a_deletion_that_is_held_back_says_until_when(reason: R, told: bool) -> None:
    stands = Problem(reason=reason, object="shop_app", message="x")
    judged = judges.undropped(stands, role="shop_app", previous={})
    assert ("After ten minutes this object is let go" in judged.verdicts[-1].message) == told
    assert BLOCKED_SECONDS == 600
