"""Where a user's password comes from, what its Secret says, and who could have recorded it, on real servers."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import psycopg
import pytest
from tests.fixtures.binaries import pgaudit
from tests.fixtures.plugin import Poolers, Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.passwords_ground import Ground, conditions, message, status
from tests.postgres.users_ground import Shop, reached

GENERATED = {"generate": {}}
NONE = {"none": {}}


async def test_a_program_finds_the_primary_by_what_the_secret_says(postgres: Postgres, tmp_path: Path) -> None:
    """The standby comes first in the target's spec; names and words that need quoting everywhere."""
    server = postgres(18, fresh=True)
    standby = server.make_standby()
    members = [{"name": "b", "host": standby.host, "port": standby.port}]
    members += [{"name": "a", "host": server.host, "port": server.port}]
    database = server.fresh_name("o'rders é/?&%")
    server.execute(f'CREATE DATABASE "{database}"')
    ground, name = Ground(server), Ground(server).name()
    role = f"shop@{name}:/x y%"
    given: Any = {"password": {"secretRef": {"name": "mine"}}, "secret": {"database": database}}
    plain = "p@ss/w:or\\d?&#% é'\""
    ground.api.objects["mine"] = {
        "metadata": {"name": "mine", "resourceVersion": "1", "annotations": {}},
        "data": {"password": base64.b64encode(plain.encode()).decode()},
    }
    async with reached(server, members=members) as target:
        case = await ground.tend(target, name, roleName=role, **given)
        assert conditions(case)["Ready"] == ("True", "InForce")
        server.wait_replayed(standby)
    values = ground.secret(name)
    where = "SELECT pg_is_in_recovery(), inet_server_port(), current_user, current_database()"
    asked = f"sslrootcert={quote(str(server.ca_path), safe='')}"
    with psycopg.connect(f"{values['uri']}&{asked}") as program:
        assert program.execute(where).fetchone() == (False, server.port, role, database)
    pgpass = tmp_path / "pgpass"
    pgpass.write_text(values["pgpass"])
    pgpass.chmod(0o600)
    keys = {"host": "host", "port": "port", "dbname": "dbname", "username": "user"}
    by_file = {keyword: values[key] for key, keyword in keys.items()}
    for attributes, port in (("read-write", server.port), ("standby", standby.port)):
        with psycopg.connect(**by_file, passfile=str(pgpass), target_session_attrs=attributes) as program:
            assert program.execute(where).fetchone() == (attributes == "standby", port, role, database)
    jdbc = urlsplit(values["jdbc-uri"].removeprefix("jdbc:"))
    assert jdbc.netloc == f"{standby.host}:{standby.port},{server.host}:{server.port}"
    said = parse_qs(jdbc.query)
    assert (said["user"], said["password"], said["targetServerType"]) == ([role], [plain], ["primary"])
    assert unquote(jdbc.path.removeprefix("/")) == database


@pytest.mark.covers("DatabaseUser.spec.password.onLostSecret")
@pytest.mark.parametrize("strategy", [None, "DualRole"])
async def test_a_lost_secret_is_waited_for_or_made_anew(server: PostgresServer, strategy: str | None) -> None:
    ground, name = Ground(server), Ground(server).name()
    turns: Any = {"rotation": {"interval": "90d", "strategy": strategy}} if strategy else {}
    rotate: Any = {"password": {"generate": {}, "onLostSecret": "Rotate"}, **turns}
    async with reached(server) as target:
        case = await ground.tend(target, name, **turns)
        before = ground.secret(name)
        stored = server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [before["username"]])
        del ground.api.objects[name]
        case = await ground.tend(target, name, before=case, **turns)
        assert conditions(case)["CredentialsReady"] == conditions(case)["Ready"] == ("False", "SecretLost")
        assert "set password.onLostSecret: Rotate" in message(case, "CredentialsReady")
        assert stored == server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [before["username"]])

        if server.major >= 16:
            # what could not be set is not written down
            server.execute(f'REVOKE ADMIN OPTION FOR "{before["username"]}" FROM pgtend_users CASCADE')
            server.execute(f'REVOKE ADMIN OPTION FOR "{name}" FROM pgtend_users CASCADE')
            stuck = await ground.tend(target, name, before=case, **rotate)
            assert conditions(stuck)["CredentialsReady"] == ("False", "SecretLost") and name not in ground.api.objects
            for role in {before["username"], name}:
                server.execute(f'GRANT "{role}" TO pgtend_users WITH ADMIN TRUE, INHERIT FALSE, SET FALSE')
        case = await ground.tend(target, name, before=case, **rotate)
        assert conditions(case)["Ready"] == ("True", "InForce"), message(case, "Ready")
        after = ground.secret(name)
        assert after["username"] == before["username"] and after["password"] != before["password"]
        assert ground.logs_in(name) and case.rotated
        again = await ground.tend(target, name, before=case, **rotate)
        assert ground.secret(name) == after and not again.password_set


@pytest.mark.covers("DatabaseUser.spec.password.none")
async def test_a_login_without_a_password_and_back(server: PostgresServer) -> None:
    ground, name = Ground(server), Ground(server).name()
    stored = "SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = %s"
    async with reached(server) as target:
        case = await ground.tend(target, name, password=NONE)
        assert conditions(case)["Ready"] == ("True", "InForce")
        found = status(case)["password"]
        assert (found["source"], found["changedAt"], found["exposure"]) == ("None", "2026-11-22T02:00:00Z", [])
        assert set(ground.secret(name)) == {"username", "host", "port", "dbname", "uri", "jdbc-uri"}
        assert server.execute(stored, [name]) == [(True,)]

        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case, password=GENERATED)
        assert ground.logs_in(name)
        first = ground.secret(name)
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case, password=NONE)
        assert conditions(case)["CredentialsReady"] == ("Unknown", "MissingPrivilege"), "nobody can see it"
        told = message(case, "CredentialsReady")
        assert f"role {name} is without a password since 2026-11-22T02:02:00Z; whether somebody gave it one" in told
        assert told.endswith("in the maintenance database, GRANT SELECT ON pg_authid TO pgtend_users;")
        assert server.execute(stored, [name]) == [(True,)]
        assert not {"password", "pgpass"} & set(ground.secret(name)), "what holds no more is taken out"
        assert first["password"] not in "".join(ground.secret(name).values())

        # what anybody sets afterwards is not seen without pg_authid, and is with it
        server.execute(f"ALTER ROLE \"{name}\" PASSWORD 'x'")
        case = await ground.tend(target, name, before=case, password=NONE)
        assert case.corrected == ()
    with server.superuser_connect() as admin:
        admin.execute("GRANT SELECT ON pg_authid TO pgtend_users")
        try:
            async with reached(server) as target:
                case = await ground.tend(target, name, before=case, password=NONE)
        finally:
            admin.execute("REVOKE SELECT ON pg_authid FROM pgtend_users")
    assert case.corrected == ("the role may have a password, and is to have none",)
    assert conditions(case)["CredentialsReady"] == ("True", "AsExpected")
    assert "is without a password, and so is the role since " in message(case, "CredentialsReady")
    assert server.execute(stored, [name]) == [(True,)]


@pytest.mark.covers(
    "DatabaseUser.spec.secret.endpoint",
    "DatabaseUser.spec.secret.database",
    "DatabaseUser.spec.secret.templates",
    "DatabaseUser.reason.PoolerMissing",
)
async def test_a_secret_for_the_pooler_with_keys_of_ones_own(server: PostgresServer, pgbouncer: Poolers) -> None:
    ground, shop, pooler = Ground(server), Shop.open(server), pgbouncer(server)
    name = ground.name()
    spec = {
        "grants": shop.trio(),
        "secret": {"endpoint": "Pooler", "templates": {"DSN": "{{ .uri }}&application_name=x"}},
    }
    async with reached(server) as target:
        case = await ground.tend(target, name, **spec)
        assert conditions(case)["CredentialsReady"] == ("False", "PoolerMissing")
        assert ground.api.objects == {}
        assert server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]) == []
    async with reached(server, pooler={"host": pooler.host, "port": pooler.port}) as target:
        case = await ground.tend(target, name, before=case, **spec)
        assert conditions(case)["Ready"] == ("True", "InForce")
        values = ground.secret(name)
        assert (values["port"], values["dbname"]) == (str(pooler.port), shop.name)
        with psycopg.connect(values["DSN"]) as connection:
            assert connection.execute("SELECT current_user, current_setting('application_name')").fetchone() == (
                name,
                "x",
            )

        # another database, no template: the key goes with it, one that others put there stays
        ground.api.objects[name]["data"]["theirs"] = "eA=="
        case = await ground.tend(
            target, name, before=case, grants=shop.trio(), secret={"endpoint": "Pooler", "database": "postgres"}
        )
        values = ground.secret(name)
        assert (values["dbname"], values["theirs"]) == ("postgres", "x") and "DSN" not in values
        psycopg.connect(values["uri"]).close()


async def test_who_could_have_recorded_the_verifier_is_told(postgres: Postgres) -> None:
    """A log of statements, a failed statement, and pg_stat_statements, each seen where it is."""
    silent = postgres(18, settings={"log_statement": "none", "shared_preload_libraries": ""})
    ground = Ground(silent)
    name = ground.name()
    async with reached(silent) as target:
        case = await ground.tend(target, name)
        assert status(case)["password"]["exposure"] == []
    stored = silent.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name])[0][0]
    assert stored not in silent.log_since(0)

    loud = postgres(18, settings={"log_statement": "ddl", "shared_preload_libraries": "pg_stat_statements"})
    loud.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    ground = Ground(loud)
    async with reached(loud) as target:
        case = await ground.tend(target, name)
        assert status(case)["password"]["exposure"] == ["Log", "PgStatStatements"]
        stored = loud.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name])[0][0]
        assert stored in loud.log_since(0)
        kept = loud.execute("SELECT count(*) FROM pg_stat_statements WHERE strpos(query, %s) > 0", [stored])
        assert kept == [(1,)]
        # it is of the password: quieter settings do not undo what was written
        loud.execute("ALTER ROLE pgtend_users SET log_statement = 'none'")
        ground.restart()
        case = await ground.tend(target, name, before=case)
        assert status(case)["password"]["exposure"] == ["Log", "PgStatStatements"]


@pytest.mark.parametrize("classes", ["role", "all"])
async def test_pgaudit_does_not_record_the_verifier(postgres: Postgres, classes: str) -> None:
    """It logs each statement, and masks what follows PASSWORD: so it is not named among what could have."""
    settings = {
        "log_statement": "none",
        "shared_preload_libraries": str(pgaudit()),
        "pgaudit.log": classes,
        "pgaudit.log_parameter": "on",
        "pgaudit.log_catalog": "on",
    }
    server = postgres(15, settings=settings)
    ground = Ground(server)
    name = ground.name()
    async with reached(server) as target:
        case = await ground.tend(target, name)
        server.execute(f"ALTER ROLE \"{name}\" PASSWORD 'another'")
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case)
    assert status(case)["password"]["exposure"] == [] and ground.logs_in(name)
    stored = server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name])[0][0]
    log = server.log_since(0)
    for statement in ("CREATE", "ALTER"):
        assert re.search(f"AUDIT: SESSION,.*,ROLE,.*{statement} ROLE .*{name}.*PASSWORD <REDACTED>", log), statement
    assert stored not in log and "SCRAM-SHA-256$" not in log


async def test_a_refused_statement_may_be_in_the_log(postgres: Postgres) -> None:
    """The second attempt, which succeeds, sets a verifier of the very password whose first is in the log."""
    silent = postgres(18, settings={"log_statement": "none", "shared_preload_libraries": ""})
    ground = Ground(silent)
    name = ground.name()
    async with reached(silent) as target:
        silent.execute("ALTER ROLE pgtend_users NOCREATEROLE")
        case = await ground.tend(target, name)
        assert case.failed is not None
        assert "SCRAM-SHA-256$" in silent.log_since(0)
        silent.execute("ALTER ROLE pgtend_users CREATEROLE")
        case = await ground.tend(target, name, before=case)
        assert conditions(case)["Ready"] == ("True", "InForce")
        assert status(case)["password"]["exposure"] == ["Log"]
        # the next password has not been there
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case, password=NONE)
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case)
        assert status(case)["password"]["exposure"] == []
