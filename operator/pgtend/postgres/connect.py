"""Opening a session that cannot leak a password, cannot be a pooler, and has its timeouts set and read back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive
from pgtend.postgres.errors import connect_error
from pgtend.postgres.flood import bounded_answer
from pgtend.postgres.keys import KeyRing, Keys, Md5, Peer, TooCostly, no_keys
from pgtend.postgres.libpq import kept_files
from pgtend.postgres.listening import PORT, listening
from pgtend.postgres.login import Address, Login
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.session import Row, Session, within
from pgtend.postgres.settling import settle
from pgtend.telemetry.metrics import METRICS

CONNECT_SECONDS = 5.0


class Ration:
    """Connects are CPU (TLS above all): at most so many at a time in the process. One that takes
    long is waiting for the network, not for us, and gives its place to others: a black hole delays nobody else."""

    def __init__(self, places: int = 16, patience: float = 0.25) -> None:
        self._places = asyncio.Semaphore(places)
        self._patience = patience

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        await self._places.acquire()
        early = asyncio.get_running_loop().call_later(self._patience, self._places.release)
        try:
            yield
        finally:
            if early.when() > asyncio.get_running_loop().time():
                early.cancel()
                self._places.release()


_ration = Ration()
_keys = KeyRing()


async def connect(
    *,
    address: Address,
    login: Login,
    database: str,
    purpose: Purpose,
    application_name: str,
    direct: bool = True,
    begin: Callable[[], object] = lambda: None,
) -> Session:
    """Open a session. Raises PgtendError with the reason. A client certificate is given to nobody but a server that
    proves its name. `begin` is called at the last moment before the connection that becomes the session.

    `direct=False` is for poolers: nothing is set, since session state would outlive us there.
    """
    files = kept_files()
    # else it is the database's, which need not know each name that people ask for
    encoding = {"client_encoding": "utf8"} if direct else {}
    keywords: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "dbname": database,
        "user": login.user,
        "sslmode": address.sslmode,
        "application_name": application_name,
        "connect_timeout": int(CONNECT_SECONDS),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15000,
        "gssencmode": "disable",
        # never what lies about in the environment or the home directory; an empty name would mean the latter
        "passfile": files.nothing,
        "sslrootcert": files.keep(address.ca) if address.ca else files.nothing,
        "sslcrl": files.nothing,
        **encoding,
        "target_session_attrs": "any",
        "options": "",
    }
    if login.certificate is not None and address.sslmode != "verify-full":
        raise PgtendError(
            TargetReason.CERTIFICATE_NOT_TRUSTED,
            f"{address.where}: a client certificate needs spec.tls.ca and mode VerifyFull: it is shown to nobody else",
            transient=False,
        )
    if login.certificate is not None:
        certificate, key = (files.keep(part.reveal()) for part in login.certificate)
        keywords |= {"sslcert": certificate, "sslkey": key, "sslcertmode": "require", "require_auth": "none"}
    elif login.password is not None:
        keywords |= {"sslcertmode": "disable"}
    else:
        raise PgtendError(TargetReason.SECRET_KEY_MISSING, f"{address.where}: no password for {login.user}")
    async with _ration.place():
        METRICS.connects.labels(purpose.value).inc()
        try:
            async with asyncio.timeout(CONNECT_SECONDS + 1):
                if login.password is not None:
                    connection = await _with_password(
                        keywords, login.password, address=address, login=login, direct=direct, begin=begin
                    )
                else:
                    begin()
                    connection = await _open(keywords)
        except TooCostly as error:
            reason = TargetReason.AUTHENTICATION_METHOD_REFUSED
            raise PgtendError(reason, f"{address.where}: {error}", transient=False) from None
        except (psycopg.Error, OSError, TimeoutError, UnicodeError) as error:  # the last: no host's name
            raise connect_error(error, where=address.where, secrets=login.secrets) from None
    session = Session(connection, purpose=purpose, address=address, login=login.fingerprint)
    if not direct:
        return session
    try:
        async with within(CONNECT_SECONDS):
            with bounded_answer(connection):
                await settle(session)
    except (psycopg.Error, TimeoutError) as error:
        await session.close()
        raise connect_error(error, where=address.where, secrets=login.secrets) from None
    except BaseException:
        await session.close()
        raise
    return session


async def _open(keywords: dict[str, Any]) -> psycopg.AsyncConnection[Row]:
    return await psycopg.AsyncConnection.connect(
        **keywords, autocommit=True, row_factory=dict_row, prepare_threshold=None
    )


async def _with_password(
    keywords: dict[str, Any],
    password: Sensitive,
    *,
    address: Address,
    login: Login,
    direct: bool,
    begin: Callable[[], object],
) -> psycopg.AsyncConnection[Row]:
    """libpq never has the password itself, except for md5 where that is allowed and for poolers: what it does not have
    it can neither send nor compute with."""
    peer = Peer(
        host=address.host,
        port=address.port,
        user=login.user,
        database=keywords["dbname"],
        verify_name=address.sslmode == "verify-full",
        ca=address.ca,
    )
    try:
        if not direct:
            return await _through(peer, keywords, password, login)
        keys = await _keys.keys(peer, password)
    except Md5:
        if login.allow_md5:
            begin()
            return await _open(keywords | {"password": password.reveal(), "require_auth": "md5"})
        keys = None
    try:
        begin()
        return await _open(keywords | _scram(keys))
    except psycopg.OperationalError as error:
        refused = connect_error(error, where="").reason is TargetReason.AUTHENTICATION_FAILED
        other = await _renewed(peer, password) if keys is not None and refused else None
        if other is None:
            raise
        begin()
        return await _open(keywords | _scram(other))


async def _through(
    peer: Peer, keywords: dict[str, Any], password: Sensitive, login: Login
) -> psycopg.AsyncConnection[Row]:
    """To a pooler, which may ask for other keys at each login: libpq has the password, and somebody listens."""
    allowed = "scram-sha-256,md5" if login.allow_md5 else "scram-sha-256"
    try:
        async with listening(peer) as listener:
            way = {"host": listener.folder, "port": PORT, "sslmode": "disable"}
            try:
                return await _open(keywords | way | {"password": password.reveal(), "require_auth": allowed})
            except psycopg.OperationalError:
                if listener.refused is not None:
                    raise listener.refused from None
                raise
    except (OSError, EOFError, ValueError):
        return await _open(keywords | _scram(None))  # libpq says what is wrong, without the password


async def _renewed(peer: Peer, password: Sensitive) -> Keys | None:
    try:
        return await _keys.renewed(peer, password)
    except Md5:
        return None


def _scram(keys: Keys | None) -> dict[str, str]:
    keys = keys or no_keys()
    return {
        "require_auth": "scram-sha-256",
        # the proof is good on this very connection: whoever hands it on to the real server logs nobody in there
        "channel_binding": "require",
        "scram_client_key": keys.client.reveal(),
        "scram_server_key": keys.server.reveal(),
    }
