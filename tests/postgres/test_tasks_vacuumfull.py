"""VACUUM FULL on real servers: what is due, that it never sits in a queue, and what its record says."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.tasks_ground import ground, initialize, permit

from pgtend.gate.classes import TaskType
from pgtend.tasks.protocol import Breach, Ground, ItemResult, LockLevel, Outcome, TaskPlan
from pgtend.tasks.relations import Names, Select
from pgtend.tasks.vacuumfull import VacuumFull


def bloated(server: PostgresServer, *, mine: bool = True) -> str:
    """`shop.audit` is nine tenths empty, `shop.full` is not. Returns the database."""
    owner = server.fresh_role("owner").user
    name = server.fresh_database("orders", owner=owner)
    for statement in (
        f"CREATE SCHEMA shop AUTHORIZATION {owner}",
        f"SET ROLE {owner}; CREATE TABLE shop.audit (id int PRIMARY KEY, t text) WITH (autovacuum_enabled = off)",
        f"SET ROLE {owner}; CREATE TABLE shop.full (id int, t text) WITH (autovacuum_enabled = off)",
        "INSERT INTO shop.audit SELECT i, repeat('x', 50) FROM generate_series(1, 20000) AS i",
        "INSERT INTO shop.full SELECT i, repeat('x', 50) FROM generate_series(1, 20000) AS i",
        "DELETE FROM shop.audit WHERE id % 10 <> 0",
    ):
        server.execute(statement, dbname=name)
    server.execute("VACUUM (ANALYZE, TRUNCATE false)", dbname=name)
    initialize(server, databases=[name], owners=[owner] if mine else [])
    return name


def task(name: str, *, min_reclaim: int = 1 << 19, allow: bool = True) -> VacuumFull:
    select = Select(names=Names(databases=(name,), schemas=("shop",)))
    return VacuumFull(select=select, min_bloat=0.5, min_reclaim=min_reclaim, allow_unknown_disk=allow)


def file_of(server: PostgresServer, name: str, table: str = "audit") -> int:
    return int(server.execute(f"SELECT pg_relation_filenode('shop.{table}')::int8", dbname=name)[0][0])


async def carry_out(work: VacuumFull, place: Ground, plan: TaskPlan, seconds: float = 60) -> list[ItemResult]:
    leave = permit(TaskType.VACUUM_FULL, seconds=seconds)
    return [result async for _, result in work.run(place, leave, plan.items)]


async def test_the_empty_table_is_rewritten_and_the_full_one_is_left_alone(server: PostgresServer) -> None:
    name = bloated(server)
    work = task(name)
    async with ground(server) as place:
        plan = await work.plan(place)
        assert [(i.object, i.lock) for i in plan.items] == [(f"{name}.shop.audit", LockLevel.ACCESS_EXCLUSIVE)]
        assert plan.objection is None
        before, full = file_of(server, name), file_of(server, name, "full")
        assert await work.find(place, plan.items) == {}
        (result,) = await carry_out(work, place, plan)
        assert result.outcome is Outcome.SUCCEEDED, result
        assert result.size_before and result.size_after and result.size_after < result.size_before / 5
        assert file_of(server, name) != before and file_of(server, name, "full") == full
        found = await work.find(place, plan.items)
        assert [one.outcome for one in found.values()] == [Outcome.SUCCEEDED]
        after = file_of(server, name)
        (again,) = await carry_out(work, place, plan)
        assert again.message == "it has been rewritten since it was planned" and file_of(server, name) == after
        assert (await work.plan(place)).items == ()


async def test_unknown_disk_and_too_little_to_win_are_no(server: PostgresServer) -> None:
    name = bloated(server)
    async with ground(server) as place:
        plan = await task(name, allow=False).plan(place)
        assert plan.objection is not None and plan.objection.breach is Breach.DISK_UNKNOWN
        assert f"VACUUM FULL of {name}.shop.audit" in plan.objection.message
        assert "allowUnknownDisk: true" in plan.objection.message
        plan = await task(name, min_reclaim=1 << 30, allow=False).plan(place)
    assert (plan.items, plan.objection) == ((), None)


@pytest.mark.timeout(120)
async def test_it_never_sits_in_a_queue(server: PostgresServer) -> None:
    """While a reader holds the table, nobody waits behind us for longer than the two seconds of a try; when the reader
    is gone, a later try gets through."""
    name = bloated(server)
    work = task(name)
    async with ground(server) as place:
        plan = await work.plan(place)
        before = file_of(server, name)
        with server.superuser_connect(name) as reader:
            with reader.transaction():
                reader.execute("SELECT count(*) FROM shop.audit")
                running = asyncio.create_task(carry_out(work, place, plan))
                for _ in range(400):
                    if server.execute("SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"):
                        break
                    await asyncio.sleep(0.02)
                # whoever comes now waits for our try to be over, and no longer
                done = threading.Event()

                def read() -> None:
                    server.execute("SELECT count(*) FROM shop.audit", dbname=name)
                    done.set()

                thread = threading.Thread(target=read)
                thread.start()
                await asyncio.to_thread(done.wait, 30)
                assert done.is_set() and not running.done()
            assert file_of(server, name) == before
        (result,) = await running
        thread.join(10)
    assert result.outcome is Outcome.SUCCEEDED, result
    assert file_of(server, name) != before


async def test_without_time_for_another_try_it_is_put_off(postgres: Postgres) -> None:
    server = postgres(18)
    name = bloated(server)
    work = task(name)
    async with ground(server) as place:
        plan = await work.plan(place)
        with server.superuser_connect(name) as reader, reader.transaction():
            reader.execute("SELECT count(*) FROM shop.audit")
            (result,) = await carry_out(work, place, plan, seconds=5)
    assert result.outcome is Outcome.DEFERRED_LOCKED, result


@pytest.mark.parametrize("major", [14, 18])
async def test_a_role_without_the_right_is_told_the_grant(postgres: Postgres, major: int) -> None:
    server = postgres(major)
    name = bloated(server, mine=False)
    if major >= 17:
        server.execute("REVOKE pg_maintain FROM pgtend_maintenance")
    server.execute(
        "GRANT USAGE ON SCHEMA shop TO PUBLIC; GRANT SELECT ON shop.audit TO pgtend_maintenance", dbname=name
    )
    async with ground(server) as place:
        work = task(name)
        before = file_of(server, name)
        (result,) = await carry_out(work, place, await work.plan(place))
    assert (result.outcome, result.sql_state) == (Outcome.FAILED, "42501"), result
    wanted = "GRANT MAINTAIN ON shop.audit TO pgtend_maintenance" if major >= 17 else "run GRANT owner"
    assert wanted in result.message
    assert file_of(server, name) == before
    if major >= 17:
        server.execute("GRANT pg_maintain TO pgtend_maintenance")
