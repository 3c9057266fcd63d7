"""TerminateQueries on real servers: exactly the named ones end, and nobody by accident."""

from __future__ import annotations

import psycopg
import pytest
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import Login, PostgresServer
from tests.postgres.tasks_ground import PASSWORDS, alive, busy, ground, initialize, permit

from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.gate.classes import TaskType
from pgtend.tasks.protocol import Breach, Ground, Item, ItemResult, Outcome, TaskPlan
from pgtend.tasks.terminate import TerminateQueries
from pgtend.tasks.victims import Selector


def task(*, most: int = 10, **select: object) -> TerminateQueries:
    return TerminateQueries(selector=Selector(**{"longer_than": 0.0, **select}), max_victims=most)  # type: ignore[arg-type]


async def carry_out(work: TerminateQueries, place: Ground, plan: TaskPlan) -> list[tuple[Item, ItemResult]]:
    return [done async for done in work.run(place, permit(TaskType.TERMINATE_QUERIES), plan.items)]


@pytest.mark.covers(
    "PostgresOperation.spec.terminateQueries.select.users",
    "PostgresOperation.spec.terminateQueries.select.databases",
    "PostgresOperation.spec.terminateQueries.select.longerThan",
    "PostgresOperation.spec.terminateQueries.select.states",
)
async def test_exactly_the_selected_end(server: PostgresServer) -> None:
    initialize(server)
    wanted, other = server.fresh_role("report"), server.fresh_role("shop")
    with busy(server, wanted) as one, busy(server, wanted) as two, busy(server, other) as three:
        idle = server.connect(wanted)
        idle.execute("SELECT 1")
        work = task(users=("report_*",), databases=("postgres",))
        async with ground(server) as place:
            plan = await work.plan(place)
            assert plan.objection is None
            assert {item.facts["pid"] for item in plan.items} >= {str(c.info.backend_pid) for c in (one, two)}
            assert alive(server, one, two, three, idle) == [True] * 4, "a plan changes nothing"
            mine = [i for i in plan.items if i.shown["user"] == wanted.user]
            assert [i.object for i in mine] == [f"pid {i.facts['pid']}" for i in mine]
            done = [d async for d in work.run(place, permit(work.type), mine)]
        assert [result.outcome for _, result in done] == [Outcome.SUCCEEDED] * 2
        assert alive(server, one, two, three, idle) == [False, False, True, True]
        idle.close()


async def test_a_victim_that_went_on_to_something_else_is_left_alone(server: PostgresServer) -> None:
    initialize(server)
    login = server.fresh_role("moving")
    work = task(users=(login.user,), states=("Active", "Idle"))
    with server.connect(login) as victim:
        victim.execute("SELECT 1")
        async with ground(server) as place:
            plan = await work.plan(place)
            assert len(plan.items) == 1
            victim.execute("SELECT 2")
            ((_, result),) = await carry_out(work, place, plan)
            assert result.outcome is Outcome.CANCELLED
            victim.execute("SELECT 3")
            # negative control: without the check in the statement the same plan ends it
            again = await work.plan(place)
            ((_, result),) = await carry_out(work, place, again)
            assert result.outcome is Outcome.SUCCEEDED
        with pytest.raises(psycopg.Error):
            victim.execute("SELECT 4")


@pytest.mark.covers(
    "PostgresOperation.spec.terminateQueries.maxVictims", "PostgresOperation.spec.terminateQueries.select.pids"
)
async def test_more_victims_than_expected_and_nobody_is_touched(server: PostgresServer) -> None:
    initialize(server)
    login = server.fresh_role("many")
    with busy(server, login) as one, busy(server, login) as two:
        async with ground(server) as place:
            plan = await task(most=1, users=(login.user,)).plan(place)
            assert plan.objection is not None and plan.objection.breach is Breach.TOO_MANY_VICTIMS
            assert "2 sessions fit the selector, maxVictims is 1" in plan.objection.message
            assert len(plan.items) == 2, "they are named"
            by_pid = await task(most=1, pids=(one.info.backend_pid,)).plan(place)
            assert by_pid.objection is None and len(by_pid.items) == 1
            await carry_out(task(most=1, pids=(one.info.backend_pid,)), place, by_pid)
        assert alive(server, one, two) == [False, True]


@pytest.mark.covers("PostgresOperation.spec.terminateQueries.select.applications")
async def test_dumps_index_builds_and_our_own_are_spared_unless_named(server: PostgresServer) -> None:
    database = server.fresh_database()
    login = server.fresh_role("tools")
    initialize(server, databases=[database])
    server.execute(f"CREATE TABLE t (id int); ALTER TABLE t OWNER TO {login.user}", dbname=database)
    server.execute("INSERT INTO t SELECT 1", dbname=database)
    server.execute(f"GRANT CREATE ON SCHEMA public TO {login.user}", dbname=database)
    server.execute(
        "CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(60); RETURN 1; END $$",
        dbname=database,
    )
    build = "CREATE INDEX ON t (slow(id))"
    mine = Login(user="pgtend_maintenance", password=PASSWORDS["pgtend_maintenance"])
    users = (login.user, mine.user)
    with (
        busy(server, login, application_name="pg_dump") as dump,
        busy(server, mine, application_name="pgtend/x/lane/y") as ours,
        busy(server, login, application_name="pgtend/x/lane/y") as disguised,
        busy(server, login, build, dbname=database) as builder,
        busy(server, login, application_name="app") as plain,
    ):
        async with ground(server) as place:
            plan = await task(users=users).plan(place)
            expected = {str(plain.info.backend_pid), str(disguised.info.backend_pid)}
            assert {i.facts["pid"] for i in plan.items} == expected, "a name alone makes nobody ours"
            assert plan.notes == ("1 dumps and backups spared", "1 index builds spared", "1 pgtend's own spared")
            starred = await task(users=users, applications=("*",)).plan(place)
            assert {i.facts["pid"] for i in starred.items} == expected, "a star names nobody"
            named = await task(users=users, applications=("pg_dump*", "pgtend/*")).plan(place)
            assert {i.facts["pid"] for i in named.items} == {
                str(dump.info.backend_pid),
                str(disguised.info.backend_pid),
            }
            both = (builder.info.backend_pid, ours.info.backend_pid)
            named = await task(users=users, pids=both).plan(place)
            assert [i.facts["pid"] for i in named.items] == [str(builder.info.backend_pid)]


@pytest.mark.covers("PostgresOperation.reason.MissingPrivilege")
async def test_what_the_role_cannot_see_is_not_guessed(server: PostgresServer) -> None:
    initialize(server)
    login = server.fresh_role("hidden")
    with busy(server, login):
        server.execute("REVOKE pg_monitor FROM pgtend_maintenance")
        try:
            async with ground(server) as place:
                plan = await task(users=(login.user,)).plan(place)
        finally:
            server.execute("GRANT pg_monitor TO pgtend_maintenance")
        assert plan.items == ()
        assert plan.objection is not None and plan.objection.breach is Breach.MISSING_PRIVILEGE
        assert plan.objection.message.endswith("run GRANT pg_read_all_stats TO pgtend_maintenance")


async def test_a_superusers_session_is_reported_not_hidden(server: PostgresServer) -> None:
    initialize(server)
    login = server.fresh_role("boss", "SUPERUSER")
    work = task(users=(login.user,))
    with busy(server, login) as boss:
        async with ground(server) as place:
            ((_, result),) = await carry_out(work, place, await work.plan(place))
            assert (result.outcome, result.sql_state) == (Outcome.FAILED, "42501")
            assert "only a superuser may end a superuser's session" in result.message
            assert alive(server, boss) == [True]


@pytest.mark.timeout(180)
async def test_a_standby_too_and_only_of_this_system(postgres: Postgres) -> None:
    standby = postgres(18, role="standby")
    primary = standby.primary
    assert primary is not None
    initialize(primary)
    login = primary.fresh_role("reader")
    primary.wait_replayed(standby)
    work = task(users=(login.user,))
    with busy(standby, login) as there, busy(primary, login) as here:
        async with ground(primary, standby) as place:
            plan = await work.plan(place)
            assert {i.object for i in plan.items} == {
                f"pid {here.info.backend_pid} on a",
                f"pid {there.info.backend_pid} on b",
            }
            done = await carry_out(work, place, plan)
        assert [r.outcome for _, r in done] == [Outcome.SUCCEEDED] * 2
        assert alive(standby, there) == [False] and alive(primary, here) == [False]
    with busy(primary, login) as safe:
        async with ground(primary, system="42") as place:
            plan = await work.plan(place)
            ((_, result),) = await carry_out(work, place, plan)
            assert result.outcome is Outcome.FAILED and "another system" in result.message
        assert alive(primary, safe) == [True]


@pytest.mark.parametrize(
    ("how", "reason"), [({"mode": "Observe"}, TargetReason.OBSERVING), ({"braked": True}, TargetReason.BRAKE_ON)]
)
async def test_observe_and_the_brake_let_nobody_through(
    postgres: Postgres, how: dict[str, object], reason: TargetReason
) -> None:
    server = postgres(18)
    initialize(server)
    login = server.fresh_role("watched")
    work = task(users=(login.user,))
    with busy(server, login) as safe:
        async with ground(server, **how) as place:  # type: ignore[arg-type]
            plan = await work.plan(place)
            assert len(plan.items) == 1
            with pytest.raises(PgtendError) as refused:
                await carry_out(work, place, plan)
            assert refused.value.reason is reason
        assert alive(server, safe) == [True]


@pytest.mark.timeout(180)
async def test_with_no_connection_left_the_kept_session_still_ends_them(postgres: Postgres) -> None:
    server = postgres(18, fresh=True, settings={"max_connections": "12", "max_wal_senders": "2"})
    initialize(server)
    login = server.fresh_role("crowd")
    work = task(most=50, users=(login.user,))
    async with ground(server) as place:
        await place.members.keep(place.server)
        crowd: list[psycopg.Connection] = []
        with busy(server, login) as first:
            with pytest.raises(psycopg.OperationalError):
                while True:
                    crowd.append(server.connect(login))
            plan = await work.plan(place)
            assert [i.facts["pid"] for i in plan.items] == [str(first.info.backend_pid)]
            ((_, result),) = await carry_out(work, place, plan)
            assert result.outcome is Outcome.SUCCEEDED
        for connection in crowd:
            connection.close()


async def test_a_permit_for_another_target_is_refused(postgres: Postgres) -> None:
    server = postgres(18)
    initialize(server)
    async with ground(server) as place:
        work = task()
        other = permit(TaskType.REINDEX)
        with pytest.raises(ValueError, match="something else"):
            _ = [d async for d in work.run(place, other, ())]


async def test_after_a_crash_the_gone_are_found_and_the_others_are_not(server: PostgresServer) -> None:
    initialize(server)
    login = server.fresh_role("crash")
    work = task(users=(login.user,))
    with busy(server, login) as one, busy(server, login) as two:
        async with ground(server) as place:
            plan = await work.plan(place)
            pid = one.info.backend_pid
            server.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            found = await work.find(place, plan.items)
        assert list(found) == [f"pid {pid}"]
        assert alive(server, two) == [True]
