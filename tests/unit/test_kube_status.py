"""What is worth a write, what a write says, and that a late answer never puts an older world back."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.api.conditions import Verdict
from pgtend.api.postgrestarget import POSTGRES_TARGET, Lag, MemberStatus, TargetStatus
from pgtend.api.reasons import TargetReason as R
from pgtend.core.clock import FakeClock, rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.kube.client import Conflict, NotFound
from pgtend.kube.events import EventRecorder
from pgtend.kube.index import Index, Record
from pgtend.kube.status import Draft, StatusWriter, _with_removals, compose, worth_writing

KEY = ObjectKey("PostgresTarget", "db", "orders")
READY = Verdict("Ready", "True", R.IN_FORCE, "primary a reached")
FIGURES = frozenset({"replicationLag", "members.lag"})
NOW = "2026-11-22T12:00:00Z"
SOON = "2026-11-22T12:09:59Z"
LATER = "2026-11-22T12:10:00Z"


def record(version: str = "1", status: dict[str, Any] | None = None, uid: str = "u") -> Record:
    return Record(
        key=KEY, uid=uid, generation=2, resource_version=version, created=datetime(2026, 1, 1, tzinfo=UTC),
        deleting=False, finalizers=(), labels={}, annotations={}, owners=(), spec=None, spec_error=None,
        status=status or {},
    )  # fmt: skip


def draft(*verdicts: Verdict, lag: str | None = "<1s", role: str = "Standby", **fields: Any) -> Draft:
    member = MemberStatus.model_validate({"name": "b", "role": role, "lag": Lag(time=lag, size="0") if lag else None})
    status = TargetStatus(replication_lag=lag, members=(member,), **fields)
    return Draft(status=status, verdicts=verdicts or (READY,), figures=FIGURES)


def stored(made: Draft, *, previous: dict[str, Any] | None = None, now: str = NOW, generation: int = 2) -> Any:
    return compose(previous=previous or {}, draft=made, generation=generation, now=now)


def worth(old: Draft, new: Draft, now: str) -> bool:
    before = stored(old)
    return worth_writing(before, stored(new, previous=before, now=now), FIGURES, now)


def test_the_whole_status_is_composed() -> None:
    assert stored(draft()) == {
        "observedGeneration": 2,
        "observedAt": NOW,
        "worst": {"condition": "Ready", "reason": "InForce", "since": NOW},
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "InForce",
                "message": "primary a reached",
                "lastTransitionTime": NOW,
                "observedGeneration": 2,
            }
        ],
        "replicationLag": "<1s",
        "members": [{"name": "b", "role": "Standby", "lag": {"time": "<1s", "size": "0"}}],
    }


def test_the_same_again_is_worth_nothing_however_late() -> None:
    assert not worth(draft(), draft(), LATER)
    assert not worth(draft(), draft(), "2026-12-31T00:00:00Z")


def test_another_message_alone_is_worth_nothing() -> None:
    assert not worth(draft(), draft(Verdict("Ready", "True", R.IN_FORCE, "another text")), LATER)


@pytest.mark.parametrize(
    "changed",
    [
        draft(Verdict("Ready", "False", R.NO_PRIMARY, "gone")),
        draft(Verdict("Ready", "True", R.OBSERVING, "primary a reached")),
        draft(READY, Verdict("Reachable", "True", R.CONNECTED, "all")),
        draft(primary="b"),
        draft(health="Critical"),
        draft(role="Primary"),
    ],
)
def test_a_transition_is_worth_a_write_at_once(changed: Draft) -> None:
    assert worth(draft(), changed, "2026-11-22T12:00:01Z")


def test_a_new_generation_is_worth_a_write() -> None:
    before = stored(draft())
    assert worth_writing(before, stored(draft(), previous=before, generation=3), FIGURES, NOW)


@pytest.mark.parametrize(
    ("old", "new", "now", "wanted"),
    [
        ("20s", "60s", SOON, False),  # moved, too early
        ("20s", "60s", LATER, True),
        ("100s", "110s", LATER, False),  # a tenth of the larger is not more than a tenth
        ("100s", "112s", LATER, True),
        ("<1s", "5s", SOON, False),
        ("<1s", "5s", LATER, True),
        ("<1s", None, LATER, True),
        (None, None, LATER, False),
        ("1h30m", "1h31m", LATER, False),
    ],
)
def test_figures_move_by_more_than_a_tenth_every_ten_minutes(
    old: str | None, new: str | None, now: str, wanted: bool
) -> None:
    assert worth(draft(lag=old), draft(lag=new), now) is wanted


def test_an_lsn_is_no_figure() -> None:
    def seen(lsn: str, timeline: str = "1") -> dict[str, Any]:
        return {"observedAt": NOW, "identity": {"systemIdentifier": "7", "timeline": timeline, "lsn": lsn}}

    figures = frozenset({"identity"})
    assert not worth_writing(seen("0/1"), seen("5A/1B2C3D40"), figures, LATER)
    assert worth_writing(seen("0/1"), seen("0/1", "2"), figures, LATER)


def test_the_first_write_is_worth_it() -> None:
    assert worth_writing({}, stored(draft()), FIGURES, NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
MAPS = st.dictionaries(st.text(max_size=2), JSON, max_size=4)


def without_nulls(value: Any) -> Any:
    """As the API server stores it: merge patch knows no null in maps (lists are opaque to it)."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return value


def merge_patch(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    found = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merge_patch(found.get(name), value)
    return found


@given(old=MAPS, new=MAPS)
def test_a_patch_leaves_exactly_the_new_status(old: dict[str, Any], new: dict[str, Any]) -> None:
    old, new = without_nulls(old), without_nulls(new)
    assert merge_patch(old, _with_removals(old, new)) == new


class Api:
    """Keeps one status with its version, as the API server does."""

    def __init__(self) -> None:
        self.version = 1
        self.status: dict[str, Any] = {}
        self.patches: list[Any] = []
        self.events: list[Any] = []
        self.gone = False
        self.meanwhile: Any = None

    async def merge_patch(self, *_: Any, sub: str, resource_version: str) -> dict[str, Any]:
        assert sub == "status"
        body = _[3]
        if self.gone:
            if self.meanwhile:
                self.meanwhile()
            raise NotFound(404, "NotFound", "")
        if resource_version != str(self.version):
            raise Conflict(409, "Conflict", "")
        self.patches.append(body)
        self.version += 1
        self.status = merge_patch(self.status, body["status"])
        if self.meanwhile:
            self.meanwhile()
        return {"metadata": {"resourceVersion": str(self.version)}, "status": copy.deepcopy(self.status)}

    async def create(self, resource: Any, namespace: str, body: Any) -> dict[str, Any]:
        self.events.append(body)
        return {}


class Kit:
    def __init__(self) -> None:
        self.api, self.index, self.clock = Api(), Index(), FakeClock()
        events = EventRecorder(client=self.api, clock=self.clock)  # type: ignore[arg-type]
        self.writer = StatusWriter(client=self.api, index=self.index, events=events, clock=self.clock)  # type: ignore[arg-type]
        self.index.put(record())

    async def write(self, made: Draft) -> Record:
        known = self.index.get(KEY)
        assert known is not None
        return await self.writer.write(POSTGRES_TARGET, known, made)


async def test_one_write_then_none_and_the_index_follows() -> None:
    kit = Kit()
    await kit.write(draft())
    await kit.write(draft())
    kit.clock.advance(100_000)
    await kit.write(draft())
    assert (kit.writer.writes, kit.writer.skipped, len(kit.api.patches)) == (1, 2, 1)
    known = kit.index.get(KEY)
    assert known is not None and known.resource_version == "2"
    assert known.status == kit.api.status


async def test_what_is_no_longer_said_is_removed() -> None:
    kit = Kit()
    await kit.write(draft(primary="a"))
    await kit.write(draft(lag=None))
    assert kit.api.patches[-1]["status"]["primary"] is None
    assert "primary" not in kit.api.status
    assert kit.api.status["members"] == [{"name": "b", "role": "Standby"}]


async def test_a_transition_time_survives_and_the_event_is_said_once() -> None:
    kit = Kit()
    bad = Verdict("Reachable", "False", R.TIMED_OUT, "b does not answer", "b")
    await kit.write(draft(READY, bad))
    began = rfc3339(kit.clock.now())
    kit.clock.advance(60)
    await kit.write(draft(READY, bad, primary="a"))
    (reachable,) = [c for c in kit.api.status["conditions"] if c["type"] == "Reachable"]
    assert reachable["lastTransitionTime"] == began == kit.api.status["worst"]["since"]
    assert [(e["reason"], e["type"]) for e in kit.api.events] == [("TimedOut", "Warning")]
    kit.clock.advance(60)
    await kit.write(draft())
    assert [(e["reason"], e["type"]) for e in kit.api.events][1:] == [("InForce", "Normal")]


async def test_a_stale_verdict_is_refused() -> None:
    kit = Kit()
    kit.api.version = 7
    with pytest.raises(Conflict):
        await kit.write(draft())


async def test_a_newer_version_seen_meanwhile_is_not_put_back() -> None:
    kit = Kit()
    kit.api.meanwhile = lambda: kit.index.put(record("99"))
    await kit.write(draft())
    known = kit.index.get(KEY)
    assert known is not None and known.resource_version == "99"


async def test_a_deletion_seen_meanwhile_is_not_undone() -> None:
    kit = Kit()
    kit.api.meanwhile = lambda: kit.index.drop(KEY)
    await kit.write(draft())
    assert kit.index.get(KEY) is None


async def test_an_echo_that_comes_before_the_answer_changes_nothing() -> None:
    kit = Kit()
    kit.api.meanwhile = lambda: kit.index.put(record("2", copy.deepcopy(kit.api.status)))
    written = await kit.write(draft())
    assert kit.index.get(KEY) == written


async def test_what_is_gone_leaves_the_index_but_not_its_successor() -> None:
    kit = Kit()
    kit.api.gone = True
    with pytest.raises(NotFound):
        await kit.write(draft())
    assert kit.index.get(KEY) is None
    kit.index.put(record("3"))
    kit.api.meanwhile = lambda: kit.index.put(record("4", uid="another"))
    with pytest.raises(NotFound):
        await kit.write(draft())
    assert kit.index.get(KEY) is not None
