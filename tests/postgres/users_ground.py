"""A Server on a real PostgreSQL with the roles of `pgtend target init-sql`, and one pass of the users' machinery over
it, without Kubernetes: what the controller does between reading objects and writing Secrets and statuses."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg import sql
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.proxy import Proxy
from tests.fixtures.roles import init_roles

from pgtend.api.databaseuser import UserSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.clock import SystemClock
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.kube.secrets import SecretData
from pgtend.postgres.init_sql import init_sql
from pgtend.postgres.scram import matches, verifier
from pgtend.server.policy import WritePolicy
from pgtend.server.server import Server
from pgtend.server.standing import ServerIdentity, Standing
from pgtend.users.apply import apply
from pgtend.users.look import Looker, ask_for
from pgtend.users.plan import Credential, Plan, plan
from pgtend.users.state import Observed, Problem
from pgtend.users.wanted import Wanted, role_name, wanted

INSTALLATION = "testing"
# the monitor's is the one that tests/cluster/builders.py gives: several tests share a server
PASSWORDS = {
    "pgtend_monitor": "monitor-password-0123456789",
    "pgtend_users": "users-password-0123456789",
}


class Secrets:
    """What SecretReader gives, from a dict."""

    def __init__(self, ca: Path) -> None:
        self._values = {name: {"password": Sensitive(text)} for name, text in PASSWORDS.items()}
        self._values["ca"] = {"ca.crt": Sensitive(ca.read_text())}

    async def get(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None:
        values = self._values.get(name)
        return values and SecretData(name=name, resource_version="1", values=values, annotations={})


_MORE = """SELECT 1 FROM pg_roles WHERE rolname = 'pgtend_users'
AND (rolsuper OR rolcreatedb OR rolreplication OR rolbypassrls OR NOT rolcreaterole)"""


def initialize(server: PostgresServer, *, databases: Iterable[str] = (), owners: Iterable[str] = ()) -> None:
    """The roles exactly as the command prints them, with known passwords."""
    init_roles(server, init_sql(["monitor", "users"], databases=list(databases), owners=list(owners)))
    with server.superuser_connect() as connection:
        if connection.execute(_MORE).fetchone():  # than the command gives it, by an earlier test
            connection.execute("ALTER ROLE pgtend_users NOSUPERUSER CREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS")
        for role, password in PASSWORDS.items():
            stored = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [role]).fetchone()
            if stored is None or stored[0] is None or not matches(Sensitive(stored[0]), Sensitive(password)):
                connection.execute(
                    sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                        sql.Identifier(role), sql.Literal(verifier(Sensitive(password)).reveal())
                    )
                )


@dataclass
class Shop:
    """A database with an owner, two schemas and a few tables, and pgtend let in as init-sql does."""

    server: PostgresServer
    name: str
    owner: str
    tables: tuple[str, ...]

    @classmethod
    def open(cls, server: PostgresServer, *, tables: Iterable[str] = ("items", "lines"), through: bool = True) -> Shop:
        owner = server.fresh_role("owner").user
        name = server.fresh_database("orders", owner=owner)
        made = cls(server=server, name=name, owner=owner, tables=tuple(tables))
        server.execute("CREATE SCHEMA shop", dbname=name)
        server.execute(f"ALTER SCHEMA shop OWNER TO {owner}", dbname=name)
        for table in made.tables:
            server.execute(f"CREATE TABLE shop.{table} (id int)", dbname=name)
            server.execute(f"ALTER TABLE shop.{table} OWNER TO {owner}", dbname=name)
        initialize(server, databases=[name], owners=[owner] if through else [])
        return made

    def trio(self, *privileges: str, **rest: Any) -> list[dict[str, Any]]:
        """The classic three grants."""
        return [
            {"database": self.name, "kind": "Database", "privileges": ["Connect"]},
            {"database": self.name, "kind": "Schema", "names": ["shop"], "privileges": ["Usage"]},
            {
                "database": self.name,
                "kind": "Table",
                "schema": "shop",
                "privileges": list(privileges or ["Select"]),
                **rest,
            },
        ]


@asynccontextmanager
async def reached(
    server: PostgresServer, *, mode: str = "Enforce", proxy: Proxy | None = None, system: str | None = None, **spec: Any
) -> AsyncIterator[Server]:
    """The Server of a target that names this server alone, as a probe would have left it."""
    credentials = {
        name: {"username": f"pgtend_{name}", "password": {"secretRef": {"name": f"pgtend_{name}".replace("_", "-")}}}
        for name in ("monitor", "users")
    }
    body = {
        "mode": mode,
        "members": [{"name": "a", "host": server.host, "port": proxy.port if proxy else server.port}],
        "credentials": credentials,
        "tls": {"ca": {"secretRef": {"name": "ca"}}},
        **spec,
    }
    made = Server(
        key=ObjectKey("PostgresTarget", "databases", "orders"),
        spec=TargetSpec.model_validate(body),
        secrets=_Renamed(server.ca_path),  # type: ignore[arg-type]
        policy=WritePolicy(leading=lambda: True, braked=lambda: False),
        installation=INSTALLATION,
        clock=SystemClock(),
    )
    identity = ServerIdentity(system_identifier=system or str(server.system_identifier), timeline=1, lsn=0)
    made.standing = Standing(primary="a", identity=identity, refusal=None)
    try:
        yield made
    finally:
        await made.close()


class _Renamed(Secrets):
    async def get(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None:
        return await super().get(namespace, name.replace("-", "_"), fresh=fresh)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A DatabaseUser as the machinery sees it."""

    key: ObjectKey
    spec: UserSpec
    password: Sensitive = field(default_factory=lambda: Sensitive(secrets.token_urlsafe(24)))

    @property
    def wanted(self) -> Wanted:
        return wanted(self.key, self.spec, installation=INSTALLATION)

    @property
    def role(self) -> str:
        return role_name(self.key, self.spec)


def user(server: PostgresServer, *, name: str | None = None, namespace: str = "shop", **spec: Any) -> User:
    """A user with a role of its own name."""
    called = name or server.fresh_name("app").replace("_", "-")
    body = {"targetRef": {"name": "orders", "namespace": "databases"}, **spec}
    return User(key=ObjectKey("DatabaseUser", namespace, called), spec=UserSpec.model_validate(body))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One pass: what was planned, what failed, and what would still be planned afterwards."""

    before: Observed
    plans: Mapping[ObjectKey, Plan]
    failed: Mapping[ObjectKey, Problem]
    after: Observed
    left: Mapping[ObjectKey, Plan]

    def clean(self) -> bool:
        return not self.failed and not any(p.actions or p.differences or p.problems for p in self.left.values())


async def look(server: Server, *users: User) -> Observed:
    return await Looker(server).look(ask_for((u.role, u.spec) for u in users))


async def tend(server: Server, *users: User, applied: bool = False, looker: Looker | None = None) -> Pass:
    """Look, plan, apply, look again. `applied`: the roles have been given these passwords before."""
    looker = looker or Looker(server)
    ask = ask_for((u.role, u.spec) for u in users)
    before = await looker.look(ask)
    plans = {u.key: plan(wanted=u.wanted, observed=before, credential=_known(u, before, applied)) for u in users}
    verifiers = {u.role: verifier(u.password) for u in users if plans[u.key].sets_password}
    done = await apply(server, {key: p.actions for key, p in plans.items() if p.actions}, verifiers)
    after = await looker.look(ask)
    left = {u.key: plan(wanted=u.wanted, observed=after, credential=_known(u, after, True)) for u in users}
    return Pass(before=before, plans=plans, failed=done.failed, after=after, left=left)


def _known(one: User, observed: Observed, applied: bool) -> Credential:
    role = observed.roles.get(one.role)
    compared = matches(role.verifier, one.password) if role is not None and observed.sees_verifiers else None
    return Credential(ready=True, applied=applied, matches=compared)
