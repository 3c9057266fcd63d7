"""No secret shows, neither by the wrapper nor in a text from outside."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from urllib.parse import quote, quote_plus

import psycopg
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pgtend.core.redaction import MOST, STARS, Sensitive, redact
from pgtend.postgres.errors import connect_error

# Not made of stars or of what surrounds it, so that finding it in the result is a finding.
secrets = st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=4, max_size=40)


@given(secrets)
def test_the_wrapper_shows_stars(plain: str) -> None:
    secret = Sensitive(plain)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>10}", f"{secret}", "%s" % secret, repr([secret])]  # noqa: UP031
    assume(plain not in "[***]       ")
    assert not [text for text in shown if plain in text]
    assert secret.reveal() == plain


def test_the_wrapper_is_a_value_but_is_not_stored() -> None:
    assert Sensitive("abcd") == Sensitive("abcd")
    assert Sensitive("abcd") != Sensitive("abce")
    assert Sensitive("abcd") != "abcd"
    assert len({Sensitive("abcd"), Sensitive("abcd")}) == 1
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            attempt(Sensitive("abcd"))
    with pytest.raises(TypeError):
        json.dumps(Sensitive("abcd"))
    assert not hasattr(Sensitive("abcd"), "__dict__")


@given(secrets, st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_is_gone_in_every_form(plain: str, before: str, after: str) -> None:
    encoded = plain.encode()
    forms = [
        plain,
        plain.replace("'", "''"),
        json.dumps(plain),
        base64.b64encode(encoded).decode(),
        base64.urlsafe_b64encode(encoded).decode(),
        quote(plain, safe=""),
        quote_plus(plain),
    ]
    for form in forms:
        assume(form not in before + after + STARS)
        assert form not in redact(f"{before}\x00{form}\x00{after}", [Sensitive(plain)])


@given(secrets, secrets)
def test_a_secret_within_another_leaves_no_tail(first: str, second: str) -> None:
    assume(first not in second)
    longer = first + second
    for given_secrets in ([first, longer], [longer, first]):
        assert second not in redact(f"<{longer}>", [Sensitive(text) for text in given_secrets])


def test_short_secrets_do_not_hide_the_text() -> None:
    assert redact("a banana", [Sensitive("a")]) == "a banana"


@pytest.mark.parametrize(
    "text",
    [
        "ALTER ROLE shop PASSWORD 'hunter2hunter2'",
        "CREATE ROLE shop LOGIN password 'it''s hunter2hunter2' VALID UNTIL 'infinity'",
        "host=a password=hunter2hunter2 user=b",
        "host=a password='x hunter2hunter2' user=b",
        r"host=a password='it\'s hunter2hunter2' user=b",
        '{"password": "hunter2hunter2"}',
        r'{"password": "a\"hunter2hunter2"}',
        "{'passwd': 'hunter2hunter2'}",
        "token: hunter2hunter2",
        "PASSWORD=hunter2hunter2",
        "postgres://shop:hunter2hunter2@db/orders",
        "postgresql+psycopg://shop:p@hunter2hunter2@db/orders",
        "redis://:hunter2hunter2@cache",
        "https://user:hunter2hunter2@proxy:3128/",
        "SCRAM-SHA-256$4096:hunter2hunter2==$hunter2hunter2=:hunter2hunter2=",
    ],
)
def test_what_looks_like_a_password_is_hidden(text: str) -> None:
    hidden = redact(text)
    assert "hunter2" not in hidden
    assert STARS in hidden


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "shop"',
        "Secret databases/orders-monitor has no key password",
        "postgres://shop@db/orders",
        "at 2026-11-22T02:00:00Z host a:5432 refused",
        "https://s3.example.com/bucket?user=a@b",
    ],
)
def test_what_helps_is_kept(text: str) -> None:
    assert redact(text) == text


def test_a_text_of_any_length_takes_no_time() -> None:
    """A server says what it likes. By a scheme without a bound forty thousand letters took fourteen seconds, and a
    million would never have ended."""
    for piece in ("a", "password '", "password = ", "://:", "x://a:", 'role "', "SCRAM-SHA-256$", "secret='\\\\"):
        text = piece * (1_000_000 // len(piece))
        assert len(redact(text)) <= MOST + 1
        connect_error(psycopg.OperationalError(text), where="a")


@pytest.mark.parametrize("at", range(MOST - 40, MOST + 2, 7))
def test_what_begins_before_the_cut_is_hidden_too(at: int) -> None:
    for said in ("postgres://me:hunter2@db/x", "password='hunter2'", "ALTER ROLE a PASSWORD 'hunter2'", "hunter2"):
        text = "." * (at - 1) + " " + said + " " * 100_000
        assert "hunt" not in redact(text, [Sensitive("hunter2")] if said == "hunter2" else [])
