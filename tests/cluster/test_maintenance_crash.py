"""The operator is killed in the middle of a maintenance window: the next one goes on, leaves nothing behind and does
nothing twice, and the record tells of it."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, OperatorProcess, wait
from tests.cluster.tasks_ground import invalid
from tests.cluster.windows_ground import WINDOW, condition, runs, tables, tended, vacuums, wait_run, window
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer

SEED = int(os.environ.get("PGTEND_SEED", "20"))
AROUND = (
    "maintenance.before_record",
    "maintenance.after_record",
    "maintenance.before_claim",
    "maintenance.claimed",
    "maintenance.before_start",
)
END = ("tasks.run.ended", "maintenance.before_end", "maintenance.ended")
VACUUM = (*AROUND, "tasks.vacuum.before", "tasks.vacuum.after", *END)
MIDDLE = "in the middle of the statement"
DONE = "tasks.reindex.after"
REINDEX = (*AROUND, "tasks.reindex.before", MIDDLE, DONE, *END)


def some(places: tuple[str, ...], *always: str) -> list[Any]:
    """In every run those and one more, chosen by PGTEND_SEED; all of them in `make crash`."""
    rest = [place for place in places if place not in always]
    chosen = (*always, *random.Random(SEED).sample(rest, 1))  # noqa: S311 - chooses what is tested
    return [pytest.param(chosen, id="some"), pytest.param(places, id="all", marks=pytest.mark.crash)]


@pytest.mark.long
@pytest.mark.parametrize("places", some(VACUUM, "maintenance.claimed", "tasks.vacuum.after"))
@pytest.mark.timeout(900)
def test_killed_at_every_step_it_goes_on_and_never_twice(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, places: tuple[str, ...]
) -> None:
    server = postgres(18)
    space = tenant.namespace()
    process = operator([space])
    tended(cluster, space, server)
    process.kill9()
    for number, place in enumerate(places):
        print(f"PGTEND_SEED={SEED}: {place}")
        name = f"crash-{number}"
        database = server.fresh_database()
        tables(server, database, ["a", "b", "c"])
        tasks = [{"type": "VacuumAnalyze", "vacuumAnalyze": {"select": {"databases": [database]}}}]
        cluster.apply(window(space, name, tasks=tasks))
        process.start(failpoints=f"{place}=kill")
        process.killed(place)
        process.start()
        run = ended(cluster, space, name)
        assert vacuums(server, database) == {"a": 1, "b": 1, "c": 1}, place
        assert run["status"]["progress"] == "3/3", (place, run["status"])
        over(cluster, space, name)
        process.kill9()


@pytest.mark.long
@pytest.mark.parametrize("places", some(REINDEX, MIDDLE, DONE))
@pytest.mark.timeout(900)
def test_killed_while_it_rebuilds_it_sweeps_and_rebuilds_nothing_twice(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, places: tuple[str, ...]
) -> None:
    """With minBloat 0% every index is due at any time: that one has been rebuilt is only known by asking."""
    server = postgres(18)
    space = tenant.namespace()
    process = operator([space])
    tended(cluster, space, server)
    process.kill9()
    for number, place in enumerate(places):
        print(f"PGTEND_SEED={SEED}: {place}")
        name = f"crash-{number}"
        database = server.fresh_database()
        tables(server, database, ["a", "b"])
        before = files(server, database)
        options = {"select": {"databases": [database]}, "minBloat": "0%"}
        cluster.apply(window(space, name, tasks=[{"type": "Reindex", "reindex": options}]))
        with killed(process, server, database, place):
            died, log = files(server, database), server.log_mark()
            process.start()
            if place is MIDDLE:
                # what goes on without its client is ended before anything else is written
                wait("it is not built any more", lambda d=database: not building(server, d))
        run = ended(cluster, space, name)

        assert invalid(server, database) == [], place
        now = files(server, database)
        rebuilt = {index for index in before if died[index] != before[index]}
        assert {index for index in now if now[index] != died[index]} == before.keys() - rebuilt, place
        begun = re.findall(r"REINDEX INDEX CONCURRENTLY \"?public\"?\.\"?(\w+)", of(server.log_since(log), database))
        assert sorted(begun) == sorted(before.keys() - rebuilt), place
        if place == DONE:
            assert len(rebuilt) == 1, "it was killed after one of two"

        status = run["status"]
        assert status["progress"] == "2/2", (place, status)
        assert {item["outcome"] for item in status["items"]} == {"Succeeded"}, (place, status["items"])
        said = " ".join(c["message"] for c in status["conditions"])
        if place in (MIDDLE, DONE, "tasks.reindex.before", "maintenance.claimed", "maintenance.before_start"):
            assert "the operator was restarted meanwhile" in said, (place, said)
        if place is MIDDLE:
            assert re.search(r"dropped the leftover \"?public\"?\.[ab]_pkey_ccnew", said), said
            assert "an earlier rebuilding left" not in said, "it is not there any more"
        over(cluster, space, name)
        process.kill9()


@contextmanager
def killed(process: OperatorProcess, server: PostgresServer, database: str, place: str) -> Iterator[None]:
    """It is dead in the block. In the middle of a statement: while that waits for a transaction, which lives on."""
    if place is not MIDDLE:
        process.start(failpoints=f"{place}=kill")
        process.killed(place)
        yield
        return
    with server.superuser_connect(database) as writer, writer.transaction():
        for table in ("a", "b"):
            writer.execute(f"UPDATE {table} SET note = 'y' WHERE id = 99")  # noqa: S608
        process.start()
        wait("its copy is there", lambda: invalid(server, database) and building(server, database))
        process.kill9()
        yield


def ended(cluster: Cluster, space: str, name: str) -> dict[str, Any]:
    """The one run of the window that was begun, when it has succeeded."""
    run = wait_run(cluster, space, "Complete", "Succeeded", name=name, seconds=120)
    done = [r for r in runs(cluster, space, name) if r.get("status", {}).get("finishedAt")]
    assert len(done) == 1, [r["metadata"]["name"] for r in done]
    assert run["status"]["counts"]["failed"] == 0 and condition(run, "Ready")["status"] == "True"
    return run


def over(cluster: Cluster, space: str, name: str) -> None:
    """The window is gone, and what was only planned for it."""
    cluster.kubectl("delete", WINDOW, name, "-n", space)

    def swept() -> bool:
        return all(run.get("status", {}).get("finishedAt") for run in runs(cluster, space, name))

    wait("what was only planned is gone", swept)


def files(server: PostgresServer, database: str) -> dict[str, int]:
    """Which file each valid index is in."""
    rows = server.execute(
        "SELECT c.relname, pg_relation_filenode(c.oid)::int8 FROM pg_index AS x JOIN pg_class AS c"
        " ON c.oid = x.indexrelid WHERE x.indisvalid AND c.relnamespace = 'public'::regnamespace",
        dbname=database,
    )
    return dict(rows)


def building(server: PostgresServer, database: str) -> list[int]:
    rows = server.execute("SELECT pid FROM pg_stat_progress_create_index WHERE datname = %s", [database])
    return [row[0] for row in rows]


def of(log: str, database: str) -> str:
    """The lines of one database's sessions that say what was sent."""
    sent = re.compile(r"LOG:  (statement|execute [^:]*): ")
    return "\n".join(line for line in log.splitlines() if f" db={database} " in line and sent.search(line))
