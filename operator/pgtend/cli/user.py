"""`pgtend user import`: DatabaseUsers for the roles of a server that is there. Prints YAML and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from pgtend.cli.options import Where, printable, reaching, run

if TYPE_CHECKING:
    from pgtend.users.imports import Imported

DIFFERS = 2


@click.group()
def user() -> None:
    """Roles of a PostgreSQL as DatabaseUsers."""


@user.command("import")
@reaching
@click.option("--namespace", help="Of the DatabaseUsers. Default: the target's own.")
@click.option("--role", "roles", multiple=True, help="These alone; * stands for any characters. Default: all.")
def import_command(namespace: str | None, roles: tuple[str, ...], **where: Any) -> None:
    """Print a DatabaseUser for each role that no DatabaseUser declares. Applying them changes nothing but the mark in
    the roles' comments; exit code 2 where that cannot be said of all of them."""
    given = Where(**where)
    given.check()
    made, left = run(collect(given, namespace, roles))
    for text in render(made):
        click.echo(text, nl=False)
    for role, why in sorted(left.items()):
        click.echo(f"pgtend: role {printable(role)} is left out: {printable(why)}", err=True)
    inexact = [one.role for one in made if not one.exact]
    for role in inexact:
        click.echo(f"pgtend: role {printable(role)} could not be said exactly: see the comments", err=True)
    if inexact:
        raise SystemExit(DIFFERS)


async def collect(
    where: Where, namespace: str | None, wanted: tuple[str, ...]
) -> tuple[list[Imported], dict[str, str]]:
    """The roles in the words of specs, and why others are left out."""
    from pgtend.cli.looking import look
    from pgtend.cli.reach import reach
    from pgtend.core.names import read_mark
    from pgtend.core.patterns import pattern
    from pgtend.users.imports import importable, imported, object_names
    from pgtend.users.observe.access import read_whole
    from pgtend.users.observe.read import Ask, Inside

    everything = frozenset({"*"})
    inside = Inside(
        tables=everything, sequences=everything, functions=everything, procedures=everything, types=everything
    )
    async with reach(where) as reached:
        async with reached.session() as session:
            whole = await read_whole(session)
        names = {p.name for p in whole.people}
        names = {n for n in names if not wanted or any(pattern(w).fullmatch(n) for w in wanted)}
        chosen = frozenset(n for n in names if n not in reached.declared)
        left = {n: f"{reached.declared[n]} declares it" for n in names - chosen}
        open_ones = [name for name, closed in whole.databases.items() if closed is None]
        observed = await look(
            reached,
            Ask(
                roles=chosen,
                databases=frozenset(whole.databases),
                inside=dict.fromkeys(open_ones, inside),
                adopted=chosen,
            ),
        )
        verifiers = {person.name: person.verifier for person in whole.people}
        target = {"name": reached.key.name if reached.key is not None else "TARGET"}
        space = namespace or (reached.key.namespace if reached.key is not None else "NAMESPACE")
        if reached.key is not None and space != reached.key.namespace:
            target["namespace"] = reached.key.namespace
        made = []
        objects = object_names(sorted(chosen))
        for name in sorted(chosen):
            role = observed.roles[name]
            mark = read_mark(role.comment)
            why = f"the mark of DatabaseUser {mark[1]} is on it" if mark else None
            why = why or importable(role, logins=reached.declared.keys())
            if why is not None:
                left[name] = why
                continue
            made.append(
                imported(
                    role,
                    observed,
                    target=target,
                    name=objects[name],
                    namespace=space,
                    verifier=verifiers[name],
                )
            )
        return made, left


def render(made: list[Imported]) -> Iterator[str]:
    """One document each; what a person has to know stands before it, as comments."""
    import yaml

    for one in made:
        yield "---\n"
        yield from (f"# {printable(note)}\n" for note in one.notes)
        yield from (f"# applying it would change: {printable(text)}\n" for text in one.differences)
        if one.spec is None:
            yield f"# role {printable(one.role)}\n"
        else:
            yield yaml.safe_dump(one.body, sort_keys=False, allow_unicode=True, width=120)
