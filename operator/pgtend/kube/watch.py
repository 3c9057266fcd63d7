"""kopf as watcher, credentials and lifecycle, and nothing more: the only module that imports it.

One total event handler per kind: an exception in it would lose an event silently, so it catches, counts and enqueues.
Null storages keep every annotation of kopf's off users' objects. Settings: craft notes 1.8.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import kopf

from pgtend.api.base import GROUP, VERSION, Kind
from pgtend.core.findings import ObjectKey
from pgtend.kube.config import ClusterConfig
from pgtend.kube.index import PREFIX, Index, Record, record_of

log = logging.getLogger(__name__)
TOUCH = f"{PREFIX}reconcile"
Enqueue = Callable[[ObjectKey], None]
Take = Callable[[str | None, Mapping[str, Any]], None]


class _NoDiffBase(kopf.DiffBaseStorage):
    def build(self, *, body: kopf.Body, extra_fields: Any = None, ignored_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: kopf.Body) -> None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence

    def flush(self) -> None:
        return None


class Intake:
    """Turns one raw event into a record and a key. `errors` counts events that could not be read; `touched` is called
    where somebody changed the annotation pgtend.dev/reconcile."""

    def __init__(self, *, index: Index, enqueue: Enqueue, touched: Callable[[Record], None]) -> None:
        self._index, self._enqueue, self._touched = index, enqueue, touched
        self.events = self.echoes = self.errors = 0

    def take(self, kind: Kind, type_: str | None, body: Mapping[str, Any]) -> None:
        """Never raises. Our own echo is known by its resourceVersion and dropped."""
        self.events += 1
        try:
            if type_ == "DELETED":
                meta = body["metadata"]
                key = ObjectKey(kind.name, meta["namespace"], meta["name"])
                self._index.drop(key)
                self._enqueue(key)
                return
            record = record_of(kind, body)
            before = self._index.get(record.key)
            if before is not None and before.uid == record.uid and before.resource_version == record.resource_version:
                self.echoes += 1
                return
            if before is not None and record.annotations.get(TOUCH) != before.annotations.get(TOUCH):
                self._touched(record)
            self._index.put(record)
            self._enqueue(record.key)
        except Exception:
            self.errors += 1
            log.exception("event not understood", extra={"kind": kind.name})


def settings_for(settings: kopf.OperatorSettings) -> None:
    """Tune kopf in place."""
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.finalizer = f"{GROUP}/kopf-never-writes-this"
    settings.watching.chunk_size = 250
    settings.watching.server_timeout = 290
    settings.watching.connect_timeout = 10
    # these two go together: a worker keeps its slot for idle_timeout after its last event
    settings.queueing.worker_limit = 200
    settings.queueing.idle_timeout = 0.05
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (0.2, 0.5, 1, 2, 5, 10)
    settings.execution.max_workers = 4
    settings.process.ultimate_exiting_timeout = 25


async def watch(
    *,
    config: ClusterConfig,
    kinds: Sequence[Kind],
    namespaces: Collection[str],
    intake: Intake,
    of_namespaces: Take | None = None,
    stop: asyncio.Event,
    started: Callable[[], None],
) -> None:
    """Watch until `stop` is set. No namespaces means all of them; `of_namespaces` is given the events of Namespaces
    themselves, which are watched for it alone. Raises what kopf raises when it gives up.

    `started` is called when kopf has made itself at home, the process's signals taken over: who wants them back takes
    them then. Told by a signal and not by `stop`, it would first wait five seconds for a task of its own."""
    registry = kopf.OperatorRegistry()
    settings = kopf.OperatorSettings()
    settings_for(settings)

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        cert = config.client_cert
        return kopf.ConnectionInfo(
            server=config.server,
            ca_data=config.ca.encode() if config.ca else None,
            token=config.read_token(),
            certificate_data=cert[0].encode() if cert else None,
            private_key_data=cert[1].encode() if cert else None,
        )

    def listen(kind: Kind) -> None:
        @kopf.on.event(GROUP, VERSION, kind.plural, registry=registry, id=f"intake-{kind.plural}")
        async def handle(event: Any, **_: Any) -> None:
            intake.take(kind, event.get("type"), event["object"])

    for kind in kinds:
        listen(kind)
    if (take := of_namespaces) is not None:

        @kopf.on.event("", "v1", "namespaces", registry=registry, id="namespaces")
        async def handle_namespace(event: Any, **_: Any) -> None:
            take(event.get("type"), event["object"])

    asyncio.get_running_loop().set_exception_handler(_tell)
    ready = asyncio.Event()

    async def tell() -> None:
        await ready.wait()
        started()

    telling = asyncio.create_task(tell(), name="watch started")
    try:
        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=sorted(namespaces),
            stop_flag=stop,
            ready_flag=ready,
        )
    finally:
        telling.cancel()


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody awaits is told as ever, but for one thing: stopped in the middle of an event, kopf leaves a watch
    suspended, which complains when the loop ends and closes it. By then nothing is watched any more."""
    if getattr(context.get("asyncgen"), "__name__", "") == "infinite_watch":
        log.debug("a watch was closed with the loop")
        return
    loop.default_exception_handler(context)
