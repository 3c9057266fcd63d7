"""What is kept small stays what it was."""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.thorough import cases

from pgtend.api.base import ApiModel, parse_spec
from pgtend.api.kinds import KINDS
from pgtend.kube import compact
from pgtend.kube.compact import Packed, once

USER = next(kind for kind in KINDS if kind.name == "DatabaseUser")
TARGET = next(kind for kind in KINDS if kind.name == "PostgresTarget")
CONNECT = {"database": "shop", "kind": "Database", "privileges": ["Connect"]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def user(**spec: Any) -> ApiModel:
    return once(parse_spec(USER, {"spec": {"targetRef": {"name": "orders"}, **spec}}))


@cases(200)
@given(value=st.dictionaries(st.text(), JSON, max_size=5))
def test_any_object_comes_out_as_it_was_packed(value: dict[str, Any]) -> None:
    packed = Packed(value)
    assert packed == value
    assert list(packed) == list(value)
    assert len(packed) == len(value)


def test_a_packed_status_takes_a_sixth() -> None:
    words = ("Ready", "Accepted", "Unique", "CredentialsReady", "PrivilegesInSync", "InSync", "RotationCurrent")
    conditions = [
        {
            "type": word,
            "status": "True",
            "reason": "AsExpected",
            "message": f"role shop_app is as {word} wants it",
            "lastTransitionTime": "2026-11-22T15:00:00Z",
            "observedGeneration": 1,
        }
        for word in words
    ]
    status = json.loads(json.dumps({"conditions": conditions}))
    plain = sum(sys.getsizeof(one) + sum(sys.getsizeof(v) for v in one.values()) for one in status["conditions"])
    packed = Packed(status)
    assert sys.getsizeof(packed) + sys.getsizeof(packed._bytes) < plain / 6


def test_what_is_looked_at_lately_is_unpacked_once() -> None:
    packed = Packed({"conditions": [{"type": "Ready"}]})
    assert packed["conditions"] is packed["conditions"]


def test_what_is_not_there_is_missed() -> None:
    packed = Packed({"conditions": []})
    assert packed.get("worst") is None
    with pytest.raises(KeyError):
        packed["worst"]


def test_equal_parts_of_specs_are_one() -> None:
    one, other = (user(roleName=name, grants=[CONNECT, {**CONNECT, "database": name}]) for name in ("a", "b"))
    assert one.grants[0] is other.grants[0]  # type: ignore[attr-defined]
    assert one.target_ref is other.target_ref  # type: ignore[attr-defined]
    assert one.grants[1] != other.grants[1]  # type: ignore[attr-defined]
    assert one != other


def test_equal_specs_are_one_settings_included() -> None:
    one, other = (user(settings={"work_mem": "8MB"}, grants=[CONNECT]) for _ in range(2))
    assert one is other
    assert user(settings={"work_mem": "9MB"}, grants=[CONNECT]) is not one


@pytest.mark.parametrize(
    "spec",
    [
        {"grants": [CONNECT, {**CONNECT, "privileges": ["Connect", "Temporary"]}], "password": {"none": {}}},
        {"rotation": {"interval": "90d"}, "secret": {"templates": {"DSN": "{{ .username }}"}}},
        {"databaseSettings": [{"database": "shop", "settings": {"search_path": "shop"}}]},
    ],
)
def test_a_shared_spec_is_what_was_written(spec: dict[str, Any]) -> None:
    body = {"spec": {"targetRef": {"name": "orders"}, **spec}}
    before = parse_spec(USER, body)
    user(**spec)
    made = user(**spec)
    assert (made, made.to_wire()) == (before, before.to_wire())


def test_nothing_is_kept_when_nobody_has_it() -> None:
    made = user(roleName="kept-for-nobody", grants=[CONNECT])
    number = next(n for n, part in compact._parts.items() if part is made)
    del made
    gc.collect()
    assert number not in compact._parts


def test_two_that_have_a_number_in_common_stay_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "_token", lambda value: 0)
    one, other = (user(roleName=name) for name in ("one", "other"))
    assert (one.role_name, other.role_name) == ("one", "other")  # type: ignore[attr-defined]


def test_thresholds_of_targets_are_shared() -> None:
    def target(host: str) -> Any:
        member = {"name": "a", "host": host}
        credentials = {"monitor": {"password": {"secretRef": {"name": "m"}}}}
        spec = {"members": [member], "credentials": credentials, "thresholds": {"lockWait": {"warning": "70s"}}}
        return once(parse_spec(TARGET, {"spec": spec}))

    one, other = target("one.example.com"), target("other.example.com")
    assert one.thresholds is other.thresholds
    assert one.credentials is other.credentials
    assert one.members[0] is not other.members[0]
