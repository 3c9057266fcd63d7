"""Where a command reads: a target of the cluster, with its own credentials and through the API server's Secrets; or a
connection string of an administrator's. Nothing is written by either, and no password is ever an argument."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from pgtend.api.base import GROUP, VERSION
from pgtend.api.databaseuser import DATABASE_USER, UserSpec
from pgtend.api.postgrestarget import POSTGRES_TARGET, Credential, Member, TargetSpec
from pgtend.api.reasons import TargetReason
from pgtend.cli.options import Where, namespaced
from pgtend.core.clock import SystemClock
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.core.names import application_name
from pgtend.core.redaction import Sensitive
from pgtend.kube.client import NAMESPACES, Forbidden, KubeClient, NotFound, Resource
from pgtend.kube.config import load
from pgtend.kube.index import Record, record_of
from pgtend.kube.secrets import SecretReader
from pgtend.postgres import dsn as dsns
from pgtend.postgres.connect import connect
from pgtend.postgres.libpq import fence_environment
from pgtend.postgres.login import Address
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.session import Session
from pgtend.server import credentials
from pgtend.users.admission import logins_of
from pgtend.users.wanted import role_name, target_key

INSTALLATION = "cli"


async def no_labels(namespace: str) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Reached:
    """`declared` says by which DatabaseUser each role is; roles of pgtend's own logins by which credential."""

    name: str
    key: ObjectKey | None
    spec: TargetSpec | None
    open: Callable[[str | None], Any]
    users: tuple[Record, ...] = ()
    declared: Mapping[str, str] = field(default_factory=dict)
    labels: Callable[[str], Awaitable[Mapping[str, str] | None]] = no_labels
    """Of a namespace; None where they may not be read."""

    @property
    def grantor(self) -> str | None:
        """The login that users are tended with, where that is known."""
        if self.spec is None:
            return None
        users = self.spec.credentials.users
        return (users.username if users is not None else None) or "pgtend_users"

    @asynccontextmanager
    async def session(self, database: str | None = None) -> AsyncIterator[Session]:
        """In a database, or the one where the look begins. Raises PgtendError."""
        async with self.open(database) as session:
            yield session


@asynccontextmanager
async def reach(where: Where) -> AsyncIterator[Reached]:
    """Raises PgtendError, ApiError, ValueError or OSError with what is wrong for people."""
    if where.target is None:
        yield _by_dsn(where)
        return
    key = ObjectKey(POSTGRES_TARGET.name, *namespaced(where.target))
    fence_environment()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(KubeClient(load(where.kubeconfig, where.context)))
        try:
            body = await client.get(Resource(GROUP, VERSION, POSTGRES_TARGET.plural), key.namespace, key.name)
        except NotFound:
            raise PgtendError(TargetReason.INVALID_SPEC, f"PostgresTarget {key} does not exist") from None
        record = record_of(POSTGRES_TARGET, body)
        if record.spec_error is not None:
            raise PgtendError(TargetReason.INVALID_SPEC, f"PostgresTarget {key}: {record.spec_error}")
        spec = record.parsed(TargetSpec)
        users = await _users(client, key)
        opener = _Opener(client=client, key=key, spec=spec, primary=record.status.get("primary"))
        yield Reached(
            name=str(key),
            key=key,
            spec=spec,
            open=opener.session,
            users=users,
            declared=_declared(spec, users),
            labels=partial(_labels, client),
        )


def _by_dsn(where: Where) -> Reached:
    text = where.dsn
    if text is None and where.dsn_file is not None:
        text = where.dsn_file.read_text(encoding="utf-8").strip()
    dsns.check(text or "", argument=where.dsn is not None)
    hidden = Sensitive(text or "")
    spec, key = None, None
    if where.target_file is not None:
        record = target_of_file(where.target_file)
        spec, key = record.parsed(TargetSpec), record.key
    return Reached(
        name=str(key) if key is not None else "by DSN",
        key=key,
        spec=spec,
        open=lambda database: dsns.session(hidden, database=database),
        declared=_declared(spec, ()),
    )


def documents(path: Path, kind: str) -> list[dict[str, Any]]:
    """The objects of a kind in a file, in lists too. Raises ValueError."""
    try:
        found = [doc for doc in yaml.safe_load_all(path.read_text(encoding="utf-8")) if doc]
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    items = [item for doc in found for item in (doc.get("items") or () if doc.get("kind") == "List" else (doc,))]
    return [item for item in items if item.get("kind") == kind and str(item.get("apiVersion")).startswith(f"{GROUP}/")]


def as_served(body: Mapping[str, Any], namespace: str, *, created: str = "2000-01-01T00:00:00Z") -> dict[str, Any]:
    """An object of a file as the API server would give it back."""
    given = dict(body.get("metadata") or {})
    meta = {"namespace": namespace, "uid": "", "resourceVersion": "", "creationTimestamp": created}
    return {**body, "metadata": meta | given}


def target_of_file(path: Path) -> Record:
    """Raises ValueError."""
    found = documents(path, POSTGRES_TARGET.name)
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} PostgresTargets: exactly one is needed")
    record = record_of(POSTGRES_TARGET, as_served(found[0], "default"))
    if record.spec_error is not None:
        raise ValueError(f"{path}: {record.spec_error}")
    return record


async def _users(client: KubeClient, target: ObjectKey) -> tuple[Record, ...]:
    """Whoever may not list all namespaces is told of the target's own."""
    resource = Resource(GROUP, VERSION, DATABASE_USER.plural)
    try:
        bodies = [body async for body in client.list(resource)]
    except Forbidden:
        bodies = [body async for body in client.list(resource, target.namespace)]
    records = (record_of(DATABASE_USER, body) for body in bodies)
    return tuple(r for r in records if isinstance(r.spec, UserSpec) and target_key(r.key, r.spec) == target)


async def _labels(client: KubeClient, namespace: str) -> Mapping[str, str] | None:
    try:
        found = await client.get(NAMESPACES, None, namespace)
    except (Forbidden, NotFound):
        return None
    return dict(found["metadata"].get("labels") or {})


def _declared(spec: TargetSpec | None, users: tuple[Record, ...]) -> dict[str, str]:
    found = {name: f"credentials.{purpose}" for name, purpose in logins_of(spec).items()} if spec is not None else {}
    return found | {role_name(one.key, one.spec): str(one.key) for one in users}


class _Opener:
    """Sessions on a target's primary, or whichever member answers, with the credential that users are tended with."""

    def __init__(self, *, client: KubeClient, key: ObjectKey, spec: TargetSpec, primary: str | None) -> None:
        self._key, self._spec = key, spec
        self._members = sorted(spec.members, key=lambda member: member.name != primary)
        self._secrets = SecretReader(client=client, clock=SystemClock())
        self._found: Member | None = None

    @asynccontextmanager
    async def session(self, database: str | None) -> AsyncIterator[Session]:
        problem: PgtendError | None = None
        for member in [self._found] if self._found is not None else self._members:
            try:
                opened = await self._open(member, database or self._spec.maintenance_database)
            except PgtendError as error:
                problem = problem or error
                continue
            self._found = member
            try:
                yield opened
            finally:
                await opened.close()
            return
        assert problem is not None  # noqa: S101 - a target has a member
        raise problem

    async def _open(self, member: Member, database: str) -> Session:
        spec, space = self._spec, self._key.namespace
        purpose = "users" if spec.credentials.users is not None else "monitor"
        credential: Credential = spec.credentials.users or spec.credentials.monitor
        login = await credentials.login(self._secrets, namespace=space, purpose=purpose, credential=credential)
        ca = await credentials.certificate_authority(self._secrets, namespace=space, tls=spec.tls)
        return await connect(
            address=Address(name=member.name, host=member.host, port=member.port, sslmode=spec.tls.sslmode, ca=ca),
            login=login,
            database=database,
            purpose=Purpose.CATALOG,
            application_name=application_name(
                installation=INSTALLATION, purpose="cli", namespace=space, name=self._key.name
            ),
        )
