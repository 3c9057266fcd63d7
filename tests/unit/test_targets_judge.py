"""What the readings of one probe, and what is remembered of earlier ones, say about a target."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.api.conditions import Verdict
from pgtend.api.postgrestarget import POSTGRES_TARGET, TargetSpec
from pgtend.api.reasons import TargetReason as R
from pgtend.core.errors import PgtendError
from pgtend.targets import judge as judges
from pgtend.targets.judge import Judgement, health, judge
from pgtend.targets.memory import Memory, memory_from, on_record
from pgtend.targets.pace import IMPATIENT, PROBE_SECONDS, SILENT_SECONDS, THOROUGH, Pace
from pgtend.targets.reading import Reading

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SYSTEM = "7437812650013388821"


def spec(*members: str, **fields: Any) -> TargetSpec:
    return TargetSpec.model_validate(
        {
            "members": [{"name": name, "host": f"{name}.example.com"} for name in members or ("a", "b")],
            "credentials": {"monitor": {"password": {"secretRef": {"name": "m"}}}},
            **fields,
        }
    )


def primary(name: str = "a", *, lsn: int = 1000, timeline: int = 1, sees: bool = True, system: str = SYSTEM) -> Reading:
    return Reading(
        member=name, system_identifier=system, timeline=timeline, flush_lsn=lsn, started="then", version="18.1",
        sees_stats=sees,
    )  # fmt: skip


def standby(
    name: str = "b", *, lsn: int | None = 1000, age: float | None = None, receiver: bool = True, sees: bool = True
) -> Reading:
    return Reading(
        member=name, in_recovery=True, system_identifier=SYSTEM, timeline=1, replay_lsn=lsn, replay_age=age,
        has_receiver=receiver, sees_stats=sees, version="18.1",
    )  # fmt: skip


def down(name: str = "b", reason: R = R.CONNECTION_REFUSED) -> Reading:
    return Reading(member=name, error=PgtendError(reason, f"{name}: does not work"))


class Watch:
    """A target that is probed again and again."""

    def __init__(self, wanted: TargetSpec | None = None, memory: Memory | None = None) -> None:
        self.spec, self.memory, self.now = wanted or spec(), memory or Memory(), NOON

    def probe(self, *readings: Reading, after: float = 15.0, refused: PgtendError | None = None) -> Judgement:
        self.now += timedelta(seconds=after)
        return judge(spec=self.spec, readings=readings, memory=self.memory, now=self.now, refused=refused)


def verdict(judgement: Judgement, name: str = "ReplicationHealthy") -> Verdict:
    (found,) = [v for v in judgement.verdicts if v.type == name]
    return found


def told(judgement: Judgement, name: str = "ReplicationHealthy") -> tuple[str, str]:
    found = verdict(judgement, name)
    return found.status, str(found.reason)


def test_every_condition_that_is_built_is_always_given() -> None:
    wanted = {*POSTGRES_TARGET.conditions, "Ready"}
    cases: list[tuple[Verdict, ...]] = [
        Watch().probe(primary(), standby()).verdicts,
        Watch().probe(down("a"), down("b")).verdicts,
        judges.suspended(spec()),
        judges.invalid("spec.mode: wrong"),
    ]
    for verdicts in cases:
        assert sorted(v.type for v in verdicts) == sorted(wanted)


# Lag


def test_all_is_well() -> None:
    found = Watch().probe(primary(), standby())
    assert told(found) == ("True", "AsExpected")
    assert verdict(found).message == "1 of 1 standbys stream, lag below 30s"
    assert told(found, "Ready") == ("True", "Observing")
    assert told(found, "Reachable") == ("True", "Connected")
    assert found.status.replication_lag == "<1s"
    assert (found.status.primary, found.status.server_version) == ("a", "18.1")


def late_for(watch: Watch, seconds: float, *, step: float = 15.0, at: int = 1000) -> Iterator[Judgement]:
    """The primary goes on, the standby stands still."""
    watch.probe(primary(lsn=at), standby(lsn=at))
    spent = 0.0
    while spent < seconds:
        spent += step
        yield watch.probe(primary(lsn=at + int(spent) * 100), standby(lsn=at), after=step)


def test_lag_counts_from_when_the_primary_went_beyond_and_lasts_before_it_matters() -> None:
    found = [(told(j), j.lags["b"]) for j in late_for(Watch(), 120)]
    well, bad = ("True", "AsExpected"), ("False", "ReplicationLagCritical")
    assert [lag for _, lag in found] == [0, 15, 30, 45, 60, 75, 90, 105]
    # 30 s are reached at the third probe, and must have lasted for 45 s
    assert [verdict for verdict, _ in found] == [well] * 5 + [bad] * 3


def test_the_message_names_standby_figures_limit_and_next_step() -> None:
    *_, last = late_for(Watch(), 75 + 15)
    message = verdict(last).message
    for part in ("standby b", "primary a", "since 2026-11-22T12:01:00Z", "75s", "at 2026-11-22T12:01:45Z", "limit 30s",
                 "receives but replays late", "On b check"):  # fmt: skip
        assert part in message, message
    assert verdict(last).object == "b"
    assert last.status.replication_lag == "75s"
    assert last.status.health == "Critical"


def test_catching_up_clears_at_once_and_the_wait_starts_anew() -> None:
    watch = Watch()
    *_, last = late_for(watch, 120)
    assert told(last)[0] == "False"
    assert told(watch.probe(primary(lsn=20_000), standby(lsn=20_000)))[0] == "True"
    assert [told(j)[0] for j in late_for(watch, 60, at=20_000)] == ["True"] * 4


def test_a_warning_comes_before_the_critical_and_does_not_restart_its_wait() -> None:
    lag = {"warning": "10s", "critical": "60s", "for": "15s"}
    found = [told(j)[1] for j in late_for(Watch(spec(thresholds={"replicationLag": lag})), 90)]
    assert found == [
        "AsExpected", "AsExpected", "ReplicationLagWarning", "ReplicationLagWarning", "ReplicationLagCritical",
        "ReplicationLagCritical",
    ]  # fmt: skip
    assert health([Verdict("ReplicationHealthy", "False", R.REPLICATION_LAG_WARNING, "")]) == "Warning"


@given(age=st.floats(0, 1e6), probes=st.integers(1, 12))
def test_an_idle_primary_makes_nobody_late(age: float, probes: int) -> None:
    watch = Watch()
    for _ in range(probes):
        found = watch.probe(primary(lsn=1000), standby(lsn=1000, age=age), after=600)
        assert found.lags == {"b": 0.0}
        assert told(found) == ("True", "AsExpected")


def test_after_a_long_idle_time_the_first_record_makes_nobody_late() -> None:
    watch = Watch()
    watch.probe(primary(lsn=1000), standby(lsn=1000), after=36_000)
    found = watch.probe(primary(lsn=1060), standby(lsn=1000, age=36_000))
    assert found.lags["b"] == 0.0


def test_history_too_short_takes_the_age_of_the_last_commit() -> None:
    """After a restart of the operator: a standby far behind is not called well for lack of memory."""
    found = Watch().probe(primary(lsn=9000), standby(lsn=1000, age=3600.0))
    assert found.lags["b"] == 3600.0


def test_lsns_of_a_former_primary_are_not_compared_with_the_new_one_s() -> None:
    watch = Watch(spec("a", "b", "c"))
    for _ in range(40):
        watch.probe(primary("a", lsn=5000), standby("b", lsn=4000), standby("c", lsn=4000))
    watch.probe(down("a"), primary("b", lsn=4100, timeline=2), standby("c", lsn=4100))
    found = watch.probe(down("a"), primary("b", lsn=4300, timeline=2), standby("c", lsn=4200, age=0.1))
    assert found.lags == {"c": 0.0}


def test_without_a_primary_nothing_is_said_about_lag() -> None:
    watch = Watch()
    watch.probe(primary(), standby())
    found = watch.probe(down("a"), standby())
    assert found.lags == {}
    assert found.status.replication_lag is None
    assert [m.lag for m in found.status.members] == [None, None]
    assert told(found) == ("Unknown", "NotReached")
    assert told(found, "Ready") == ("False", "NoPrimary")


@given(
    lsns=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=20),
    step=st.floats(1, 600),
)
def test_lag_is_never_negative_nor_longer_than_we_have_looked(lsns: list[tuple[int, int]], step: float) -> None:
    watch, flushed, replayed = Watch(), 1000, 1000
    for n, (ahead, behind) in enumerate(lsns):
        flushed += ahead
        replayed = max(replayed, min(flushed, flushed - behind))
        found = watch.probe(primary(lsn=flushed), standby(lsn=replayed), after=step)
        assert 0 <= found.lags["b"] <= n * step + 1e-3  # datetimes have microseconds
        assert replayed < flushed or found.lags["b"] == 0


# Receivers, privileges, members


def test_a_receiver_that_is_gone_is_told_after_its_wait() -> None:
    watch = Watch()
    found = [told(watch.probe(primary(), standby(receiver=False))) for _ in range(5)]
    assert found == [("True", "AsExpected")] * 3 + [("False", "NotStreaming")] * 2
    state = watch.probe(primary(), standby(receiver=False)).status.members[1].state
    assert state == "NotStreaming"


def test_a_late_standby_without_receiver_says_so() -> None:
    watch = Watch(spec(thresholds={"replicationLag": {"critical": "10s", "for": "0s"}}))
    watch.probe(primary(lsn=1000), standby(lsn=1000))
    watch.probe(primary(lsn=2000), standby(lsn=1000, receiver=False))
    found = watch.probe(primary(lsn=2000), standby(lsn=1000, receiver=False))
    assert told(found) == ("False", "ReplicationLagCritical")
    assert "WAL receiver is gone" in verdict(found).message


def test_what_the_role_may_not_see_is_unknown_with_the_grant_and_never_true() -> None:
    found = Watch().probe(primary(sees=False), standby(sees=False, receiver=False))
    for name in ("ReplicationHealthy", "ConnectionsHealthy", "QueriesHealthy", "LocksHealthy"):
        assert told(found, name) == ("Unknown", "MissingPrivilege")
        assert "GRANT pg_monitor TO pgtend_monitor" in verdict(found, name).message
    assert found.status.missing_privileges[0].sql == "GRANT pg_monitor TO pgtend_monitor"
    assert found.status.members[1].state is None
    assert found.status.health == "Unknown"
    assert told(found, "Ready")[0] == "True", "health does not feed Ready"


def test_lag_is_told_even_where_the_receiver_cannot_be_seen_and_claims_no_more() -> None:
    watch = Watch(spec(thresholds={"replicationLag": {"critical": "10s", "for": "0s"}}))
    watch.probe(primary(lsn=1000), standby(lsn=1000, sees=False))
    watch.probe(primary(lsn=2000), standby(lsn=1000, sees=False))
    found = watch.probe(primary(lsn=2000), standby(lsn=1000, sees=False, receiver=False))
    assert told(found) == ("False", "ReplicationLagCritical")
    assert "cannot be seen without pg_monitor" in verdict(found).message


@pytest.mark.parametrize("reading", [primary(), standby("a")])
def test_one_member_has_nothing_to_replicate_to(reading: Reading) -> None:
    assert told(Watch(spec("a")).probe(reading)) == ("True", "NoStandby")


def test_a_standby_that_does_not_answer_is_told_at_once() -> None:
    found = Watch().probe(primary(), down())
    assert told(found) == ("False", "StandbyUnreachable")
    assert told(found, "Reachable") == ("False", "ConnectionRefused")
    assert "1 of 2 members answer" in verdict(found, "Reachable").message
    assert told(found, "Ready")[0] == "True"
    assert [(m.name, m.role) for m in found.status.members] == [("a", "Primary"), ("b", "Unknown")]


def test_all_members_down() -> None:
    found = Watch().probe(down("a", R.TIMED_OUT), down("b"))
    assert told(found, "Reachable") == ("False", "TimedOut")
    assert told(found, "Ready") == ("False", "TimedOut")
    assert verdict(found, "Ready").negligible, "Reachable tells it"
    assert found.status.health == "Critical"
    assert found.standing.refusal is not None


def test_the_worst_of_several_standbys_is_told() -> None:
    watch = Watch(spec("a", "b", "c", "d", thresholds={"replicationLag": {"critical": "10s", "for": "0s"}}))
    gone = standby("c", receiver=False)
    assert told(watch.probe(primary(), standby("b"), gone, standby("d")))[1] == "NotStreaming"
    assert told(watch.probe(primary(), standby("b"), gone, down("d")))[1] == "StandbyUnreachable"
    watch.probe(primary(lsn=2000), standby("b", lsn=1000), gone, down("d"))
    found = watch.probe(primary(lsn=2000), standby("b", lsn=1000), gone, down("d"))
    assert (told(found)[1], verdict(found).object) == ("ReplicationLagCritical", "b")


def test_a_former_primary_is_named_and_not_followed() -> None:
    watch = Watch()
    watch.probe(primary("a"), standby("b"))
    found = watch.probe(primary("a", lsn=1500), primary("b", lsn=1100, timeline=2))
    assert (told(found), verdict(found).object) == (("False", "StaleMember"), "a")
    assert (told(found, "Ready")[0], found.status.primary) == ("True", "b")
    assert found.status.members[0].state == "NotFollowed"


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        ([primary("a"), primary("b")], "SplitBrain"),
        ([primary("a", system="other"), standby("b")], "IdentityChanged"),
        ([primary("a", lsn=1), standby("b")], "IdentityChanged"),
        ([standby("a"), standby("b")], "NoPrimary"),
    ],
)
def test_doubt_about_identity_freezes_and_says_why(readings: list[Reading], reason: str) -> None:
    watch = Watch(spec(mode="Enforce"))
    assert told(watch.probe(primary(), standby()), "Ready") == ("True", "InForce")
    found = watch.probe(*readings)
    assert told(found, "Ready") == ("False", reason)
    assert found.standing.refusal is not None and found.standing.primary is None
    assert found.status.primary is None
    assert found.status.identity is not None and found.status.identity.system_identifier == SYSTEM


def test_a_duplicate_is_not_accepted_and_not_written_to() -> None:
    refused = PgtendError(R.DUPLICATE_SERVER, "db/old tends it", object="db/old")
    found = Watch(spec(mode="Enforce")).probe(primary(), standby(), refused=refused)
    assert told(found, "Accepted") == ("False", "DuplicateServer")
    assert told(found, "Ready") == ("False", "DuplicateServer")
    assert (found.standing.primary, found.standing.refusal) == (None, refused)


# Standing still


def test_suspended_and_invalid_say_so() -> None:
    assert {(v.type, v.status) for v in judges.suspended(spec()) if v.status == "True"} == {
        ("Accepted", "True"),
        ("Ready", "True"),
    }
    invalid = {v.type: v for v in judges.invalid("spec.mode: wrong")}
    assert (invalid["Accepted"].reason, invalid["Accepted"].message) == (R.INVALID_SPEC, "spec.mode: wrong")
    assert invalid["Ready"].status == "False"


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        ([Verdict("Ready", "True", R.IN_FORCE, "")], "Healthy"),
        ([Verdict("Accepted", "False", R.INVALID_SPEC, "")], "Healthy"),
        ([Verdict("LocksHealthy", "False", R.LOCK_WAIT_WARNING, "")], "Warning"),
        ([Verdict("LocksHealthy", "False", R.LOCK_WAIT_CRITICAL, "")], "Critical"),
        ([Verdict("Reachable", "False", R.TIMED_OUT, "")], "Critical"),
        ([Verdict("Ready", "False", R.NO_PRIMARY, "")], "Critical"),
        ([Verdict("LocksHealthy", "Unknown", R.MISSING_PRIVILEGE, "")], "Unknown"),
        ([Verdict("PoolHealthy", "Unknown", R.NOT_REQUESTED, "", negligible=True)], "Healthy"),
    ],
)
def test_health_is_one_word_the_worst_of_all_but_accepted(verdicts: list[Verdict], word: str) -> None:
    assert health(verdicts) == word
    assert health([*verdicts, Verdict("Ready", "True", R.IN_FORCE, "")]) == word


def test_memory_is_taken_up_from_the_status() -> None:
    first = Watch()
    found = first.probe(primary(lsn=0x5A_1B2C3D40), standby(lsn=0x5A_1B2C3D40))
    memory = memory_from(found.status.to_wire())
    assert (memory.recorded, memory.token) == (first.memory.recorded, first.memory.token)
    after = Watch(memory=memory).probe(primary(lsn=0x5A_1B2C3D3F), standby(lsn=1))
    assert told(after, "Ready") == ("False", "IdentityChanged")


@pytest.mark.parametrize(
    "identity",
    [{}, {"systemIdentifier": "7"}, {"systemIdentifier": "7", "timeline": "x", "lsn": "0/0"},
     {"systemIdentifier": "7", "timeline": "1", "lsn": "nonsense"}, "text", None],
)  # fmt: skip
def test_a_status_that_does_not_parse_is_as_good_as_none(identity: Any) -> None:
    assert memory_from({"identity": identity, "identityToken": None}).recorded is None


def test_names_in_the_status_are_those_of_the_spec() -> None:
    found = Watch(spec("x", "y", "z")).probe(primary("x"), standby("y"), down("z"))
    assert [(m.name, m.role) for m in found.status.members] == [("x", "Primary"), ("y", "Standby"), ("z", "Unknown")]
    found.status.model_validate(found.status.to_wire())


def test_nothing_a_condition_says_changes_while_nothing_changes() -> None:
    watch = Watch(spec("a", "b", "c"))
    probes = (watch.probe(primary(lsn=n), standby("b", lsn=n), down("c")) for n in range(1000, 20_000, 1000))
    texts = {tuple((v.type, v.message) for v in probe.verdicts) for probe in probes}
    assert len(texts) == 1


def test_what_stays_on_record_while_nobody_looks() -> None:
    watch = Watch()
    found = watch.probe(primary(), standby()).status.to_wire()
    watch.probe(primary(lsn=2000), standby(lsn=2000))
    kept = on_record(watch.memory, found).to_wire()
    assert kept["identity"] == {"systemIdentifier": SYSTEM, "timeline": "1", "lsn": "0/7D0"}
    assert (kept["identityToken"], kept["serverVersion"]) == (found["identityToken"], "18.1")
    assert memory_from(kept).recorded == watch.memory.recorded
    assert on_record(Memory(), {}).to_wire() == {"health": "Unknown", **EMPTY}


EMPTY = {"conditions": [], "members": [], "blocking": [], "missingPrivileges": []}


# Pace


def paced(pace: Pace, *readings: Reading, primary: str | None = None, now: float = 0.0) -> float:
    return pace.next(primary=primary, readings=readings, interval=15.0, now=now)


def test_without_a_primary_probes_come_each_second_while_anybody_answers() -> None:
    pace = Pace()
    assert paced(pace, primary("a"), primary="a") == 15.0
    for now in (0.0, 30.0, 3600.0):
        assert paced(pace, standby("a"), now=now) == IMPATIENT
    assert paced(pace, primary("a"), primary="a", now=3601.0) == 15.0
    assert pace.next(primary=None, readings=[standby()], interval=0.5, now=0.0) == 0.5


def test_whoever_is_wholly_away_is_probed_each_second_for_a_minute_only() -> None:
    pace = Pace()
    found = [paced(pace, down("a"), now=float(now)) for now in (0, 30, 59, 60, 3600)]
    assert found == [IMPATIENT, IMPATIENT, IMPATIENT, 15.0, 15.0]
    paced(pace, primary("a"), primary="a", now=4000.0)
    assert paced(pace, down("a"), now=5000.0) == IMPATIENT


def test_a_silent_member_is_not_waited_for_while_there_is_no_primary_but_never_forgotten() -> None:
    pace = Pace()
    gone = down("a", R.TIMED_OUT)
    assert pace.patience("a") == PROBE_SECONDS
    paced(pace, gone, primary("b"), primary="b")
    assert pace.patience("a") == PROBE_SECONDS, "there is no hurry"
    found = []
    for _ in range(2 * THOROUGH):
        paced(pace, gone, standby("b"))
        found.append(pace.patience("a"))
        assert pace.patience("b") == PROBE_SECONDS
    assert found == ([SILENT_SECONDS] * (THOROUGH - 1) + [PROBE_SECONDS]) * 2
    paced(pace, down("a", R.CONNECTION_REFUSED), standby("b"))
    assert pace.patience("a") == PROBE_SECONDS, "it answered, if only by refusing"
