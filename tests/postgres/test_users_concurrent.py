"""Two operators at one server, each a process with roles of its own: rows of the catalog that both change, and no
change is lost.

Without the locks PostgreSQL says `tuple concurrently updated`; the last test shows that they are what keeps it away.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, cast

import pytest
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import Pass, Shop, User, reached, tend, user

from pgtend.postgres.locks import LOCK_CLASS, Lock
from pgtend.server.server import Server
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


def ground(server: PostgresServer) -> tuple[list[Shop], str]:
    shops = [Shop.open(server), Shop.open(server)]
    group = server.fresh_role("both").user
    server.execute(f"GRANT {group} TO pgtend_users WITH ADMIN OPTION")
    return shops, group


@dataclass(frozen=True)
class Place:
    """What a process has to know of a server that another has made."""

    host: str
    port: int
    ca_path: Path
    system_identifier: int

    def seen(self) -> PostgresServer:
        return cast(PostgresServer, self)


def operate(
    place: Place, name: str, shops: list[Shop], group: str, count: int, start: Barrier, told: SimpleQueue[list[str]]
) -> None:
    """A process of its own: one operator's machinery, which changes its role again and again. Says what went wrong."""

    async def work() -> list[str]:
        async with reached(place.seen()) as target:
            looker, wrong = Looker(target), []
            for number, one in enumerate(changes(place.seen(), name, shops, group, count)):
                done = await tend(target, one, applied=number > 0, looker=looker)
                if not done.clean():
                    wrong.append(f"change {number}: {done.failed or done.left}"[:500])
            return wrong[:5]

    try:
        start.wait(60)
        told.put(asyncio.run(work()))
    except BaseException as error:
        told.put([repr(error)])
        raise


def both(server: PostgresServer, names: list[str], shops: list[Shop], group: str, count: int) -> list[str]:
    """Two processes at once, each with connections of its own; one begins where the other ends."""
    own = get_context("spawn")
    place = Place(server.host, server.port, server.ca_path, server.system_identifier)
    seen = [replace(shop, server=place.seen()) for shop in shops]
    start, told = own.Barrier(2), own.SimpleQueue()
    processes = [
        own.Process(target=operate, args=(place, name, order, group, count, start, told), daemon=True)
        for name, order in zip(names, (seen, seen[::-1]), strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return [text for _ in processes for text in told.get()]


@pytest.mark.parametrize("count", [pytest.param(30, id="30"), pytest.param(300, id="300", marks=pytest.mark.matrix)])
@pytest.mark.timeout(900)
def test_two_operators_lose_no_change_of_each_other(server: PostgresServer, count: int) -> None:
    shops, group = ground(server)
    mark = server.log_mark()
    names = [server.fresh_name("app").replace("_", "-") for _ in range(2)]
    assert both(server, names, shops, group, count) == []
    # each did all that it was to do
    limits = server.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = ANY(%s)", [names])
    assert limits == [(count - 1,)] * 2
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
