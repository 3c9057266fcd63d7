"""`pgtend plan -f users.yaml`: what applying DatabaseUsers would do, for the review of a change. Writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgtend.cli.options import Where, printable, reaching_by_file, run

if TYPE_CHECKING:
    from pgtend.cli.reach import Reached
    from pgtend.cli.review import Review
    from pgtend.core.findings import ObjectKey
    from pgtend.kube.index import Record

CHANGES = 2


@click.command()
@click.option("--file", "-f", "files", multiple=True, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--namespace", "-n", default="default", show_default=True, help="Of objects that name none.")
@click.option("--installation-id", help="The operator's. Default: as the marks on roles say.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@reaching_by_file
def plan(files: tuple[Path, ...], namespace: str, installation_id: str | None, output: str, **where: Any) -> None:
    """Print what applying the DatabaseUsers in files would do to their targets' servers, by the operator's own plan.

    Exit code 0: nothing. 2: something, or an object would be refused. 1: it could not be told.
    """
    given = Where(**where)
    given.check_file()
    made = run(collect(given, files, namespace, installation_id))
    for text in _json(made) if output == "json" else _text(made):
        click.echo(text)
    if any(one.is_change for one in made):
        raise SystemExit(CHANGES)


async def collect(where: Where, files: Sequence[Path], namespace: str, installation: str | None) -> list[Review]:
    """Reviews in the files' order. Raises ValueError for an object that does not parse, and as `reach` does."""
    from dataclasses import replace

    from pgtend.cli.reach import reach
    from pgtend.users.wanted import target_key

    records = [record for path in files for record in _records(path, namespace)]
    if not records:
        raise ValueError("no DatabaseUser in the files")
    targets = dict.fromkeys(target_key(record.key, record.spec) for record in records)
    found: dict[ObjectKey, Review] = {}
    for key in targets:
        mine = [record for record in records if target_key(record.key, record.spec) == key]
        one = where if where.by_dsn else replace(where, target=f"{key.namespace}/{key.name}")
        async with reach(one) as reached:
            if reached.key != key or reached.spec is None:
                raise ValueError(f"the files ask for target {key}, and --target-file is {reached.name}")
            for review in await _reviews(reached, key, mine, installation):
                found[review.key] = review
    return [found[record.key] for record in records]


async def _reviews(reached: Reached, key: ObjectKey, mine: Sequence[Record], installation: str | None) -> list[Review]:
    from pgtend.cli.looking import look
    from pgtend.cli.review import Scene, review
    from pgtend.server.consent import Requester
    from pgtend.users.look import ask_for
    from pgtend.users.rotation import others
    from pgtend.users.wanted import role_name

    assert reached.spec is not None  # noqa: S101 - the caller has seen it
    there = {record.key: record for record in reached.users}
    everybody = {**there, **{record.key: record for record in mine}}
    users = [(role_name(record.key, record.spec), record.spec, there.get(record.key, record).status) for record in mine]
    families = [(role, *others(role, spec, status)) for role, spec, status in users]
    ask = ask_for(((role, spec) for role, spec, _ in users), families=[one for one in families if len(one) > 1])
    observed = await look(reached, ask)
    labels = {space: await reached.labels(space) for space in {one.key.namespace for one in everybody.values()}}
    scene = Scene(
        target=key,
        spec=reached.spec,
        observed=observed,
        there=there,
        requester=lambda space: Requester(namespace=space, labels=labels.get(space)),
        installation=installation,
    )
    return [review(record, scene, others=tuple(everybody.values())) for record in mine]


def _records(path: Path, namespace: str) -> Iterator[Record]:
    from pgtend.api.databaseuser import DATABASE_USER
    from pgtend.cli.reach import as_served, documents
    from pgtend.kube.index import record_of

    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for body in documents(path, DATABASE_USER.name):
        record = record_of(DATABASE_USER, as_served(body, namespace, created=now))
        if record.spec_error is not None:
            raise ValueError(f"{path}: DatabaseUser {record.key}: {record.spec_error}")
        yield record


def _text(made: Sequence[Review]) -> Iterator[str]:
    for one in made:
        yield printable(f"DatabaseUser {one.key}: role {one.role} on target {one.target}")
        if one.refused is not None:
            yield printable(f"  refused: {one.refused}")
        for text in one.notes:
            yield printable(f"  note: {text}")
        for text in one.differences:
            yield printable(f"  - {text}")
        for text in one.problems:
            yield printable(f"  problem: {text}")
        if not one.is_change:
            yield "  nothing to do"
        place: str | None = None
        for database, statement in one.statements:
            if database != place:
                place = database
                yield printable(f"  -- in database {database}")
            yield printable(f"  {statement};")
    changed, refused = sum(one.is_change for one in made), sum(one.refused is not None for one in made)
    same = len(made) - changed
    what = f"{len(made)} DatabaseUser{'' if len(made) == 1 else 's'}"
    yield f"{what}: {changed - refused} to change, {refused} refused, {same} as they are"


def _json(made: Sequence[Review]) -> Iterator[str]:
    users = [one.document for one in made]
    yield json.dumps({"schema": "pgtend.dev/user-plan/v1", "users": users}, indent=1, ensure_ascii=False)
