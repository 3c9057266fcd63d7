"""A server may be anybody's, and answer as long as it likes: what it sends does not become ours to keep."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import sql
from tests.fixtures.postgres import PostgresServer
from tests.postgres.server_kit import opened

from pgtend.postgres import flood
from pgtend.postgres.connect import Session
from pgtend.postgres.flood import MOST_BYTES, Flooded
from pgtend.postgres.purposes import Purpose
from pgtend.users.observe.read import _both

# in the select list: sent as it is made
ENDLESS = sql.SQL("SELECT repeat('x', 1000), generate_series(1, 100000000)")


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@contextmanager
def growth() -> Iterator[list[int]]:
    """The most that is added meanwhile, looked at every hundredth of a second."""
    begin, found = resident(), [0]

    async def look() -> None:
        while True:
            found[0] = max(found[0], resident() - begin)
            await asyncio.sleep(0.01)

    looking = asyncio.get_running_loop().create_task(look())
    try:
        yield found
    finally:
        looking.cancel()


@pytest.mark.parametrize("how", ["plain", "pipeline"])
async def test_an_answer_without_end_is_cut(server: PostgresServer, how: str) -> None:
    """No deadline helps here: a work session has none, and a probe's four seconds are gigabytes."""
    role = server.fresh_role()
    with growth() as grown:
        async with opened(server, role, purpose=Purpose.WORK) as session:
            with pytest.raises(Flooded, match="more than 32 MiB"):
                await (session.fetch(ENDLESS) if how == "plain" else _both(session, [ENDLESS], {}))
            assert not session.usable
    print(f"grown by {grown[0] >> 20} MiB")
    assert grown[0] < 6 * MOST_BYTES


async def test_many_at_once_share_what_there_is(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen targets of one author: none is too large by itself."""
    monkeypatch.setattr(flood, "MOST_BYTES", 1 << 40)
    role = server.fresh_role()

    async def one() -> None:
        async with opened(server, role, purpose=Purpose.WORK) as session:
            with pytest.raises(Flooded):
                await session.fetch(ENDLESS)

    with growth() as grown:
        await asyncio.gather(*(one() for _ in range(6)))
    print(f"grown by {grown[0] >> 20} MiB")
    assert grown[0] < 6 * flood.MOST_TOGETHER


async def test_what_is_asked_for_comes_whole(server: PostgresServer) -> None:
    """The control: as much as a server with a hundred thousand tables has to say, and what comes one after the other
    is not added up."""
    role = server.fresh_role()
    async with opened(server, role, purpose=Purpose.WORK) as session:
        for _ in range(2):
            found = await session.fetch(
                sql.SQL("SELECT repeat('x', 200) AS x FROM generate_series(1, 100000) AS i, pg_sleep(0.1)")
            )
            assert len(found) == 100_000


async def test_too_many_rows_are_not_made_into_objects(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flood, "MOST_ROWS", 10)
    role = server.fresh_role()
    for count, how in ((10, None), (11, Flooded)):
        query = sql.SQL("SELECT i FROM generate_series(1, {}) AS i").format(sql.Literal(count))
        for ask in (Session.fetch, lambda session, query: _both(session, [query], {})):
            async with opened(server, role) as session:
                if how is None:
                    await ask(session, query)
                else:
                    with pytest.raises(how, match="more than 10 rows"):
                        await ask(session, query)
                    assert not session.usable
