"""What the chart's pre-delete hook runs: set the brake, release finalizers, tell what is left.

Nothing is undone in any database. What would have been undone at a deletion stays as it is, and the ledger says so; it
is kept for a later installation with the same installationID.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from typing import Any

from pgtend.api.base import GROUP, VERSION
from pgtend.api.kinds import KINDS
from pgtend.core.clock import SystemClock, rfc3339
from pgtend.engine.brake import NAME as BRAKE
from pgtend.kube.client import CONFIG_MAPS, PODS, AlreadyExists, Conflict, KubeClient, NotFound, Resource
from pgtend.kube.config import ClusterConfig

LEDGER = "pgtend-ledger"
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
        released: list[str] = []
        for kind in KINDS:
            resource, left = Resource(GROUP, VERSION, kind.plural), 0
            for place in sorted(namespaces) or (None,):
                async for body in client.list(resource, place):
                    left += 1
                    if await _release(client, resource, body):
                        released.append(f"{kind.name} {body['metadata']['namespace']}/{body['metadata']['name']}")
            if left:
                said.append(f"{left} {kind.plural} stay, and what they made stays as it is")
        if released:
            said.append(f"finalizers released, nothing undone: {', '.join(released)}")
            await _record(client, namespace, released)
    return said


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
