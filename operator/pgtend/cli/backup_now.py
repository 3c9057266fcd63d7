"""`pgtend backup now`: the wish for a backup as an object in the cluster, and what came of it. The operator takes it by
the policy's settings; nothing is done from here but to ask and to look."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from pgtend.api.base import GROUP, VERSION
from pgtend.api.postgresbackup import POSTGRES_BACKUP, BackupSpec
from pgtend.api.postgresbackuppolicy import POSTGRES_BACKUP_POLICY
from pgtend.api.types import format_duration
from pgtend.kube.client import Forbidden, KubeClient, NotFound, Resource, Unavailable
from pgtend.kube.index import explain

Until = Literal["Complete", "Verified"]
BACKUPS = Resource(GROUP, VERSION, POSTGRES_BACKUP.plural)
POLICIES = Resource(GROUP, VERSION, POSTGRES_BACKUP_POLICY.plural)
EVERY = 2.0
# what the API server adds to generateName, and the dash before it
_ADDED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`result` is Created where nobody waits."""

    name: str
    namespace: str
    result: Literal["Created", "Complete", "Verified", "NotTaken", "Failed", "TimedOut"]
    reason: str = ""
    message: str = ""
    manifest: str | None = None
    stored: str | None = None

    @property
    def good(self) -> bool:
        return self.result in ("Created", "Complete", "Verified")

    @property
    def document(self) -> dict[str, Any]:
        return {
            "schema": "pgtend.dev/backup-now/v1",
            "name": self.name,
            "namespace": self.namespace,
            "result": self.result,
            "reason": self.reason or None,
            "message": self.message or None,
            "manifest": self.manifest,
            "size": self.stored,
        }

    @property
    def text(self) -> str:
        why = f": {self.reason}: {self.message}" if self.reason else f": {self.message}" if self.message else ""
        where = f", {self.stored} at {self.manifest}" if self.good and self.manifest else ""
        return f"{self.namespace}/{self.name}: {self.result}{why}{where}"


def wish(policy: str, namespace: str, *, name: str | None, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The object. Raises ValueError where its spec has no meaning."""
    given = {"policyRef": {"name": policy}} | {key: value for key, value in spec.items() if value is not None}
    try:
        BackupSpec.model_validate(given)
    except ValidationError as error:
        raise ValueError(explain(error)) from None
    longest = POSTGRES_BACKUP.name_max_length or 63
    called = {"name": name} if name is not None else {"generateName": f"{policy[: longest - _ADDED].rstrip('-.')}-"}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": POSTGRES_BACKUP.name,
        "metadata": {**called, "namespace": namespace},
        "spec": given,
    }


async def ask(client: KubeClient, body: Mapping[str, Any]) -> Outcome:
    """Raises ApiError, and ValueError where there is no such policy: whoever does not wait would never know."""
    namespace, policy = body["metadata"]["namespace"], body["spec"]["policyRef"]["name"]
    try:
        await client.get(POLICIES, namespace, policy)
    except NotFound:
        raise ValueError(f"PostgresBackupPolicy {namespace}/{policy} does not exist") from None
    except Forbidden:
        pass  # who may only create backups is told by the backup itself
    made = await client.create(BACKUPS, namespace, body)
    return Outcome(name=made["metadata"]["name"], namespace=namespace, result="Created")


async def follow(client: KubeClient, asked: Outcome, *, until: Until, seconds: float, every: float = EVERY) -> Outcome:
    """What came of it; an API server that is away for a while is waited for. Raises ApiError."""
    name, namespace = asked.name, asked.namespace
    deadline, last = time.monotonic() + seconds, "nothing is known of it yet"
    while True:
        try:
            body = await client.get(BACKUPS, namespace, name)
        except NotFound:
            return Outcome(name=name, namespace=namespace, result="Failed", message="it was deleted meanwhile")
        except Unavailable as error:
            last = str(error)
        else:
            ended = judge(name, namespace, body.get("status") or {}, until=until)
            if ended is not None:
                return ended
            last = _last(body.get("status") or {}, until)
        if time.monotonic() >= deadline:
            text = f"not {until} after {format_duration(seconds)}, it goes on without us; last: {last}"
            return Outcome(name=name, namespace=namespace, result="TimedOut", message=text)
        await asyncio.sleep(min(every, max(0.05, deadline - time.monotonic())))


def judge(name: str, namespace: str, status: Mapping[str, Any], *, until: Until) -> Outcome | None:
    """None while it goes on. What may still come is no failure yet; what will not be tried again is."""
    found = {one["type"]: one for one in status.get("conditions") or ()}
    complete, verified, available = (found.get(kind, {}) for kind in ("Complete", "Verified", "Available"))
    ready, stalled = found.get("Ready", {}), found.get("Stalled", {})

    def ended(result: Any, condition: Mapping[str, Any]) -> Outcome:
        return Outcome(
            name=name,
            namespace=namespace,
            result=result,
            reason=str(condition.get("reason", "")),
            message=str(condition.get("message", "")),
            manifest=status.get("manifest"),
            stored=(status.get("size") or {}).get("stored"),
        )

    if complete.get("status") != "True":
        if stalled.get("status") == "True":
            return ended("Failed", complete or stalled)
        # it rests, as was asked for: too late to begin, or somebody only observes
        return ended("NotTaken", ready) if ready.get("status") == "True" else None
    if available.get("status") == "False":
        return ended("Failed", available)
    if until == "Complete":
        return ended("Complete", complete)
    if verified.get("status") == "True":
        return ended("Verified", verified)
    return ended("Failed", verified) if verified.get("status") == "False" else None


def _last(status: Mapping[str, Any], until: Until) -> str:
    found = {one["type"]: one for one in status.get("conditions") or ()}
    complete = found.get("Complete")
    told = found.get("Verified") if until == "Verified" and complete and complete["status"] == "True" else complete
    return (
        f"{told['type']}={told['status']}/{told['reason']}: {told['message']}"
        if told
        else "no operator has looked at it"
    )
