"""Verifiers as PostgreSQL makes them, checked against the RFC's example and against libpq's own."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq
from tests.unit.thorough import cases

from pgtend.core.redaction import Sensitive
from pgtend.postgres.scram import matches, prepare, verifier

ODD = [
    "pencil",
    "with space and 'quote' \"and\" \\ %",
    "I\u00adX",  # RFC 4013: soft hyphen is mapped to nothing
    "\u00aa",  # NFKC: a
    "\u2168",  # IX
    "\u00a0x",  # another space
    "\u0007bell",  # ASCII is taken as it is
    "x\u0007\u00e9",  # prohibited: the plain bytes
    "\u0627\u0031",  # right-to-left that does not end so
    "\u0627x\u0628",  # right-to-left with a left-to-right letter
    "p\u00e4ssw\u00f6rter",
    "\u0221",  # unassigned in Unicode 3.2
    "\u00ad",  # nothing is left
    "e\u0301",  # composed by NFKC
]


def test_the_examples_of_rfc_7677() -> None:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    made = verifier(Sensitive("pencil"), salt=salt, iterations=4096).reveal()
    assert made == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


@pytest.mark.parametrize("password", ODD)
def test_a_verifier_matches_its_own_password_only(password: str) -> None:
    made = verifier(Sensitive(password))
    assert matches(made, Sensitive(password))
    assert not matches(made, Sensitive(password + "x"))


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("I\u00adX", b"IX"),
        ("\u00aa", b"a"),
        ("\u2168", b"IX"),
        ("\u00a0x", b" x"),
        ("x\u0007\u00e9", "x\u0007\u00e9".encode()),
        ("\u0627\u0031", "\u0627\u0031".encode()),
        ("\u00ad", "\u00ad".encode()),
    ],
)
def test_the_examples_of_rfc_4013(password: str, prepared: bytes) -> None:
    assert prepare(password) == prepared


@cases(40)
@given(st.text(min_size=1, max_size=12, alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_the_same_as_libpq(password: str) -> None:
    # libpq prepares and hashes by itself; the server's own code is the same file
    theirs = pq.PGconn.connect(b"host=/nonexistent").encrypt_password(password.encode(), b"u", b"scram-sha-256")
    assert matches(Sensitive(theirs.decode()), Sensitive(password))


@pytest.mark.parametrize("stored", [None, "", "md5" + "0" * 32, "plain", "SCRAM-SHA-256$4096:!!!!$a:b"])
def test_what_is_no_verifier_matches_nothing(stored: str | None) -> None:
    assert not matches(None if stored is None else Sensitive(stored), Sensitive("pencil"))


def test_no_secret_is_shown() -> None:
    made = verifier(Sensitive("pencil"))
    assert repr(made) == str(made) == "***"


def test_a_stored_verifier_with_iterations_beyond_measure_is_not_computed() -> None:
    """A hostile server may have stored anything: two thousand million would be an hour."""
    stored = verifier(Sensitive("pencil"), iterations=4096).reveal()
    assert matches(Sensitive(stored), Sensitive("pencil"))
    assert not matches(Sensitive(stored.replace("$4096:", "$999999999:")), Sensitive("pencil"))
    assert not matches(Sensitive(stored.replace("$4096:", "$0:")), Sensitive("pencil"))
