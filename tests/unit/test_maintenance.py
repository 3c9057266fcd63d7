"""When a window runs what, in which order, and what is said about it: the pure half of maintenance/."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.api.maintenancerun import CountsStatus
from pgtend.api.maintenancewindow import WindowSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import RunReason as R
from pgtend.api.reasons import WindowReason as W
from pgtend.core.findings import ObjectKey
from pgtend.gate.walltime import ScheduleError
from pgtend.maintenance.admission import refusal
from pgtend.maintenance.judge import Ended, Trouble, WindowView, block_of, finished, window
from pgtend.maintenance.plan import proposal, run_name, timetable
from pgtend.maintenance.score import Key, Weighed, fitting, resume_point, served_from, stages
from pgtend.server.consent import Requester

NOW = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)  # a Wednesday
TARGET = ObjectKey("PostgresTarget", "databases", "orders")
WINDOW = ObjectKey("MaintenanceWindow", "databases", "weekly")


def spec(**fields: Any) -> WindowSpec:
    body = {"targetRefs": [{"name": "orders"}], "tasks": [{"type": "VacuumAnalyze"}], **fields}
    return WindowSpec.model_validate(body)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}+00:00")


def test_the_default_is_sunday_night() -> None:
    slot = timetable(spec(), NOW).next_slot(NOW)
    assert slot is not None
    assert (slot.starts_at, slot.ends_at) == (at("22T02:00"), at("22T04:00"))
    assert slot.types(spec()) == ("VacuumAnalyze",)


def test_daily_tasks_have_days_of_their_own_and_share_the_windows() -> None:
    daily = spec(tasks=[{"type": "VacuumAnalyze", "runPolicy": "Daily"}])
    times = timetable(daily, NOW)
    slot = times.next_slot(NOW)
    assert slot is not None and slot.starts_at == at("19T02:00") and not slot.in_window and slot.daily
    sunday = times.slot_at(at("22T02:30"))
    assert sunday is not None and sunday.in_window and sunday.daily
    assert times.slot_at(at("19T04:00")) is None, "the end is excluded"
    assert times.slot_from(at("19T02:00")) == times.slot_at(at("19T03:59"))
    assert times.slot_from(at("19T02:01")) is None


def test_of_several_windows_a_day_the_first_has_the_daily_tasks() -> None:
    often = spec(
        schedule={"cron": "*/10 6-8 * * *"}, duration="9m", closing={"lastStart": "1m", "cancel": "30s"},
        tasks=[{"type": "VacuumAnalyze", "runPolicy": "Daily"}],
    )  # fmt: skip
    times = timetable(often, NOW)
    first, second = times.slot_at(at("19T06:05")), times.slot_at(at("19T06:15"))
    assert first is not None and first.types(often) == ("VacuumAnalyze",)
    assert second is not None and second.types(often) == ()


def test_an_exclusion_cuts_a_slot() -> None:
    cut = spec(exclusions=[{"name": "x", "from": "2026-11-22T03:00:00Z", "to": "2026-11-22T03:30:00Z"}])
    times = timetable(cut, NOW)
    first, second = times.slot_at(at("22T02:59")), times.slot_at(at("22T03:30"))
    assert first is not None and first.ends_at == at("22T03:00")
    assert second is not None and second.starts_at == at("22T03:30") and times.slot_at(at("22T03:10")) is None


def test_what_has_no_meaning_is_refused() -> None:
    for fields, said in (
        ({"timeZone": "Europe/Berlim"}, "did you mean Europe/Berlin"),
        ({"duration": "25h", "schedule": {"daily": {"at": "02:00"}}}, "reaches into the next start"),
        ({"duration": "10m"}, "lastStart below duration"),
        ({"exclusions": [{"name": "x", "from": "2026-11-22T03:00:00Z", "to": "2026-11-22T02:00:00Z"}]}, "later than"),
    ):
        with pytest.raises(ScheduleError, match=said):
            timetable(spec(**fields), NOW)


def test_names_of_runs_keep_windows_and_targets_apart() -> None:
    names = {
        run_name(window=WINDOW._replace(namespace=ns), target=TARGET._replace(name=t), starts_at=at("22T02:00"))
        for ns in ("databases", "ops")
        for t in ("orders", "shop")
    }
    assert len(names) == 4 and all(n.startswith("weekly-") and n.endswith("-20261122-0200") for n in names)
    cut = run_name(window=WINDOW, target=TARGET, starts_at=at("22T02:00") + timedelta(seconds=7))
    assert cut.endswith("-20261122-020007"), "an exclusion may end at any second"


def test_a_proposal_is_a_full_hour_with_some_margin() -> None:
    assert proposal(at("22T03:40"), ZoneInfo("UTC")) == "04:00"
    assert proposal(at("22T03:50"), ZoneInfo("UTC")) == "05:00"
    assert proposal(at("22T03:45"), ZoneInfo("UTC")) == "04:00"
    assert proposal(at("22T03:40"), ZoneInfo("Europe/Berlin")) == "05:00"


keys = st.lists(
    st.builds(Key, st.sampled_from(["Reindex", "VacuumAnalyze"]), st.sampled_from("abcdefgh")), unique=True, max_size=12
).map(sorted)


@given(keys, st.builds(Key, st.sampled_from(["Reindex", "VacuumAnalyze"]), st.sampled_from("abcdefgh")))
def test_everything_is_served_once_from_where_it_stopped(found: list[Key], resume: Key) -> None:
    order = served_from(found, resume)
    assert sorted(order) == list(range(len(found)))
    if resume in found:
        assert found[order[0]] == resume
    elif any(key > resume for key in found) and any(key.type == resume.type for key in found):
        assert found[order[0]] > resume, "what is not due any more is passed over, not begun anew"
    assert served_from(found, None) == tuple(range(len(found)))


@given(keys)
def test_stages_are_the_same_items_by_type(found: list[Key]) -> None:
    parts = stages(found)
    assert [key for stage in parts for key in stage] == found
    assert all(len({key.type for key in stage}) == 1 for stage in parts)
    assert all(a[0].type != b[0].type for a, b in pairwise(parts))


def test_what_fits_and_where_it_goes_on() -> None:
    items = [Weighed(Key("Reindex", n), e) for n, e in (("a", 50.0), ("b", 90.0), ("c", None), ("d", 40.0))]
    assert fitting(items, 95.0) == 3, "one that does not fit is passed over"
    assert resume_point(items[1:], 60.0) == Key("Reindex", "c"), "what fits no window holds no place"
    assert resume_point(items[1:], 100.0) == Key("Reindex", "b")
    assert resume_point([], 100.0) is None


SHOP = {"team": "shop"}


def target(*access: dict[str, Any]) -> TargetSpec:
    return TargetSpec.model_validate(
        {
            "members": [{"name": "a", "host": "a.example.com"}],
            "credentials": {"monitor": {"password": {"secretRef": {"name": "m"}}}},
            "access": list(access),
        }
    )


def asked(
    wanted: TargetSpec, word: str, namespace: str = "databases", labels: dict[str, str] | None = SHOP
) -> Trouble | None:
    requester = Requester(namespace=namespace, labels=labels)
    return refusal(words=[word], target=TARGET, target_spec=wanted, requester=requester)


def entry(*tasks: str, names: tuple[str, ...] = ("ops",), **fields: Any) -> dict[str, Any]:
    base = {"name": "e", "namespaces": {"names": list(names)}, "kinds": ["MaintenanceWindow"], "tasks": list(tasks)}
    return {**base, **fields}


def test_consent_is_word_by_word() -> None:
    assert asked(target(), "VacuumAnalyze") is None
    no = asked(target(), "VacuumFull")
    assert no is not None and "always listed" in no.message and no.object == "VacuumFull"
    assert asked(target(), "VacuumAnalyze", "ops") is not None
    assert asked(target(entry("VacuumAnalyze")), "VacuumAnalyze", "ops") is None
    assert asked(target(entry("*")), "VacuumAnalyze", "ops") is None
    assert asked(target(entry("*")), "VacuumFull", "ops") is not None
    assert asked(target(entry("VacuumAnalyze", kinds=["DatabaseUser"])), "VacuumAnalyze", "ops") is not None
    narrowed = target(entry(names=("databases",)))
    assert asked(narrowed, "VacuumAnalyze") is not None, "an entry that names the own namespace narrows it"
    selecting = entry("VacuumAnalyze", namespaces={"selector": {"matchLabels": {"team": "shop"}}})
    assert asked(target(selecting), "VacuumAnalyze", "ops") is None
    unseen = asked(target(selecting), "VacuumAnalyze", "ops", labels=None)
    assert (
        unseen is not None and unseen.reason is W.SELECTOR_NEEDS_CLUSTER_MODE and "namespaces.names" in unseen.message
    )
    assert asked(target(selecting), "VacuumAnalyze", labels=None) is None, "the own namespace needs no entry"
    unseen = asked(target({**selecting, "tasks": ["VacuumFull"]}), "VacuumFull", labels=None)
    assert unseen is not None and unseen.reason is W.SELECTOR_NEEDS_CLUSTER_MODE, "but for guarded words"


def view(**fields: Any) -> WindowView:
    return WindowView(**{"suspended": False, "observing": False, "matched": 1, "admitted": 1, **fields})


def reasons(verdicts: list[Any]) -> dict[str, tuple[str, str]]:
    return {v.type: (v.status, str(v.reason)) for v in verdicts}


def test_a_windows_conditions() -> None:
    assert reasons(window(view(next_at=NOW))) == {
        "Ready": ("True", "InForce"),
        "Accepted": ("True", "Accepted"),
        "Active": ("False", "OutsideWindow"),
        "Unblocked": ("True", "AsExpected"),
    }
    trouble = Trouble(reason=W.TARGET_NOT_FOUND, message="PostgresTarget a/b does not exist", object="b")
    partly = reasons(window(view(matched=2, troubles=(trouble,))))
    assert partly["Ready"] == ("True", "InForce") and partly["Accepted"] == ("False", "TargetNotFound")
    none = reasons(window(view(admitted=0, troubles=(trouble,))))
    assert none["Ready"] == ("False", "TargetNotFound")
    assert reasons(window(view(suspended=True)))["Ready"] == ("True", "Suspended")
    assert reasons(window(view(observing=True)))["Ready"] == ("True", "Observing")
    blocks = tuple(Trouble(reason=reason, message="m") for reason in (W.STARVED_BY_BACKUP, W.WAITING_FOR_BACKUP))
    assert reasons(window(view(blocks=blocks)))["Unblocked"] == ("False", "WaitingForBackup"), "what is now comes first"
    assert block_of("Succeeded") is None and block_of("Paused") is W.PAUSED


def ended(**fields: Any) -> Ended:
    counts = {name: fields.pop(name, 0) for name in ("succeeded", "deferred", "cancelled", "failed")}
    base = {"target": "orders", "planned": 4, "finished_at": at("22T03:05"), "window_ends_at": at("22T04:00")}
    return Ended(**{**base, "counts": CountsStatus(**counts), **fields})


@pytest.mark.parametrize(
    ("how", "reason", "ready"),
    [
        (ended(succeeded=4), R.SUCCEEDED, "True"),
        (ended(succeeded=3, deferred=1, next_at=at("29T02:00")), R.SUCCEEDED, "True"),
        (ended(succeeded=3, failed=1, failed_object="a.b.c"), R.FAILED, "False"),
        (ended(deferred=4), R.SKIPPED, "True"),
        (ended(deferred=4, starved="a dump ran"), R.STARVED_BY_BACKUP, "True"),
        (ended(succeeded=4, starved="a dump ran"), R.SUCCEEDED, "True"),
        (ended(succeeded=1, stopped="suspended"), R.CANCELLED, "True"),
        (ended(planned=0), R.SUCCEEDED, "True"),
        (ended(planned=0, skipped="stopped after failures"), R.SKIPPED, "True"),
    ],
)
def test_how_a_run_ended(how: Ended, reason: R, ready: str) -> None:
    said = reasons(finished(how))
    assert said["Ready"] == (ready, str(reason))
    assert said["Complete"] == ("True" if reason is R.SUCCEEDED else "False", str(reason))
    assert ("Stalled" in said) is (reason is R.FAILED)


def test_a_run_says_what_is_left() -> None:
    text = finished(ended(succeeded=3, deferred=1, next_at=at("29T02:00")))[0].message
    assert text == "3 of 4 items done, 1 goes on at 2026-11-29T02:00:00Z"
    assert finished(ended(succeeded=4))[2].message == "ended 03:05:00Z, 55m before the window"
    assert finished(ended(succeeded=1, refused="no access"))[1].reason == "NotPermitted"
