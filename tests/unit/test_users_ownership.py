"""What is decided about taking logins and roles away, without looking anywhere: graces, paces, what is remembered."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from pgtend.api.databaseuser import DATABASE_USER, UserSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import UserReason as R
from pgtend.core.clock import FakeClock
from pgtend.core.findings import ObjectKey
from pgtend.kube.index import Record, record_of
from pgtend.server.ledger import Abandoned, _parse, _wire, crowded_out
from pgtend.users.admission import Refusal
from pgtend.users.door import Door, Target
from pgtend.users.pace import PASS_SECONDS, Pace
from pgtend.users.withdrawal import ends_at, withdrawn_at

TARGET, OTHER = (ObjectKey("PostgresTarget", "databases", name) for name in ("orders", "other"))
NOW = datetime(2026, 11, 22, 9, 58, tzinfo=UTC)


def spec(**rest: Any) -> TargetSpec:
    credentials = {"monitor": {"password": {"secretRef": {"name": "m"}}}}
    return TargetSpec.model_validate({"members": [{"name": "a", "host": "a"}], "credentials": credentials, **rest})


def record(**status: Any) -> Record:
    metadata = {
        "name": "app",
        "namespace": "shop",
        "uid": "1",
        "resourceVersion": "1",
        "creationTimestamp": "2026-11-22T10:00:00Z",
    }
    return record_of(DATABASE_USER, {"metadata": metadata, "spec": {"targetRef": {"name": "orders"}}, "status": status})


@pytest.mark.parametrize(
    ("status", "since"),
    [
        ({}, None),
        ({"conditions": [{"type": "Accepted", "status": "False", "reason": "NotPermitted"}]}, None),
        ({"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted"}]}, "2026-11-22T09:58:00Z"),
        ({"password": {"source": "Generate", "changedAt": "2026-11-01T00:00:00Z"}}, "2026-11-22T09:58:00Z"),
        ({"withdrawnAt": "2026-11-20T00:00:00Z"}, "2026-11-20T00:00:00Z"),
    ],
)
def test_withdrawn_is_who_was_admitted_once(status: dict[str, Any], since: str | None) -> None:
    assert withdrawn_at(record(**status), NOW) == since


def test_the_grace_runs_only_where_logins_are_to_be_disabled() -> None:
    since = "2026-11-22T09:00:00Z"
    assert ends_at(since, spec(mode="Enforce")) is None
    assert ends_at(since, spec(onWithdrawal="Disable")) is None, "a target that is observed is not written to"
    disabling = spec(mode="Enforce", onWithdrawal="Disable")
    assert ends_at(since, disabling) == NOW + timedelta(hours=23, minutes=2)


def test_the_pace_is_per_target_and_begins_anew_after_a_pass() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    assert [pace.take(TARGET, 2) is None for _ in range(3)] == [True, True, False]
    assert pace.take(OTHER, 2) is None
    refused = pace.take(TARGET, 2)
    assert refused is not None and refused.reason is R.TOO_MANY_AT_ONCE and not refused.transient
    assert 0 < pace.wait(TARGET) <= PASS_SECONDS + 0.1
    clock.advance(pace.wait(TARGET))
    assert pace.take(TARGET, 2) is None
    # a target whose limit is raised has room at once
    assert pace.take(TARGET, 1) is not None and pace.take(TARGET, 5) is None


def test_what_an_earlier_version_wrote_and_what_it_can_read() -> None:
    entry = Abandoned(
        kind="DatabaseUser",
        namespace="shop",
        name="app",
        target="databases/orders",
        role="app",
        policy="Drop",
        remains="role app",
        sql="DROP ROLE app",
        reason="x",
        since="y",
        retry=True,
    )
    assert _wire(entry).keys() == asdict(entry).keys() - {"heir", "sessions", "system", "lived"}
    assert _parse(json.dumps([_wire(entry)])) == {entry.key: entry}
    given = Abandoned(**(asdict(entry) | {"heir": "owner", "sessions": "Wait", "system": "7"}))
    assert _parse(json.dumps([_wire(given)])) == {given.key: given}
    later = json.dumps([{**_wire(given), "of a later version": 1}])
    assert _parse(later) == {given.key: given}, "what it does not know does not make it forget the rest"
    assert _parse(json.dumps([{"name": "app"}])) == {}


def abandoned(namespace: str, number: int, **rest: Any) -> Abandoned:
    given = {
        "kind": "DatabaseUser",
        "namespace": namespace,
        "name": f"app-{number}",
        "target": "databases/orders",
        "role": f"app-{number}",
        "policy": "Drop",
        "remains": "role app",
        "sql": "DROP ROLE app",
        "reason": "x",
        "since": f"2026-11-27T07:{number:02}:00Z",
        "retry": True,
    }
    return Abandoned(**{**given, **rest})


def test_a_full_ledger_lets_go_what_the_fullest_namespace_left_first() -> None:
    entries = [abandoned("loud", n, retry=n != 5) for n in range(9)] + [abandoned("quiet", n) for n in range(2)]
    by_key = {entry.key: entry for entry in entries}
    text = json.dumps([_wire(entry) for entry in entries], indent=1)
    assert crowded_out(by_key, 2 * len(text)) == {}
    left = crowded_out(by_key, len(text) * 3 // 4)
    # what is only listed goes before what is tried again, then the oldest
    assert [key.name for key in left][:3] == ["app-5", "app-0", "app-1"]
    assert {key.namespace for key in left} == {"loud"}
    kept = [_wire(entry) for key, entry in by_key.items() if key not in left]
    assert len(json.dumps(kept, indent=1)) <= len(text) * 3 // 4
    assert len(crowded_out(by_key, 0)) == len(entries), "and it ends"


@pytest.mark.parametrize(("labels", "withdrawn"), [({"team": "other"}, True), (None, False)])
async def test_labels_that_nobody_may_read_withdraw_nothing(labels: dict[str, str] | None, withdrawn: bool) -> None:
    none = cast(Any, None)

    async def labels_of(namespace: str) -> dict[str, str] | None:
        return labels

    door = Door(index=none, registry=none, labels_of=labels_of, watched=frozenset())
    entry = {"name": "shops", "namespaces": {"selector": {"matchLabels": {"team": "shop"}}}, "kinds": ["DatabaseUser"]}
    one = record()
    target = Target(key=TARGET, spec=spec(access=[entry | {"users": {"rolePattern": "*"}}]))
    refusal = await door.admit(one, one.parsed(UserSpec), target)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is (R.NOT_PERMITTED if withdrawn else R.SELECTOR_NEEDS_CLUSTER_MODE)
    assert refusal.withdrawn is withdrawn
