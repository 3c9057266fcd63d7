"""What a failure means: SQLSTATE classes for statements, reasons for connects.

libpq gives no SQLSTATE for a failed connect, so its text is read; a text in another language falls through to
ConnectionFailed with the text itself. SQLSTATE classes: PostgreSQL's appendix A.
"""

from __future__ import annotations

import re
from enum import Enum

import psycopg

from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive, redact


class SqlClass(Enum):
    """TRANSIENT: later may help. DENIED: a grant is missing. CONFLICT: somebody else was there. INVALID: what was asked
    cannot be. BUG: ours."""

    TRANSIENT = "Transient"
    DENIED = "Denied"
    CONFLICT = "Conflict"
    INVALID = "Invalid"
    BUG = "Bug"


_CLASSES = {
    "08": SqlClass.TRANSIENT,
    "25": SqlClass.TRANSIENT,  # read-only transaction: the primary moved
    "28": SqlClass.DENIED,
    "40": SqlClass.TRANSIENT,
    "53": SqlClass.TRANSIENT,
    "55": SqlClass.TRANSIENT,
    "57": SqlClass.TRANSIENT,
    "58": SqlClass.TRANSIENT,
    "XX": SqlClass.TRANSIENT,  # "tuple concurrently updated" is XX000
    "23": SqlClass.CONFLICT,
    "2B": SqlClass.CONFLICT,
    "22": SqlClass.INVALID,
    "0L": SqlClass.DENIED,
    "0P": SqlClass.INVALID,
    "3D": SqlClass.INVALID,
    "3F": SqlClass.INVALID,
    "0A": SqlClass.INVALID,
    "P0": SqlClass.INVALID,  # a trigger or hook of the user's own said no
    "PG": SqlClass.TRANSIENT,  # our guard (PGT01): the primary moved
}
_STATES = {
    "42501": SqlClass.DENIED,
    "42704": SqlClass.INVALID,
    "42P01": SqlClass.INVALID,
    "42883": SqlClass.INVALID,
    "42710": SqlClass.CONFLICT,
    "42P06": SqlClass.CONFLICT,
    "55000": SqlClass.INVALID,
    "55006": SqlClass.CONFLICT,
}


def classify(error: BaseException) -> SqlClass:
    """The class of a failed statement; a lost connection or our own deadline is TRANSIENT."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | TimeoutError | OSError)
        return SqlClass.TRANSIENT if lost else SqlClass.BUG
    return _STATES.get(state) or _CLASSES.get(state[:2], SqlClass.BUG)


R = TargetReason
_LOGIN = (
    r"password authentication failed|no password supplied|no pg_hba.conf entry|certificate authentication failed"
    r"|SASL authentication failed|incorrect user name or password|no such user"
    r"|role \".*\" (does not exist|is not permitted)"
)
_CERTIFICATE = (
    r"certificate verify failed|does not match host name|certificate has expired|root certificate|self.signed"
)
_CONNECT: tuple[tuple[str, TargetReason, bool], ...] = (
    # (pattern, reason, transient); the first that fits
    (
        r"server requested .*authentication|authentication method requirement|channel binding",
        R.AUTHENTICATION_METHOD_REFUSED,
        False,
    ),
    (_LOGIN, R.AUTHENTICATION_FAILED, False),
    (r"does not support SSL", R.TLS_REFUSED, False),
    (_CERTIFICATE, R.CERTIFICATE_NOT_TRUSTED, False),
    (r"too many (clients|connections)|remaining connection slots|no more connections", R.TOO_MANY_CONNECTIONS, True),
    (r"is starting up|is shutting down|not (yet )?accepting connections|recovery mode", R.SERVER_STARTING, True),
    (r"database \".*\" does not exist", R.DATABASE_MISSING, False),
    (
        r"could not translate host|Name or service not known|failed to resolve|nodename nor|'idna' codec",
        R.NAME_NOT_RESOLVED,
        True,
    ),
    (r"Connection refused", R.CONNECTION_REFUSED, True),
    (r"timeout expired|timed out|No route to host|Network is unreachable", R.TIMED_OUT, True),
)


_UNBOUND = (
    "server did not offer an authentication method that supports channel binding",
    "SCRAM channel binding check failed",
)
_OWN_LIMIT = "too many connections for "
_LIMIT_REMEDY = "Raise the CONNECTION LIMIT of this role or database, or end sessions."
MOST = 2000
"""Characters of an error's text that are read: a server may say anything, at any length."""


def connect_error(error: BaseException, *, where: str, secrets: tuple[Sensitive, ...] = ()) -> PgtendError:
    """A failed connect as a reason with a message that names the member and the next step."""
    if isinstance(error, PgtendError):
        return error
    if isinstance(error, TimeoutError):
        return PgtendError(TargetReason.TIMED_OUT, f"{where} does not answer: check network, firewall and load")
    text = redact(" ".join(str(error).split()), secrets)[:MOST]
    if any(unbound in text for unbound in _UNBOUND):
        # every server that pgtend supports offers it, poolers do not
        what = f"{where} is a connection pooler, or something else that ends TLS: name the server itself"
        return PgtendError(TargetReason.POOLER_NOT_ALLOWED, f"{what} in spec.members", transient=False)
    for pattern, reason, transient in _CONNECT:
        if re.search(pattern, text, re.IGNORECASE):
            remedy = _LIMIT_REMEDY if _OWN_LIMIT in text else reason.remedy
            return PgtendError(reason, f"{where}: {_short(text)}: {remedy}", transient=transient)
    return PgtendError(TargetReason.CONNECTION_FAILED, f"{where}: {_short(text) or type(error).__name__}")


def _short(text: str) -> str:
    """The last FATAL or error part, without libpq's preamble that repeats host and port, and without its hint."""
    text = text.split("Is the server running", maxsplit=1)[0]
    for mark in ("FATAL:", "failed: error:", "failed:", "error:"):
        if mark in text:
            text = text.rsplit(mark, 1)[1]
            break
    return text.strip()[:300].rstrip(". ")
