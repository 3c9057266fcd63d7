"""What the chart's pre-delete hook runs: set the brake, release finalizers, tell what is left.

Nothing is undone in any database. What would have been undone at a deletion stays as it is, and the ledger says so,
before anything is released: also of users that nobody has deleted yet, since afterwards nobody sees that they are. It
is kept for a later installation with the same installationID, which undoes it where the object does not come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Collection, Sequence
from typing import Any

from pgtend.api.base import GROUP, VERSION, Kind
from pgtend.api.databaseuser import DATABASE_USER, UserSpec
from pgtend.api.kinds import KINDS
from pgtend.api.postgrestarget import POSTGRES_TARGET, TargetSpec
from pgtend.api.reasons import TargetReason, UserReason
from pgtend.core.clock import SystemClock, rfc3339
from pgtend.engine.brake import NAME as BRAKE
from pgtend.kube.client import CONFIG_MAPS, PODS, AlreadyExists, Conflict, KubeClient, NotFound, Resource
from pgtend.kube.config import ClusterConfig
from pgtend.kube.index import Record, record_of
from pgtend.server.ledger import NAME as LEDGER
from pgtend.server.ledger import Abandoned, Ledger
from pgtend.users.undoing import FINALIZER, abandoned
from pgtend.users.wanted import target_key

RELEASED = "released.json"
# seconds after which every operator has seen the brake (engine/brake.py), and what it had begun before is over
HEEDED = 6.0


async def uninstall(*, cluster: ClusterConfig, namespace: str, namespaces: Collection[str]) -> list[str]:
    """Lines that say what was done and what is left. Raises kube.client.ApiError where the API server refuses."""
    said: list[str] = []
    async with KubeClient(cluster) as client:
        await _brake(client, namespace)
        said.append("the brake is on: the operator writes nothing any more")
        # an operator that has not seen it yet would put back a finalizer that it misses
        await asyncio.sleep(HEEDED)
        found = {kind.name: await _all(client, kind, namespaces) for kind in KINDS}
        targets = [record_of(POSTGRES_TARGET, body) for body in found[POSTGRES_TARGET.name]]
        users = [record_of(DATABASE_USER, body) for body in found[DATABASE_USER.name]]
        entries = remaining(users, targets, now=rfc3339(SystemClock().now()))
        with contextlib.suppress(NotFound):  # an operator that never ran has no ledger
            await Ledger(client=client, namespace=namespace).add(*entries)
        released: list[str] = []
        for kind in KINDS:
            for body in found[kind.name]:
                if await _release(client, Resource(GROUP, VERSION, kind.plural), body):
                    released.append(f"{kind.name} {body['metadata']['namespace']}/{body['metadata']['name']}")
            if found[kind.name]:
                said.append(f"{len(found[kind.name])} {kind.plural} stay, and what they made stays as it is")
        if released:
            said.append(f"finalizers released, nothing undone: {', '.join(released)}")
            await _record(client, namespace, released)
        if entries:
            said.append(f"the ConfigMap {LEDGER} lists {len(entries)} roles with the SQL that disables or drops them")
    return said


async def _all(client: KubeClient, kind: Kind, namespaces: Collection[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for place in sorted(namespaces) or (None,):
        found += [dict(body) async for body in client.list(Resource(GROUP, VERSION, kind.plural), place)]
    return found


def remaining(users: Sequence[Record], targets: Sequence[Record], *, now: str) -> list[Abandoned]:
    """What users leave behind whose deletion nobody will see. Those that were not pgtend's to act on (Observe,
    NotPermitted) are listed only. Pure."""
    known = {target.key: target for target in targets}
    found = []
    for user in users:
        spec = user.spec
        if FINALIZER not in user.finalizers or not isinstance(spec, UserSpec) or spec.deletion_policy == "Retain":
            continue
        target = known.get(target_key(user.key, spec))
        identity = (target.status.get("identity") or {}) if target is not None else {}
        never = _never(user, spec, target)
        found.append(
            abandoned(
                user.key,
                spec,
                system=str(identity["systemIdentifier"]) if identity else None,
                reason=never or f"{TargetReason.BRAKE_ON}: pgtend was uninstalled",
                since=now,
                retry=never is None,
                lived=not user.deleting,
            )
        )
    return found


NOT_OURS = frozenset({UserReason.NOT_PERMITTED, UserReason.SELECTOR_NEEDS_CLUSTER_MODE})


def _never(user: Record, spec: UserSpec, target: Record | None) -> str | None:
    """Why the role is not pgtend's to act on, if so."""
    theirs = target.spec if target is not None else None
    if spec.mode == "Observe" or (isinstance(theirs, TargetSpec) and theirs.mode == "Observe"):
        return f"{UserReason.OBSERVING}: mode is Observe"
    for condition in user.status.get("conditions") or ():
        if condition["type"] == "Accepted" and condition["reason"] in NOT_OURS:
            return f"{condition['reason']}: {condition.get('message', '')}"
    return None


async def _brake(client: KubeClient, namespace: str) -> None:
    """Owned by the operator's pods, so that it goes with the last of them and stops no later installation."""
    owners = [
        {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        async for pod in client.list(PODS, namespace, labels="app.kubernetes.io/name=pgtend")
        if pod["metadata"].get("labels", {}).get("app.kubernetes.io/component") != "uninstall"
    ]
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": BRAKE, "namespace": namespace, "ownerReferences": owners},
        "data": {"paused": "true"},
    }
    try:
        await client.create(CONFIG_MAPS, namespace, body)
    except AlreadyExists:
        # somebody braked before: theirs stays theirs, only the key is made sure of
        await client.merge_patch(CONFIG_MAPS, namespace, BRAKE, {"data": {"paused": "true"}})


async def _release(client: KubeClient, resource: Resource, body: dict[str, Any]) -> bool:
    """Take our finalizers off, others' stay. True where there was one."""
    meta = body["metadata"]
    finalizers = meta.get("finalizers") or []
    rest = [name for name in finalizers if not name.startswith(f"{GROUP}/")]
    if rest == finalizers:
        return False
    try:
        await client.merge_patch(
            resource,
            meta["namespace"],
            meta["name"],
            {"metadata": {"finalizers": rest}},
            resource_version=meta["resourceVersion"],
        )
    except NotFound:
        return False
    except Conflict:
        return await _release(client, resource, await client.get(resource, meta["namespace"], meta["name"]))
    return True


async def _record(client: KubeClient, namespace: str, released: list[str]) -> None:
    entry = {"at": rfc3339(SystemClock().now()), "objects": released[:500]}
    try:
        await client.merge_patch(CONFIG_MAPS, namespace, LEDGER, {"data": {RELEASED: json.dumps(entry)}})
    except NotFound:
        return  # an operator that never ran has no ledger
