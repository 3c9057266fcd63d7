"""When a password is due and who is next, as arithmetic; and the plan for all roles of a user, as values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from pgtend.api.databaseuser import UserSpec
from pgtend.api.reasons import UserReason
from pgtend.core.redaction import Sensitive
from pgtend.users.actions import AlterRole, CreateRole, EndSessions, GrantMembership
from pgtend.users.plan import Credential, Plan
from pgtend.users.plan_logins import plan_user
from pgtend.users.rotation import Candidate, Kept, Turn, due_at, judge_rotation, others, seconds_to
from pgtend.users.state import GroupState, Observed, Problem, RoleState
from pgtend.users.wanted import Wanted

SINCE = "2026-11-22T02:00:00Z"
NOW = datetime(2026, 11, 22, 2, tzinfo=UTC)
DUAL = {"strategy": "DualRole", "interval": "30d"}


def spec(**rest: Any) -> UserSpec:
    return UserSpec.model_validate({"targetRef": {"name": "orders"}, "roleName": "app", **rest})


@pytest.mark.parametrize(
    "wrong",
    [
        {"rotation": {"interval": "4m"}},
        {"rotation": {"interval": "1h", "grace": "1h"}},
        {"rotation": {"interval": "2h", "schedule": {"daily": {"at": "03:00"}}}},
        {"rotation": {"interval": "2d"}, "password": {"secretRef": {"name": "mine"}}},
        {"rotateIfOlderThan": SINCE, "password": {"none": {}}},
        {"rotation": {"strategy": "Both"}},
    ],
)
def test_rotations_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**wrong)


@pytest.mark.parametrize(
    ("asked", "active", "expected"),
    [
        ({}, "app", None),
        ({"rotation": {"interval": "30d"}}, "app", "2026-12-22T02:00:00Z"),
        ({"rotation": {"schedule": {"daily": {"at": "03:00"}}}}, "app", "2026-11-22T03:00:00Z"),
        ({"rotation": {"interval": "30d"}, "rotateIfOlderThan": "2026-11-25T00:00:00Z"}, "app", "2026-11-25T00:00:00Z"),
        ({"rotateIfOlderThan": "2026-11-22T02:00:00Z"}, "app", None),
        ({"rotation": {"strategy": "DualRole"}}, "app_a", None),
        ({"rotation": DUAL}, "app_b", "2026-12-22T02:00:00Z"),
        ({"rotation": DUAL}, "app", SINCE),
        ({}, "app_a", SINCE),
    ],
)
def test_when_a_password_is_due(asked: dict[str, Any], active: str, expected: str | None) -> None:
    due = due_at("app", spec(**asked), active=active, changed_at=SINCE)
    assert due == (datetime.fromisoformat(expected) if expected else None)


def test_roles_of_an_earlier_strategy_are_seen_while_they_play_a_part() -> None:
    assert others("app", spec(rotation=DUAL), {}) == ("app_a", "app_b")
    assert others("app", spec(), {"password": {"activeLogin": "app"}}) == ()
    for part in ({"retiringLogin": "app_b"}, {"withdrawnLogins": ["app", "app_b"]}):
        assert others("app", spec(), {"password": {"activeLogin": "app", **part}}) == ("app_a", "app_b")


def kept(**rest: Any) -> Kept:
    return Kept(**{"name": "app", "source": "Generate", "login": "app_a", "changed_at": SINCE, **rest})


def told(asked: dict[str, Any], *, now: datetime = NOW, **rest: Any) -> tuple[str, str, str]:
    given = {"kept": kept(), "problem": None, "observing": None, "retiring": None, "owners": ()}
    verdict = judge_rotation(spec=spec(**asked), role="app", now=now, **{**given, **rest})
    return verdict.status, str(verdict.reason), verdict.message


def test_each_way_a_rotation_can_be() -> None:
    late = NOW + timedelta(days=31)
    refused = Problem(reason=UserReason.LOGIN_REFUSED, message="refused")
    dual = {"rotation": DUAL}
    assert told({}, kept=kept(login="app"))[:2] == ("Unknown", "NotRequested")
    assert told({**dual, "login": False})[:2] == ("Unknown", "NotRequested")
    assert told(dual, kept=kept(changed_at=None))[:2] == ("Unknown", "NotCreated")
    assert told(dual) == ("True", "AsExpected", "due 2026-12-22T02:00:00Z")
    assert told(dual, retiring="app_b")[2].endswith("login app_b may be used until 2026-11-22T03:00:00Z")
    assert told(dual, now=late, problem=refused)[:2] == ("False", "LoginRefused")
    assert told(dual, now=late)[:2] == ("False", "RotationDue")
    assert told(dual, now=late, observing="this object")[2].endswith("while this object is in mode Observe")
    braked = "the brake is on: no write by this installation"
    assert told(dual, now=late, held=braked)[2] == f"due since 2026-12-22T02:00:00Z: nothing is written now: {braked}"
    waits = kept(waits=late + timedelta(minutes=5))
    assert (
        "it waits until 2026-12-23T02:05:00Z, when the grace of login app_b ends" in told(dual, now=late, kept=waits)[2]
    )
    owner = RoleState(name="app_a", owns=3)
    assert told(dual, owners=[owner])[1] == "LoginOwnsObjects"
    assert "REASSIGN OWNED BY app_a TO app" in told(dual, owners=[owner])[2]


@pytest.mark.parametrize(
    ("asked", "retiring", "expected"),
    [
        ({}, [], None),
        ({"rotation": DUAL}, [], 30 * 86_400),
        ({"rotation": DUAL}, [(True, 0)], 3600),
        ({"rotation": DUAL}, [(False, 2)], 30 * 86_400),
        ({"rotation": {**DUAL, "sessions": "Terminate"}}, [(False, 2)], 3600),
        ({"rotation": {**DUAL, "grace": "0s"}}, [(True, 0)], 1),
    ],
)
def test_when_to_look_again(asked: dict[str, Any], retiring: list[tuple[bool, int]], expected: float | None) -> None:
    given = kept(login="app_a" if asked else "app")
    assert seconds_to(spec(**asked), "app", given, retiring, NOW) == expected


# The plan

APP = Wanted(role="app", mark="[pgtend:1:i:n/app]", settings={None: {}})
HELD = RoleState(name="app", login=False, comment=APP.mark)


def role(name: str, **rest: Any) -> RoleState:
    return RoleState(name=name, comment=APP.mark, **rest)


def planned(turn: Turn, *roles: RoleState) -> Plan:
    return plan_user(
        wanted=APP,
        observed=Observed(roles={one.name: one for one in roles}),
        credential=Credential(applied=True),
        turn=turn,
    )


def test_a_login_that_is_over_loses_login_and_password_and_is_no_difference() -> None:
    family = ("app_a", "app_b")
    turn = Turn(active="app_b", others=family, retiring="app_a", over=True, ends_sessions=True)
    before = role("app_a", sessions=2, verifier=Sensitive("x"))
    made = planned(turn, HELD, before, role("app_b"))
    off = [a for a in made.actions if isinstance(a, AlterRole)]
    assert [(a.role, a.options.login) for a in off] == [("app_a", False)]
    assert "app_a" in made.given and not made.disables, "a rotation is not what maxDestructivePerPass holds up"
    assert not any(text.startswith("app_a: login") for text in made.differences)
    assert not [a for a in made.actions if isinstance(a, EndSessions)], "a session could begin meanwhile"
    ended = planned(turn, HELD, role("app_a", login=False, sessions=2), role("app_b"))
    assert [a.role for a in ended.actions if isinstance(a, EndSessions)] == ["app_a"]
    # within the grace it is left alone, and one that nobody rotated out is a difference
    lives = planned(Turn(active="app_b", others=family, over=False), HELD, before)
    assert "app_a" not in [a.role for a in lives.actions if isinstance(a, AlterRole)]
    drifted = planned(Turn(active="app_b", others=family), HELD, before, role("app_b"))
    assert "app_a: login is true, not false" in drifted.differences and drifted.disables


def test_what_withdrawn_consent_has_taken_is_given_back_for_the_rest_of_its_grace() -> None:
    family, off = ("app_a", "app_b"), role("app_a", login=False, verifier=Sensitive("x"))
    turn = Turn(active="app_b", others=family, retiring="app_a", taken=frozenset(family), over=False)

    def logins(turn: Turn) -> dict[str, bool | None]:
        made = planned(turn, HELD, off, role("app_b", login=False))
        return {a.role: a.options.login for a in made.actions if isinstance(a, AlterRole)}

    assert logins(turn) == {"app_a": True, "app_b": True}
    assert logins(replace(turn, taken=frozenset({"app_b"}))) == {"app_b": True}, "somebody else has switched it off"
    over = replace(turn, over=True)
    made = planned(over, HELD, off, role("app_b"))
    assert "app_a" in made.given and not any(text.startswith("app_a") for text in made.differences)
    assert logins(over) == {"app_b": True}, "its password ends, and nothing is given"


def test_whoever_logs_in_for_a_role_is_no_less_than_the_role_is() -> None:
    """A role that was admitted by name to what amounts to a superuser has such powers, and its logins are its own."""
    made = plan_user(
        wanted=APP,
        observed=Observed(
            roles={one.name: one for one in (HELD, role("app_a"))},
            groups={"app": GroupState(name="app", powerful=True)},
        ),
        credential=Credential(applied=True),
        turn=Turn(active="app_a", others=("app_a", "app_b")),
    )
    assert made.problems == ()
    assert [(a.role, a.group) for a in made.actions if isinstance(a, GrantMembership)] == [("app_a", "app")]


def test_the_next_login_is_made_and_is_no_difference() -> None:
    turn = Turn(
        active="app_a",
        others=("app_a", "app_b"),
        candidate=Candidate(login="app_b", password=Sensitive("secret")),
        over=False,
    )
    made = planned(turn, HELD, role("app_a"))
    assert [a.role for a in made.actions if isinstance(a, CreateRole)] == ["app_b"]
    assert not any("app_b" in text for text in made.differences)
    assert "secret" not in repr((made, turn))
