"""`pgtend target ...`: what an administrator needs to make a server ready for pgtend. Talks to nobody."""

from __future__ import annotations

import click


@click.group()
def target() -> None:
    """Make a PostgreSQL ready to be tended."""


@target.command("init-sql")
@click.option(
    "--features",
    default="monitor,users",
    show_default=True,
    help="What the target will be used for, separated by commas, as spec.credentials spells it.",
)
@click.option("--database", "databases", multiple=True, help="Let the roles connect to it, and users hand that on.")
@click.option(
    "--grant-through", "owners", multiple=True, metavar="OWNER", help="Make them members of the tables' owner."
)
def init_sql_command(features: str, databases: tuple[str, ...], owners: tuple[str, ...]) -> None:
    """Print the SQL that makes the minimal roles. Read it, then run it as an administrator; it sets no password."""
    from pgtend.postgres.init_sql import init_sql

    words = [word.strip() for word in features.split(",") if word.strip()]
    try:
        text = init_sql(words, databases=databases, owners=owners)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--features") from None
    click.echo(text, nl=False)
