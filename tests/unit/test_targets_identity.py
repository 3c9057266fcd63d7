"""Every row of api.md, "Identity": which member may be written to, and what freezes writes until people accept it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtend.api.reasons import TargetReason as R
from pgtend.core.errors import PgtendError
from pgtend.server.standing import ServerIdentity, format_lsn, parse_lsn
from pgtend.targets.identity import IdentityVerdict, judge_identity
from pgtend.targets.reading import Reading

OURS, OTHER = "7437812650013388821", "7999999999999999999"
RECORDED = ServerIdentity(system_identifier=OURS, timeline=3, lsn=1000)


def primary(name: str = "a", *, timeline: int = 3, lsn: int = 1000, system: str = OURS) -> Reading:
    return Reading(
        member=name,
        system_identifier=system,
        timeline=timeline,
        flush_lsn=lsn,
        started=f"start of {name}",
        version="18",
    )


def standby(name: str = "b", *, system: str = OURS) -> Reading:
    return Reading(member=name, in_recovery=True, system_identifier=system, timeline=3, replay_lsn=1000)


def down(name: str = "b") -> Reading:
    return Reading(member=name, error=PgtendError(R.CONNECTION_REFUSED, "refused"))


def judge(
    *readings: Reading,
    recorded: ServerIdentity | None = RECORDED,
    token: str | None = None,
    accepted: str | None = None,
) -> IdentityVerdict:
    return judge_identity(readings=readings, recorded=recorded, token=token, accepted=accepted)


def reason(verdict: IdentityVerdict) -> str | None:
    refusal = verdict.standing.refusal
    return None if refusal is None else str(refusal.reason)


def frozen(verdict: IdentityVerdict, why: str) -> str:
    """Asserts that nothing may be written and nothing was recorded; returns the message."""
    assert (verdict.standing.primary, reason(verdict)) == (None, why)
    assert verdict.recorded == RECORDED
    assert verdict.standing.refusal is not None
    return verdict.standing.refusal.message


@pytest.mark.parametrize(("timeline", "lsn"), [(3, 1000), (3, 1001), (4, 1), (4, 2000), (9, 0)])
def test_what_went_on_is_recorded(timeline: int, lsn: int) -> None:
    found = judge(primary(timeline=timeline, lsn=lsn), standby())
    now = ServerIdentity(system_identifier=OURS, timeline=timeline, lsn=lsn)
    assert (found.standing.primary, found.standing.refusal, found.stale) == ("a", None, ())
    assert found.recorded == found.standing.identity == now
    assert found.standing.primary_started == "start of a"


@pytest.mark.parametrize("others", [[standby()], [down()], [standby(), down("c")]])
def test_standbys_and_members_that_are_down_change_nothing(others: list[Reading]) -> None:
    assert judge(primary(), *others).standing.primary == "a"


def test_first_sight_is_recorded_and_shows_a_token() -> None:
    found = judge(primary(), standby(), recorded=None)
    assert found.standing.primary == "a"
    assert found.recorded == RECORDED
    assert found.token is not None and len(found.token) == 8


def test_at_first_sight_of_two_systems_nothing_is_written() -> None:
    for other in (primary("b", system=OTHER), standby(system=OTHER)):
        found = judge(primary(), other, recorded=None)
        assert (found.standing.primary, reason(found), found.recorded) == (None, "IdentityChanged", None)


def test_at_first_sight_the_higher_timeline_leads_and_the_other_is_stale() -> None:
    found = judge(primary("a", timeline=3, lsn=5000), primary("b", timeline=4, lsn=1000), recorded=None)
    assert (found.standing.primary, found.stale) == ("b", ("a",))


def test_no_primary() -> None:
    for recorded in (None, RECORDED):
        found = judge(standby("a"), down("b"), recorded=recorded)
        assert (found.standing.primary, reason(found), found.recorded) == (None, "NoPrimary", recorded)


def test_after_a_failover_the_new_primary_leads_and_the_old_one_back_is_stale() -> None:
    for order in (1, -1):
        readings = [primary("a", timeline=3, lsn=1500), primary("b", timeline=4, lsn=1100)][::order]
        found = judge(*readings)
        assert (found.standing.primary, found.stale, reason(found)) == ("b", ("a",), None)
        later = judge(*readings, recorded=found.recorded, token=found.token)
        assert (later.standing.primary, later.stale, reason(later)) == ("b", ("a",), None)


def test_an_old_primary_back_with_an_older_lsn_freezes_nothing_while_the_new_one_leads() -> None:
    found = judge(primary("a", timeline=3, lsn=900), primary("b", timeline=4, lsn=1100))
    assert (found.standing.primary, found.stale, reason(found)) == ("b", ("a",), None)


def test_a_former_primary_alone_is_not_written_to_and_not_accepted() -> None:
    found = judge(primary("a", timeline=2, lsn=9000), down("b"))
    assert "older timeline than 3" in frozen(found, "StaleMember")
    assert found.stale == ("a",)
    token = found.token
    assert frozen(judge(primary("a", timeline=2, lsn=9000), down("b"), token=token, accepted=token), "StaleMember")


def test_a_lower_lsn_on_the_same_timeline_freezes() -> None:
    found = judge(primary(lsn=999), standby())
    text = frozen(found, "IdentityChanged")
    assert f"from {format_lsn(1000)} to {format_lsn(999)}" in text
    assert found.token is not None and found.token in text


def test_another_system_freezes_also_beside_the_known_one() -> None:
    for readings in ([primary(system=OTHER)], [primary(), primary("x", system=OTHER)]):
        assert OTHER in frozen(judge(*readings), "IdentityChanged")


def test_a_standby_of_another_system_freezes() -> None:
    assert "correct spec.members" in frozen(judge(primary(), standby(system=OTHER)), "IdentityChanged")


@pytest.mark.parametrize("lsns", [(1000, 1000), (1000, 900), (900, 1000), (900, 900), (5000, 1)])
def test_two_writable_members_on_one_timeline_are_a_split(lsns: tuple[int, int]) -> None:
    for timeline in (3, 4):
        found = judge(primary("a", timeline=timeline, lsn=lsns[0]), primary("b", timeline=timeline, lsn=lsns[1]))
        assert "a and b both accept writes" in frozen(found, "SplitBrain")


def test_two_former_primaries_on_one_timeline_are_stale_and_no_split() -> None:
    found = judge(primary("a", timeline=2), primary("b", timeline=2), primary("c", timeline=3))
    assert (found.standing.primary, found.stale) == ("c", ("a", "b"))


def test_a_split_at_first_sight_records_nothing() -> None:
    found = judge(primary("a"), primary("b"), recorded=None)
    assert (reason(found), found.recorded, found.standing.primary) == ("SplitBrain", None, None)


def test_the_recorded_one_coming_back_ends_the_freeze() -> None:
    away = judge(primary(system=OTHER), token="00000000")
    back = judge(primary(lsn=1000), recorded=away.recorded, token=away.token)
    assert (back.standing.primary, reason(back)) == ("a", None)


def accept(*readings: Reading, recorded: ServerIdentity = RECORDED) -> tuple[IdentityVerdict, str]:
    token = judge(*readings, recorded=recorded).token
    assert token is not None
    return judge(*readings, recorded=recorded, token=token, accepted=token), token


@pytest.mark.parametrize("seen", [primary(lsn=500), primary(system=OTHER, timeline=1, lsn=7)])
def test_an_accepted_identity_is_recorded_and_stays(seen: Reading) -> None:
    found, token = accept(seen)
    assert (found.standing.primary, reason(found)) == ("a", None)
    assert found.recorded is not None and found.recorded.lsn == seen.flush_lsn
    later = replace(seen, flush_lsn=(seen.flush_lsn or 0) + 100)
    after = judge(later, recorded=found.recorded, token=found.token, accepted=token)
    assert after.standing.primary == "a"


def test_a_wrong_token_accepts_nothing() -> None:
    seen = primary(lsn=500)
    shown = judge(seen).token
    for wrong in ("00000000", "", None):
        assert wrong != shown
        frozen(judge(seen, accepted=wrong), "IdentityChanged")


def test_an_old_acceptance_is_never_good_for_a_new_change() -> None:
    """Rolled back, accepted, went on, rolled back to the very same copy again."""
    rolled = primary(lsn=500)
    first, token = accept(rolled)
    on = judge(primary(lsn=2000), recorded=first.recorded, token=first.token, accepted=token)
    assert on.recorded is not None and on.recorded.lsn == 2000
    again = judge(rolled, recorded=on.recorded, token=on.token, accepted=token)
    assert reason(again) == "IdentityChanged"
    assert again.token != token


def test_the_token_stands_still_while_the_server_that_was_seen_goes_on() -> None:
    assert judge(primary(lsn=500)).token == judge(primary(lsn=700)).token
    assert judge(primary(lsn=500)).token != judge(primary(lsn=500, system=OTHER)).token


def test_accepting_one_does_not_accept_what_else_is_wrong() -> None:
    """The other system is accepted while the recorded one still takes writes, or has a standby left behind."""
    for rest in (primary("b"), standby("b")):
        found, _ = accept(primary("a", system=OTHER), rest)
        assert (found.standing.primary, reason(found)) == (None, "IdentityChanged")
        assert found.recorded is not None and found.recorded.system_identifier == OTHER
    both, _ = accept(primary("a", system=OTHER), primary("b", system=OTHER))
    assert (both.standing.primary, reason(both)) == (None, "SplitBrain")


MEMBERS = st.lists(
    st.one_of(
        st.builds(
            primary,
            timeline=st.integers(1, 5),
            lsn=st.sampled_from([1, 999, 1000, 1001, 5000]),
            system=st.sampled_from([OURS, OURS, OTHER]),
        ),
        st.builds(standby, system=st.sampled_from([OURS, OURS, OURS, OTHER])),
        st.builds(down),
    ),
    min_size=1,
    max_size=4,
).map(lambda readings: [replace(r, member=f"m{n}") for n, r in enumerate(readings)])


@given(readings=MEMBERS, recorded=st.sampled_from([None, RECORDED]))
def test_whatever_is_seen(readings: list[Reading], recorded: ServerIdentity | None) -> None:
    found = judge(*readings, recorded=recorded)
    assert repr(found) == repr(judge(*readings, recorded=recorded)), "the same input gives the same verdict"
    assert (found.standing.primary is None) is (found.standing.refusal is not None)
    writable = [r for r in readings if r.writable]
    if found.standing.primary is None:
        assert found.recorded == recorded
        return
    leader = next(r for r in readings if r.member == found.standing.primary)
    assert leader.writable
    assert all(r is leader or (r.timeline or 0) < (leader.timeline or 0) for r in writable), "no other on its timeline"
    assert {r.system_identifier for r in readings if r.error is None} == {leader.system_identifier}
    assert set(found.stale) == {r.member for r in writable if r is not leader}
    if recorded is not None:
        assert leader.system_identifier == recorded.system_identifier
        assert (leader.timeline, leader.flush_lsn) >= (recorded.timeline, 0)
        assert leader.timeline != recorded.timeline or (leader.flush_lsn or 0) >= recorded.lsn
    turned = judge(*reversed(readings), recorded=recorded)
    assert (turned.standing, set(turned.stale)) == (found.standing, set(found.stale)), "in whatever order"


@given(lsn=st.integers(0, 2**64 - 1))
def test_lsns_are_read_as_they_are_written(lsn: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn


def test_an_lsn_as_postgresql_writes_it() -> None:
    assert format_lsn(0x5A_1B2C3D40) == "5A/1B2C3D40"
    for wrong in ("", "5A", "5A/", "x/y", "1/2/3"):
        with pytest.raises(ValueError):
            parse_lsn(wrong)


IMPURE = {"asyncio", "psycopg", "aiohttp", "kopf", "boto3", "socket", "ssl", "subprocess"}


def test_judging_reaches_nothing_effectful() -> None:
    """As it runs, not as it reads: what a fresh interpreter has loaded beyond pydantic's own."""
    modules = ("identity", "judge", "judge_replication", "judge_sessions", "judge_pooler", "grading", "memory", "pace")
    program = (
        "import sys, json, pydantic, pydantic.networks\n"
        "before = set(sys.modules)\n"
        + "".join(f"import pgtend.targets.{module}\n" for module in modules)
        + "print(json.dumps(sorted({name.split('.')[0] for name in set(sys.modules) - before})))\n"
    )
    root = Path(__file__).parents[2] / "operator"
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "pgtend" in loaded
    assert not IMPURE.intersection(loaded)
