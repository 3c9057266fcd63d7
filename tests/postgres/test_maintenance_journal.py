"""What a window's run writes down while it rebuilds indexes is enough for the next process to tidy up after a crash."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

from tests.fixtures.postgres import PostgresServer
from tests.postgres.reindex_ground import abort, bloated, invalid, reindex, writer
from tests.postgres.tasks_ground import ground, permit

from pgtend.gate.classes import TaskType
from pgtend.maintenance import runs


async def test_leftovers_are_found_by_the_journal_of_a_window_s_run(server: PostgresServer) -> None:
    name = bloated(server)
    work = reindex(name)
    abort(server, name, "items_pkey")  # somebody else's, of before
    async with ground(server) as dead:
        plan = await work.plan(dead)
        # the process is gone in the middle: nobody sweeps
        with writer(server, name):
            async with aclosing(work.run(dead, permit(TaskType.REINDEX), plan.items)) as results:
                running = asyncio.create_task(anext(results))
                for _ in range(400):
                    if server.execute("SELECT 1 FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"):
                        break
                    await asyncio.sleep(0.05)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
    assert invalid(server, name) == ["items_pkey_ccnew", "items_pkey_ccnew1"]
    now = datetime.now(UTC)
    status = runs.status_of(
        mark="m", items=plan.items, results={}, started_at=now, claimed_by="dead", deadline=now, claimed=plan.items
    )
    claimed = runs.claimed_items(status.to_wire())
    assert [item.facts for item in claimed] == [item.facts for item in plan.items]
    async with ground(server) as place:
        assert await work.sweep(place, claimed) == (f"dropped the leftover shop.items_pkey_ccnew1 in {name}",)
    assert invalid(server, name) == ["items_pkey_ccnew"], "the other one is not ours"
