"""VACUUM on real servers: success is what the table's counter says, and nobody waits for it for long."""

from __future__ import annotations

import asyncio
import threading
import time

from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.tasks_ground import ground, initialize, permit

from pgtend.gate.classes import TaskType
from pgtend.tasks.protocol import Ground, ItemResult, LockLevel, Outcome, TaskPlan
from pgtend.tasks.relations import Names, Select
from pgtend.tasks.vacuum import VacuumAnalyze


def shop(server: PostgresServer, *, mine: bool = True) -> str:
    """A database with a table half of whose rows are dead; owned by a role that `maintenance` is a member of."""
    owner = server.fresh_role("owner").user
    name = server.fresh_database("orders", owner=owner)
    for statement in (
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.items (id int, t text) WITH (autovacuum_enabled = off)",
        "CREATE TABLE shop.clean (id int)",
        "INSERT INTO shop.items SELECT i, 'x' FROM generate_series(1, 2000) AS i",
        "DELETE FROM shop.items WHERE id % 2 = 0",
        f"ALTER TABLE shop.items OWNER TO {owner}",
        f"ALTER SCHEMA shop OWNER TO {owner}",
    ):
        server.execute(statement, dbname=name)
    initialize(server, databases=[name], owners=[owner] if mine else [])
    wait_for_statistics(server, name)
    return name


def wait_for_statistics(server: PostgresServer, name: str, *, dead: int = 1000) -> None:
    """Until the statistics know of so many dead rows. Those of 14 come late and may be lost on their way: then they are
    counted once more."""
    query = "SELECT n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE relname = 'items'"
    for attempt in range(1, 201):
        found, live = server.execute(query, dbname=name)[0]
        if found >= dead * 0.9 and live:
            return
        if attempt % 20 == 0:
            server.execute("ANALYZE shop.items", dbname=name)
        time.sleep(0.1)
    raise AssertionError(f"the statistics know of {found} dead rows instead of {dead}")


def task(name: str) -> VacuumAnalyze:
    return VacuumAnalyze(select=Select(names=Names(databases=(name,), schemas=("shop",))))


async def carry_out(work: VacuumAnalyze, place: Ground, plan: TaskPlan) -> list[ItemResult]:
    leave = permit(TaskType.VACUUM_ANALYZE)
    return [result async for _, result in work.run(place, leave, plan.items)]


async def test_the_due_table_is_vacuumed_and_nothing_is_left_to_do(server: PostgresServer) -> None:
    name = shop(server)
    work = task(name)
    async with ground(server) as place:
        plan = await work.plan(place)
        assert [(i.object, i.lock) for i in plan.items] == [(f"{name}.shop.items", LockLevel.SHARE_UPDATE_EXCLUSIVE)]
        again = await work.plan(place)
        assert again.plan_hash == plan.plan_hash
        (result,) = await carry_out(work, place, plan)
        assert result.outcome is Outcome.SUCCEEDED, result
        assert (await work.plan(place)).items == ()
    rows = server.execute(
        "SELECT vacuum_count, analyze_count FROM pg_stat_user_tables WHERE relname='items'", dbname=name
    )
    assert rows[0][0] == 1


async def test_a_role_without_the_right_is_told_the_grant(postgres: Postgres) -> None:
    server = postgres(14)
    name = shop(server, mine=False)
    async with ground(server) as place:
        (result,) = await carry_out(task(name), place, await task(name).plan(place))
        assert (result.outcome, result.sql_state) == (Outcome.FAILED, "42501")
        assert "run GRANT USAGE ON SCHEMA shop TO pgtend_maintenance" in result.message
        server.execute("GRANT USAGE ON SCHEMA shop TO PUBLIC", dbname=name)
        (result,) = await carry_out(task(name), place, await task(name).plan(place))
    assert (result.outcome, result.sql_state) == (Outcome.FAILED, "42501")
    assert "GRANT MAINTAIN ON shop.items TO pgtend_maintenance" in result.message


async def test_a_locked_table_is_put_off(server: PostgresServer) -> None:
    name = shop(server)
    async with ground(server) as place:
        plan = await task(name).plan(place)
        with server.superuser_connect(name) as other, other.transaction():
            other.execute("LOCK TABLE shop.items IN ROW EXCLUSIVE MODE")
            other.execute("LOCK TABLE shop.items IN ACCESS EXCLUSIVE MODE")
            (result,) = await carry_out(task(name), place, plan)
    assert result.outcome is Outcome.DEFERRED_LOCKED, result


async def test_it_gives_way_to_whoever_waits_for_it(server: PostgresServer) -> None:
    name = shop(server)
    # slow: 2000 pages would take minutes with this delay
    server.execute("INSERT INTO shop.items SELECT i, repeat('x', 700) FROM generate_series(1, 20000) AS i", dbname=name)
    server.execute("DELETE FROM shop.items WHERE id % 2 = 0", dbname=name)
    wait_for_statistics(server, name, dead=10_000)
    server.execute(f"ALTER ROLE pgtend_maintenance IN DATABASE {name} SET vacuum_cost_delay = '100ms'", dbname=name)
    server.execute(f"ALTER ROLE pgtend_maintenance IN DATABASE {name} SET vacuum_cost_limit = 1", dbname=name)
    waited: list[float] = []

    def alter() -> None:
        with server.superuser_connect(name) as other:
            started = time.monotonic()
            other.execute("ALTER TABLE shop.items ADD COLUMN more int")
            waited.append(time.monotonic() - started)

    async with ground(server) as place:
        plan = await task(name).plan(place)
        running = asyncio.create_task(carry_out(task(name), place, plan))
        for _ in range(100):
            if server.execute("SELECT 1 FROM pg_stat_progress_vacuum WHERE relid > 16000"):
                break
            await asyncio.sleep(0.05)
        thread = threading.Thread(target=alter)
        thread.start()
        (result,) = await running
        await asyncio.to_thread(thread.join, 10)
    assert result.outcome is Outcome.DEFERRED_BLOCKING, result
    assert waited and waited[0] < 6.0, waited
