"""How much a server may answer: it may be anybody's, and what it sends is ours to keep in memory.

An answer that takes longer than a moment is measured while it comes, by what its socket has received. One that is too
large ends with its connection, and so does the largest of several that are too large together: a dozen targets of one
author must not be the end of an operator that serves everybody.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg

MOST_BYTES = 32 << 20
"""Of one answer. A hundred thousand tables with their privileges come to about 25 MiB."""
MOST_TOGETHER = 96 << 20
MOST_ROWS = 500_000
LOOK_EVERY = 0.05
# tcpi_bytes_received in struct tcp_info of linux/tcp.h
_OFFSET, _RECEIVED = 128, struct.Struct("=Q")

T = TypeVar("T")
_coming: dict[object, int] = {}
"""Bytes so far of each answer that is measured."""


class Flooded(psycopg.OperationalError):
    """The server answers with more than anybody asks for."""

    def __init__(self, most: str) -> None:
        super().__init__(f"the server answered with more than {most}: nothing that is asked for is so large")


@contextmanager
def bounded_answer(connection: psycopg.AsyncConnection[Any]) -> Iterator[None]:
    """What comes meanwhile is not too large: else the connection is cut. Raises Flooded."""
    loop, me, cut = asyncio.get_running_loop(), object(), False
    begin: int | None = None
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer, begin, cut
        received = _received(connection)
        if received is not None:
            begin = received if begin is None else begin
            _coming[me] = received - begin
            if cut := _coming[me] > MOST_BYTES or (
                sum(_coming.values()) > MOST_TOGETHER and _coming[me] == max(_coming.values())
            ):
                _cut(connection)
                return
        timer = loop.call_later(LOOK_EVERY, look)

    timer = loop.call_later(LOOK_EVERY, look)
    try:
        yield
    except psycopg.Error:
        if cut:
            raise Flooded(f"{MOST_BYTES >> 20} MiB") from None
        raise
    finally:
        if timer is not None:
            timer.cancel()
        _coming.pop(me, None)


async def all_rows(cursor: psycopg.AsyncCursor[T]) -> list[T]:
    """All rows, where they are no more than are made into objects here. Raises Flooded."""
    first = await cursor.fetchone()  # in a pipeline the number is known from here on
    if cursor.rowcount > MOST_ROWS:
        raise Flooded(f"{MOST_ROWS} rows")
    return [] if first is None else [first, *await cursor.fetchall()]


def _received(connection: psycopg.AsyncConnection[Any]) -> int | None:
    """Bytes since it was opened; None where the system does not say, as for a socket that is no TCP."""
    if connection.closed:
        return None
    borrowed = socket.socket(fileno=connection.pgconn.socket)
    try:
        info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(_RECEIVED.unpack_from(info, _OFFSET)[0])
    except (OSError, struct.error):
        return None
    finally:
        borrowed.detach()


def _cut(connection: psycopg.AsyncConnection[Any]) -> None:
    """libpq reads its end, and gives up at once."""
    borrowed = socket.socket(fileno=connection.pgconn.socket)
    try:
        borrowed.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        borrowed.detach()
