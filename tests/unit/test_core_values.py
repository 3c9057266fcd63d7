"""The small values of core: time and chance, marks, actions, errors, keys."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.api.reasons import TargetReason
from pgtend.core.actions import Action, Repeat
from pgtend.core.clock import FakeClock, Randomness, SystemClock, parse_rfc3339, rfc3339
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.core.names import application_name, read_mark, role_mark, short_hash, with_mark, without_mark

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the strategy wants naive bounds
installations = st.from_regex(r"[a-z0-9-]{4,20}", fullmatch=True)
labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
object_names = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,60}[a-z0-9])?", fullmatch=True)
# Texts that are likely to collide with the mark's own grammar.
comments = st.one_of(
    st.text(),
    st.lists(st.sampled_from(["[pgtend:1:", "abcd", ":", "a/b", "]", " ", "x", "[pgtend:1:abcd:a/b]", "\n"])).map(
        "".join
    ),
)


def test_short_hash_is_what_the_contract_says() -> None:
    assert short_hash("") == "4oymiquy7q"  # RFC 4648 base32 of e3b0c44298fc...
    assert re.fullmatch(r"[a-z2-7]{10}", short_hash("databases/orders"))
    assert hashlib.sha256(b"").hexdigest().startswith("e3b0c44298fc")


@given(installations, st.sampled_from(["probe", "emergency", "maintenance", "replication", "pg-tools"]), labels, labels)
def test_application_name_is_not_cut_by_postgresql(installation: str, purpose: str, namespace: str, name: str) -> None:
    made = application_name(installation=installation, purpose=purpose, namespace=namespace, name=name)
    assert len(made.encode()) <= 63
    assert made == f"pgtend/{installation}/{purpose}/{short_hash(f'{namespace}/{name}')}"


@given(comments, installations, labels, object_names)
def test_mark_is_read_back_whatever_stands_before_it(text: str, installation: str, namespace: str, name: str) -> None:
    mark = role_mark(installation=installation, namespace=namespace, name=name)
    marked = with_mark(text, mark)
    assert read_mark(marked) == (installation, f"{namespace}/{name}")
    assert marked.endswith(mark)
    assert with_mark(marked, mark) == marked
    assert without_mark(marked) == without_mark(text)
    assert read_mark(without_mark(marked)) is None


@given(comments, installations, labels)
def test_a_comment_cannot_forge_a_mark(text: str, installation: str, name: str) -> None:
    """Who may write a comment must not be able to say whose the role is."""
    mark = role_mark(installation=installation, namespace="ns", name=name)
    marked = with_mark(text, mark)
    assert marked.count("[pgtend:1:") == without_mark(text).count("[pgtend:1:") + 1
    assert read_mark(marked) == (installation, f"ns/{name}")


def test_text_around_the_mark_is_kept() -> None:
    assert with_mark("orders of the shop", "[pgtend:1:prod:a/b]") == "orders of the shop [pgtend:1:prod:a/b]"
    assert with_mark(None, "[pgtend:1:prod:a/b]") == "[pgtend:1:prod:a/b]"
    assert with_mark("x [pgtend:1:old-one:c/d] y", "[pgtend:1:prod:a/b]") == "x y [pgtend:1:prod:a/b]"
    assert without_mark(None) == ""
    assert read_mark("[pgtend:1:old-one:c/d] [pgtend:1:prod:a/b]") == ("prod", "a/b")
    assert read_mark("no mark") is None
    assert read_mark(None) is None
    assert without_mark("[pgtend:1:ab[pgtend:1:inst:a/b]cd:x/y]") == ""


@given(st.datetimes(min_value=EPOCH, max_value=EPOCH.replace(year=2200)), st.integers(-14 * 60, 14 * 60))
def test_rfc3339_is_utc_in_whole_seconds(naive: datetime, minutes: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = rfc3339(moment)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text)
    assert timedelta(0) <= moment - parse_rfc3339(text) < timedelta(seconds=1)


def test_a_moment_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        parse_rfc3339("2026-11-22T12:00:00")
    with pytest.raises(ValueError, match="isoformat"):
        parse_rfc3339("noon")


def test_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    before = clock.monotonic()
    assert clock.now() == clock.now()
    clock.advance(90)
    assert clock.now() == datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC)
    assert clock.monotonic() - before == 90


def test_system_clock_is_aware_and_grows() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    first = clock.monotonic()
    assert clock.monotonic() >= first > 0


@given(st.integers(0, 10**9), st.integers(-5, 10_000), st.floats(0.01, 60), st.floats(60, 3600))
def test_backoff_grows_to_its_limit(seed: int, failures: int, base: float, limit: float) -> None:
    wait = Randomness(seed).backoff(failures, base=base, limit=limit)
    span = min(limit, base * 2.0 ** min(max(failures - 1, 0), 20))
    assert span / 2 <= wait <= span


@given(st.integers(0, 10**9), st.floats(0.1, 1000), st.floats(0, 0.5))
def test_jitter_stays_within_its_share(seed: int, seconds: float, share: float) -> None:
    moved = Randomness(seed).jitter(seconds, share)
    assert seconds * (1 - share) - 1e-6 <= moved <= seconds * (1 + share) + 1e-6


def test_randomness_is_seedable_and_else_differs() -> None:
    assert Randomness(7).jitter(10) == Randomness(7).jitter(10)
    assert len({Randomness().jitter(10) for _ in range(5)}) > 1


def test_action_describes_itself() -> None:
    action = Action(object="table shop.orders", verb="vacuum")
    assert action.describe() == "vacuum table shop.orders"
    assert action.repeat is Repeat.IDEMPOTENT


def test_error_knows_reason_and_text() -> None:
    error = PgtendError(TargetReason.SECRET_MISSING, "Secret a is missing", object="a", transient=False)
    assert str(error) == "SecretMissing: Secret a is missing"
    assert (error.reason, error.object, error.transient) == (TargetReason.SECRET_MISSING, "a", False)


def test_object_key_prints_as_people_write_it() -> None:
    assert str(ObjectKey("PostgresTarget", "databases", "orders")) == "databases/orders"
    assert ObjectKey("A", "b", "c") < ObjectKey("B", "a", "a")
