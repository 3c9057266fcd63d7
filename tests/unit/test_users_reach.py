"""What a login that was tried says of a Secret, and what of that is told when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.test_users_pure import NOW, facts, password

from pgtend.api.conditions import Verdict
from pgtend.api.reasons import TargetReason
from pgtend.api.reasons import UserReason as R
from pgtend.core.errors import PgtendError
from pgtend.users import judge as judges
from pgtend.users.reach import Attempt, Proof, Unheard
from pgtend.users.wanted import Wanted

WRONG = PgtendError(
    TargetReason.AUTHENTICATION_FAILED, 'b (b:5432): password authentication failed for user "shop_app"'
)
BARRED = PgtendError(TargetReason.AUTHENTICATION_FAILED, "b (b:5432): no pg_hba.conf entry for host")
REJECTED = PgtendError(TargetReason.CONNECTION_FAILED, "b (b:5432): pg_hba.conf rejects connection for host")
CLOSED = PgtendError(TargetReason.CONNECTION_FAILED, 'b (b:5432): permission denied for database "orders"')
NO_DATABASE = PgtendError(TargetReason.DATABASE_MISSING, 'b (b:5432): database "orders" does not exist')
AWAY = PgtendError(TargetReason.CONNECTION_REFUSED, "b (b:5432): refused")
FULL = PgtendError(TargetReason.TOO_MANY_CONNECTIONS, 'b (b:5432): too many connections for role "shop_app"')
HOLDS = "Secret shop-app holds the password set at"


def tried(*errors: PgtendError | None, primary: str = "a", **rest: Any) -> Proof:
    attempts = tuple(Attempt("abc"[number], error) for number, error in enumerate(errors))
    return Proof(attempts=attempts, primary=primary, **rest)


def said(proof: Proof | None, *, wanted: Wanted | None = None, **rest: Any) -> Verdict:
    more = {} if wanted is None else {"wanted": wanted}
    judged = judges.judge(facts(password=password(proof=proof, **rest), **more), previous={}, now=NOW)
    return next(v for v in judged.verdicts if v.type == "CredentialsReady")


WELL = [
    (tried(None, None), "Secret shop-app logs in through 2 of 2 members"),
    (tried(None), "Secret shop-app logs in through 1 of 1 members"),
    (tried(None, AWAY), "Secret shop-app logs in through 1 of 2 members; b was not reached"),
    (tried(None, AWAY, FULL), "Secret shop-app logs in through 1 of 3 members; b, c were not reached"),
    (tried(None, pooled=True), "Secret shop-app logs in through the pooler"),
]


@pytest.mark.parametrize(("proof", "message"), WELL)
def test_in_how_many_places_it_logs_in_is_told(proof: Proof, message: str) -> None:
    found = said(proof)
    assert (found.status, found.reason, found.message) == ("True", R.AS_EXPECTED, message)


@pytest.mark.parametrize("error", [WRONG, CLOSED, NO_DATABASE])
def test_a_place_that_lets_nobody_in_is_named(error: PgtendError) -> None:
    found = said(tried(None, error))
    assert (found.status, found.reason, found.object) == ("False", R.LOGIN_REFUSED, "b")
    assert found.message == f"Secret shop-app logs in through 1 of 2 members as shop_app: {error.message}"
    # where another said nothing, or may let in others, that is not what is told
    assert said(tried(AWAY, error)).status == said(tried(BARRED, error)).status == "False"
    assert said(tried(error, pooled=True)).message.startswith("Secret shop-app does not log in through the pooler as")


@pytest.mark.parametrize("error", [BARRED, REJECTED])
def test_who_may_let_in_others_is_not_known_to_let_in_nobody(error: PgtendError) -> None:
    found = said(tried(None, error))
    assert (found.status, found.reason, found.object) == ("Unknown", R.LOGIN_REFUSED, "b")
    assert not found.negligible and "1 of 2 members" in found.message


def test_it_is_the_primary_whose_password_counts() -> None:
    assert tried(WRONG, None).wrong and not tried(WRONG, None, primary="b").wrong
    assert not tried(BARRED, None).wrong and not tried(AWAY, None).wrong
    pooled = tried(None, pooled=True)
    assert not pooled.wrong and replace(pooled, beside=Attempt("a", WRONG)).wrong
    assert replace(pooled, beside=Attempt("a", WRONG)).closed is None, "the pooler is where the Secret leads"


def test_who_is_away_or_full_says_nothing() -> None:
    assert tried(AWAY, FULL).silent and not tried(AWAY, None).silent and not tried(AWAY, BARRED).silent


def test_a_new_login_waits_for_all_but_a_standby_that_is_away() -> None:
    assert tried(None, AWAY).problem("app_b") is None
    for proof in (tried(AWAY, None), tried(None, FULL), tried(None, BARRED), tried(AWAY, pooled=True)):
        found = proof.problem("app_b")
        assert found is not None and found.message.startswith("login app_b does not get in, and is not published: ")


def test_what_was_told_stands_until_something_else_is_seen() -> None:
    """A thousand users are tried one after another, and a process that has just begun has tried nobody: neither is
    worth a write."""
    held, logged = f"{HOLDS} x (y)", "Secret shop-app logs in through 2 of 2 members"
    partly = "Secret shop-app logs in through 1 of 2 members; b was not reached"
    assert said(None).message.startswith(HOLDS)
    assert said(None, told=held).message == held and said(None, told=logged).message == logged
    assert said(tried(None, None), told=held).message == held
    assert said(tried(None, None), told=partly).message == logged
    assert said(tried(None, AWAY), told=held).message == said(tried(None, AWAY), told=logged).message == partly
    assert said(tried(None, WRONG), told=logged).status == "False"


def test_what_nobody_answers_for_an_interval_is_unknown() -> None:
    unheard = Unheard(since=NOW - timedelta(minutes=6), why=FULL.message, heard=NOW - timedelta(hours=1))
    logged = "Secret shop-app logs in through 2 of 2 members"
    found = said(None, told=logged, unheard=unheard)
    assert (found.status, found.reason, found.negligible) == ("Unknown", R.NOT_PROVED, True)
    last = "proved at 2026-11-22T08:58:00Z the last time; no login is answered since 2026-11-22T09:52:00Z: b ("
    assert found.message.startswith(f"whether shop_app has the password of Secret shop-app is not known, {last}")
    assert "not proved since the operator began" in said(None, unheard=replace(unheard, heard=None)).message
    assert said(None, unheard=unheard, compared=True).status == "True", "the server has told"
    off = Wanted(role="shop_app", mark="", login=False)
    assert said(None, unheard=unheard, wanted=off).status == "True", "nobody logs in, nothing is to be tried"
    assert said(tried(WRONG), unheard=unheard).reason == R.LOGIN_REFUSED


def test_a_password_that_is_to_be_none_and_cannot_be_seen_is_unknown() -> None:
    found = said(None, source="None")
    assert (found.status, found.reason, found.negligible) == ("Unknown", R.MISSING_PRIVILEGE, True)
    assert found.message.endswith("GRANT SELECT ON pg_authid TO pgtend_users;")
    assert said(None, source="None", compared=True).status == "True"


def test_who_refuses_a_password_is_told_from_who_is_not_let_near() -> None:
    assert tried(None, WRONG).refused and not tried(None, WRONG).wrong
    assert not any(tried(None, error).refused for error in (BARRED, REJECTED, CLOSED, AWAY, FULL, None))


def test_a_login_that_is_off_is_not_told_to_log_in() -> None:
    off = Wanted(role="shop_app", mark="", login=False)
    assert said(tried(None), wanted=off).message.endswith("; login is off")
