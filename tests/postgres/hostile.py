"""A server that means harm: it speaks just enough of the protocol to be logged in to, and asks for what it should not
get. No stand-in for PostgreSQL: nothing is tested here but what it gets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from tests.fixtures.tls import Certificate

CLEARTEXT, MD5, SASL, SASL_CONTINUE = 3, 5, 10, 11
SALT = b"salt"
AUTHENTICATED = b"R\0\0\0\x08\0\0\0\0"


@asynccontextmanager
async def _listening(
    accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A port; whoever has come is gone when it ends."""
    open_: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, EOFError):
                await accept(reader, writer)
        finally:
            writer.transport.abort()

    def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(asyncio.create_task(one(reader, writer)))

    server = await asyncio.start_server(taken, Hostile.host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)
        for _ in range(5):
            await asyncio.sleep(0)  # transports end in the next turns of the loop


class Relay:
    """Ends TLS with a certificate of its own, and hands everything on to somebody else's server. `took_in` says that
    the server has taken whoever logged in here for its author."""

    host = "127.0.0.1"

    def __init__(self, certificate: Certificate, server: tuple[str, int]) -> None:
        self.port, self.took_in = 0, False
        self._server = server
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.certificate, certificate.key)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Relay]:
        async with _listening(self._accept) as self.port:
            yield self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, back: bool) -> None:
            with suppress(OSError, EOFError):
                while block := await source.read(65536):
                    self.took_in |= back and AUTHENTICATED in block
                    sink.write(block)
                    await sink.drain()
            sink.transport.abort()

        request = await reader.readexactly(8)
        writer.write(b"S")
        await writer.start_tls(self._context)
        theirs, ours = await asyncio.open_connection(*self._server)
        try:
            ours.write(request)
            await theirs.readexactly(1)
            trusting = ssl.create_default_context()
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            await ours.start_tls(trusting)
            await asyncio.gather(pump(reader, ours, back=False), pump(theirs, writer, back=True))
        finally:
            ours.transport.abort()


class Hostile:
    """Asks each connection in turn for what `asks` says of its number: "cleartext", "md5", or that many SCRAM
    iterations. `got` is all that clients have sent behind the start-up message."""

    host = "127.0.0.1"

    def __init__(self, certificate: Certificate, asks: Callable[[int], str | int]) -> None:
        self.port, self.connections, self.got = 0, 0, b""
        self._asks = asks
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.certificate, certificate.key)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Hostile]:
        async with _listening(self._accept) as self.port:
            yield self

    def has(self, password: str, user: str) -> bool:
        """Whether the password has reached it, in clear or as md5 would send it."""
        inner = hashlib.md5((password + user).encode()).hexdigest()  # noqa: S324 - as the protocol has it
        outer = hashlib.md5(inner.encode() + SALT).hexdigest()  # noqa: S324
        return any(part in self.got for part in (password.encode(), outer.encode()))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        await reader.readexactly(8)
        writer.write(b"S")
        await writer.start_tls(self._context)
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        await reader.readexactly(length - 4)
        wanted = self._asks(number)
        if isinstance(wanted, int):
            await self._scram(reader, writer, wanted)
        else:
            extra = SALT if wanted == "md5" else b""
            self._send(writer, struct.pack("!i", MD5 if wanted == "md5" else CLEARTEXT) + extra)
        self.got += await reader.read(4096)

    async def _scram(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, iterations: int) -> None:
        self._send(writer, struct.pack("!i", SASL) + b"SCRAM-SHA-256\0\0")
        head = await reader.readexactly(5)
        first = await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
        self.got += first
        nonce = first.partition(b"r=")[2]
        salt = base64.b64encode(os.urandom(16))
        more = base64.b64encode(os.urandom(18))
        text = b"r=%s%s,s=%s,i=%d" % (nonce, more, salt, iterations)
        self._send(writer, struct.pack("!i", SASL_CONTINUE) + text)

    def _send(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        writer.write(b"R" + struct.pack("!i", 4 + len(body)) + body)
