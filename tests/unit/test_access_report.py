"""The access report: what it finds, what a waiver covers and until when, and that a name is a name in every shape."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from pgtend.__main__ import main
from pgtend.api.postgrestarget import AccessFinding, Waiver
from pgtend.cli.report import Report, render
from pgtend.postgres.dsn import check
from pgtend.users.access import FINDINGS, PUBLIC, Entry, Membership, Person, Routine, Snapshot, counts, findings, rows
from pgtend.users.state import Counts

NOW = datetime(2026, 11, 22, 9, 58, tzinfo=UTC)
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/reference/access-report.schema.json").read_text())


def table(name: str, grantee: str, *words: str, **rest: Any) -> Entry:
    base = {"database": "orders", "kind": "Table", "schema": "shop", "owner": "owner"}
    return Entry(**{**base, "name": name, "grantee": grantee, "privileges": frozenset(words), **rest})


def snapshot(**rest: Any) -> Snapshot:
    return Snapshot(**{"version": "18.0", "now": NOW, "people": (), **rest})


def waiver(until: str, **rest: Any) -> Waiver:
    body = {"name": "legacy", "finding": "RoleWithoutExpiry", "role": "batch", "until": until, "reason": "ticket 88"}
    return Waiver.model_validate({**body, **rest})


def test_inheritance_goes_on_and_ends_where_a_membership_does_not_inherit() -> None:
    seen = snapshot(
        people=(Person(name="app"),),
        memberships=(
            Membership(member="app", role="near"),
            Membership(member="near", role="far"),
            Membership(member="far", role="near"),
            Membership(member="app", role="apart", inherits=False),
        ),
        entries=(
            table("items", "app", "Select"),
            table("items", "near", "Select", "Insert"),
            table("items", "far", "Delete"),
            table("items", "apart", "Truncate"),
            table("items", PUBLIC, "Insert", "Update"),
        ),
    )
    assert seen.inherited("app") == ("near", "far")
    assert counts(seen, "app") == Counts(1, 2, 1)
    told = {(row.via, row.role_via, row.privileges) for row in rows(seen) if row.kind == "Table" and row.role == "app"}
    assert told == {
        ("Direct", None, ("Select",)),
        ("Role", "near", ("Select", "Insert")),
        ("Role", "far", ("Delete",)),
    }
    # PUBLIC once for all, or with the role that is asked for
    assert [row.role for row in rows(seen) if row.via == "Public"] == [PUBLIC]
    assert [row.role for row in rows(seen, {"app"}) if row.via == "Public"] == ["app"]
    assert {row.privileges for row in rows(seen) if row.kind == "Role"} == {("Member",), ("SetRole",)}


@pytest.mark.parametrize(
    ("person", "found"),
    [
        (Person(name="app", valid_until="2030-01-01T00:00:00Z", comment="[pgtend:1:here:shop/app]"), set()),
        (Person(name="app", comment="[pgtend:1:here:shop/app]"), {"RoleWithoutExpiry"}),
        (Person(name="app", verifier="None"), {"UndeclaredRole"}),
        (Person(name="app", login=False), {"UndeclaredRole"}),
        (Person(name="postgres", bootstrap=True, superuser=True, verifier="None"), {"Superuser"}),
        (Person(name="app", verifier="Md5"), {"RoleWithoutExpiry", "NonScramVerifier", "UndeclaredRole"}),
        (Person(name="app", verifier="None", used=False), {"UnusedLogin", "UndeclaredRole"}),
        (Person(name="app", verifier="None", used=False, sessions=1), {"UndeclaredRole"}),
        (Person(name="app", verifier="None", used=True), {"UndeclaredRole"}),
        (Person(name="mine", verifier="None"), set()),
    ],
)
def test_findings_about_a_role(person: Person, found: set[str]) -> None:
    told = findings(snapshot(people=(person,)), declared={"mine"}, waivers=())
    assert {one.finding for one in told} == found


def test_what_everybody_may_do_is_told_by_likeness_and_not_where_it_is_as_made() -> None:
    here = {"database": "orders", "grantee": PUBLIC, "owner": "owner"}
    seen = snapshot(
        entries=(
            *(table(name, PUBLIC, "Select") for name in ("a", "b", "c", "d")),
            table("e", PUBLIC, "Update", column="id"),
            Entry(**here, kind="Database", name="orders", privileges=frozenset({"Connect"}), by_default=True),
            Entry(**here, kind="Schema", name="public", privileges=frozenset({"Usage"})),
            Entry(**here, kind="Schema", name="shop", privileges=frozenset({"Usage"})),
            Entry(**here, kind="Language", name="sql", privileges=frozenset({"Usage"}), by_default=True),
            Entry(**here, kind="Function", schema="shop", name="f()", privileges=frozenset({"Execute"})),
        )
    )
    assert sorted(one.message for one in findings(seen, declared=(), waivers=())) == [
        "PUBLIC has Connect on database orders by PostgreSQL's default",
        "PUBLIC has Execute on function f() in schema shop of database orders",
        "PUBLIC has Select on 4 tables a, b, c, … in schema shop of database orders",
        "PUBLIC has Update on table e.id in schema shop of database orders",
        "PUBLIC has Usage on schema shop of database orders",
    ]


def test_a_waiver_is_of_one_finding_and_one_role_and_ends() -> None:
    seen = snapshot(people=(Person(name="batch", comment="[pgtend:1:here:shop/batch]"),))
    stands, gone = waiver("2026-11-22T09:58:01Z"), waiver("2026-11-22T09:58:00Z", name="older")

    def first(*waivers: Waiver) -> tuple[Waiver | None, Waiver | None]:
        [one] = findings(seen, declared=(), waivers=waivers)
        return one.waiver, one.expired

    assert first() == (None, None)
    assert first(stands) == first(gone, stands) == (stands, None)
    assert first(gone) == (None, gone)
    assert first(waiver(stands.until, role="other")) == (None, None)
    assert first(waiver(stands.until, finding="Superuser")) == (None, None)


def test_the_findings_are_those_that_can_be_waived() -> None:
    assert set(FINDINGS) == set(AccessFinding.__args__)  # type: ignore[attr-defined]
    assert SCHEMA["$defs"]["finding"]["enum"] == list(FINDINGS)


NASTY = "=cmd|<script>&\"'\x1b[31m"


def nasty(**rest: Any) -> Report:
    seen = snapshot(
        people=(Person(name=NASTY, superuser=True),),
        entries=(table(NASTY, NASTY, "Select", grantable=frozenset({"Select"})),),
        routines=(Routine(database=NASTY, schema=NASTY, name=f"{NASTY}()", owner=NASTY, public=True),),
        unread={NASTY: NASTY},
        blind={"UnusedLogin": "no record"},
    )
    found = tuple(findings(seen, declared=(), waivers=(waiver("2027-01-01T00:00:00Z", role=NASTY),)))
    return Report(seen=seen, target=NASTY, declared={NASTY: "shop/app"}, found=found, **rest)


def test_a_name_is_a_name_in_every_shape() -> None:
    text, page = ("".join(render(nasty(), output)) for output in ("text", "html"))
    assert "\x1b" not in text + page and "\\x1b[31m" in text
    assert "<script" not in page and "&lt;script&gt;" in page
    document = json.loads("".join(render(nasty(), "json")))
    jsonschema.validate(document, SCHEMA)
    assert document["privileges"][-1]["object"] == document["roles"][0]["name"] == NASTY
    cells = list(csv.DictReader(io.StringIO("".join(render(nasty(), "csv")))))
    assert {cell["role"] for cell in cells} == {f"'{NASTY}"}


def test_without_the_table_it_is_empty_and_still_valid() -> None:
    document = json.loads("".join(render(nasty(table=False), "json")))
    jsonschema.validate(document, SCHEMA)
    assert document["privileges"] == [] and document["findings"]
    assert "WHO MAY DO WHAT" not in "".join(render(nasty(table=False), "text"))


@pytest.mark.parametrize("dsn", ["postgresql://u:hunter22@host/db", "host=a password=hunter22", "x y z hunter22"])
def test_no_password_is_taken_from_an_argument_nor_repeated(dsn: str) -> None:
    with pytest.raises(ValueError, match=r"file|string") as caught:
        check(dsn, argument=True)
    assert "hunter22" not in str(caught.value) and caught.value.__cause__ is None
    check("service=orders", argument=True)
    check("host=a password=hunter22", argument=False)


@pytest.mark.parametrize("words", [[], ["--dsn", "service=a", "--target", "a/b"], ["--target", "orders"]])
def test_exactly_one_place_is_named(words: list[str]) -> None:
    assert CliRunner().invoke(main, ["access", "report", *words]).exit_code == 2
