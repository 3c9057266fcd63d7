"""REINDEX CONCURRENTLY on real servers: what is due, what it becomes, and that nothing is left of one that was
aborted."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack, aclosing
from typing import Any

import pytest
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.reindex_ground import abort, bloated, index, invalid, old_snapshot, reindex, writer
from tests.postgres.tasks_ground import ground, initialize, permit

from pgtend.gate.classes import TaskType
from pgtend.tasks.indexes import look_at_indexes
from pgtend.tasks.protocol import Breach, Ground, ItemResult, LockLevel, Outcome, TaskPlan
from pgtend.tasks.reindex import Reindex
from pgtend.tasks.yielding import PATIENCE_SECONDS, Watch


async def carry_out(work: Reindex, place: Ground, plan: TaskPlan, seconds: float = 60) -> list[ItemResult]:
    leave = permit(TaskType.REINDEX, seconds=seconds)
    return [result async for _, result in work.run(place, leave, plan.items)]


async def until_waiting(server: PostgresServer) -> None:
    """A REINDEX has made its copy and waits for somebody's transaction."""
    for _ in range(1200):
        if server.execute("SELECT 1 FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never waited")


async def test_the_empty_index_is_rebuilt_and_the_full_one_is_left_alone(server: PostgresServer) -> None:
    name = bloated(server)
    work = reindex(name)
    async with ground(server) as place:
        plan = await work.plan(place)
        assert [(i.object, i.lock) for i in plan.items] == [
            (f"{name}.shop.items_pkey", LockLevel.SHARE_UPDATE_EXCLUSIVE)
        ]
        assert plan.sql == ("REINDEX INDEX CONCURRENTLY shop.items_pkey",)
        assert (await work.plan(place)).plan_hash == plan.plan_hash
        before = index(server, name, "items_pkey")
        assert await work.find(place, plan.items) == {}
        (result,) = await carry_out(work, place, plan)
        assert result.outcome is Outcome.SUCCEEDED, result
        assert result.size_before is not None and result.size_after is not None
        assert result.size_after < result.size_before / 5
        after = index(server, name, "items_pkey")
        assert after[1] != before[1] and after[2]
        found = await work.find(place, plan.items)
        assert {key: one.outcome for key, one in found.items()} == {plan.items[0].object: Outcome.SUCCEEDED}
        assert (await work.plan(place)).items == ()
        (again,) = await carry_out(work, place, plan)
        assert (again.outcome, again.message) == (Outcome.SUCCEEDED, "it has been rebuilt since it was planned")
        assert index(server, name, "items_pkey") == after, "and not a second time"
    assert invalid(server, name) == []


async def test_measured_exactly_where_the_extension_is_and_refused_where_it_is_not(server: PostgresServer) -> None:
    name = bloated(server)
    work = reindex(name, exact=True)
    async with ground(server) as place:
        plan = await work.plan(place)
        assert plan.objection is not None and plan.objection.breach is Breach.EXTENSION_MISSING
        assert "run CREATE EXTENSION pgstattuple" in plan.objection.message
        server.execute("CREATE EXTENSION pgstattuple", dbname=name)
        plan = await work.plan(place)
        assert plan.objection is None
        assert [i.object for i in plan.items] == [f"{name}.shop.items_pkey"]
        select = reindex(name).select
        guessed = await look_at_indexes(place.server, select, exact=False)
        read = await look_at_indexes(place.server, select, exact=True)
    for guess, truth in zip(guessed.found, read.found, strict=True):
        assert guess.bloat is not None and truth.bloat is not None
        assert abs(guess.bloat - truth.bloat) < 0.05, (guess.name, guess.bloat, truth.bloat)


async def test_what_cannot_be_taken_is_named(server: PostgresServer) -> None:
    name = bloated(server)
    for statement in (
        "CREATE EXTENSION btree_gist",
        "CREATE TABLE shop.rooms (room int, during tsrange, EXCLUDE USING gist (room WITH =, during WITH &&))",
        "CREATE TABLE shop.docs (body text[])",
        "CREATE INDEX docs_gin ON shop.docs USING gin (body)",
        "CREATE TABLE shop.parts (id int, t text) PARTITION BY RANGE (id)",
        "CREATE TABLE shop.part_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (10)",
        "CREATE INDEX parts_id ON shop.parts (id)",
        "CREATE UNLOGGED TABLE shop.scratch (id int PRIMARY KEY)",
        "CREATE TABLE shop.names (t text)",
        "CREATE INDEX names_t ON shop.names (t)",
    ):
        server.execute(statement, dbname=name)
    (owner,) = server.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'items'", dbname=name)[0]
    for table in ("rooms", "docs", "parts", "part_1", "scratch", "names"):
        server.execute(f"ALTER TABLE shop.{table} OWNER TO {owner}", dbname=name)
    async with ground(server) as place:
        everything = await reindex(name, min_bloat=0).plan(place)
        names = {str(item.name) for item in everything.items}
        # a partition's index by itself, the partitioned one never; unlogged as any other; what has no estimate too
        assert names == {"items_pkey", "items_full", "docs_gin", "part_1_id_idx", "scratch_pkey", "names_t"}
        results = await carry_out(reindex(name, min_bloat=0), place, everything)
        assert {one.outcome for one in results} == {Outcome.SUCCEEDED}, results
        plan = await reindex(name).plan(place)
    notes = "; ".join(plan.notes)
    assert "rooms_room_during_excl is of exclusion constraints" in notes
    assert f"{name}.shop.docs_gin is no B-tree, whose bloat cannot be known: name them with minBloat 0%" in notes


async def test_without_statistics_the_bloat_is_unknown_and_said_so(postgres: Postgres) -> None:
    server = postgres(18)
    name = bloated(server, mine=False)
    server.execute("CREATE INDEX items_t ON shop.items (t)", dbname=name)
    async with ground(server) as place:
        plan = await reindex(name).plan(place)
    # an int needs no statistics, a text does
    assert [str(item.name) for item in plan.items] == ["items_pkey"]
    assert any("items_t is without statistics that pgtend_maintenance may read" in note for note in plan.notes)
    assert any("GRANT pg_read_all_data TO pgtend_maintenance" in note for note in plan.notes)


@pytest.mark.parametrize("major", [14, 18])
async def test_a_role_without_the_right_is_told_the_grant(postgres: Postgres, major: int) -> None:
    server = postgres(major)
    name = bloated(server, mine=False)
    server.execute(
        "DO $$ BEGIN EXECUTE 'REVOKE pg_maintain FROM pgtend_maintenance'; EXCEPTION WHEN OTHERS THEN NULL; END $$"
    )
    server.execute("GRANT USAGE ON SCHEMA shop TO PUBLIC", dbname=name)
    async with ground(server) as place:
        work = reindex(name)
        (result,) = await carry_out(work, place, await work.plan(place))
    assert (result.outcome, result.sql_state) == (Outcome.FAILED, "42501"), result
    wanted = "GRANT MAINTAIN ON shop.items TO pgtend_maintenance" if major >= 17 else "GRANT owner"
    assert wanted in result.message
    assert invalid(server, name) == []


async def test_two_never_work_on_one_table(server: PostgresServer) -> None:
    name = bloated(server)
    work = reindex(name)
    async with ground(server) as place:
        plan = await work.plan(place)
        with server.superuser_connect(name) as other, other.transaction():
            other.execute("LOCK TABLE shop.items IN SHARE UPDATE EXCLUSIVE MODE")
            before = index(server, name, "items_pkey")
            (result,) = await carry_out(work, place, plan)
            assert result.outcome is Outcome.DEFERRED_LOCKED, result
            assert f"pid {other.info.backend_pid} works on table items" in result.message
        assert index(server, name, "items_pkey") == before


async def test_it_gives_way_to_traffic_and_leaves_nothing_behind(server: PostgresServer) -> None:
    name = bloated(server)
    work = reindex(name)
    waited: list[float] = []

    def alter() -> None:
        with server.superuser_connect(name) as other:
            started = time.monotonic()
            other.execute("SET lock_timeout = '40s'")
            other.execute("ALTER TABLE shop.items ADD COLUMN more int")
            waited.append(time.monotonic() - started)

    async with ground(server) as place:
        plan = await work.plan(place)
        with writer(server, name):
            running = asyncio.create_task(carry_out(work, place, plan))
            await until_waiting(server)
            assert invalid(server, name) == ["items_pkey_ccnew"]
            thread = threading.Thread(target=alter)
            thread.start()
            # the writer ends once our own has given way, which is what the test is about
            for _ in range(1200):
                if not server.execute("SELECT 1 FROM pg_stat_progress_create_index WHERE command LIKE 'REINDEX%'"):
                    break
                await asyncio.sleep(0.05)
        (result,) = await running
        await asyncio.to_thread(thread.join, 30)
    assert result.outcome is Outcome.DEFERRED_BLOCKING, result
    assert "dropped the leftover shop.items_pkey_ccnew" in result.message
    assert waited
    assert invalid(server, name) == []
    assert index(server, name, "items_pkey")[2]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_queries_that_queue_behind_it_are_let_through(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    """An old snapshot holds it up, an ALTER TABLE waits for it, a SELECT for that one. The negative control: where
    nobody watches, the SELECT waits for as long as the old snapshot lives."""
    name = bloated(server)
    work = reindex(name)
    if not watched:
        monkeypatch.setattr(Watch, "run", until_over)
    async with ground(server) as place:
        plan = await work.plan(place)
        with old_snapshot(server, name):
            running = asyncio.create_task(carry_out(work, place, plan))
            await seen(server, "SELECT 1 FROM pg_stat_progress_create_index WHERE phase = 'waiting for old snapshots'")
            alter = asyncio.create_task(told(server, name, "ALTER TABLE shop.items ADD COLUMN more int"))
            await seen(server, WAITING, "ALTER TABLE%")
            select = asyncio.create_task(told(server, name, "SELECT count(*) FROM shop.items"))
            if watched:
                await asyncio.wait_for(asyncio.gather(alter, select), 60)
            else:
                await seen(server, WAITING, "SELECT count%")
                await asyncio.sleep(3 * PATIENCE_SECONDS)
                assert not select.done() and not running.done()
                (blockers,) = (await seen(server, WAITING, "ALTER TABLE%"))[0]
                rebuilding = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'REINDEX%' AND state = 'active'"
                assert blockers == [row[0] for row in server.execute(rebuilding)], "it alone is in the way"
        await asyncio.gather(alter, select)
        (result,) = await running
    assert result.outcome is (Outcome.DEFERRED_BLOCKING if watched else Outcome.SUCCEEDED), result
    assert invalid(server, name) == []


WAITING = "SELECT pg_blocking_pids(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"


async def until_over(self: Watch) -> None:
    """Instead of watching."""
    await self._over.wait()


async def seen(server: PostgresServer, query: str, *parameters: str) -> list[tuple[Any, ...]]:
    """The rows of a query, as soon as there are some."""
    for _ in range(1200):
        if rows := server.execute(query, parameters):
            return rows
        await asyncio.sleep(0.05)
    raise AssertionError(f"never seen: {query} {parameters}")


async def told(server: PostgresServer, name: str, statement: str) -> None:
    """A statement of somebody else, in a thread: it may wait."""
    await asyncio.to_thread(server.execute, statement, dbname=name)


async def test_another_index_build_may_wait_as_long_as_it_likes(server: PostgresServer) -> None:
    """Whoever waits for ShareUpdateExclusive keeps nobody from reading or writing."""
    name = bloated(server)
    work = reindex(name)
    async with ground(server) as place:
        plan = await work.plan(place)
        with writer(server, name):
            running = asyncio.create_task(carry_out(work, place, plan))
            await until_waiting(server)
            thread = threading.Thread(target=lambda: server.execute("VACUUM shop.items", dbname=name))
            thread.start()
            await asyncio.sleep(4)
            assert not running.done()
        (result,) = await running
        await asyncio.to_thread(thread.join, 30)
    assert result.outcome is Outcome.SUCCEEDED, result


async def test_the_deadline_ends_it_and_says_whom_it_waited_for(server: PostgresServer) -> None:
    name = bloated(server)
    work = reindex(name)
    async with ground(server) as place:
        plan = await work.plan(place)
        with writer(server, name) as other:
            running = asyncio.create_task(carry_out(work, place, plan, seconds=15))
            await until_waiting(server)
            for _ in range(1200):
                if not server.execute("SELECT 1 FROM pg_stat_progress_create_index WHERE command LIKE 'REINDEX%'"):
                    break
                await asyncio.sleep(0.05)
            pid = other.info.backend_pid
        (result,) = await running
    assert (result.outcome, result.sql_state) == (Outcome.CANCELLED, "57014"), result
    assert f"it waited for the transaction of pid {pid} to end" in result.message
    assert invalid(server, name) == []


async def test_cancelled_in_the_middle_the_sweep_takes_ours_and_nothing_else(server: PostgresServer) -> None:
    name = bloated(server)
    work = reindex(name)
    # somebody else's, of before: same name pattern, same table, invalid
    abort(server, name, "items_pkey")
    assert invalid(server, name) == ["items_pkey_ccnew"]
    async with ground(server) as place:
        plan = await work.plan(place)
        assert any("run DROP INDEX CONCURRENTLY shop.items_pkey_ccnew" in note for note in plan.notes)
        with writer(server, name):
            leave = permit(TaskType.REINDEX)
            async with aclosing(work.run(place, leave, plan.items)) as results:
                running = asyncio.create_task(anext(results))
                await until_waiting(server)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
        assert invalid(server, name) == ["items_pkey_ccnew", "items_pkey_ccnew1"]
        lines = await work.sweep(place, plan.items)
        assert lines == (f"dropped the leftover shop.items_pkey_ccnew1 in {name}",)
        assert invalid(server, name) == ["items_pkey_ccnew"], "the other one is not ours"
        assert await work.sweep(place, plan.items) == ()


async def test_the_sweep_ends_what_a_dead_process_left_at_work(server: PostgresServer) -> None:
    """A backend goes on for a while after its client was killed; the next leader finds it and ends it first."""
    name = bloated(server)
    work = reindex(name)
    async with ground(server) as dead:
        plan = await work.plan(dead)
        with ExitStack() as stack:
            stack.enter_context(writer(server, name))
            running = asyncio.create_task(carry_out(work, dead, plan))
            await until_waiting(server)
            async with ground(server) as place:
                sweeping = asyncio.create_task(work.sweep(place, plan.items))
                # ended while the transaction that it waited for still goes on; dropping what it left waits for that too
                for _ in range(1200):
                    if not server.execute("SELECT 1 FROM pg_stat_progress_create_index WHERE command LIKE 'REINDEX%'"):
                        break
                    await asyncio.sleep(0.05)
                else:
                    raise AssertionError("it works on")
                stack.close()
                lines = await sweeping
                (result,) = await running
    # whichever of the two looked first has dropped it: here the dead one lives and tidies up too
    assert len(lines) + result.message.count("dropped the leftover") >= 1, (lines, result)
    assert invalid(server, name) == []


async def test_long_names_are_cut_off_and_still_found(postgres: Postgres) -> None:
    server = postgres(18)
    name = bloated(server)
    long = "i" * 63
    server.execute(f"ALTER INDEX shop.items_pkey RENAME TO {long}", dbname=name)
    work = reindex(name)
    async with ground(server) as place:
        plan = await work.plan(place)
        abort(server, name, long)
        (left,) = invalid(server, name)
        assert left.endswith("_ccnew") and len(left) == 63
        assert len(await work.sweep(place, plan.items)) == 1
    assert invalid(server, name) == []


async def test_a_standby_that_streams_is_thought_of(postgres: Postgres) -> None:
    server = postgres(18)
    name = bloated(server)
    standby = postgres(18, role="standby")
    assert standby.in_recovery()
    async with ground(server) as place:
        plan = await reindex(name).plan(place)
        streaming = server.execute("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")[0][0]
    told = any("queries on standbys" in note for note in plan.notes)
    assert told is (streaming > 0)
    initialize(server, databases=[name])
