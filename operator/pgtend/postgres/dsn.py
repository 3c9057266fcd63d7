"""Sessions by a connection string of an administrator's, for the command line: a service file, a passfile and the
environment count, as for psql. The operator never connects like this (connect.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from pgtend.core.redaction import Sensitive
from pgtend.postgres.errors import connect_error
from pgtend.postgres.login import Address
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.session import Session
from pgtend.postgres.settling import settle

SECONDS = 15.0
_READ_ONLY = sql.SQL("SET default_transaction_read_only = on")


def check(dsn: str, *, argument: bool) -> None:
    """Raises ValueError where it does not parse, or would have shown a password to everybody on the machine."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # libpq's message repeats the text
        raise ValueError("no connection string: neither name=value pairs nor a postgresql:// URI") from None
    if argument and "password" in parts:
        raise ValueError("a password in an argument is seen by everybody: use --dsn-file, a service file or a passfile")


@asynccontextmanager
async def session(dsn: Sensitive, *, database: str | None = None) -> AsyncIterator[Session]:
    """One that reads. Raises PgtendError where it cannot be opened."""
    parts = conninfo_to_dict(dsn.reveal())
    secrets = (Sensitive(str(parts["password"])),) if "password" in parts else ()
    where = make_conninfo(dsn.reveal(), dbname=database, application_name="pgtend/cli")
    try:
        async with asyncio.timeout(SECONDS):
            connection = await psycopg.AsyncConnection.connect(
                where, autocommit=True, row_factory=dict_row, prepare_threshold=None
            )
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise connect_error(error, where="the server of the DSN", secrets=secrets) from None
    info = connection.info
    address = Address(name="dsn", host=info.host or info.hostaddr, port=info.port)
    opened = Session(connection, purpose=Purpose.CATALOG, address=address, login="")
    try:
        try:
            await settle(opened)
            await opened.fetch(_READ_ONLY)
        except (psycopg.Error, TimeoutError) as error:
            raise connect_error(error, where="the server of the DSN", secrets=secrets) from None
        yield opened
    finally:
        await opened.close()
