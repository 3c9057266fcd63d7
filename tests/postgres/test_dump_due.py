"""A dump that comes due while a window is open: what would be in its way ends a minute before, and leaves nothing."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.reindex_ground import bloated, index, invalid, reindex, writer
from tests.postgres.tasks_ground import TARGET, ground

from pgtend.api.maintenancewindow import WindowSpec
from pgtend.core.clock import SystemClock
from pgtend.core.findings import ObjectKey
from pgtend.gate.asking import State, TargetWindow
from pgtend.gate.busy import Busy, DumpPlan
from pgtend.gate.classes import RunPolicy
from pgtend.maintenance.plan import timetable
from pgtend.tasks import leftovers
from pgtend.tasks.protocol import Outcome
from pgtend.tasks.runner import Ending, Order, Run, Runner

HOLDER = ObjectKey("MaintenanceRun", TARGET.namespace, "nightly")
WINDOW = ObjectKey("MaintenanceWindow", TARGET.namespace, "nightly")
POLICY = ObjectKey("PostgresBackupPolicy", TARGET.namespace, "orders")
# its two starts a day are far from now, whenever that is
HOUR = (datetime.now(UTC).hour + 6) % 12
OPEN = WindowSpec.model_validate(
    {
        "targetRefs": [{"name": TARGET.name}],
        "schedule": {"cron": f"0 {HOUR},{HOUR + 12} * * *"},
        "duration": "12h",
        "tasks": [{"type": "Reindex"}],
        "closing": {"lastStart": "2s", "cancel": "1s"},
    }
)


def working(server: PostgresServer) -> bool:
    return bool(server.execute("SELECT 1 FROM pg_stat_progress_create_index WHERE command LIKE 'REINDEX%'"))


async def until(what: str, holds: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():  # type: ignore[operator]
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "due", [pytest.param(True, id="due"), pytest.param(False, id="the control", marks=pytest.mark.matrix)]
)
async def test_a_rebuilding_ends_a_minute_before_the_dump(postgres: Postgres, due: bool) -> None:
    server = postgres(18)
    name = bloated(server)
    work, clock = reindex(name), SystemClock()
    runner = Runner(clock=clock, changed=lambda key: None)
    now = clock.now()
    starts = now + timedelta(seconds=74)
    plans = (DumpPlan(policy=POLICY, due=(starts,)),) if due else ()
    windows = (TargetWindow(key=WINDOW, calendar=timetable(OPEN, now).window),)
    state = State(target=TARGET, mode="Enforce", windows=windows, busy=Busy(dump_plans=plans))
    async with ground(server) as place:
        plan = await work.plan(place)
        before = index(server, name, "items_pkey")
        with writer(server, name):
            run: Run = runner.start(
                Order(
                    holder=HOLDER,
                    uid="1",
                    task=work,
                    ground=place,
                    items=plan.items,
                    run_policy=RunPolicy.IN_WINDOW,
                    deadline=now + timedelta(hours=1),
                    window=WINDOW,
                    state=lambda: state,
                )
            )
            await until("it has begun", lambda: working(server))
            assert run.permit is not None
            if due:
                assert run.permit.deadline == starts - timedelta(seconds=60)
                await until("it has ended", lambda: not working(server))
                assert clock.now() < starts, "before the dump"
            else:
                assert run.permit.deadline > starts
                await asyncio.sleep(max(0.0, (starts - timedelta(seconds=58) - clock.now()).total_seconds()))
                assert working(server), "it goes on"
        await until("the run is over", lambda: run.finished_at is not None)
    (result,) = run.results.values()
    if due:
        # the server ends the statement, or the runner does, whichever is first
        assert run.ending in (Ending.TIMED_OUT, Ending.DONE) and result.outcome is Outcome.CANCELLED, (run, result)
        assert index(server, name, "items_pkey") == before
    else:
        assert run.ending is Ending.DONE and result.outcome is Outcome.SUCCEEDED, (run.ending, result)
    assert invalid(server, name) == [], "nothing is left"
    await runner.close()


@pytest.mark.timeout(240)
async def test_what_could_not_be_taken_away_at_once_goes_when_the_run_has_ended(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropping the copy waits for the same transaction that the rebuilding waited for."""
    monkeypatch.setattr(leftovers, "DROP_SECONDS", 1)
    server = postgres(18)
    name = bloated(server)
    work, clock, given_up = reindex(name), SystemClock(), asyncio.Event()
    runner = Runner(clock=clock, changed=lambda key: None)
    state = State(target=TARGET, mode="Enforce")
    monkeypatch.setattr(leftovers.log, "warning", lambda *_, **__: given_up.set())
    async with ground(server) as place:
        plan = await work.plan(place)
        with writer(server, name):
            run = runner.start(
                Order(
                    holder=HOLDER,
                    uid="1",
                    task=work,
                    ground=place,
                    items=plan.items,
                    run_policy=RunPolicy.OVERRIDE_WINDOW,
                    deadline=clock.now() + timedelta(hours=1),
                    state=lambda: state,
                )
            )
            await until("it waits", lambda: working(server))
            await until("it has a copy", lambda: invalid(server, name))
            server.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index")
            await asyncio.wait_for(given_up.wait(), 60)
            assert invalid(server, name) == ["items_pkey_ccnew"]
        await until("the run is over", lambda: run.finished_at is not None)
    assert run.ending is Ending.DONE
    assert run.swept == (f"dropped the leftover shop.items_pkey_ccnew in {name}",)
    assert invalid(server, name) == []
    await runner.close()
