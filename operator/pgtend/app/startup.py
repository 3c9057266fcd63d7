"""What must be true before anything is tended: the cluster is of our installation, and everything was seen once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pgtend.api.base import GROUP, VERSION
from pgtend.api.kinds import KINDS
from pgtend.app.settings import Settings, StartupError
from pgtend.core.findings import ObjectKey
from pgtend.kube.client import (
    CONFIG_MAPS,
    AlreadyExists,
    ApiError,
    KubeClient,
    NotFound,
    Resource,
    Unavailable,
)
from pgtend.kube.index import Index, record_of
from pgtend.server.ledger import NAME as LEDGER

log = logging.getLogger(__name__)


async def check_installation(*, client: KubeClient, settings: Settings, stop: asyncio.Event) -> None:
    """The ledger remembers the installationID; all marks in databases are made of it. Raises StartupError."""
    mine, namespace = settings.installation, settings.namespace
    while not stop.is_set():
        try:
            ledger = await client.get(CONFIG_MAPS, namespace, LEDGER)
            recorded = (ledger.get("data") or {}).get("installationID")
            if recorded != mine:
                raise StartupError(
                    f"installationID is {mine!r}, ConfigMap {namespace}/{LEDGER} records {recorded!r}:"
                    " start with the recorded one, every mark in the databases carries it"
                )
            return
        except NotFound:
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": LEDGER,
                    "namespace": namespace,
                    "labels": {"app.kubernetes.io/name": "pgtend"},
                },
                "data": {"installationID": mine},
            }
            try:
                await client.create(CONFIG_MAPS, namespace, body)
            except AlreadyExists:
                continue
        except Unavailable as error:
            log.warning("waiting for the API server", extra={"cause": str(error)})
            await asyncio.sleep(2)
        except ApiError as error:
            raise StartupError(f"ConfigMap {namespace}/{LEDGER} cannot be read: {error}") from error


async def see_everything(
    *, client: KubeClient, settings: Settings, index: Index, seen: Callable[[ObjectKey], None]
) -> None:
    """See everything once before anything is done: a half-filled view must never look like "not wanted".

    Raises StartupError where a kind is not known to the API server."""
    for kind in KINDS:
        resource = Resource(GROUP, VERSION, kind.plural)
        for namespace in sorted(settings.namespaces) or (None,):
            try:
                async for body in client.list(resource, namespace):
                    record = record_of(kind, body)
                    index.put(record)
                    seen(record.key)
            except NotFound:
                raise StartupError(
                    f"the API server does not know {kind.plural}.{GROUP}: install the chart's CRDs first"
                ) from None
