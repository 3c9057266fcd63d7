"""SCRAM keys computed by us, so that no server decides how long we compute.

libpq computes PBKDF2 in the middle of its poll function, with as many iterations as the server says: ten million took
18.5 s, in which the event loop stood still, and 2^31 are possible. From 18 on it takes ready keys instead. They depend
on salt and iterations, which a server tells to anybody who begins to log in: a short dialogue asks for them, once per
server and password, sends nothing but the user's name, and refuses what is beyond measure.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import re
import ssl
import struct
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pgtend.core.redaction import Sensitive
from pgtend.postgres.scram import prepare

# about half a second of one core, in a thread; PostgreSQL's default is 4096
MOST_ITERATIONS = 600_000
KEPT = 4096
LONGEST = 10_000
_MOST_MESSAGES = 10
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_PROTOCOL = 196608
_SASL, SASL_CONTINUE, _MD5 = 10, 11, 5
_CHALLENGE = re.compile(rb"r=([^,]+),s=([A-Za-z0-9+/=]{1,1000}),i=([0-9]{1,10})(?:,.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom to ask: as libpq would be told. `ca` is PEM; without it nothing is verified. A role has one salt, whatever
    the database."""

    host: str
    port: int
    user: str
    database: str = field(compare=False)
    verify_name: bool
    ca: str | None


@dataclass(frozen=True, slots=True)
class Challenge:
    salt: bytes
    iterations: int


@dataclass(frozen=True, slots=True)
class Keys:
    """What libpq takes as scram_client_key and scram_server_key. As good as the password, for this server."""

    client: Sensitive
    server: Sensitive


class TooCostly(Exception):
    """The server asks for more iterations than anybody needs."""

    def __init__(self, iterations: int) -> None:
        super().__init__(
            f"the server asks for {iterations} SCRAM iterations, the most is {MOST_ITERATIONS}: lower scram_iterations"
            " there and set the role's password anew"
        )


class Md5(Exception):
    """The server asks for md5."""


def no_keys() -> Keys:
    """Keys that log in nowhere: for hearing from libpq why a server does not even ask."""
    return Keys(*(Sensitive(base64.b64encode(os.urandom(32)).decode()) for _ in range(2)))


class KeyRing:
    """Salt and iterations by server and password, as long as they hold."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Peer, str], tuple[Challenge, Keys]] = OrderedDict()

    async def keys(self, peer: Peer, password: Sensitive) -> Keys | None:
        """None where the server does not begin with SCRAM: libpq will say why. Raises TooCostly, Md5."""
        slot = (peer, hashlib.sha256(password.reveal().encode()).hexdigest())
        if (known := self._known.get(slot)) is not None:
            self._known.move_to_end(slot)
            return known[1]
        return await self._learn(slot, password)

    async def renewed(self, peer: Peer, password: Sensitive) -> Keys | None:
        """After a rejected login: other keys, where the server's salt or iterations have changed; else None."""
        slot = (peer, hashlib.sha256(password.reveal().encode()).hexdigest())
        old = self._known.pop(slot, None)
        made = await self._learn(slot, password)
        return made if made is not None and old is not None and self._known[slot][0] != old[0] else None

    async def _learn(self, slot: tuple[Peer, str], password: Sensitive) -> Keys | None:
        challenge = await ask(slot[0])
        if challenge is None:
            return None
        salted = await asyncio.to_thread(
            hashlib.pbkdf2_hmac, "sha256", prepare(password.reveal()), challenge.salt, challenge.iterations
        )
        client, server = (
            Sensitive(base64.b64encode(hmac.digest(salted, name, "sha256")).decode())
            for name in (b"Client Key", b"Server Key")
        )
        self._known[slot] = (challenge, Keys(client, server))
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return self._known[slot][1]


async def ask(peer: Peer) -> Challenge | None:
    """Begin a login, and end it before anything is proved. None where the server does not ask for SCRAM. Raises
    TooCostly, Md5. The caller limits the time."""
    try:
        async with tls_to(peer) as (reader, writer):
            return await _dialogue(reader, writer, peer)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
        return None


@asynccontextmanager
async def tls_to(peer: Peer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection as libpq would make it, with TLS, before anybody has said who he is; cut at the end. Raises OSError,
    EOFError, ValueError (a name that can be no host's, a CA that is none, no TLS)."""
    reader, writer = await asyncio.open_connection(peer.host, peer.port, limit=LONGEST)
    try:
        writer.write(_SSL_REQUEST)
        if await reader.readexactly(1) != b"S":
            raise ValueError("no TLS there")
        await writer.start_tls(_context(peer), server_hostname=peer.host)
        yield reader, writer
    finally:
        # not close(): a peer that does not end TLS properly would be waited for
        writer.transport.abort()


async def _dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> Challenge | None:
    words = ("user", peer.user, "database", peer.database, "")
    body = b"".join(word.encode() + b"\0" for word in words)
    writer.write(struct.pack("!ii", 8 + len(body), _PROTOCOL) + body)
    nonce = base64.b64encode(os.urandom(18))
    for _ in range(_MOST_MESSAGES):
        kind, text = await message(reader)
        if kind != b"R":
            return None
        (what,) = struct.unpack_from("!i", text)
        if what == _MD5:
            raise Md5
        if what == _SASL and b"SCRAM-SHA-256" in text[4:].split(b"\0"):
            first = b"n,,n=,r=" + nonce
            answer = b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first
            writer.write(b"p" + struct.pack("!i", 4 + len(answer)) + answer)
        elif what == SASL_CONTINUE:
            return _challenge(text[4:], nonce)
        else:
            return None
    return None


def _challenge(text: bytes, nonce: bytes) -> Challenge | None:
    found = _CHALLENGE.fullmatch(text)
    if found is None or not found[1].startswith(nonce):
        return None
    check_iterations(int(found[3]))
    return Challenge(salt=base64.b64decode(found[2], validate=True), iterations=int(found[3]))


def check_challenge(text: bytes) -> None:
    """Raises ValueError for what is no challenge, TooCostly for one that asks for too much."""
    found = _CHALLENGE.fullmatch(text)
    if found is None:
        raise ValueError("no SCRAM challenge")
    check_iterations(int(found[3]))


def check_iterations(count: int) -> None:
    if not 0 < count <= MOST_ITERATIONS:
        raise TooCostly(count)


async def message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Raises ValueError for one that is longer than any that belongs here."""
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!i", head[1:])
    if not 8 <= length <= LONGEST:
        raise ValueError("not a message of a login")
    return head[:1], await reader.readexactly(length - 4)


def _context(peer: Peer) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = peer.verify_name
    context.verify_mode = ssl.CERT_REQUIRED if peer.ca is not None else ssl.CERT_NONE
    if peer.ca is not None:
        if not peer.ca.isascii():
            raise ValueError("no PEM")  # libpq says so in its own words
        context.load_verify_locations(cadata=peer.ca)
    return context
