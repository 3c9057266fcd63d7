"""kopf as watcher, credentials and lifecycle, and nothing more: the only module that imports it.

One total event handler per kind: an exception in it would lose an event silently, so it catches, counts and enqueues.
Null storages keep every annotation of kopf's off users' objects. Settings: craft notes 1.8.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import aiohttp
import kopf

from pgtend.api.base import GROUP, VERSION, Kind
from pgtend.core.findings import ObjectKey
from pgtend.kube.client import CHUNK
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
            if self._is_echo(kind.name, body):
                self.echoes += 1
                return
            record = record_of(kind, body)
            before = self._index.get(record.key)
            if before is not None and record.annotations.get(TOUCH) != before.annotations.get(TOUCH):
                self._touched(record)
            self._index.put(record)
            self._enqueue(record.key)
        except Exception:
            self.errors += 1
            log.exception("event not understood", extra={"kind": kind.name})

    def unknown(self, kind: str, bodies: Iterable[Any]) -> list[Any]:
        """Those of a list that do not stand in the index as they are. Never raises: what is not understood is one."""
        return [body for body in bodies if not self._is_known(kind, body)]

    def _is_known(self, kind: str, body: Any) -> bool:
        try:
            return self._is_echo(kind, body)
        except (KeyError, TypeError):
            return False

    def _is_echo(self, kind: str, body: Mapping[str, Any]) -> bool:
        meta = body["metadata"]
        known = self._index.get(ObjectKey(kind, meta["namespace"], meta["name"]))
        return known is not None and (known.uid, known.resource_version) == (meta["uid"], meta["resourceVersion"])


def settings_for(settings: kopf.OperatorSettings) -> None:
    """Tune kopf in place."""
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.finalizer = f"{GROUP}/kopf-never-writes-this"
    settings.watching.chunk_size = CHUNK
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


def without_known(answer: Any, intake: Intake) -> Any:
    """An answer of the API server as it is, but a list lacks what stands in the index."""
    if isinstance(answer, dict) and isinstance(items := answer.get("items"), list):
        kind = str(answer.get("kind", "")).removesuffix("List")
        return answer | {"items": intake.unknown(kind, items)}
    return answer


def session_for(config: ClusterConfig, intake: Intake) -> aiohttp.ClientSession:
    """kopf's connections to the API server; kopf closes it.

    kopf lists all objects whenever it begins to watch, after each gap too, and remembers three kilobytes of every one.
    Those that stand in the index as they are have been read already, and are left out of its lists."""

    class Response(aiohttp.ClientResponse):
        async def json(self, **options: Any) -> Any:
            return without_known(await super().json(**options), intake)

    token, context = config.read_token(), config.ssl_context()
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context if context is not None else False),
        headers={"User-Agent": "pgtend"} | ({"Authorization": f"Bearer {token}"} if token else {}),
        response_class=Response,
    )


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
    async def login(**_: Any) -> kopf.AiohttpSession:
        return kopf.AiohttpSession(server=config.server, aiohttp_session=session_for(config, intake))

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
