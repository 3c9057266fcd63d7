"""What the tests of backups share: a database worth dumping, a role as `init-sql` makes it, and the two jobs."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyrage
from psycopg import sql
from tests.fixtures.binaries import programs, tool
from tests.fixtures.postgres import Login, PostgresServer
from tests.fixtures.s3 import S3Login, S3Server

from pgtend.backups.jobs import dump, restore, verify
from pgtend.backups.jobs.config import DumpConfig, RestoreConfig, Termination, VerifyConfig, parse_termination
from pgtend.backups.manifest import Manifest, Tombstone, parse_manifest
from pgtend.core import failpoints
from pgtend.core.redaction import Sensitive
from pgtend.objectstore.config import AccessKey, StoreConfig
from pgtend.objectstore.s3 import Store

INSTALLATION = "test-installation"
PREFIX = "backups/test"
POLICY = {"namespace": "databases", "name": "orders"}


def client_programs(server: PostgresServer, folder: Path) -> Path:
    """The server's client programs with the libpq of 18. The test tree of 15, which serves 14 too, has libpq 15, which
    jobs refuse; an image has a newer one beside client programs of 15. Those of 16 bring a libpq of their own."""
    original, newest = Path(server.programs.client), Path(programs(18).client)
    if not (original.parent / "elf").is_dir():
        return original
    starter = (newest / "pg_dump").read_text().replace("${0%/*}", str(newest))
    lines = starter.replace('"$d/../elf/"pg_dump', f'"{original.parent}/elf/$(basename "$0")"')
    made = folder / f"client-{server.major}"
    made.mkdir()
    for name in ("pg_dump", "pg_dumpall", "pg_restore", "psql"):
        (made / name).write_text(lines)
        (made / name).chmod(0o755)
    return made


@dataclass
class Kit:
    """One bucket, one key pair (and an escrow), one role, for one test on one server."""

    server: PostgresServer
    s3: S3Server
    folder: Path
    role: Login
    databases: list[str]
    bucket: str = ""
    identity: Any = field(default_factory=pyrage.x25519.Identity.generate)
    escrow: Any = field(default_factory=pyrage.x25519.Identity.generate)

    def __post_init__(self) -> None:
        self.bucket = self.bucket or self.s3.fresh_bucket("backup")
        self.programs = client_programs(self.server, self.folder)
        self.termination = self.folder / "termination-log"
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir()
        self.write("password", self.role.password)
        self.write("identity", f"# created by age-keygen\n{self.identity}\n")
        for name in ("writer", "reader", "deleter", "admin"):
            login: S3Login = getattr(self.s3, name)
            self.write(f"{name}-id", login.access_key)
            self.write(f"{name}-secret", login.secret_key)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def store(self, **changes: Any) -> dict[str, Any]:
        return {
            "bucket": self.bucket,
            "prefix": PREFIX,
            "region": self.s3.region,
            "endpoint": self.s3.endpoint,
            "addressing": "Path",
            "caFile": str(self.s3.ca_path),
        } | changes

    def credentials(self, name: str) -> dict[str, Any]:
        return {
            "accessKey": {"idFile": str(self.folder / f"{name}-id"), "secretFile": str(self.folder / f"{name}-secret")}
        }

    def common(self, login: str) -> dict[str, Any]:
        return {
            "installationID": INSTALLATION,
            "policy": POLICY,
            "destination": {"store": self.store(), "credentials": self.credentials(login)},
            "terminationLog": str(self.termination),
            "scratchFolder": str(self.scratch),
            "programsFolder": str(self.programs),
        }

    def dump_config(self, **changes: Any) -> dict[str, Any]:
        """The job's JSON; `changes` replace top-level members, `server` and `store` are merged."""
        server = {
            "hosts": [{"host": self.server.host, "port": self.server.port}],
            "user": self.role.user,
            "passwordFile": str(self.folder / "password"),
            "caFile": str(self.server.ca_path),
            "systemIdentifier": str(self.server.system_identifier),
        } | changes.pop("server", {})
        value = self.common(changes.pop("login", "writer")) | {
            "server": server,
            "databases": self.databases,
            "recipients": [
                {"name": "verify", "publicKey": str(self.identity.to_public())},
                {"name": "escrow", "publicKey": str(self.escrow.to_public())},
            ],
        }
        value["destination"]["store"] |= changes.pop("store", {})
        return value | changes

    def verify_config(self, manifest: str, **changes: Any) -> dict[str, Any]:
        return (
            self.common("reader")
            | {
                "manifest": manifest,
                "identityFile": str(self.folder / "identity"),
                "evidenceCredentials": self.credentials("writer"),
            }
            | changes
        )

    def dump(self, **changes: Any) -> tuple[int, Termination]:
        """Run the dump job in this process."""
        self.termination.unlink(missing_ok=True)
        status = dump.run(DumpConfig.model_validate(self.dump_config(**changes)))
        return status, self.result()

    def verify(self, manifest: str, **changes: Any) -> tuple[int, Termination]:
        """Run the verify job in this process."""
        self.termination.unlink(missing_ok=True)
        status = verify.run(VerifyConfig.model_validate(self.verify_config(manifest, **changes)))
        return status, self.result()

    def restore_config(self, manifest: str, into: Login, database: str, **changes: Any) -> dict[str, Any]:
        """The job's JSON, with a role of its own; `server` is merged."""
        self.write("restore-password", into.password)
        server = {
            "hosts": [{"host": self.server.host, "port": self.server.port}],
            "user": into.user,
            "passwordFile": str(self.folder / "restore-password"),
            "caFile": str(self.server.ca_path),
            "systemIdentifier": str(self.server.system_identifier),
        } | changes.pop("server", {})
        common = self.common("reader")
        del common["policy"]
        return (
            common
            | {
                "operation": {"namespace": "databases", "name": "again"},
                "manifest": manifest,
                "identityFile": str(self.folder / "identity"),
                "server": server,
                "source": self.databases[0],
                "database": database,
            }
            | changes
        )

    def restore(self, manifest: str, into: Login, database: str, **changes: Any) -> tuple[int, Termination]:
        """Run the restore job in this process."""
        self.termination.unlink(missing_ok=True)
        config = self.restore_config(manifest, into, database, **changes)
        return restore.run(RestoreConfig.model_validate(config)), self.result()

    def good_dump(self, **changes: Any) -> Termination:
        status, result = self.dump(**changes)
        assert status == 0, result
        return result

    def result(self) -> Termination:
        raw = self.termination.read_bytes()
        assert len(raw) <= 4096
        found = parse_termination(raw.decode())
        assert found is not None, raw
        return found

    def config_file(self, value: dict[str, Any]) -> Path:
        return self.write("job.json", json.dumps(value, default=str))

    def manifest(self, key: str) -> Manifest:
        record = parse_manifest(self.read(key))
        assert record is not None and not isinstance(record, Tombstone)
        return record

    def read(self, key: str) -> bytes:
        body = self.s3.client().get_object(Bucket=self.bucket, Key=key)["Body"]
        with body:
            return bytes(body.read())

    def overwrite(self, key: str, body: bytes) -> None:
        self.s3.client().put_object(Bucket=self.bucket, Key=key, Body=body)

    def run_keys(self) -> list[str]:
        """The keys of runs, without the object that proves conditional writes."""
        return [k for k in self.s3.keys(self.bucket) if "/.pgtend/" not in k]

    def nothing_left(self) -> None:
        assert self.run_keys() == []
        assert self.s3.uploads(self.bucket) == []
        assert not list(self.scratch.glob("pgpass*"))

    def sql(self, statement: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        return self.server.execute(statement, dbname=database or self.databases[0])

    def noise(self, mib: int) -> None:
        """A table `shop.noise` whose dump takes about so many MiB in the bucket: it does not compress. More than 8 make
        an upload of several parts."""
        with self.server.superuser_connect(self.databases[0]) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE shop.noise (a text); ALTER TABLE shop.noise ALTER a SET STORAGE EXTERNAL")
            with cursor.copy("COPY shop.noise FROM STDIN") as copy:
                for _ in range(mib * 16):
                    copy.write_row((base64.b64encode(os.urandom(1 << 16)).decode(),))

    def restore_with_stock_tools(self, key: str, database: str) -> None:
        """`age -d | zstd -d | pg_restore`, nothing of ours."""
        self.write("object", "").write_bytes(self.read(key))
        command = (
            f'set -eu; "{tool("age")}" -d -i "{self.folder}/identity" "{self.folder}/object" | "{tool("zstd")}" -d '
            f'| "{self.programs}/pg_restore" --exit-on-error --no-owner -d "$TARGET"'
        )
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            env={"PATH": "/usr/bin:/bin", "TARGET": self.server.dsn(dbname=database)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def restore_globals(self, manifest: str, *, contains: str, lacks: str) -> None:
        """Open the object of roles with stock tools and look into it."""
        self.write("globals", "").write_bytes(self.read(f"{manifest.rpartition('/')[0]}/globals.sql.zst.age"))
        command = f'"{tool("age")}" -d -i "{self.folder}/identity" "{self.folder}/globals" | "{tool("zstd")}" -d'
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=True)
        text = done.stdout.decode()
        assert contains in text
        assert lacks not in text


def store_of(kit: Kit, login: str, **changes: Any) -> Store:
    """A client of the kit's bucket with one of the server's logins."""
    who: S3Login = getattr(kit.s3, login)
    return Store(
        config=StoreConfig.model_validate(kit.store(**changes)),
        credentials=AccessKey(id=who.access_key, secret=Sensitive(who.secret_key)),
    )


def make_kit(server: PostgresServer, s3: S3Server, folder: Path, *, databases: int = 1, grants: bool = True) -> Kit:
    """A role that may read everything, and databases with tables, partitions, a sequence and a large object."""
    role = server.fresh_role("backup", "BYPASSRLS")
    names = [server.fresh_database("dump") for _ in range(databases)]
    kit = Kit(server=server, s3=s3, folder=folder, role=role, databases=names)
    for name in names:
        fill(server, name)
        if grants:
            allow(server, name, role)
    return kit


def fill(server: PostgresServer, database: str) -> None:
    with server.superuser_connect(database) as connection:
        connection.execute(
            """
            CREATE SCHEMA shop;
            CREATE TABLE shop.orders (id bigserial PRIMARY KEY, note text, made timestamptz DEFAULT now());
            INSERT INTO shop.orders (note) SELECT E'line\\nbreak \\\\. and tab\\t' || g FROM generate_series(1, 5000) g;
            CREATE TABLE shop.events (at date, what text) PARTITION BY RANGE (at);
            CREATE TABLE shop.events_1 PARTITION OF shop.events FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
            CREATE TABLE shop.events_2 PARTITION OF shop.events FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
            INSERT INTO shop.events SELECT date '2026-01-01' + g % 300, 'event ' || g FROM generate_series(1, 3000) g;
            CREATE TABLE shop.parent (a int);
            CREATE TABLE shop.child (b int) INHERITS (shop.parent);
            INSERT INTO shop.parent SELECT g FROM generate_series(1, 7) g;
            INSERT INTO shop.child SELECT g, g FROM generate_series(1, 11) g;
            CREATE TABLE shop.empty (nothing text);
            CREATE UNLOGGED TABLE shop.unlogged AS SELECT g FROM generate_series(1, 13) g;
            CREATE TABLE "Odd ""name"" (x)" ("a.b" int, "FROM stdin;" text);
            INSERT INTO "Odd ""name"" (x)" SELECT g, 'COPY shop.orders (id) FROM stdin;' FROM generate_series(1, 17) g;
            CREATE MATERIALIZED VIEW shop.totals AS SELECT count(*) FROM shop.orders;
            CREATE FUNCTION shop.trick() RETURNS text LANGUAGE sql AS $$
SELECT '
COPY shop.fake (id) FROM stdin;
1
\\.
' $$;
            SELECT lo_from_bytea(0, 'a large object');
            """
        )


def allow(server: PostgresServer, database: str, role: Login) -> None:
    """The grants that a role for dumps needs in a database."""
    with server.superuser_connect(database) as connection:
        name = sql.Identifier(role.user)
        connection.execute(sql.SQL("GRANT pg_read_all_data TO {}").format(name))
        for (oid,) in connection.execute("SELECT oid FROM pg_largeobject_metadata").fetchall():
            connection.execute(sql.SQL("GRANT SELECT ON LARGE OBJECT {} TO {}").format(sql.SQL(str(oid)), name))


TABLES = {
    "shop.orders": 5000,
    "shop.events_1": 1810,
    "shop.events_2": 1190,
    "shop.parent": 7,
    "shop.child": 11,
    "shop.empty": 0,
    "shop.unlogged": 13,
    'public.Odd "name" (x)': 17,
}


def row_counts(server: PostgresServer, database: str) -> dict[str, int]:
    """Exact rows of every ordinary table of users, as `schema.name`."""
    found = {}
    with server.superuser_connect(database) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables JOIN pg_class ON oid = format('%I.%I', schemaname, tablename)"
            "::regclass WHERE relkind = 'r' AND schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, name in tables:
            query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, name))
            row = connection.execute(query).fetchone()
            assert row is not None
            found[f"{schema}.{name}"] = row[0]
    return found


@contextmanager
def hooks(**acts: Callable[[], None]) -> Iterator[None]:
    """Run callables at failpoints; `backups__dump__after_locks` stands for `backups.dump.after_locks`."""
    with ExitStack() as stack:
        for name, act in acts.items():
            stack.callback(failpoints.on(name.replace("__", "."), act))
        yield


def once(act: Callable[[], None]) -> Callable[[], None]:
    """`act`, at the first call only."""
    done: list[bool] = []

    def call() -> None:
        if not done:
            done.append(True)
            act()

    return call


def token() -> str:
    return secrets.token_urlsafe(18)
