"""Finds what was deleted while no watch was open: kopf lists anew after a gap, and a list says nothing of what is gone.

Such a ghost would be tended for ever: its target probed, its role and Secret made again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from pgtend.api.base import GROUP, VERSION, Kind
from pgtend.core.findings import ObjectKey
from pgtend.kube.client import ApiError, KubeClient, Resource
from pgtend.kube.index import Index

log = logging.getLogger(__name__)
EVERY = 300.0


async def sweep(
    *,
    client: KubeClient,
    index: Index,
    kinds: Sequence[Kind],
    namespaces: Collection[str],
    enqueue: Callable[[ObjectKey], None],
) -> int:
    """Drop from the index, and enqueue, what the API server does not have any more; returns how many. An object that
    appears while we look is never taken for gone. Raises ApiError, and then nothing of that kind has been dropped."""
    gone = 0
    for kind in kinds:
        known = {record.uid: record.key for record in index.of_kind(kind.name)}
        for namespace in sorted(namespaces) or (None,):
            async for body in client.list(Resource(GROUP, VERSION, kind.plural), namespace):
                known.pop(body["metadata"]["uid"], None)
        for uid, key in known.items():
            record = index.get(key)
            if record is not None and record.uid == uid:
                index.drop(key)
                enqueue(key)
                gone += 1
    return gone


async def run(
    *,
    client: KubeClient,
    index: Index,
    kinds: Sequence[Kind],
    namespaces: Collection[str],
    enqueue: Callable[[ObjectKey], None],
) -> None:
    """Sweep every five minutes, for ever."""
    while True:
        await asyncio.sleep(EVERY)
        try:
            gone = await sweep(client=client, index=index, kinds=kinds, namespaces=namespaces, enqueue=enqueue)
        except ApiError as error:
            log.warning("not swept", extra={"cause": str(error)})
            continue
        if gone:
            log.info("objects had gone unseen", extra={"count": gone})
