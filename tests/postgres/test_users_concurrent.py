"""Two operators at one server, each with roles of its own: rows of the catalog that both change, and no change is lost.

Without the locks PostgreSQL says `tuple concurrently updated`; the last test shows that they are what keeps it away.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import Pass, Shop, User, reached, tend, user

from pgtend.server.server import Server
from pgtend.server.write import LOCK_CLASS, Lock
from pgtend.users.look import Looker

CLASH = "tuple concurrently updated"


def changes(server: PostgresServer, name: str, shops: list[Shop], group: str, count: int) -> Iterator[User]:
    """One role again and again, each time another in all that shared rows hold: privileges on databases, schemas and
    tables that both use, memberships in one role, its attributes."""
    for number in range(count):
        odd = number % 2 == 1
        grants: list[dict[str, Any]] = []
        for shop in shops:
            grants += shop.trio("Select", "Insert") if odd else shop.trio("Select")[:2]
            words = ["Connect", "Temporary", "Create"] if odd else ["Connect"]
            grants.append({"database": shop.name, "kind": "Database", "privileges": words})
            column = {"schema": "shop", "names": ["lines"], "columns": ["id"]}
            words = ["Update", "References"] if odd else ["Update"]
            grants.append({"database": shop.name, "kind": "Table", "privileges": words, **column})
        memberships = [{"role": group}] if odd else []
        yield user(server, name=name, grants=grants, memberOf=memberships, connectionLimit=number)


async def operate(target: Server, wanted: Iterator[User]) -> list[Pass]:
    looker = Looker(target)
    return [await tend(target, one, applied=number > 0, looker=looker) for number, one in enumerate(wanted)]


def ground(server: PostgresServer) -> tuple[list[Shop], str]:
    shops = [Shop.open(server), Shop.open(server)]
    group = server.fresh_role("both").user
    server.execute(f"GRANT {group} TO pgtend_users WITH ADMIN OPTION")
    return shops, group


async def both(server: PostgresServer, shops: list[Shop], group: str, count: int) -> list[Pass]:
    """Two operators at once, with connections of their own; one begins where the other ends."""
    names = [server.fresh_name("app").replace("_", "-") for _ in range(2)]
    async with reached(server) as one, reached(server) as other:
        found = await asyncio.gather(
            operate(one, changes(server, names[0], shops, group, count)),
            operate(other, changes(server, names[1], shops[::-1], group, count)),
        )
    return [*found[0], *found[1]]


@pytest.mark.parametrize("count", [pytest.param(30, id="30"), pytest.param(300, id="300", marks=pytest.mark.matrix)])
@pytest.mark.timeout(900)
async def test_two_operators_lose_no_change_of_each_other(server: PostgresServer, count: int) -> None:
    shops, group = ground(server)
    mark = server.log_mark()
    passes = await both(server, shops, group, count)
    assert len(passes) == 2 * count
    assert not [p.failed for p in passes if p.failed]
    assert all(done.clean() for done in passes)
    assert CLASH not in server.log_since(mark)


class Anything:
    """A lock that is another one each time."""

    _numbers = itertools.count(1000)

    @property
    def value(self) -> int:
        return next(self._numbers)


class Unlocked:
    SHARED, LOCAL = Anything(), Anything()


async def meet(server: PostgresServer, target: Server, app: User, shop: Shop) -> Pass:
    """Tend a role while another operator is in the middle of a transaction on the same row, which it ends as soon as
    the first one waits. The row is a column's: those of databases and tables 18 looks at again by itself."""
    with server.superuser_connect(shop.name) as other:
        other.execute("BEGIN")
        other.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_CLASS, Lock.LOCAL.value])
        other.execute("GRANT UPDATE (id) ON shop.lines TO pgtend_monitor")
        running = asyncio.create_task(tend(target, app, applied=True))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE usename = 'pgtend_users' AND wait_event_type = 'Lock'"
        while not running.done() and not server.execute(waiting):
            await asyncio.sleep(0.02)
        other.execute("COMMIT")
    return await running


async def test_without_the_lock_they_clash(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop.open(server)
    column = {"database": shop.name, "kind": "Table", "schema": "shop", "names": ["lines"], "columns": ["id"]}
    async with reached(server) as target:
        for locked in (True, False):
            app = user(server, grants=shop.trio()[:2])
            assert (await tend(target, app)).clean()
            if not locked:
                monkeypatch.setattr("pgtend.users.apply.Lock", Unlocked)
            mark = server.log_mark()
            wider = [*shop.trio()[:2], {**column, "privileges": ["Update"]}]
            done = await meet(server, target, user(server, name=app.key.name, grants=wider), shop)
            assert done.clean() is locked, done
            assert (CLASH in server.log_since(mark)) is not locked
