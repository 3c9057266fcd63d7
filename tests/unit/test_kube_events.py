"""Events tell of transitions, are bounded per object, fit what the API takes, and never make anything fail."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.core.clock import FakeClock
from pgtend.core.findings import ObjectKey
from pgtend.kube import events as module
from pgtend.kube.client import Forbidden
from pgtend.kube.events import BURST, REFILL_SECONDS, EventRecorder
from pgtend.kube.index import Record


def record(name: str = "orders") -> Record:
    return Record(
        key=ObjectKey("PostgresTarget", "db", name), uid="u", generation=1, resource_version="1",
        created=datetime(2026, 1, 1, tzinfo=UTC), deleting=False, finalizers=(), labels={}, annotations={}, owners=(),
        spec=None, spec_error=None, status={},
    )  # fmt: skip


class Api:
    def __init__(self) -> None:
        self.events: list[Any] = []
        self.error: Exception | None = None

    async def create(self, resource: Any, namespace: str, body: Any) -> None:
        if self.error is not None:
            raise self.error
        assert namespace == body["metadata"]["namespace"] == "db"
        self.events.append(body)


def kit() -> tuple[EventRecorder, Api, FakeClock]:
    api, clock = Api(), FakeClock()
    return EventRecorder(client=api, clock=clock), api, clock  # type: ignore[arg-type]


async def say(recorder: EventRecorder, name: str = "orders", note: str = "x") -> None:
    await recorder.say(record(name), reason="TimedOut", note=note, warning=True)


async def test_a_burst_then_one_each_five_minutes_per_object() -> None:
    recorder, api, clock = kit()
    for _ in range(BURST + 5):
        await say(recorder)
    assert len(api.events) == BURST
    await say(recorder, "other")
    assert len(api.events) == BURST + 1
    clock.advance(REFILL_SECONDS)
    for _ in range(3):
        await say(recorder)
    assert len(api.events) == BURST + 2


async def test_what_flaps_faster_than_the_bucket_fills_is_still_heard_of() -> None:
    recorder, api, clock = kit()
    for _ in range(4 * 60 * 2):  # two hours, each 15 seconds
        await say(recorder)
        clock.advance(15)
    assert BURST + 23 <= len(api.events) <= BURST + 24


async def test_buckets_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    recorder, _, clock = kit()
    for n in range(100):
        await say(recorder, f"o{n}")
        clock.advance(BURST * REFILL_SECONDS / 5)
    assert len(recorder._buckets) <= 11


async def test_a_refused_event_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    recorder, api, _ = kit()
    api.error = Forbidden(403, "Forbidden", "no")
    await say(recorder)
    assert [r.getMessage() for r in caplog.records] == ["no event"]


@given(note=st.text(max_size=1200), name=st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?", fullmatch=True))
async def test_it_is_what_the_api_takes(note: str, name: str) -> None:
    recorder, api, _ = kit()
    await say(recorder, name, note)
    (event,) = api.events
    assert len(event["note"].encode()) <= 1024
    assert note.startswith(event["note"])
    label = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    if re.fullmatch(rf"{label}(\.{label})*", name):
        assert re.fullmatch(rf"{label}(\.{label})*", event["metadata"]["name"])
    assert len(event["metadata"]["name"]) <= 253


def status(reason: str, *, condition: str = "Reachable", object_: str | None = None, well: str = "False") -> Any:
    return {
        "worst": {"condition": condition, "reason": reason, "object": object_},
        "conditions": [{"type": condition, "status": well, "reason": reason, "message": f"because {reason}"}],
    }


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, status("InForce", condition="Ready", well="True"), [("InForce", "Normal")]),
        (status("TimedOut"), status("TimedOut"), []),
        (status("TimedOut"), status("Refused"), [("Refused", "Warning")]),
        (status("TimedOut", object_="a"), status("TimedOut", object_="b"), [("TimedOut", "Warning")]),
        (status("X"), status("MissingPrivilege", well="Unknown"), [("MissingPrivilege", "Warning")]),
    ],
)
async def test_a_transition_of_the_worst_is_told(before: Any, after: Any, said: list[tuple[str, str]]) -> None:
    recorder, api, _ = kit()
    await recorder.transition(record(), before=before, after=after)
    assert [(e["reason"], e["type"]) for e in api.events] == said
    assert all(e["note"] == f"because {e['reason']}" for e in api.events)
