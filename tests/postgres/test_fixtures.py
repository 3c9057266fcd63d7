"""Because a broken fixture would make every other test lie: each of them is proved here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from botocore.exceptions import ClientError
from psycopg import pq, sql
from tests.fixtures.counters import ApiCounter, SqlCounter
from tests.fixtures.plugin import Poolers, Postgres, Proxies
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.processes import start_time
from tests.fixtures.proxy import silent_port
from tests.fixtures.roles import init_roles, restricted
from tests.fixtures.s3 import S3Login, S3Server


def one(connection: psycopg.Connection, statement: str) -> Any:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]


class TestServer:
    def test_it_is_of_the_major_asked_for_and_logs_statements(self, server: PostgresServer) -> None:
        mark = server.log_mark()
        with server.connect() as connection:
            assert int(one(connection, "SHOW server_version_num")) // 10000 == server.major
        server.wait_for_log("SHOW server_version_num", since=mark)

    def test_without_tls_or_with_another_authority_nobody_gets_in(self, server: PostgresServer) -> None:
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            server.connect(sslmode="disable")
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            server.connect(sslrootcert="system")

    def test_a_wrong_password_is_refused_and_the_right_one_is_in_no_log(self, server: PostgresServer) -> None:
        login = server.fresh_role()
        with server.connect(login) as connection:
            assert one(connection, "SELECT current_user") == login.user
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            server.connect(login.user, password="wrong")
        assert login.password not in server.log_text()
        assert server.superuser.password not in server.log_text()

    def test_the_contrib_modules_are_there(self, server: PostgresServer) -> None:
        database = server.fresh_database()
        for extension in ("amcheck", "pgstattuple", "pg_stat_statements"):
            server.execute(f"CREATE EXTENSION {extension}", dbname=database)
        server.execute("CREATE TABLE t AS SELECT generate_series(1, 100) AS i", dbname=database)
        server.execute("CREATE INDEX i ON t (i)", dbname=database)
        server.execute("SELECT bt_index_check('i')", dbname=database)
        assert server.execute("SELECT tuple_count FROM pgstattuple('t')", dbname=database) == [(100,)]
        assert server.execute("SELECT count(*) > 0 FROM pg_stat_statements", dbname=database) == [(True,)]

    def test_pg_dump_and_pg_restore_move_a_table(self, server: PostgresServer, tmp_path: Path) -> None:
        source, goal = server.fresh_database(), server.fresh_database()
        server.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i", dbname=source)
        dump = server.data.parent / f"{source}.dump"
        client = server.programs.client
        server.run([client / "pg_dump", "-Fc", "-f", dump, server.dsn(dbname=source)])
        server.run([client / "pg_restore", "--exit-on-error", "-d", server.dsn(dbname=goal), dump])
        assert server.execute("SELECT count(*), sum(i) FROM t", dbname=goal) == [(1000, 500500)]

    def test_each_server_has_an_identity_of_its_own(self, postgres: Postgres) -> None:
        shared, fresh = postgres(18), postgres(18, fresh=True)
        for server in (shared, fresh):
            statement = "SELECT system_identifier FROM pg_control_system()"
            assert server.execute(statement) == [(server.system_identifier,)]
        assert shared.system_identifier != fresh.system_identifier

    def test_it_survives_a_crash_and_keeps_its_port(self, postgres: Postgres) -> None:
        server = postgres(18, fresh=True, settings={"fsync": "on"})
        server.execute("CREATE TABLE t AS SELECT 1 AS i")
        server.execute("CHECKPOINT")
        port = server.port
        server.kill9()
        with pytest.raises(psycopg.OperationalError, match="refused"):
            server.connect()
        server.start()
        assert server.port == port
        assert server.execute("SELECT i FROM t") == [(1,)]

    def test_frozen_it_accepts_and_does_not_answer(self, postgres: Postgres) -> None:
        server = postgres(18, fresh=True)
        with server.frozen(), pytest.raises(psycopg.errors.ConnectionTimeout):
            server.connect(connect_timeout=2)
        with server.connect() as connection:
            assert one(connection, "SELECT 1") == 1

    def test_its_settings_and_rules_can_be_changed(self, postgres: Postgres) -> None:
        server = postgres(14, fresh=True, settings={"max_connections": "42"})
        server.configure(work_mem="5MB")
        with server.connect() as connection:
            assert one(connection, "SHOW max_connections") == "42"
            assert one(connection, "SHOW work_mem") == "5MB"
        server.add_hba("host all all all reject")
        with pytest.raises(psycopg.OperationalError, match="rejects connection"):
            server.connect()

    @pytest.mark.parametrize("major", [14, 18])
    def test_a_standby_streams_and_can_be_promoted(self, postgres: Postgres, major: int) -> None:
        standby = postgres(major, role="standby", fresh=True)
        primary = standby.primary
        assert primary is not None
        primary.execute("CREATE TABLE t AS SELECT 1 AS i")
        primary.wait_replayed(standby)
        assert primary.execute("SELECT application_name, state FROM pg_stat_replication") == [("standby", "streaming")]
        assert standby.system_identifier == primary.system_identifier
        with standby.connect() as connection:
            assert one(connection, "SELECT i FROM t") == 1
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("INSERT INTO t VALUES (2)")
        standby.promote()
        standby.execute("INSERT INTO t VALUES (2)")


class TestRoles:
    def test_a_restricted_administrator_monitors_and_creates_but_reads_no_verifier(
        self, server: PostgresServer
    ) -> None:
        admin = restricted(server)
        role = server.fresh_name("made")
        with server.connect(admin) as connection:
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
            connection.execute(sql.SQL("GRANT pg_monitor TO {}").format(sql.Identifier(role)))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT * FROM pg_authid")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(sql.Identifier(role)))

    def test_a_script_runs_whole_or_not_at_all(self, server: PostgresServer) -> None:
        good, bad = server.fresh_name(), server.fresh_name()
        init_roles(server, f"CREATE ROLE {good}; GRANT pg_monitor TO {good};")
        with pytest.raises(psycopg.errors.UndefinedObject):
            init_roles(server, f"CREATE ROLE {bad}; GRANT nobody_made_this TO {bad};")
        names = server.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [[good, bad]])
        assert names == [(good,)]


class TestPgBouncer:
    @pytest.mark.parametrize("pool_mode", ["session", "transaction"])
    def test_it_is_recognised_by_the_backend_that_does_not_answer_to_its_name(
        self, server: PostgresServer, pgbouncer: Poolers, pool_mode: str
    ) -> None:
        pooler = pgbouncer(server, pool_mode=pool_mode)
        login = server.fresh_role()
        with pooler.connect(login) as connection:
            assert one(connection, "SELECT pg_backend_pid()") != connection.info.backend_pid
            assert connection.pgconn.ssl_in_use
        with server.connect(login) as connection:
            assert one(connection, "SELECT pg_backend_pid()") == connection.info.backend_pid
        pools = pooler.show("POOLS")
        assert ("postgres", login.user) in [row[:2] for row in pools]

    def test_a_transaction_pool_shares_backends_and_a_wrong_password_does_not_pass(
        self, postgres: Postgres, pgbouncer: Poolers
    ) -> None:
        server = postgres(18)
        pooler = pgbouncer(server, settings={"default_pool_size": "1"})
        login = server.fresh_role()
        with pooler.connect(login) as first, pooler.connect(login) as second:
            assert one(first, "SELECT pg_backend_pid()") == one(second, "SELECT pg_backend_pid()")
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            pooler.connect(login.user, password="wrong")


class TestProxy:
    def test_it_counts_connections_round_trips_and_statements(self, server: PostgresServer, proxy: Proxies) -> None:
        through, login = proxy(server), server.fresh_role()
        before = through.counts(user=login.user)
        with psycopg.connect(through.dsn(login), autocommit=True) as connection:
            for _ in range(3):
                connection.execute("SELECT 1")
            with connection.pipeline():
                for number in range(5):
                    connection.execute("SELECT %s::int", [number])
        passed = through.counts(user=login.user) - before
        assert (passed.connections, passed.round_trips, passed.statements) == (1, 4, 8)
        assert through.counts(user="somebody_else").connections == 0

    def test_it_is_transparent_to_verification_and_channel_binding(
        self, server: PostgresServer, proxy: Proxies
    ) -> None:
        through, login = proxy(server), server.fresh_role()
        dsn = through.dsn(login, channel_binding="require", require_auth="scram-sha-256")
        with psycopg.connect(dsn) as connection:
            assert one(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True
            assert len(one(connection, "SELECT repeat('x', 5000000)")) == 5_000_000

    async def test_a_black_hole_swallows_and_gives_back(self, server: PostgresServer, proxy: Proxies) -> None:
        through = proxy(server)
        async with await psycopg.AsyncConnection.connect(through.dsn(), autocommit=True) as connection:
            through.black_hole()
            query = asyncio.create_task(connection.execute("SELECT 42"))
            _, waiting = await asyncio.wait([query], timeout=0.5)
            assert waiting == {query}
            with pytest.raises(psycopg.errors.ConnectionTimeout):
                await psycopg.AsyncConnection.connect(through.dsn(connect_timeout=2))
            through.heal()
            assert await (await query).fetchone() == (42,)

    def test_it_delays_cuts_and_refuses(self, server: PostgresServer, proxy: Proxies) -> None:
        through = proxy(server)
        with contextlib.closing(psycopg.connect(through.dsn(), autocommit=True)) as connection:
            through.delay(0.2)
            start = time.monotonic()
            connection.execute("SELECT 1")
            assert time.monotonic() - start >= 0.4  # there and back
            through.heal()
            through.cut()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        through.refuse()
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(through.dsn())
        through.heal()
        with psycopg.connect(through.dsn()) as connection:
            assert one(connection, "SELECT 1") == 1

    def test_it_cuts_in_the_middle_of_an_answer(self, server: PostgresServer, proxy: Proxies) -> None:
        through = proxy(server)
        with contextlib.closing(psycopg.connect(through.dsn(), autocommit=True)) as connection:
            through.cut_after(1_000_000)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT repeat('x', 5000000)")
        assert through.open_links == 0

    def test_a_silent_port_neither_accepts_nor_refuses(self) -> None:
        with silent_port() as port, pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(host="127.0.0.1", port=port, connect_timeout=2)


class TestCounters:
    def test_statements_and_connections_of_a_user(self, server: PostgresServer) -> None:
        login = server.fresh_role()
        counter = SqlCounter(server, user=login.user)
        with server.connect(login) as connection:
            connection.execute("SELECT 1")
            connection.execute("SELECT\n%s::int", [2])
        server.execute("SELECT 3")
        server.wait_for_log("disconnection: session time: ")
        assert counter.connections() == 1
        assert counter.statements() == ["SELECT 1", "SELECT\n$1::int"]
        counter.mark()
        assert counter.statements() == []

    def test_what_fails_is_logged_with_its_sqlstate(self, server: PostgresServer) -> None:
        login = server.fresh_role()
        counter = SqlCounter(server, user=login.user)
        with server.connect(login) as connection, pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nowhere")
        assert [line.sqlstate for line in counter.lines() if line.level == "ERROR"] == ["42P01"]

    def test_writes_on_the_api_by_verb_and_resource(self, tmp_path: Path) -> None:
        log = tmp_path / "audit.log"
        log.write_text(_audit("create", "secrets") + "\n")
        counter = ApiCounter(log, user="operator")
        with log.open("a") as handle:
            for line in (
                _audit("patch", "databaseusers", subresource="status"),
                _audit("patch", "databaseusers", subresource="status", stage="RequestReceived"),
                _audit("get", "secrets"),
                _audit("create", "events"),
                _audit("update", "leases"),
                _audit("create", "secrets", user="somebody else"),
            ):
                handle.write(line + "\n")
            handle.write(_audit("delete", "secrets"))  # still without its end of line
        assert counter.writes() == {("patch", "databaseusers/status"): 1}
        assert counter.counts()["get", "secrets"] == 1
        assert counter.writes(without=()).total() == 3


class TestS3:
    def test_a_multipart_upload_is_seen_when_it_is_complete_and_not_before(self, s3: S3Server) -> None:
        client, bucket, body = s3.client(), s3.fresh_bucket(), os.urandom(5 * 2**20)
        upload = client.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
        parts = [
            {"PartNumber": number, "ETag": client.upload_part(
                Bucket=bucket, Key="big", UploadId=upload, PartNumber=number, Body=content
            )["ETag"]}
            for number, content in ((1, body), (2, b"the end"))
        ]  # fmt: skip
        assert s3.keys(bucket) == []
        assert s3.uploads(bucket) == ["big"]
        client.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=upload, MultipartUpload={"Parts": parts})
        assert s3.keys(bucket) == ["big"]
        assert s3.uploads(bucket) == []
        assert client.get_object(Bucket=bucket, Key="big")["Body"].read() == body + b"the end"

    def test_a_conditional_write_does_not_overwrite(self, s3: S3Server) -> None:
        bucket = s3.fresh_bucket()
        s3.client().put_object(Bucket=bucket, Key="manifest.json", Body=b"first", IfNoneMatch="*")
        assert _refusal(s3, s3.admin, "put_object", bucket, "manifest.json", IfNoneMatch="*") == "PreconditionFailed"
        assert s3.client().get_object(Bucket=bucket, Key="manifest.json")["Body"].read() == b"first"

    def test_each_login_may_do_its_own_and_nothing_else(self, s3: S3Server) -> None:
        bucket = s3.fresh_bucket()
        s3.client(s3.writer).put_object(Bucket=bucket, Key="k", Body=b"x")
        for action in ("get_object", "delete_object"):
            assert _refusal(s3, s3.writer, action, bucket, "k") == "AccessDenied"
        assert s3.client(s3.reader).get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
        for action in ("put_object", "delete_object"):
            assert _refusal(s3, s3.reader, action, bucket, "k") == "AccessDenied"
        assert _refusal(s3, s3.deleter, "put_object", bucket, "k") == "AccessDenied"
        s3.client(s3.deleter).delete_object(Bucket=bucket, Key="k")
        assert s3.keys(bucket) == []
        stranger = S3Login(access_key=s3.reader.access_key, secret_key="wrong")
        assert _refusal(s3, stranger, "get_object", bucket, "k") == "SignatureDoesNotMatch"

    def test_a_lock_keeps_a_version_from_whoever_may_delete(self, s3: S3Server) -> None:
        bucket = s3.fresh_bucket(lock=True)
        version = s3.client().put_object(Bucket=bucket, Key="k", Body=b"x")["VersionId"]
        s3.client().put_object_legal_hold(Bucket=bucket, Key="k", VersionId=version, LegalHold={"Status": "ON"})
        assert _refusal(s3, s3.admin, "delete_object", bucket, "k", VersionId=version) == "AccessDenied"
        assert s3.client().get_object(Bucket=bucket, Key="k", VersionId=version)["Body"].read() == b"x"

    def test_it_comes_back_with_its_data_after_a_kill(self, s3: S3Server) -> None:
        bucket = s3.fresh_bucket()
        s3.client().put_object(Bucket=bucket, Key="k", Body=b"x")
        s3.restart()
        assert s3.client().get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"

    def test_it_can_stand_behind_a_proxy(self, s3: S3Server, proxy: Proxies) -> None:
        through = proxy((s3.host, s3.port))
        with contextlib.closing(socket.create_connection((through.host, through.port))):
            deadline = time.monotonic() + 5
            while through.counts().connections == 0 and time.monotonic() < deadline:
                time.sleep(0.01)
        assert through.counts().connections == 1


def test_a_killed_session_leaves_neither_processes_nor_files(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from tests.fixtures.plugin import Session\n"
        "session = Session()\n"
        "server = session.shared(18, 'primary')\n"
        "print(session.registry.root, server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as session:
        assert session.stdout is not None
        folder, pid = session.stdout.readline().split()
        assert start_time(int(pid)) != 0
        session.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 15
    while (start_time(int(pid)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert start_time(int(pid)) == 0
    assert not Path(folder).exists()


def test_libpq_is_new_enough_to_insist_on_scram() -> None:
    assert pq.version() >= 160000


def _refusal(s3: S3Server, login: S3Login, action: str, bucket: str, key: str, **options: str) -> str:
    with pytest.raises(ClientError) as error:
        getattr(s3.client(login), action)(Bucket=bucket, Key=key, **options)
    return str(error.value.response["Error"]["Code"])


def _audit(
    verb: str, resource: str, *, subresource: str = "", user: str = "operator", stage: str = "ResponseComplete"
) -> str:
    reference = {"resource": resource, "namespace": "n", "name": "o"} | (
        {"subresource": subresource} if subresource else {}
    )
    event = {"stage": stage, "verb": verb, "user": {"username": user}, "objectRef": reference}
    return json.dumps(event | {"responseStatus": {"code": 200}})
