"""The users' machinery with its own Keeper on real PostgreSQL: the API server alone is kept in memory, so that a test
can say what time it is, and look at every Secret that was ever published."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping
from typing import Any, cast

import psycopg
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import INSTALLATION, initialize

from pgtend.api.databaseuser import DATABASE_USER, UserSpec
from pgtend.core.clock import FakeClock
from pgtend.kube.client import AlreadyExists, KubeClient, NotFound, Object, Resource
from pgtend.kube.index import Index, record_of
from pgtend.kube.secrets import SecretReader
from pgtend.server.server import Server
from pgtend.users.admission import Admitted
from pgtend.users.case import Case, ask_of
from pgtend.users.controller import INTERVAL
from pgtend.users.keeper import Keeper
from pgtend.users.pace import Pace
from pgtend.users.tend import Tender
from pgtend.users.wanted import wanted


class MemoryApi:
    """Secrets in a dict, with merge patches as an API server does them; `published` is every version of each."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.published: list[dict[str, str]] = []
        self._versions = itertools.count(1)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        if name not in self.objects:
            raise NotFound(404, "NotFound", name)
        return self.objects[name]

    async def create(self, resource: Resource, namespace: str | None, body: Mapping[str, Any]) -> Object:
        name = body["metadata"]["name"]
        if name in self.objects:
            raise AlreadyExists(409, "AlreadyExists", name)
        return self._keep(name, dict(body["data"]), dict(body["metadata"]["annotations"]))

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Mapping[str, Any],
        *,
        resource_version: str | None = None,
    ) -> Object:
        old = await self.get(resource, namespace, name)
        assert resource_version == old["metadata"]["resourceVersion"]
        data = _merged(old["data"], body["data"])
        return self._keep(name, data, _merged(old["metadata"]["annotations"], body["metadata"]["annotations"]))

    def values(self, name: str) -> dict[str, str]:
        return {key: base64.b64decode(text).decode() for key, text in self.objects[name]["data"].items()}

    def _keep(self, name: str, data: dict[str, str], annotations: dict[str, str]) -> Object:
        metadata = {"name": name, "resourceVersion": str(next(self._versions)), "annotations": annotations}
        self.objects[name] = {"metadata": metadata, "data": data}
        self.published.append(self.values(name))
        return self.objects[name]


def _merged(old: Mapping[str, str], patch: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in {**old, **patch}.items() if value is not None}


class Ground:
    """One operator's memory; `restart()` is a process that has forgotten everything."""

    def __init__(self, server: PostgresServer) -> None:
        self.server, self.api, self.clock = server, MemoryApi(), FakeClock()
        initialize(server)
        self.restart()

    def restart(self) -> None:
        client = cast(KubeClient, self.api)
        secrets = SecretReader(client=client, clock=self.clock)
        keeper = Keeper(client=client, secrets=secrets, installation=INSTALLATION, clock=self.clock)
        self.tender = Tender(
            client=client,
            index=Index(),
            keeper=keeper,
            installation=INSTALLATION,
            clock=self.clock,
            pace=Pace(self.clock),
        )

    def name(self) -> str:
        return self.server.fresh_name("app").replace("_", "-")

    def case(self, name: str, *, status: Mapping[str, Any] | None = None, **spec: Any) -> Case:
        body = {
            "metadata": {
                "name": name,
                "namespace": "shop",
                "uid": name,
                "resourceVersion": "1",
                "creationTimestamp": "2026-11-22T01:00:00Z",
            },
            "spec": {"targetRef": {"name": "orders"}, **spec},
            "status": dict(status or {}),
        }
        record = record_of(DATABASE_USER, body)
        parsed = record.parsed(UserSpec)
        return Case(
            record=record,
            spec=parsed,
            wanted=wanted(record.key, parsed, installation=INSTALLATION),
            admitted=Admitted(by="the test"),
        )

    async def tend(self, target: Server, name: str, *, before: Case | None = None, **spec: Any) -> Case:
        """One pass over a user with the status that `before` ended in."""
        case = self.case(name, status=status(before) if before is not None else None, **spec)
        await self.tender.tend(target, [case])
        assert case.error is None
        return case

    async def turn(self, target: Server, before: Case) -> Case:
        """The next turn of the wheel, as the controller makes it, for a user that nobody has touched."""
        self.clock.advance(INTERVAL)
        case = self.again(before)
        case.steady = True
        await self.tender.tend(target, [case], everybody=lambda: ask_of([case]))
        assert case.error is None
        return case

    def again(self, case: Case) -> Case:
        """The same object with the status that the case ended in, as it would be written."""
        assert case.judged is not None
        spec = case.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        conditions = [
            {"type": v.type, "status": v.status, "reason": str(v.reason), "message": v.message}
            for v in case.judged.verdicts
        ]
        told = {"observedGeneration": 1, "conditions": conditions}
        return self.case(case.key.name, status=status(case) | told, **spec)

    def secret(self, name: str) -> dict[str, str]:
        return self.api.values(name)

    def logs_in(self, name: str, database: str = "postgres") -> bool:
        """Whether what the Secret says lets a program in."""
        values = self.secret(name)
        return can_log_in(self.server, values["username"], values["password"], database)


def can_log_in(server: PostgresServer, role: str, password: str, database: str = "postgres") -> bool:

    try:
        server.connect(role, database, password=password).close()
    except psycopg.OperationalError:
        return False
    return True


def status(case: Case) -> dict[str, Any]:
    assert case.judged is not None
    return case.judged.status.to_wire()


def conditions(case: Case) -> dict[str, tuple[str, str]]:
    assert case.judged is not None
    return {v.type: (v.status, str(v.reason)) for v in case.judged.verdicts}


def message(case: Case, type_: str) -> str:
    assert case.judged is not None
    (found,) = [v.message for v in case.judged.verdicts if v.type == type_]
    return found
