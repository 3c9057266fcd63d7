"""Consent is word by word: entries add up, silence admits nothing, and the own namespace needs no entry."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.api.postgrestarget import AccessEntry
from pgtend.server.consent import GUARDED, Consent, Requester, Unseen, _lists, consent_for, matches, role_admitted

OWN = "databases"


def entry(name: str = "e", *, kinds: list[str] | None = None, users: dict[str, Any] | None = None, **where: Any) -> Any:
    document: dict[str, Any] = {"name": name, "namespaces": where}
    if kinds is not None:
        document["kinds"] = kinds
    if users is not None:
        document["users"] = users
    return AccessEntry.model_validate(document)


def ask(*access: AccessEntry, namespace: str, labels: dict[str, str] | None = None) -> Consent | str:
    return consent_for(
        access=access,
        target_namespace=OWN,
        requester=Requester(namespace=namespace, labels=labels),
        kind="DatabaseUser",
    )


def names(found: Consent | str) -> list[str]:
    assert isinstance(found, Consent), found
    return [e.name for e in found.entries]


SHOP = entry("shop", names=["shop"], kinds=["DatabaseUser"])
TEAM = entry("team", selector={"matchLabels": {"team": "a"}}, kinds=["DatabaseUser"])


def test_the_own_namespace_needs_no_entry() -> None:
    for access in ((), (SHOP,), (TEAM,), (entry(names=["shop"]),)):
        found = ask(*access, namespace=OWN)
        assert isinstance(found, Consent) and found.own
        assert found.names == "the target's own namespace"


def test_an_entry_that_names_the_own_namespace_narrows_it() -> None:
    found = ask(entry("narrow", names=[OWN, "shop"], kinds=[]), namespace=OWN)
    assert isinstance(found, str) and "narrow" in found
    allowed = ask(entry("narrow", names=[OWN], kinds=["DatabaseUser"]), namespace=OWN)
    assert isinstance(allowed, Consent) and not allowed.own


def test_a_selector_never_narrows_the_own_namespace() -> None:
    nothing = entry("labels", selector={"matchLabels": {"team": "a"}}, kinds=[])
    found = ask(nothing, namespace=OWN, labels={"team": "a"})
    assert isinstance(found, Consent) and found.own


def test_strangers_are_refused_with_the_way_out() -> None:
    found = ask(SHOP, namespace="other")
    assert isinstance(found, str) and "other" in found and "target's owner" in found


@pytest.mark.parametrize("kinds", [None, []])
def test_silence_admits_nothing(kinds: list[str] | None) -> None:
    found = ask(entry("mute", names=["shop"], kinds=kinds), namespace="shop")
    assert isinstance(found, str) and "mute" in found and "DatabaseUser" in found


def test_entries_add_up() -> None:
    mute = entry("mute", names=["shop"], kinds=[])
    star = entry("star", names=["shop"], kinds=["*"])
    assert names(ask(mute, SHOP, star, namespace="shop")) == ["shop", "star"]


@pytest.mark.parametrize(
    ("labels", "admitted"),
    [({"team": "a"}, True), ({"team": "a", "more": "x"}, True), ({"team": "b"}, False), ({}, False), (None, False)],
)
def test_a_selector_admits_by_labels_and_unreadable_labels_admit_nothing(
    labels: dict[str, str] | None, admitted: bool
) -> None:
    found = ask(TEAM, namespace="x", labels=labels)
    assert isinstance(found, Consent) is admitted
    assert isinstance(found, Unseen) is (labels is None)


def test_unreadable_labels_matter_only_where_they_could_admit() -> None:
    others = entry("others", selector={"matchLabels": {"team": "a"}}, kinds=["MaintenanceWindow"])
    assert not isinstance(ask(SHOP, others, namespace="x"), Unseen)
    assert isinstance(ask(SHOP, TEAM, namespace="shop"), Consent)


@pytest.mark.parametrize("word", sorted(GUARDED))
def test_a_star_never_admits_a_guarded_word(word: str) -> None:
    assert not _lists(["*"], word)
    assert _lists(["*", word], word)


@given(words=st.lists(st.text(max_size=8)), word=st.text(max_size=8).filter(lambda w: w not in GUARDED))
def test_a_star_admits_every_other_word(words: list[str], word: str) -> None:
    assert _lists([*words, "*"], word)
    assert _lists(words, word) is (word in words or "*" in words)


def test_limits_are_those_of_the_entries_whose_pattern_fits() -> None:
    shop = entry("shop", names=["shop"], kinds=["*"], users={"databases": ["orders"]})
    report = entry("report", names=["shop"], kinds=["*"], users={"rolePattern": "report_*", "databases": ["dwh"]})
    bare = entry("bare", names=["shop"], kinds=["*"])
    found = ask(shop, report, bare, namespace="shop")
    assert isinstance(found, Consent)

    def databases(role: str) -> list[tuple[str, ...]]:
        return [limit.databases for limit in role_admitted(found, role=role, namespace="shop")]

    assert databases("shop_app") == [("orders",)]
    assert databases("report_x") == [("dwh",)]
    assert databases("postgres") == []


@pytest.mark.parametrize(
    ("pattern", "text", "namespace", "wanted"),
    [
        ("{namespace}_*", "shop_app", "shop", True),
        ("{namespace}_*", "shop", "shop", False),
        ("{namespace}_*", "shopping_app", "shop", False),
        ("{namespace}_*", "shop_eu_app", "shop-eu", False),
        ("{namespace}_*", "shop-eu_app", "shop-eu", True),
        ("{namespace}_*", "shop-eu_app", "shop", False),
        ("{namespace}_*", "SHOP_app", "shop", False),
        ("{namespace}*", "boss", "", False),
        ("{namespace}_*", "_app", "", False),
        ("*", "", "", True),
        ("a?c", "abc", "", False),
        ("a?c", "a?c", "", True),
        ("[ab]", "a", "", False),
        ("[ab]", "[ab]", "", True),
        ("[!a]", "b", "", False),
        ("a*", "a\nb", "", True),
        ("a", "a\n", "", False),
        ("a.c", "abc", "", False),
        ("x**y", "xy", "", True),
    ],
)
def test_patterns_know_the_star_only(pattern: str, text: str, namespace: str, wanted: bool) -> None:
    assert matches(pattern, text, namespace=namespace) is wanted


NAMESPACE = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)


@given(one=NAMESPACE, other=NAMESPACE, rest=st.text(alphabet="ab_-", max_size=8))
def test_no_role_belongs_to_two_namespaces(one: str, other: str, rest: str) -> None:
    role = f"{one}_{rest}"
    assert matches("{namespace}_*", role, namespace=one)
    assert matches("{namespace}_*", role, namespace=other) is (one == other)


@given(
    pattern=st.text(alphabet="ab*?[]!.\\^$-_{}\n", max_size=10),
    text=st.text(alphabet="ab*?[]!.\\^$-_{}\n", max_size=10),
)
def test_patterns_against_the_plainest_reading(pattern: str, text: str) -> None:
    plain = ".*".join(re.escape(part) for part in pattern.split("*"))
    assert matches(pattern, text) is (re.fullmatch(plain, text, re.DOTALL) is not None)


@given(text=st.text(max_size=12).filter(lambda t: "*" not in t and "{" not in t))
def test_a_pattern_without_a_star_fits_itself_alone(text: str) -> None:
    assert matches(text, text)
    assert not matches(text, text + "x")
    assert matches(text + "*", text + "anything")
