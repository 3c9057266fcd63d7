"""What could have recorded a verifier as it was set. Pure.

A role without superuser's rights cannot keep its statement out of the server's log or of pg_stat_statements: so it is
told where to look. Settings are those of our own session, in which the statement runs. pgaudit is not among them: it
writes `PASSWORD <REDACTED>` in place of what follows (a test on a real server sees to that).
"""

from __future__ import annotations

from collections.abc import Mapping

from pgtend.api.databaseuser import Exposed

RECORDERS = (
    "log_statement",
    "log_min_duration_statement",
    "log_min_duration_sample",
    "log_statement_sample_rate",
    "log_transaction_sample_rate",
    "log_min_error_statement",
    "pg_stat_statements.track",
    "pg_stat_statements.track_utility",
)
"""An extension's exist where its library is loaded: names that stand in a file alone are not in pg_settings."""
_ABOVE_ERROR = ("log", "fatal", "panic")


def exposed(settings: Mapping[str, str], *, failed: bool = False) -> frozenset[Exposed]:
    """By whom a CREATE or ALTER ROLE may have been recorded; where the server refused it (`failed`), by a log of
    failures alone."""
    if failed:
        quiet = settings.get("log_min_error_statement", "error") in _ABOVE_ERROR
        return frozenset() if quiet else frozenset({"Log"})
    found: set[Exposed] = set()
    if (
        settings.get("log_statement", "none") != "none"
        or settings.get("log_min_duration_statement", "-1") != "-1"
        or (settings.get("log_min_duration_sample", "-1") != "-1" and _rate(settings, "log_statement_sample_rate"))
        or _rate(settings, "log_transaction_sample_rate")
    ):
        found.add("Log")
    tracked = settings.get("pg_stat_statements.track", "none") != "none"
    if tracked and settings.get("pg_stat_statements.track_utility", "on") == "on":
        found.add("PgStatStatements")
    return frozenset(found)


def _rate(settings: Mapping[str, str], name: str) -> bool:
    return settings.get(name, "0") not in ("0", "")
