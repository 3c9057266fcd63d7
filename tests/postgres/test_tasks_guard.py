"""A long statement goes to the recorded primary alone: it cannot have a guard in its own transaction, so the session is
asked before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from psycopg import sql
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.tasks_ground import ground, initialize, permit

from pgtend.core.errors import PgtendError
from pgtend.gate.classes import TaskType
from pgtend.tasks.protocol import Ground
from pgtend.tasks.relations import work_on


async def open_(place: Ground) -> None:
    async with work_on(place.server, "postgres", permit=permit(TaskType.REINDEX), lock_ms=1000) as work:
        await work.alone(sql.SQL("SELECT"))


@pytest.mark.parametrize("wrong", [{"timeline": 2}, {"system_identifier": "7000000000000000001"}])
async def test_neither_a_former_primary_nor_another_system(server: PostgresServer, wrong: dict[str, object]) -> None:
    initialize(server)
    async with ground(server) as place:
        good = place.server.standing
        assert good is not None and good.identity is not None
        place.server.standing = replace(good, identity=replace(good.identity, **wrong))  # type: ignore[arg-type]
        with pytest.raises(PgtendError, match="has moved"):
            await open_(place)
        place.server.standing = good  # the control
        await open_(place)


async def test_no_standby(postgres: Postgres) -> None:
    standby = postgres(18, role="standby")
    assert standby.primary is not None
    initialize(standby.primary)
    standby.primary.wait_replayed(standby)
    async with ground(standby) as place:
        with pytest.raises(PgtendError, match="has moved"):
            await open_(place)
