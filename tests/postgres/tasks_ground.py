"""A target on real servers with the roles of `pgtend target init-sql`, as the tasks see it; no Kubernetes."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from tests.fixtures.postgres import Login, PostgresServer
from tests.fixtures.roles import init_roles

from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.clock import SystemClock
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.gate.asking import Request, State
from pgtend.gate.classes import RunPolicy, TaskType
from pgtend.gate.decide import Permit, decide
from pgtend.kube.secrets import SecretData
from pgtend.postgres.init_sql import init_sql
from pgtend.server.member import MemberSessions
from pgtend.server.policy import WritePolicy
from pgtend.server.server import Server
from pgtend.server.standing import ServerIdentity, Standing
from pgtend.tasks.protocol import Ground

TARGET = ObjectKey("PostgresTarget", "databases", "orders")
PASSWORDS = {
    "pgtend_monitor": "password-of-monitor-0123456789",
    "pgtend_maintenance": "password-of-maintenance-0123456789",
}


class Secrets:
    """What SecretReader gives, from a dict."""

    def __init__(self, ca: Path) -> None:
        self._values = {name.replace("_", "-"): {"password": Sensitive(text)} for name, text in PASSWORDS.items()}
        self._values["ca"] = {"ca.crt": Sensitive(ca.read_text())}

    async def get(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None:
        values = self._values.get(name)
        return values and SecretData(name=name, resource_version="1", values=values, annotations={})


def initialize(server: PostgresServer, *, databases: Iterable[str] = (), owners: Iterable[str] = ()) -> None:
    """The roles as the command prints them, with known passwords."""
    init_roles(server, init_sql(["monitor", "maintenance"], databases=list(databases), owners=list(owners)))
    with server.superuser_connect() as connection:
        for role, password in PASSWORDS.items():
            connection.pgconn.change_password(role.encode(), password.encode())


@asynccontextmanager
async def ground(
    *servers: PostgresServer, mode: str = "Enforce", system: str | None = None, braked: bool = False, **spec: Any
) -> AsyncIterator[Ground]:
    """The target's server as a probe would have left it: members a, b, ..., the first of them the primary."""
    names = ("monitor", "maintenance")
    body = {
        "mode": mode,
        "members": [{"name": "abc"[i], "host": server.host, "port": server.port} for i, server in enumerate(servers)],
        "credentials": {name: {"password": {"secretRef": {"name": f"pgtend-{name}"}}} for name in names},
        "tls": {"ca": {"secretRef": {"name": "ca"}}},
        **spec,
    }
    made = Server(
        key=TARGET,
        spec=TargetSpec.model_validate(body),
        secrets=Secrets(servers[0].ca_path),  # type: ignore[arg-type]
        policy=WritePolicy(leading=lambda: True, braked=lambda: braked),
        installation="testing",
        clock=SystemClock(),
    )
    identity = ServerIdentity(system_identifier=system or str(servers[0].system_identifier), timeline=1, lsn=0)
    made.standing = Standing(primary="a", identity=identity, refusal=None)
    members = MemberSessions()
    try:
        yield Ground(server=made, members=members)
    finally:
        await members.close()
        await made.close()


def permit(type_: TaskType, *, seconds: float = 60, policy: RunPolicy = RunPolicy.OVERRIDE_WINDOW) -> Permit:
    """Leave to start, as the gate gives it."""
    granted = decide(
        Request(
            target=TARGET,
            type=type_,
            object="x",
            run_policy=policy if type_ is not TaskType.TERMINATE_QUERIES else RunPolicy.IMMEDIATELY,
            estimate=timedelta(0),
            timeout=timedelta(seconds=seconds),
        ),
        State(target=TARGET, mode="Enforce"),
        SystemClock().now(),
    )
    assert isinstance(granted, Permit)
    return granted


@contextmanager
def busy(
    server: PostgresServer, login: Login, statement: str = "SELECT pg_sleep(60)", **options: Any
) -> Iterator[psycopg.Connection]:
    """A client whose statement runs in the background; `info.backend_pid` says who it is."""
    with server.connect(login, **options) as connection:

        def run() -> None:
            with suppress(psycopg.Error):
                connection.execute(statement)

        thread = threading.Thread(target=run)
        thread.start()
        with server.superuser_connect() as admin:
            for _ in range(200):
                row = admin.execute(
                    "SELECT state FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid]
                ).fetchone()
                if row is not None and row[0] == "active":
                    break
                threading.Event().wait(0.02)
        try:
            yield connection
        finally:
            with suppress(psycopg.Error), server.superuser_connect() as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
            thread.join(20)
            with suppress(psycopg.Error):
                connection.close()


def alive(server: PostgresServer, *connections: psycopg.Connection) -> list[bool]:
    rows = server.execute("SELECT pid FROM pg_stat_activity")
    pids = {row[0] for row in rows}
    return [connection.info.backend_pid in pids for connection in connections]
