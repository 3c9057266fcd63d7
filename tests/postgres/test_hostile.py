"""Who may write a target may have us log in wherever they like: what such a server gets, and what it costs us."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.tls import CertificateAuthority
from tests.postgres.hostile import Hostile, Relay
from tests.postgres.server_kit import Secrets, opened, serving, spec_for

from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive
from pgtend.postgres.connect import connect
from pgtend.postgres.keys import MOST_ITERATIONS
from pgtend.postgres.login import Address, Login
from pgtend.postgres.purposes import Purpose
from pgtend.server.standing import ServerIdentity, Standing

PASSWORD = "the-password-of-somebody-else"
TEN_MILLION = 10_000_000


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path)


@asynccontextmanager
async def hostile(authority: CertificateAuthority, asks: Callable[[int], str | int]) -> AsyncIterator[Hostile]:
    async with Hostile(authority.issue("server"), asks).listening() as made:
        yield made


async def log_in(at: Hostile, authority: CertificateAuthority, *, direct: bool = True, **how: Any) -> PgtendError:
    with pytest.raises(PgtendError) as caught:
        await connect(
            address=Address(name="a", host=at.host, port=at.port, sslmode="verify-full", ca=authority.path.read_text()),
            login=Login(user="victim", password=Sensitive(PASSWORD), **how),
            database="postgres",
            purpose=Purpose.PROBE,
            application_name="pgtend/tests/probe/x",
            direct=direct,
        )
    assert PASSWORD not in str(caught.value)
    return caught.value


@contextmanager
def cpu() -> Iterator[list[float]]:
    """Seconds of CPU that this thread, which runs the loop, spends: whatever else the machine does."""
    spent, started = [0.0], time.thread_time()
    yield spent
    spent[0] = time.thread_time() - started


async def longest_pause(work: asyncio.Task[Any]) -> float:
    longest, last = 0.0, time.monotonic()
    while not work.done():
        await asyncio.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    return longest


@pytest.mark.parametrize("from_", [0, 1], ids=["at once", "after a modest beginning"])
@pytest.mark.parametrize("iterations", [TEN_MILLION, 2**31 - 1])
async def test_a_server_that_asks_for_millions_of_iterations_stops_nothing(
    authority: CertificateAuthority, from_: int, iterations: int
) -> None:
    """The second connection is libpq's own, and the server knows that as well as we do."""
    async with hostile(authority, lambda number: iterations if number >= from_ else 4096) as server:
        with cpu() as spent:
            work = asyncio.create_task(log_in(server, authority))
            pause = await longest_pause(work)
        error = await work
        print(f"{iterations} iterations: {spent[0]:.3f} s of CPU in the loop, longest pause {pause:.3f} s, {error}")
        assert spent[0] < 0.5 and pause < 2.5
        if from_ == 0:
            assert error.reason == "AuthenticationMethodRefused" and not error.transient
            assert str(iterations) in error.message and "scram_iterations" in error.message


@pytest.mark.parametrize("from_", [0, 1], ids=["at once", "after a modest beginning"])
async def test_a_pooler_that_asks_for_millions_stops_nothing_either(
    authority: CertificateAuthority, from_: int
) -> None:
    """libpq has the password here, so what it is asked for is read before it."""
    async with hostile(authority, lambda number: 2**31 - 1 if number >= from_ else 4096) as server:
        for number in range(2):
            with cpu() as spent:
                error = await log_in(server, authority, direct=False)
            assert spent[0] < 0.5
            if number >= from_:
                assert error.reason == "AuthenticationMethodRefused" and str(2**31 - 1) in error.message


@pytest.mark.parametrize("asks", ["cleartext", "md5"])
async def test_a_pooler_gets_no_password_in_clear_text(authority: CertificateAuthority, asks: str) -> None:
    async with hostile(authority, lambda number: asks) as server:
        error = await log_in(server, authority, direct=False)
        assert error.reason == "AuthenticationMethodRefused"
        assert not server.has(PASSWORD, "victim")


async def test_a_login_cannot_be_handed_on_to_the_real_server(
    server: PostgresServer, authority: CertificateAuthority
) -> None:
    """Who may write a target names a Secret that they may not read, and a host of theirs that passes everything on:
    the server would take them for the user. TLS to them is as good as any, without a CA or with one of theirs."""
    role = server.fresh_role()
    async with Relay(authority.issue("relay"), (server.host, server.port)).listening() as relay:
        for sslmode, ca in (("require", None), ("verify-full", authority.path.read_text())):
            with pytest.raises(PgtendError) as caught:
                async with opened(server, role, at=relay, sslmode=sslmode, ca=ca):
                    raise AssertionError("logged in")
            assert caught.value.reason == "PoolerNotAllowed" and "ends TLS" in caught.value.message
            assert not relay.took_in
        # the control: without the binding the very same login gets in
        connection = await psycopg.AsyncConnection.connect(
            host=relay.host, port=relay.port, user=role.user, password=role.password, dbname="postgres",
            sslmode="require", require_auth="scram-sha-256", channel_binding="disable",
        )  # fmt: skip
        await connection.close()
        assert relay.took_in


async def test_the_control_libpq_with_a_password_computes_as_long_as_it_is_told(
    authority: CertificateAuthority,
) -> None:
    async with hostile(authority, lambda number: 4_000_000) as server:
        with cpu() as spent, pytest.raises(psycopg.OperationalError):
            async with asyncio.timeout(60):
                await psycopg.AsyncConnection.connect(
                    host=server.host, port=server.port, user="victim", password=PASSWORD, sslmode="require"
                )
        assert spent[0] > 0.3


async def test_as_many_as_anybody_needs_are_computed_beside_the_loop(authority: CertificateAuthority) -> None:
    async with hostile(authority, lambda number: MOST_ITERATIONS) as server:
        with cpu() as spent:
            error = await log_in(server, authority)
        assert spent[0] < 0.3
        assert "iterations" not in error.message


@pytest.mark.covers(
    "PostgresTarget.reason.AuthenticationMethodRefused", "PostgresTarget.spec.credentials.*.password.secretRef.name"
)
@pytest.mark.parametrize("asks", ["cleartext", "md5"])
@pytest.mark.parametrize("later", [False, True], ids=["at once", "after a modest beginning"])
async def test_who_makes_a_target_at_a_host_of_theirs_does_not_get_the_password(
    authority: CertificateAuthority, asks: str, later: bool
) -> None:
    """The target names a Secret that its author may not read. Neither the probe, nor what tends users, nor what ends
    sessions sends it in clear text, or as md5, to that host."""
    async with hostile(authority, lambda number: 4096 if later and number % 2 == 0 else asks) as server:
        credentials = {
            purpose: {"username": f"victim_{purpose}", "password": {"secretRef": {"name": "theirs"}}}
            for purpose in ("monitor", "users", "maintenance")
        }
        secrets = Secrets()
        secrets.put("ca", ca_crt=authority.path.read_text())
        secrets.put("theirs", password=PASSWORD)
        async with serving(spec_for({"a": server}, credentials=credentials, mode="Enforce"), secrets) as target:
            identity = ServerIdentity(system_identifier="1", timeline=1, lsn=0)
            target.standing = Standing(primary="a", identity=identity, refusal=None)
            given = target.spec.credentials
            for opening in (
                target.session(target.spec.members[0], purpose=Purpose.PROBE, role="monitor", credential=given.monitor),
                target.write(role="users", credential=given.users),
                target.write(role="maintenance", credential=given.maintenance, purpose=Purpose.WORK),
            ):
                before = server.connections
                with pytest.raises(PgtendError) as caught:
                    async with opening:
                        raise AssertionError("logged in")
                assert caught.value.reason == "AuthenticationMethodRefused"
                assert server.connections > before
        for purpose in credentials:
            assert not server.has(PASSWORD, f"victim_{purpose}")


async def test_the_control_a_careless_client_gives_it_away(authority: CertificateAuthority) -> None:
    for asks, careless in (("cleartext", "password"), ("md5", "md5")):
        async with hostile(authority, lambda number, asks=asks: asks) as server:  # type: ignore[misc]
            with suppress(psycopg.OperationalError):
                await psycopg.AsyncConnection.connect(
                    host=server.host, port=server.port, user="victim", password=PASSWORD, sslmode="require",
                    require_auth=careless, connect_timeout=2,
                )  # fmt: skip
            assert server.has(PASSWORD, "victim"), asks
