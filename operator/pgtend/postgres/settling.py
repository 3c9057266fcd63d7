"""What is set in every session and read back, and the proof that a server answers, not a pooler."""

from __future__ import annotations

from psycopg import sql

from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.postgres.session import Session
from pgtend.telemetry.metrics import METRICS

MINIMUM_SERVER = 140000
# one round trip: the settings, then the backend's own number, which a pooler cannot fake
_SETTLE = sql.SQL("SELECT pg_backend_pid() AS pid, {settings}")
_READ_BACK = sql.SQL("SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY({names})")


async def settle(session: Session) -> None:
    """Raises PgtendError UnsupportedVersion, PoolerNotAllowed or ConnectionFailed, psycopg.Error, TimeoutError."""
    if session.server_version < MINIMUM_SERVER:
        raise PgtendError(
            TargetReason.UNSUPPORTED_VERSION,
            f"{session.address.where} runs PostgreSQL {session.server_version // 10000}: 14 is the oldest supported",
            transient=False,
        )
    wanted = _settings(session)
    settings = sql.SQL(", ").join(
        sql.SQL("pg_catalog.set_config({}, {}, false)").format(sql.Literal(name), sql.Literal(value))
        for name, value in wanted.items()
    )
    METRICS.statements.labels(session.purpose.value).inc()
    async with session.connection.pipeline():
        first = await session.connection.execute(_SETTLE.format(settings=settings))
        second = await session.connection.execute(_READ_BACK.format(names=sql.Literal(list(wanted))))
        row = await first.fetchone()
        stands = {r["name"]: r["setting"] for r in await second.fetchall()}
    if row is None or row["pid"] != session.connection.info.backend_pid:
        raise PgtendError(
            TargetReason.POOLER_NOT_ALLOWED,
            f"{session.address.where} is a connection pooler: name the server itself in spec.members",
            transient=False,
        )
    differing = sorted(name for name, value in wanted.items() if stands.get(name) != value)
    if differing:
        raise PgtendError(
            TargetReason.CONNECTION_FAILED, f"{session.address.where} does not take the settings {', '.join(differing)}"
        )


def _settings(session: Session) -> dict[str, str]:
    """Values in the unit of pg_settings.setting (milliseconds), so that they can be compared."""
    limits = session.purpose.limits
    wanted = {
        "statement_timeout": str(limits.statement),
        "lock_timeout": str(limits.lock),
        "idle_in_transaction_session_timeout": str(limits.idle_in_transaction),
        "idle_session_timeout": "0",
        "client_connection_check_interval": "10000",
        # names are always written in full; nothing of a user's schema is ever found by accident
        "search_path": "pg_catalog",
    }
    if session.server_version >= 170000:
        wanted["transaction_timeout"] = "0"
    return wanted
