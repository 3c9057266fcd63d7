"""One process from its start to its end: wait for the Lease, tend until told to stop or the Lease is lost."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from pgtend.api.kinds import KINDS
from pgtend.app import parts
from pgtend.app.domains import Domains
from pgtend.app.routing import Routing
from pgtend.app.settings import Settings, StartupError
from pgtend.app.startup import check_installation, see_everything
from pgtend.core.clock import Clock, Randomness, SystemClock
from pgtend.engine import thrift
from pgtend.engine.brake import Brake
from pgtend.engine.lease import LEASE, Elector
from pgtend.engine.loop import Engine
from pgtend.kube import sweep
from pgtend.kube.client import KubeClient
from pgtend.kube.index import Index
from pgtend.kube.watch import Intake, watch
from pgtend.postgres.libpq import check_libpq, fence_environment
from pgtend.server.member import MemberSessions
from pgtend.server.registry import Registry
from pgtend.telemetry import health
from pgtend.telemetry.metrics import METRICS

log = logging.getLogger(__name__)
# seconds between two looks at whether the emergency sessions are open
KEEP_EVERY = 5.0


class Operator:
    """Use `run` once. `started` is set when the first objects are being tended."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.routing = Routing(clock=self.clock)
        self.started = asyncio.Event()
        self.stop = asyncio.Event()
        self._lost = False

    async def run(self) -> int:
        """Until told to stop; the process's exit status."""
        check_libpq()
        if fenced := fence_environment():
            log.warning("environment of libpq ignored", extra={"names": list(fenced)})
        loop = asyncio.get_running_loop()
        # name resolution of dead resolvers must not starve anything else
        loop.set_default_executor(ThreadPoolExecutor(32, thread_name_prefix="default"))
        self._obey()
        async with KubeClient(self.settings.cluster) as client, KubeClient(self.settings.cluster) as for_lease:
            runner = await self._serve_health()
            try:
                await check_installation(client=client, settings=self.settings, stop=self.stop)
                await self._lead(client, for_lease)
            finally:
                await runner.cleanup()
        return 1 if self._lost else 0

    def _obey(self) -> None:
        """Signals end everything in order."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop.set)

    async def _serve_health(self) -> web.AppRunner:
        port = self.settings.health_port
        try:
            return await health.serve(port=port, ready=self._ready, alive=lambda: not self._lost)
        except OSError as error:
            raise StartupError(f"health port {port} cannot be listened on: {error.strerror}") from None

    async def _lead(self, client: KubeClient, for_lease: KubeClient) -> None:
        elector = Elector(
            client=for_lease,
            namespace=self.settings.namespace,
            name=LEASE,
            identity=self.settings.identity,
            clock=self.clock,
            on_lost=self._lease_lost,
        )
        election = asyncio.create_task(elector.run(), name="election")
        try:
            if await first(elector.acquired, self.stop) is self.stop:
                return
            METRICS.leader.set(1)
            log.info("leading", extra={"identity": self.settings.identity})
            await self._tend(client, elector)
        finally:
            election.cancel()
            await asyncio.gather(election, return_exceptions=True)
            METRICS.leader.set(0)
            if not self._lost:
                await elector.release()

    async def _tend(self, client: KubeClient, elector: Elector) -> None:
        routing, namespaces = self.routing, self.settings.namespaces
        brake = Brake(client=client, namespace=self.settings.namespace, clock=self.clock)
        await brake.read()
        shared = parts.build(
            settings=self.settings, clock=self.clock, client=client, routing=routing, elector=elector, brake=brake
        )
        tended = Domains(shared)
        await tended.users.start()
        intake = Intake(
            index=routing.index,
            enqueue=routing.seen,
            touched=lambda record: shared.secrets.forget(record.key.namespace),
        )
        engine = Engine(queue=routing.queue, controllers=tended.controllers, clock=self.clock, randomness=Randomness())
        await see_everything(client=client, settings=self.settings, index=routing.index, seen=routing.seen)
        if self.settings.watches_labels:
            await shared.labels.see()
        await tended.start()
        thrift.settle()
        watching = watch(
            config=self.settings.cluster,
            kinds=KINDS,
            namespaces=namespaces,
            intake=intake,
            of_namespaces=shared.labels.take if self.settings.watches_labels else None,
            stop=self.stop,
            started=self._obey,
        )
        # the watch tells of no deletion that fell into one of its gaps
        sweeping = sweep.run(
            client=client, index=routing.index, kinds=KINDS, namespaces=namespaces, enqueue=routing.queue.add
        )
        keeping = keep_members(routing.index, shared.registry, shared.members)
        tasks = [
            asyncio.create_task(watching, name="watch"),
            asyncio.create_task(engine.run(), name="engine"),
            asyncio.create_task(brake.run(), name="brake"),
            asyncio.create_task(sweeping, name="sweep"),
            asyncio.create_task(keeping, name="members"),
            asyncio.create_task(thrift.run(), name="thrift"),
        ]
        stopping = asyncio.create_task(self.stop.wait(), name="stop")
        self.started.set()
        try:
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.stop.set()
            for task in (*tasks[1:], stopping):
                task.cancel()
            results = await asyncio.gather(*tasks, stopping, return_exceptions=True)
            await tended.close()
            await shared.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _lease_lost(self) -> None:
        """Nothing half-led goes on: not even an orderly end, which would take time."""
        self._lost = True
        log.error("lease lost, exiting")
        os._exit(1)

    def _ready(self) -> bool:
        return True


async def keep_members(index: Index, registry: Registry, members: MemberSessions) -> None:
    """Have the sessions that an emergency needs open before it comes, for ever."""
    while True:
        await members.forget(registry.find)
        servers = [registry.find(record.key) for record in index.of_kind("PostgresTarget")]
        await asyncio.gather(*(members.keep(server) for server in servers if server is not None))
        await asyncio.sleep(KEEP_EVERY)


async def first(*events: asyncio.Event) -> asyncio.Event:
    """The event that is set first."""
    waits = {asyncio.create_task(event.wait()): event for event in events}
    done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    return waits[done.pop()]
