"""`pgtend access report`: who may do what on a server, read at once and rendered by report.py. Nothing is written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pgtend.cli.options import Where, reaching, run

if TYPE_CHECKING:
    from pgtend.cli.reach import Reached
    from pgtend.users.access import Snapshot

FOUND = 2


@click.group()
def access() -> None:
    """Who may do what on a PostgreSQL."""


@access.command("report")
@reaching
@click.option("--output", "-o", type=click.Choice(["text", "json", "csv", "html"]), default="text", show_default=True)
@click.option("--role", "roles", multiple=True, help="The table of these roles alone, with what they have by PUBLIC.")
@click.option("--findings-only", is_flag=True, help="Without the table.")
@click.option("--fail", is_flag=True, help="Exit code 2 where a finding is not waived.")
def report(output: str, roles: tuple[str, ...], findings_only: bool, fail: bool, **where: str) -> None:
    """Print who may do what, and what to look at: superusers, logins without expiry, grants to PUBLIC, and more."""
    from pgtend.cli.report import Report, render
    from pgtend.users.access import findings

    given = Where(**where)  # type: ignore[arg-type]
    given.check()
    seen, reached = run(collect(given))
    found = findings(seen, declared=reached.declared, waivers=reached.spec.waivers if reached.spec else ())
    made = Report(
        seen=seen,
        target=reached.name,
        declared=reached.declared,
        found=tuple(found),
        roles=frozenset(roles) or None,
        table=not findings_only,
    )
    for part in render(made, output):
        sys.stdout.write(part)
    if fail and any(one.waiver is None for one in found):
        raise SystemExit(FOUND)


async def collect(where: Where) -> tuple[Snapshot, Reached]:
    from pgtend.cli.reach import reach

    async with reach(where) as reached:
        return await snapshot(reached), reached


async def snapshot(reached: Reached) -> Snapshot:
    """Raises PgtendError where the first database cannot be read; another's failure is in the snapshot."""
    from pgtend.core.errors import PgtendError
    from pgtend.users.access import Routine, Snapshot
    from pgtend.users.observe.access import read_inside, read_whole

    async with reached.session() as session:
        whole = await read_whole(session)
    entries, unread = list(whole.entries), dict[str, str]()
    routines: list[Routine] = []
    for name, closed in whole.databases.items():
        if closed is not None:
            unread[name] = closed
            continue
        try:
            async with reached.session(name) as session:
                more, definers = await read_inside(session, name)
        except PgtendError as error:
            unread[name] = error.message
            continue
        entries += more
        routines += definers
    return Snapshot(
        version=whole.version,
        now=whole.now,
        people=whole.people,
        memberships=whole.memberships,
        entries=tuple(entries),
        routines=tuple(routines),
        blind=whole.blind,
        unread=unread,
        used_since=whole.used_since,
    )
