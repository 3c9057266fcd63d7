"""A session leaks no password, is to no pooler, has its timeouts and ends in time: each held against the fault."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.fixtures.counters import SqlCounter
from tests.fixtures.plugin import Poolers, Postgres, Proxies
from tests.fixtures.postgres import Login as Role
from tests.fixtures.postgres import PostgresServer, free_port
from tests.fixtures.proxy import silent_port
from tests.fixtures.tls import CertificateAuthority
from tests.postgres.server_kit import opened

from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive
from pgtend.postgres import connect as module
from pgtend.postgres import libpq, purposes, settling
from pgtend.postgres.connect import Ration
from pgtend.postgres.errors import SqlClass, classify
from pgtend.postgres.libpq import fence_environment
from pgtend.postgres.purposes import Limits, Purpose
from pgtend.postgres.session import GRACE_SECONDS


async def refusal(server: PostgresServer, role: Role, **how: Any) -> PgtendError:
    with pytest.raises(PgtendError) as caught:
        async with opened(server, role, **how):
            pass
    assert role.password not in str(caught.value)
    return caught.value


@contextmanager
def takes_at_most(seconds: float) -> Iterator[None]:
    """Ample, for a busy machine: what is guarded against takes longer by far."""
    started = time.monotonic()
    yield
    spent = time.monotonic() - started
    assert spent < seconds, f"{spent:.1f} s"


@dataclass(frozen=True)
class There:
    host: str
    port: int


# Logging in


@pytest.mark.covers("PostgresTarget.reason.AuthenticationFailed", "PostgresTarget.reason.DatabaseMissing")
async def test_who_may_not_log_in_is_told_why(server: PostgresServer) -> None:
    role = server.fresh_role()
    wrong = await refusal(server, role, password="not-the-password")
    assert wrong.reason == "AuthenticationFailed"
    assert "not-the-password" not in wrong.message and "a (127.0.0.1:" in wrong.message
    nobody = await refusal(server, Role(user="nobody_at_all", password="x" * 20))
    assert nobody.reason == "AuthenticationFailed"
    barred = server.fresh_role()
    server.execute(f"ALTER ROLE {barred.user} NOLOGIN")
    nologin = await refusal(server, barred)
    assert nologin.reason == "AuthenticationFailed" and "not permitted to log in" in nologin.message
    missing = await refusal(server, role, database="no_such_database")
    assert missing.reason == "DatabaseMissing" and "no_such_database" in missing.message
    assert not any(error.transient for error in (wrong, nobody, nologin, missing))


@pytest.mark.covers("PostgresTarget.reason.ConnectionFailed")
async def test_what_has_no_reason_of_its_own_gives_the_server_s_words(server: PostgresServer) -> None:
    role, database = server.fresh_role(), server.fresh_database()
    server.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")
    found = await refusal(server, role, database=database)
    assert found.reason == "ConnectionFailed"
    assert f'permission denied for database "{database}"' in found.message


@pytest.mark.covers(
    "PostgresTarget.reason.AuthenticationMethodRefused", "PostgresTarget.spec.credentials.monitor.password.method"
)
@pytest.mark.parametrize("major", [14, 18])
@pytest.mark.filterwarnings("ignore:.*MD5")
async def test_md5_needs_consent(postgres: Postgres, major: int) -> None:
    server = postgres(major, hba=["hostssl all all all md5"])
    with server.superuser_connect() as connection:
        connection.execute("SET password_encryption = 'md5'")
        connection.execute("CREATE ROLE old LOGIN PASSWORD 'a-password-of-old'")
    role = Role(user="old", password="a-password-of-old")
    found = await refusal(server, role)
    assert found.reason == "AuthenticationMethodRefused"
    async with opened(server, role, allow_md5=True) as session:
        assert session.usable
    # consent to md5 asks for no weaker method where the server has a better one
    async with opened(server, server.fresh_role(), allow_md5=True) as session:
        assert session.usable


@pytest.mark.parametrize("major", [14, 18])
async def test_a_clear_text_password_never_goes_out(postgres: Postgres, proxy: Proxies, major: int) -> None:
    server = postgres(major, hba=["hostssl all all all password"])
    through, role = proxy(server), server.fresh_role()
    for allow_md5 in (False, True):
        found = await refusal(server, role, at=through, allow_md5=allow_md5)
        assert found.reason == "AuthenticationMethodRefused"
    assert [link.bytes_to_server for link in through.links] == [0] * 4, "not a byte after the start-up message"
    # the control: a client that does not insist on its method does send it
    with psycopg.connect(through.dsn(role)):
        assert through.links[-1].bytes_to_server > len(role.password)


@pytest.mark.parametrize("major", [14, 18])
async def test_a_server_that_asks_for_nothing_is_not_trusted_either(postgres: Postgres, major: int) -> None:
    """An impostor that lets everybody in would otherwise be given our statements."""
    server = postgres(major, hba=["hostssl all all all trust"])
    assert (await refusal(server, server.fresh_role())).reason == "AuthenticationMethodRefused"


@pytest.mark.covers(
    "PostgresTarget.spec.credentials.monitor.clientCertificate.secretRef.name",
)
async def test_a_client_certificate_logs_in_and_is_shown_to_proven_servers_only(
    server: PostgresServer, tmp_path: Path
) -> None:
    role = server.fresh_role()
    certified = server.ca.issue(role.user, folder=tmp_path)
    pair = (Sensitive(certified.certificate.read_text()), Sensitive(certified.key.read_text()))
    server.add_hba(f"hostssl all {role.user} all cert")
    async with opened(server, role, certificate=pair) as session:
        assert (await session.fetch(sql.SQL("SELECT current_user AS me")))[0]["me"] == role.user
    for sslmode, ca in (("require", None), ("require", ""), ("verify-ca", "")):
        found = await refusal(server, role, certificate=pair, sslmode=sslmode, ca=ca)
        assert found.reason == "CertificateNotTrusted" and "VerifyFull" in found.message
    other = server.ca.issue("somebody-else", folder=tmp_path)
    wrong = (Sensitive(other.certificate.read_text()), Sensitive(other.key.read_text()))
    found = await refusal(server, role, certificate=wrong)
    assert found.reason == "AuthenticationFailed"
    assert "PRIVATE KEY" not in str(found)


# TLS


@pytest.mark.covers(
    "PostgresTarget.reason.CertificateNotTrusted",
    "PostgresTarget.spec.tls.mode",
)
@pytest.mark.parametrize("major", [14, 18])
async def test_a_certificate_must_verify_against_authority_and_name(
    postgres: Postgres, tmp_path: Path, major: int
) -> None:
    server = postgres(major, settings={"listen_addresses": "127.0.0.1,127.0.0.2"})
    role = server.fresh_role()
    other = CertificateAuthority(tmp_path).path.read_text()
    assert (await refusal(server, role, ca=other)).reason == "CertificateNotTrusted"
    for none in ("kein Zertifikat: é", "x\0y", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        assert (await refusal(server, role, ca=none)).reason == "CertificateNotTrusted"
    elsewhere = await refusal(server, role, host="127.0.0.2")
    assert elsewhere.reason == "CertificateNotTrusted" and "127.0.0.2" in elsewhere.message
    async with opened(server, role, host="127.0.0.2", sslmode="verify-ca") as session:
        assert session.usable


@pytest.mark.covers("PostgresTarget.reason.TLSRefused")
async def test_a_server_without_tls_gets_nothing(postgres: Postgres) -> None:
    server = postgres(18, settings={"ssl": "off"}, hba=["host all all all scram-sha-256"])
    role = server.fresh_role()
    for how in ({"sslmode": "require", "ca": None}, {"sslmode": "verify-full"}):
        assert (await refusal(server, role, **how)).reason == "TLSRefused"


async def test_nothing_that_lies_about_is_taken_up(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a root certificate in the home directory, nor settings of the environment."""
    role = server.fresh_role()
    home = tmp_path / ".postgresql"
    home.mkdir()
    (home / "root.crt").write_text(CertificateAuthority(tmp_path).path.read_text())
    (tmp_path / "pass").write_text("*:*:*:*:wrong\n")
    for name, value in {
        "HOME": str(tmp_path),
        "PGPASSFILE": str(tmp_path / "pass"),
        "PGPASSWORD": "wrong",
        "PGOPTIONS": "-c statement_timeout=1",
        "PGSSLROOTCERT": str(home / "root.crt"),
        "PGREQUIREAUTH": "none",
        "PGAPPNAME": "somebody",
    }.items():
        monkeypatch.setenv(name, value)
    async with opened(server, role, sslmode="require", ca=None) as session:
        (row,) = await session.fetch(sql.SQL("SELECT current_setting('statement_timeout') AS t"))
        assert row["t"] == "2s"


async def test_the_environment_of_libpq_is_fenced_off(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service and its file would name another host; the control shows that they do."""
    role = server.fresh_role()
    hostile = {"PGSERVICE": "evil", "PGSSLMODE": "disable", "PGOPTIONS": "-c statement_timeout=1", "PGHOSTADDR": "::9"}
    for name, value in {**hostile, "PGTEND_FAILPOINTS": "", "PATH_OF_MINE": "x"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PgtendError):
        async with opened(server, role):
            pass
    assert fence_environment() == tuple(sorted(hostile))
    assert os.environ["PATH_OF_MINE"] == "x" and "PGTEND_FAILPOINTS" in os.environ
    async with opened(server, role) as session:
        assert session.usable
    assert fence_environment() == ()


async def test_keys_are_readable_by_us_alone(server: PostgresServer) -> None:
    async with opened(server, server.fresh_role()):
        folder = libpq.kept_files()._folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    assert not (folder / "nothing").exists()


# Poolers, versions, servers that are not ready


@pytest.mark.covers("PostgresTarget.reason.PoolerNotAllowed")
@pytest.mark.parametrize("pool_mode", ["session", "transaction"])
async def test_a_pooler_is_no_server(server: PostgresServer, pgbouncer: Poolers, pool_mode: str) -> None:
    pooler = pgbouncer(server, pool_mode=pool_mode)
    role = server.fresh_role()
    found = await refusal(server, role, at=pooler)
    assert found.reason == "PoolerNotAllowed" and not found.transient
    assert "spec.members" in found.message


@pytest.mark.covers("PostgresTarget.reason.UnsupportedVersion")
async def test_a_server_that_is_too_old(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest that is supported is the oldest that we can install; so the line is moved, not the server."""
    monkeypatch.setattr(settling, "MINIMUM_SERVER", 990000)
    found = await refusal(server, server.fresh_role())
    assert found.reason == "UnsupportedVersion" and f"PostgreSQL {server.major}" in found.message


@pytest.mark.covers("PostgresTarget.reason.ServerStarting")
@pytest.mark.parametrize("major", [14, 18])
async def test_a_server_that_is_not_ready(postgres: Postgres, major: int) -> None:
    standby = postgres(major, role="standby", fresh=True)
    primary = standby.primary
    assert primary is not None
    role = primary.fresh_role()
    standby.configure(hot_standby="off")
    standby.restart()
    found = await refusal(standby, role)
    assert found.reason == "ServerStarting" and found.transient


@pytest.mark.covers("PostgresTarget.reason.TooManyConnections")
@pytest.mark.parametrize("major", [14, 18])
async def test_a_server_that_is_full(postgres: Postgres, major: int) -> None:
    server = postgres(major, settings={"max_connections": "6", "superuser_reserved_connections": "3"})
    role = server.fresh_role()
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(server.connect(role))
        found = await refusal(server, role)
        assert found.reason == "TooManyConnections" and found.transient
    limited = server.fresh_role("limited", "CONNECTION LIMIT 0")
    assert (await refusal(server, limited)).reason == "TooManyConnections"


# Time


SHORT = 2.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect may take two seconds, so that the test need not wait for five."""
    assert module.CONNECT_SECONDS == 5.0
    monkeypatch.setattr(module, "CONNECT_SECONDS", SHORT)


@pytest.mark.usefixtures("impatient")
@pytest.mark.covers("PostgresTarget.reason.TimedOut", "PostgresTarget.reason.ConnectionRefused")
async def test_nobody_there_and_nobody_answering(server: PostgresServer) -> None:
    role = server.fresh_role()
    closed = await refusal(server, role, at=There("127.0.0.1", free_port()))
    assert closed.reason == "ConnectionRefused" and closed.transient
    for host in ("a..b", "a" * 64, "1:2:3"):
        assert (await refusal(server, role, host=host)).reason == "NameNotResolved", "a name that can be no host's"
    with silent_port() as port, takes_at_most(3 * SHORT):
        silent = await refusal(server, role, at=There("127.0.0.1", port))
    assert silent.reason == "TimedOut" and silent.transient


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_falls_silent_after_the_login(
    server: PostgresServer, proxy: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    through, role = proxy(server), server.fresh_role()
    real = module.settle

    async def then_nothing(session: Any) -> None:
        through.black_hole()
        await asyncio.sleep(0.05)
        await real(session)

    monkeypatch.setattr(module, "settle", then_nothing)
    with takes_at_most(3 * SHORT):
        found = await refusal(server, role, at=through)
    assert found.reason == "TimedOut"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe may take half a second, so that the test need not wait for four."""
    limits = Limits(statement=0, lock=200, idle_in_transaction=5_000, deadline=0.5)
    monkeypatch.setitem(purposes._LIMITS, Purpose.PROBE, limits)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("how", ["plain", "pipeline"])
async def test_a_black_hole_ends_within_the_deadline(server: PostgresServer, proxy: Proxies, how: str) -> None:
    through, role = proxy(server), server.fresh_role()
    async with opened(server, role, at=through) as session:
        through.black_hole()
        await asyncio.sleep(0.05)
        with takes_at_most(3 * (0.5 + GRACE_SECONDS)), pytest.raises(TimeoutError):
            if how == "plain":
                await session.fetch(sql.SQL("SELECT 1"))
            else:
                async with session.bounded(), session.connection.pipeline(), session.connection.transaction():
                    await session.connection.execute("SELECT 1")
        assert not session.usable


@pytest.mark.usefixtures("hurried")
async def test_a_slow_statement_is_ended_on_the_server_too(server: PostgresServer) -> None:
    role = server.fresh_role()
    async with opened(server, role) as session:
        with takes_at_most(4.5), pytest.raises(TimeoutError):
            await session.fetch(sql.SQL("SELECT pg_sleep(30)"))
        assert not session.usable
    for _ in range(40):
        if not server.execute("SELECT 1 FROM pg_stat_activity WHERE usename = %s", [role.user]):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the statement still runs")


async def test_cancelled_in_the_middle_a_session_is_closed_and_none_is_left(server: PostgresServer) -> None:
    role = server.fresh_role()
    for moment in (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2):

        async def work() -> None:
            async with opened(server, role) as session:
                await session.fetch(sql.SQL("SELECT pg_sleep(1)"))

        task = asyncio.create_task(work())
        await asyncio.sleep(moment)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    for _ in range(100):
        if not server.execute("SELECT 1 FROM pg_stat_activity WHERE usename = %s", [role.user]):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("a session was left behind")


@pytest.mark.usefixtures("impatient")
async def test_black_holes_hold_nobody_up(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """More dead members than places, and a living one behind them in the queue."""
    monkeypatch.setattr(module, "_ration", Ration(places=2, patience=0.1))
    role = server.fresh_role()
    with silent_port() as port:
        dead = [asyncio.create_task(refusal(server, role, at=There("127.0.0.1", port))) for _ in range(6)]
        await asyncio.sleep(0)
        with takes_at_most(2 * SHORT):  # in turn it would be three times
            async with opened(server, role) as session:
                assert session.usable
        for task in dead:
            assert (await task).reason == "TimedOut"
    assert module._ration._places._value == 2


# Settings


@pytest.mark.parametrize("purpose", list(Purpose))
async def test_timeouts_are_what_the_purpose_says(server: PostgresServer, purpose: Purpose) -> None:
    role = server.fresh_role()
    # a role's or database's own settings come first and must not win
    server.execute(f"ALTER ROLE {role.user} SET statement_timeout = '17s'")
    server.execute(f"ALTER ROLE {role.user} SET idle_session_timeout = '18s'")
    server.execute(f"ALTER ROLE {role.user} SET search_path = 'evil'")
    async with opened(server, role, purpose=purpose) as session:
        rows = await session.fetch(
            sql.SQL("SELECT name, setting FROM pg_settings WHERE name = ANY({})").format(
                sql.Literal(
                    [
                        "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
                        "idle_session_timeout", "transaction_timeout", "client_connection_check_interval",
                        "search_path", "application_name",
                    ]
                )
            )
        )  # fmt: skip
    limits = purpose.limits
    wanted = {
        "statement_timeout": str(limits.statement),
        "lock_timeout": str(limits.lock),
        "idle_in_transaction_session_timeout": str(limits.idle_in_transaction),
        "idle_session_timeout": "0",
        "client_connection_check_interval": "10000",
        "search_path": "pg_catalog",
        "application_name": "pgtend/tests/probe/x",
    }
    if server.major >= 17:
        wanted["transaction_timeout"] = "0"
    assert {row["name"]: row["setting"] for row in rows} == wanted


async def test_opening_costs_one_round_trip_beyond_the_login(server: PostgresServer, proxy: Proxies) -> None:
    through, role = proxy(server), server.fresh_role()
    async with opened(server, role, at=through) as session:
        assert through.links[-1].round_trips == 1
        await session.fetch(sql.SQL("SELECT 1"))
        await session.fetch(sql.SQL("SELECT {}").format(sql.Literal("x")))
        assert through.links[-1].round_trips == 3
    # the first one asked for salt and iterations only
    assert [link.application_name for link in through.links] == ["", "pgtend/tests/probe/x"]
    async with opened(server, role, at=through):
        assert len(through.links) == 3, "that is asked once"


async def test_a_password_that_was_set_anew_has_other_keys(server: PostgresServer, proxy: Proxies) -> None:
    """The same password with another salt or other iterations is the same login; another one is rejected once."""
    through, role = proxy(server), server.fresh_role()
    async with opened(server, role, at=through):
        pass
    server.execute(f"ALTER ROLE {role.user} PASSWORD '{role.password}'")
    async with opened(server, role, at=through) as session:
        assert session.usable
    assert len(through.links) == 5, "rejected, asked, accepted"
    server.execute(f"ALTER ROLE {role.user} PASSWORD 'another'")
    counter = SqlCounter(server, user=role.user)
    for _ in range(2):
        assert (await refusal(server, role, at=through)).reason == "AuthenticationFailed"
    rejected = [line for line in counter.lines() if "authentication failed" in line.text]
    assert len(rejected) == 3, "the first had keys of the old salt"


async def test_passwords_beyond_ascii_log_in(server: PostgresServer) -> None:
    for password in ("pa\u00e4\u00dfw\u00f6rt", "\u2168 and \u00aa", "soft\u00adhyphen", "\u0627\u0031"):
        role = server.fresh_role()
        with server.superuser_connect() as connection:
            connection.pgconn.change_password(role.user.encode(), password.encode())
        async with opened(server, role, password=password) as session:
            assert session.usable


# What a failure of a statement means


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("SELECT pg_sleep(10)", SqlClass.TRANSIENT),
        ("SELECT 1/0", SqlClass.INVALID),
        ("SELECT pg_read_file('x')", SqlClass.DENIED),
        ("SELECT * FROM nowhere", SqlClass.INVALID),
        ("SELEC", SqlClass.BUG),
        ("CREATE ROLE postgres", SqlClass.DENIED),
        ("DO $$ BEGIN RAISE 'a hook says no'; END $$", SqlClass.INVALID),
        ("DO $$ BEGIN RAISE 'moved' USING ERRCODE = 'PGT01'; END $$", SqlClass.TRANSIENT),
        ("SELECT pg_terminate_backend(pg_backend_pid())", SqlClass.TRANSIENT),
        ("VACUUM (FULL) pg_catalog.pg_class; SELECT 1", SqlClass.TRANSIENT),  # 25001: not in a transaction block
    ],
)
async def test_classes_of_failures(server: PostgresServer, statement: str, wanted: SqlClass) -> None:
    async with opened(server, server.fresh_role()) as session:
        with pytest.raises(psycopg.Error) as caught:
            await session.fetch(sql.SQL(statement))
    assert classify(caught.value) is wanted


def test_the_environment_of_this_process_is_clean() -> None:
    """Of libpq's variables, that is: ours say how tests are run."""
    assert not [name for name in os.environ if name.startswith("PG") and not name.startswith("PGTEND_")]
