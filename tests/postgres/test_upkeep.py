"""What grows until a server stops, on real servers: each fault is made, named with its offender, and clears."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer, give_to_account
from tests.postgres.test_activity import probing, spec, until

from pgtend.api.conditions import Verdict
from pgtend.api.postgrestarget import TargetSpec
from pgtend.postgres.session import Session
from pgtend.targets import judge_upkeep as judges
from pgtend.targets.grading import Grades
from pgtend.targets.judge_upkeep import judge_slots, judge_upkeep
from pgtend.targets.observe import read_member
from pgtend.targets.reading import Reading


async def read(session: Session) -> Reading:
    return await read_member(session, at=datetime.now(UTC), query_floor=300.0, idle_floor=300.0, own=())


async def look(session: Session, wanted: TargetSpec | None = None, grades: Grades | None = None) -> dict[str, Verdict]:
    wanted, grades, now = wanted or spec(), grades or Grades(), datetime.now(UTC)
    reading = await read(session)
    found = judge_upkeep(spec=wanted, primary=reading, grades=grades, now=now)
    slots = judge_slots(spec=wanted, readings=[reading], grades=grades, now=now)
    return {v.type: v for v in (*found, *([slots] if slots else []))}


async def test_the_figures_are_what_the_server_says(server: PostgresServer) -> None:
    name = server.fresh_database()
    server.execute("CREATE TABLE t (id int)", dbname=name)
    with server.superuser_connect() as other, other.transaction():
        other.execute("SELECT pg_current_xact_id()")
        async with probing(server) as session:
            reading = await read(session)
        ages = dict(server.execute("SELECT datname, (age(datfrozenxid), mxid_age(datminmxid))::text FROM pg_database"))
    assert reading.activity is not None
    upkeep = reading.activity.upkeep
    assert upkeep.ages
    for age in upkeep.ages:
        # other tests use the server too: between the two looks ids may have been given out, never taken back
        xids, multixacts = (int(n) for n in ages[age.database].strip("()").split(","))
        assert 0 <= xids - age.xids < 1000
        assert 0 <= multixacts - age.multixacts < 1000
    assert upkeep.archiver.mode == "off"
    assert upkeep.archiver.segment == 16 << 20


@pytest.mark.covers(
    "PostgresTarget.reason.MissingPrivilege", "PostgresTarget.reason.ArchivingOff", "PostgresTarget.reason.AsExpected"
)
async def test_a_healthy_server_and_a_blind_role(server: PostgresServer) -> None:
    async with probing(server) as session:
        found = await look(session)
    assert {(v.type, v.status, str(v.reason)) for v in found.values()} == {
        ("WraparoundSafe", "True", "AsExpected"),
        ("ArchivingHealthy", "True", "ArchivingOff"),
    }
    async with probing(server, see=False) as session:
        found = await look(session)
    for verdict in found.values():
        assert (verdict.status, str(verdict.reason)) == ("Unknown", "MissingPrivilege")
        assert "run GRANT pg_monitor TO pgtend_monitor" in verdict.message


@pytest.mark.covers(
    "PostgresTarget.spec.thresholds.wraparoundAge.warning",
    "PostgresTarget.spec.thresholds.wraparoundAge.critical",
    "PostgresTarget.spec.thresholds.wraparoundAge.for",
    "PostgresTarget.reason.WraparoundAgeWarning",
    "PostgresTarget.reason.WraparoundAgeCritical",
)
async def test_old_ids_are_told_with_who_keeps_them(postgres: Postgres) -> None:
    # nobody freezes by himself in this test
    server = postgres(18, fresh=True, settings={"autovacuum": "off", "autovacuum_freeze_max_age": "2000000000",
                                                "max_prepared_transactions": "5"})  # fmt: skip
    server.execute("CREATE TABLE kept (id int)")
    with server.superuser_connect() as other:
        other.execute("BEGIN")
        other.execute("INSERT INTO kept VALUES (1)")
        other.execute("PREPARE TRANSACTION 'forgotten'")
    # at its start the server writes four bytes for each id that a prepared transaction keeps: a gigabyte is enough
    _let_pass(server, 240_000_000)
    grades, early = Grades(), spec(wraparoundAge={"warning": "10%"})
    async with probing(server) as session:
        verdict = (await look(session, early, grades=grades))["WraparoundSafe"]
        assert (verdict.status, str(verdict.reason)) == ("False", "WraparoundAgeWarning"), verdict
        assert re.search(r"database \w+ has transaction ids unfrozen for 2[34]\d million ids, 11% of", verdict.message)
        assert "prepared transaction forgotten in postgres keeps VACUUM from freezing" in verdict.message
        verdict = (await look(session, spec(wraparoundAge={"critical": "11%"})))["WraparoundSafe"]
        assert str(verdict.reason) == "WraparoundAgeCritical"
        patient = spec(wraparoundAge={"warning": "10%", "for": "1h"})
        assert (await look(session, patient))["WraparoundSafe"].status == "True"
        server.execute("ROLLBACK PREPARED 'forgotten'")
        for (name,) in server.execute("SELECT datname FROM pg_database WHERE datallowconn"):
            server.execute("VACUUM (FREEZE)", dbname=name)
        # template0 takes no connections and stays old: it is named now, and nobody is blamed for it
        verdict = (await look(session, early, grades=grades))["WraparoundSafe"]
        assert verdict.object == "template0"
        assert "keeps VACUUM" not in verdict.message
        server.execute("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
        server.execute("VACUUM (FREEZE)", dbname="template0")
        assert (await look(session, early, grades=grades))["WraparoundSafe"].status == "True"


def _let_pass(server: PostgresServer, ids: int) -> None:
    """Stop the server and have it go on `ids` transaction ids later, as if they had been used."""
    (next_id,) = server.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8")[0]
    server.stop()
    wanted = next_id + ids
    # a page of pg_xact holds four transactions a byte, a segment 32 pages of 8 KiB
    segment, size = wanted // (8192 * 4 * 32), 8192 * 32
    for number in (segment, segment + 1):
        path = server.data / "pg_xact" / f"{number:04X}"
        path.write_bytes(b"\0" * size)
        give_to_account(path)
    server.run([server.programs.client / "pg_resetwal", "-f", f"--next-transaction-id={wanted}", server.data])
    server.start()


@pytest.mark.covers("PostgresTarget.reason.ArchivingFailing", "PostgresTarget.reason.ArchivingStalled")
async def test_an_archive_command_that_fails_and_one_that_is_missing(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for major in (14, 18):
        server = postgres(major, fresh=True, settings={"archive_mode": "on", "archive_command": "false"})
        _switch(server)
        async with probing(server) as session:

            async def told(session: Session = session) -> tuple[str, str]:
                verdict = (await look(session))["ArchivingHealthy"]
                return verdict.status, str(verdict.reason)

            async def failing(told: Any = told) -> bool:
                return bool(await told() == ("False", "ArchivingFailing"))

            async def well(told: Any = told) -> bool:
                return bool(await told() == ("True", "AsExpected"))

            await until(failing)
            verdict = (await look(session))["ArchivingHealthy"]
            assert re.search(r"fails to archive [0-9A-F]{24}: archived nothing yet at", verdict.message)
            # a file that a new command takes: the archiver is woken by the next one
            server.configure(archive_command="true")
            _switch(server)
            await until(well, 90.0)
            server.configure(archive_command="")
            # what was under way at the reload is archived yet; then nothing moves, and nothing fails
            for _ in range(3):
                _switch(server)
            assert await well()
            monkeypatch.setattr(judges, "STALLED_SECONDS", 0.5)
            monkeypatch.setattr(judges, "STALLED_SEGMENTS", 2)

            async def stalled(told: Any = told) -> bool:
                return bool(await told() == ("False", "ArchivingStalled"))

            await until(stalled)
            monkeypatch.undo()


def _switch(server: PostgresServer) -> None:
    server.execute("SELECT pg_logical_emit_message(true, 'test', 'x'), pg_switch_wal()")


@pytest.mark.covers(
    "PostgresTarget.spec.thresholds.slotRetained.warning",
    "PostgresTarget.spec.thresholds.slotRetained.critical",
    "PostgresTarget.spec.thresholds.slotRetained.for",
    "PostgresTarget.reason.SlotRetainedWarning",
    "PostgresTarget.reason.SlotRetainedCritical",
    "PostgresTarget.reason.SlotLost",
)
@pytest.mark.parametrize("major", [14, 18])
async def test_a_slot_that_nobody_consumes(postgres: Postgres, major: int) -> None:
    server = postgres(
        major, fresh=True, settings={"max_slot_wal_keep_size": "128MB", "wal_keep_size": "0", "max_wal_size": "64MB"}
    )
    server.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    grades = Grades()
    async with probing(server) as session:
        assert "ReplicationHealthy" not in await look(session, grades=grades)
        for _ in range(5):
            _switch(server)
        verdict = (await look(session, grades=grades))["ReplicationHealthy"]
        assert (verdict.status, str(verdict.reason), verdict.object) == ("False", "SlotRetainedWarning", "forgotten")
        assert "max_slot_wal_keep_size 128Mi (limit 50%); nobody consumes it" in verdict.message
        assert "SELECT pg_drop_replication_slot('forgotten')" in verdict.message
        patient = spec(slotRetained={"warning": "50%", "for": "1h"})
        assert "ReplicationHealthy" not in await look(session, patient)
        for _ in range(3):
            _switch(server)
        verdict = (await look(session, grades=grades))["ReplicationHealthy"]
        assert str(verdict.reason) == "SlotRetainedCritical"
        for _ in range(8):
            _switch(server)
        server.execute("CHECKPOINT")
        verdict = (await look(session, grades=grades))["ReplicationHealthy"]
        assert str(verdict.reason) == "SlotLost"
        server.execute("SELECT pg_drop_replication_slot('forgotten')")
        assert "ReplicationHealthy" not in await look(session, grades=grades)
