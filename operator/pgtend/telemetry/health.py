"""The operator's own endpoint: /healthz (the loop turns), /readyz (leading, or standing by), /metrics."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from aiohttp import web
from prometheus_client import generate_latest

from pgtend.telemetry.metrics import METRICS


async def serve(*, port: int, ready: Callable[[], bool], alive: Callable[[], bool]) -> web.AppRunner:
    """Start listening on all addresses; the caller cleans the runner up. Port 0 picks a free one."""
    app = web.Application()

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if alive() else web.Response(status=503, text="the loop stands still\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if ready() else web.Response(status=503, text="not synced\n")

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(METRICS.registry)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, _listening(port)).start()
    return runner


def _listening(port: int) -> socket.socket:
    """On IPv6 and IPv4 where both are there: the kubelet comes by the pod's own address family. Raises OSError."""
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
    return socket.create_server(("0.0.0.0", port))  # noqa: S104 - probes come from the kubelet
