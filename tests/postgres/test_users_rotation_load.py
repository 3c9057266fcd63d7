"""Programs that read the Secret at each connection do not notice a rotation with two logins, directly or pooled.
The grace lasts until each has read and connected once more: they are waited for, not timed."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import psycopg
import pytest
from tests.fixtures.plugin import Poolers, Postgres
from tests.postgres.passwords_ground import Ground, conditions, status
from tests.postgres.users_ground import Shop, reached

DUAL = {"interval": "30d", "strategy": "DualRole", "grace": "1h"}
CLIENTS = 3


@dataclass
class Client:
    """Reads, connects, writes a row, and again; what was refused is kept."""

    ground: Ground
    name: str
    rounds: int = 0
    failures: list[str] = field(default_factory=list)
    logins: set[str] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            values = self.ground.secret(self.name)
            try:
                with psycopg.connect(values["uri"], autocommit=True) as connection:
                    connection.execute("INSERT INTO shop.items VALUES (1)")
                    (who,) = connection.execute("SELECT current_user").fetchone() or ("",)
                    if who != self.name:
                        self.failures.append(f"acts as {who}")
            except psycopg.Error as error:
                self.failures.append(str(error))
            self.logins.add(values["username"])
            self.rounds += 1

    async def twice(self) -> None:
        """Until it has read and connected once more, from the start."""
        wanted = self.rounds + 2
        while self.rounds < wanted:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("rotations", [3, pytest.param(20, marks=[pytest.mark.matrix, pytest.mark.timeout(600)])])
async def test_no_login_fails_while_passwords_are_rotated(
    postgres: Postgres, pgbouncer: Poolers, rotations: int
) -> None:
    server = postgres(18)
    shop, pooler, ground = Shop.open(server), pgbouncer(server), Ground(server)
    specs = {
        ground.name(): {"grants": shop.trio("Insert"), "rotation": DUAL, "secret": {"endpoint": endpoint}}
        for endpoint in ("Members", "Pooler")
    }
    async with reached(server, pooler={"host": pooler.host, "port": pooler.port}) as target:
        cases = {name: await ground.tend(target, name, **spec) for name, spec in specs.items()}
        clients = [Client(ground, name) for name in specs for _ in range(CLIENTS)]
        threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        try:
            for number in range(rotations):
                ground.clock.advance(31 * 86_400)
                for name, spec in specs.items():
                    before = ground.secret(name)["username"]
                    cases[name] = await ground.tend(target, name, before=cases[name], **spec)
                    assert conditions(cases[name])["RotationCurrent"] == ("True", "AsExpected"), number
                    assert ground.secret(name)["username"] != before
                await asyncio.gather(*(client.twice() for client in clients))
                ground.clock.advance(3600)
                for name, spec in specs.items():
                    retired = status(cases[name])["password"]["retiringLogin"]
                    cases[name] = await ground.tend(target, name, before=cases[name], **spec)
                    assert server.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [retired]) == [
                        (False,)
                    ]
        finally:
            for client in clients:
                client.stop.set()
            for thread in threads:
                await asyncio.to_thread(thread.join, 60)
    failures = [text for client in clients for text in client.failures]
    assert failures == []
    assert all(len(client.logins) == 2 for client in clients), "each has seen both"
    print(f"{rotations} rotations, {sum(client.rounds for client in clients)} logins, none failed")
