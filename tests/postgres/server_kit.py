"""What tests of sessions share: Secrets in memory behind SecretReader's own interface, logins, addresses, a Server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from tests.fixtures.postgres import Login as Role
from tests.fixtures.postgres import PostgresServer

from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.clock import Clock, SystemClock
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.kube.secrets import SecretData
from pgtend.postgres.connect import connect
from pgtend.postgres.login import Address, Login
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.session import Session
from pgtend.server.policy import WritePolicy
from pgtend.server.server import Server

KEY = ObjectKey("PostgresTarget", "db", "orders")


class Endpoint(Protocol):
    """A server, a proxy before one, or a pooler."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class Secrets:
    """What Kubernetes would hold. `reads` are the names that were asked for; `error` is raised instead of answering."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, str]] = {}
        self.reads: list[str] = []
        self.error: Exception | None = None

    def put(self, name: str, **values: str) -> None:
        self.data[name] = values

    async def get(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None:
        assert namespace == KEY.namespace
        self.reads.append(name)
        if self.error is not None:
            raise self.error
        if name not in self.data:
            return None
        values = {key.replace("_", "."): Sensitive(value) for key, value in self.data[name].items()}
        return SecretData(name=name, resource_version="1", values=values, annotations={})


class Policy:
    """The Lease and the brake, as a test wants them."""

    def __init__(self) -> None:
        self.leads, self.brake = True, False

    def made(self) -> WritePolicy:
        return WritePolicy(leading=lambda: self.leads, braked=lambda: self.brake)


def ca_of(server: PostgresServer) -> str:
    return Path(server.ca_path).read_text()


def monitor(server: PostgresServer, *, see: bool = True) -> Role:
    return server.fresh_role("monitor", "IN ROLE pg_monitor" if see else "")


def spec_for(
    members: Mapping[str, Endpoint], *, monitor: str = "monitor", users: str | None = None, **fields: Any
) -> TargetSpec:
    """A target of these members. Credentials are usernames; their passwords are in Secrets of the same names."""
    credentials = {"monitor": monitor} | ({"users": users} if users else {})
    return TargetSpec.model_validate(
        {
            "members": [{"name": name, "host": end.host, "port": end.port} for name, end in members.items()],
            "tls": {"ca": {"secretRef": {"name": "ca"}}},
            "credentials": {
                purpose: {"username": user, "password": {"secretRef": {"name": user.replace("_", "-")}}}
                for purpose, user in credentials.items()
            },
            **fields,
        }
    )


def secrets_for(server: PostgresServer, *roles: Role) -> Secrets:
    made = Secrets()
    made.put("ca", ca_crt=ca_of(server))
    for role in roles:
        made.put(role.user.replace("_", "-"), password=role.password)
    return made


@asynccontextmanager
async def serving(
    spec: TargetSpec, secrets: Secrets, *, policy: Policy | None = None, clock: Clock | None = None
) -> AsyncIterator[Server]:
    made = Server(
        key=KEY,
        spec=spec,
        secrets=secrets,  # type: ignore[arg-type]
        policy=(policy or Policy()).made(),
        installation="tests",
        clock=clock or SystemClock(),
    )
    try:
        yield made
    finally:
        await made.close()


Opening = Callable[..., Any]


@asynccontextmanager
async def opened(
    server: PostgresServer,
    role: Role,
    *,
    at: Endpoint | None = None,
    password: str | None = None,
    host: str | None = None,
    ca: str | None = "",
    sslmode: str = "verify-full",
    allow_md5: bool = False,
    certificate: tuple[Sensitive, Sensitive] | None = None,
    database: str = "postgres",
    purpose: Purpose = Purpose.PROBE,
) -> AsyncIterator[Session]:
    """A session by `connect`, closed afterwards. `ca` is the server's own unless given; None is none."""
    where = at or server
    session = await connect(
        address=Address(
            name="a",
            host=host or where.host,
            port=where.port,
            sslmode=sslmode,
            ca=ca_of(server) if ca == "" else ca,
        ),
        login=Login(
            user=role.user,
            password=None if certificate else Sensitive(password or role.password),
            certificate=certificate,
            allow_md5=allow_md5,
        ),
        database=database,
        purpose=purpose,
        application_name="pgtend/tests/probe/x",
    )
    try:
        yield session
    finally:
        await session.close()
