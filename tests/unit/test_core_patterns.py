"""Patterns know `*` only, and neither a pattern nor a name makes matching slow."""

from __future__ import annotations

import re
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.core.patterns import pattern
from pgtend.server.consent import matches

FEW = st.text(alphabet="ab*?[].\\^$\n", max_size=12)


@given(text=FEW, name=FEW)
def test_against_the_plainest_reading(text: str, name: str) -> None:
    plain = ".*".join(re.escape(part) for part in text.split("*"))
    assert bool(pattern(text).fullmatch(name)) is bool(re.fullmatch(plain, name, re.DOTALL))


def test_the_plainest_reading_takes_for_ever() -> None:
    """The control: each two more stars take seven times as long."""
    signal.signal(signal.SIGVTALRM, lambda *_: _raise(TimeoutError()))
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.5)
    try:
        with pytest.raises(TimeoutError):
            re.fullmatch(".*".join(["", *"a" * 30, "b"]), "a" * 63)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("evil", ["*a" * 250 + "*b", "*ab" * 100 + "*", "a*" * 200 + "b", "*" * 500 + "b", "*a" * 30])
def test_no_pattern_takes_long(evil: str) -> None:
    for name in ("a" * 63, "ab" * 31, "a" * 5000, "a" * 62 + "b"):
        bool(pattern(evil).fullmatch(name))
        assert matches(evil, name) is bool(pattern(evil).fullmatch(name))
