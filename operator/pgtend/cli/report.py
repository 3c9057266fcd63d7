"""The access report as text, JSON, CSV or HTML, from values alone; the table is rendered row by row, it may be long.

HTML is built as a tree of the standard library: whatever is put into it is escaped by construction, names of roles and
functions are anybody's. One page without a script needs no template library in the image beside it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as Tree

from pgtend.cli.options import printable
from pgtend.users.access import Finding, Row, Snapshot, document, row_document, rows
from pgtend.users.state import spoken

COLUMNS = ("role", "via", "viaRole", "database", "kind", "schema", "object", "column", "privileges", "grantOption")
SHOWN = 5
_STYLE = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}"
    "td,th{border:1px solid #bbb;padding:3px 8px;text-align:left;vertical-align:top}th{background:#eee}"
    ".waived,.unknown{color:#777}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`roles` narrows the table; `table` False leaves it out."""

    seen: Snapshot
    target: str
    declared: Mapping[str, str]
    found: tuple[Finding, ...]
    roles: frozenset[str] | None = None
    table: bool = True

    @property
    def head(self) -> dict[str, Any]:
        return document(self.seen, target=self.target, declared=self.declared, found=self.found)

    def rows(self) -> Iterator[Row]:
        return rows(self.seen, self.roles) if self.table else iter(())


def render(report: Report, output: str) -> Iterator[str]:
    return {"text": _text, "json": _json, "csv": _csv, "html": _html}[output](report)


# Text


def _text(report: Report) -> Iterator[str]:
    head = report.head
    yield f"access report of {printable(report.target)}, PostgreSQL {head['serverVersion']}, at {head['at']}\n"
    yield "\nFINDINGS\n"
    table = [("FINDING", "ROLE", "WHAT", "WAIVER")]
    table += [(one.finding, printable(one.role), printable(one.message), _waiver(one)) for one in report.found]
    yield from _aligned(table) if report.found else ("none\n",)
    for check in head["checks"]:
        if check["state"] == "Unknown":
            yield f"{check['finding']}: Unknown, {printable(check['message'])}\n"
    for one in head["unread"]:
        yield f"database {printable(one['database'])} is not in this report: {printable(one['message'])}\n"
    yield "\nROLES\n"
    columns = ("ROLE", "LOGIN", "EXPIRES", "PASSWORD", "DIRECT", "BY ROLES", "BY PUBLIC", "DECLARED BY")
    yield from _aligned([columns, *(_role_line(role) for role in head["roles"])])
    if report.table:
        yield "\nWHO MAY DO WHAT\n"
        yield from _grouped(report.rows())


def _role_line(role: Mapping[str, Any]) -> tuple[str, ...]:
    counted = role["effective"]
    words = [word for word in ("SUPERUSER", *role["attributes"]) if word != "SUPERUSER" or role["superuser"]]
    return (
        printable(role["name"]) + (f" ({', '.join(dict.fromkeys(words))})" if words else ""),
        "yes" if role["login"] else "no",
        role["validUntil"] or "never",
        role["verifier"],
        str(counted["direct"]),
        str(counted["viaRoles"]),
        str(counted["viaPublic"]),
        printable(role["declaredBy"] or "-"),
    )


def _grouped(found: Iterable[Row]) -> Iterator[str]:
    """Objects with the same privileges in one line; rows come role by role."""
    role: str | None = None
    alike: dict[tuple[Any, ...], list[str]] = {}
    for row in found:
        if row.role != role:
            yield from _lines(alike)
            alike, role = {}, row.role
            yield f"{printable(row.role)}\n"
        by = {
            "Role": f"by role {row.role_via}",
            "Public": "by PUBLIC",
            "Owner": "as owner",
            "Superuser": "as superuser",
        }
        key = (by.get(row.via, "granted"), row.database, row.kind, row.schema, row.privileges, row.grantable)
        alike.setdefault(key, []).append(row.name if row.column is None else f"{row.name}.{row.column}")
    yield from _lines(alike)


def _lines(alike: Mapping[tuple[Any, ...], Sequence[str]]) -> Iterator[str]:
    for (by, database, kind, schema, words, grantable), names in alike.items():
        shown = ", ".join(names[:SHOWN]) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        where = f" in {schema}" if schema is not None else ""
        of = f" of database {database}" if database and kind != "Database" else ""
        handed = f", may hand on {', '.join(grantable)}" if grantable else ""
        yield printable(f"  {', '.join(words)} on {spoken(kind)} {shown}{where}{of} ({by}{handed})") + "\n"


def _aligned(table: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(line[place]) for line in table) for place in range(len(table[0]))] if table else []
    for line in table:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n"


def _waiver(one: Finding) -> str:
    if one.waiver is not None:
        return f"{one.waiver.name} until {one.waiver.until}: {printable(one.waiver.reason)}"
    return f"{one.expired.name} expired {one.expired.until}" if one.expired is not None else "-"


# JSON


def _json(report: Report) -> Iterator[str]:
    """One object; a line for each row of the table."""
    yield json.dumps(report.head, indent=1, ensure_ascii=False)[:-2]
    yield ',\n "privileges": ['
    for number, row in enumerate(report.rows()):
        yield (",\n  " if number else "\n  ") + json.dumps(row_document(row), ensure_ascii=False)
    yield "\n ]\n}\n"


# CSV


def _csv(report: Report) -> Iterator[str]:
    """The table alone: findings have another shape."""
    yield _csv_line(COLUMNS)
    for row in report.rows():
        line = row_document(row)
        yield _csv_line([_cell(line[name]) for name in COLUMNS])


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(value)
    text = "" if value is None else str(value)
    # a spreadsheet would run what begins like this
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _csv_line(values: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


# HTML


def _html(report: Report) -> Iterator[str]:
    head = report.head
    page = Tree.Element("html", lang="en")
    about = Tree.SubElement(page, "head")
    Tree.SubElement(about, "meta", charset="utf-8")
    Tree.SubElement(about, "title").text = printable(f"Access report of {report.target}")
    Tree.SubElement(about, "style").text = _STYLE
    body = Tree.SubElement(page, "body")
    Tree.SubElement(body, "h1").text = printable(f"Access report of {report.target}")
    Tree.SubElement(body, "p").text = f"PostgreSQL {head['serverVersion']}, at {head['at']}"
    Tree.SubElement(body, "h2").text = "Findings"
    _table(
        body,
        ("Finding", "Role", "What", "Waiver"),
        (((one.finding, one.role, one.message, _waiver(one)), "waived" if one.waiver else "") for one in report.found),
    )
    for check in head["checks"]:
        if check["state"] == "Unknown":
            text = f"{check['finding']}: Unknown, {check['message']}"
            Tree.SubElement(body, "p", {"class": "unknown"}).text = printable(text)
    for one in head["unread"]:
        text = f"database {one['database']} is not in this report: {one['message']}"
        Tree.SubElement(body, "p", {"class": "unknown"}).text = printable(text)
    Tree.SubElement(body, "h2").text = "Roles"
    columns = ("Role", "Login", "Expires", "Password", "Direct", "By roles", "By PUBLIC", "Declared by")
    _table(body, columns, ((_role_line(role), "") for role in head["roles"]))
    if report.table:
        Tree.SubElement(body, "h2").text = "Who may do what"
        lines = ([_joined(row_document(row)[name]) for name in COLUMNS] for row in report.rows())
        _table(body, COLUMNS, ((line, "") for line in lines))
    yield "<!DOCTYPE html>\n" + Tree.tostring(page, encoding="unicode", method="html") + "\n"


def _table(parent: Tree.Element, columns: Sequence[str], lines: Iterable[tuple[Sequence[str], str]]) -> None:
    table = Tree.SubElement(parent, "table")
    header = Tree.SubElement(Tree.SubElement(table, "thead"), "tr")
    for name in columns:
        Tree.SubElement(header, "th").text = name
    body = Tree.SubElement(table, "tbody")
    for line, style in lines:
        row = Tree.SubElement(body, "tr", {"class": style} if style else {})
        for text in line:
            Tree.SubElement(row, "td").text = printable(text)


def _joined(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
