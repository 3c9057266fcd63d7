"""The kubelet comes by the pod's own address family."""

from __future__ import annotations

import asyncio
import socket

import pytest

from pgtend.telemetry import health


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_endpoint_answers_on_both_families(host: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    runner = await health.serve(port=0, ready=lambda: True, alive=lambda: True)
    try:
        reader, writer = await asyncio.open_connection(host, runner.addresses[0][1])
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await reader.read()
        writer.close()
    finally:
        await runner.cleanup()
