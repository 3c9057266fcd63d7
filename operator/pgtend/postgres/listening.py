"""A login to a pooler with somebody listening: libpq talks to a socket of ours, and the pooler is behind it.

PgBouncer may invent a salt for each login, so that libpq cannot be given ready keys (keys.py): it has the password, and
computes as long as the other side says, in the middle of the event loop. So every message of the login is read on its
way, and one that asks for too much never arrives. TLS is made here, by the rules that libpq has.
"""

from __future__ import annotations

import asyncio
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pgtend.postgres.keys import SASL_CONTINUE, Peer, TooCostly, check_challenge, message, tls_to

PORT = 5432
"""Of the socket: libpq makes its file's name of it."""
MOST_BYTES = 16 << 20
"""That a pooler may send in one session."""
_OK, _BLOCK = 0, 65_536
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# what goes on after the login: the loop itself keeps no task alive
_going: set[asyncio.Task[None]] = set()


class Listener:
    """`folder` is the host that libpq is told; `refused` is set where the pooler asked for too much."""

    def __init__(self, peer: Peer, folder: str) -> None:
        self.folder, self._peer = folder, peer
        self.refused: TooCostly | None = None
        loop = asyncio.get_running_loop()
        self.reached: asyncio.Future[None] = loop.create_future()
        self.client: asyncio.Future[_Streams] = loop.create_future()

    def taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """libpq has come; nobody comes after it."""
        if self.client.done():
            writer.transport.abort()
        else:
            self.client.set_result((reader, writer))

    async def run(self) -> None:
        """Ends, with both connections, as soon as one side does."""
        try:
            async with tls_to(self._peer) as pooler:
                self.reached.set_result(None)
                client = await self.client
                ways = [asyncio.create_task(_there(client, pooler)), asyncio.create_task(self._back(client, pooler))]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    client[1].close()
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, EOFError, ValueError) as error:
            if not self.reached.done():
                self.reached.set_exception(error)

    async def _back(self, client: _Streams, pooler: _Streams) -> None:
        writer = client[1]
        try:
            while True:
                kind, text = await message(pooler[0])
                what = struct.unpack_from("!i", text)[0] if kind == b"R" else None
                if what == SASL_CONTINUE:
                    check_challenge(text[4:])
                writer.write(kind + struct.pack("!i", 4 + len(text)) + text)
                if what == _OK:
                    break
        except TooCostly as error:
            self.refused = error
            return
        left = MOST_BYTES
        while left > 0 and (block := await pooler[0].read(_BLOCK)):
            left -= len(block)
            writer.write(block)
            await writer.drain()


async def _there(client: _Streams, pooler: _Streams) -> None:
    while block := await client[0].read(_BLOCK):
        pooler[1].write(block)
        await pooler[1].drain()


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[Listener]:
    """For one login; what was logged in goes on afterwards. Raises OSError, EOFError or ValueError where the pooler is
    not reached, or not with TLS."""
    with tempfile.TemporaryDirectory(prefix="pgtend-") as folder:
        listener = Listener(peer, folder)
        task = asyncio.create_task(listener.run(), name=f"login to {peer.host}")
        _going.add(task)
        task.add_done_callback(_going.discard)
        try:
            await listener.reached
            server = await asyncio.start_unix_server(listener.taken, Path(folder) / f".s.PGSQL.{PORT}")
            try:
                yield listener
            finally:
                server.close()
        finally:
            if not listener.client.done():
                task.cancel()
