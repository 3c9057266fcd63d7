"""Whose sessions end, and by whose leave."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.findings import ObjectKey
from pgtend.gate.asking import Request, State
from pgtend.gate.classes import RunPolicy, TaskType
from pgtend.gate.decide import Permit, decide
from pgtend.users.actions import AlterRole, EndSessions, RoleOptions
from pgtend.users.apply import render
from pgtend.users.ending import TIMEOUT, permits
from pgtend.users.state import Problem

NOW = datetime(2026, 11, 27, 7, 0, tzinfo=UTC)
TARGET = ObjectKey("PostgresTarget", "databases", "orders")
OFF = AlterRole(object="app", verb="disable role", role="app", options=RoleOptions(login=False))


def end(role: str) -> EndSessions:
    return EndSessions(object=role, verb="end the sessions of role", role=role)


def spec(**more: Any) -> TargetSpec:
    login = {"username": "m", "password": {"secretRef": {"name": "m"}}}
    body = {"mode": "Enforce", "members": [{"name": "a", "host": "db"}], "credentials": {"monitor": login}}
    return TargetSpec.model_validate({**body, **more})


def asked(*actions: EndSessions | AlterRole, braked: bool = False, **more: Any) -> dict[str, Permit] | Problem:
    return permits(actions, target=TARGET, spec=spec(**more), braked=braked, now=NOW)


def test_the_gate_gives_leave_for_each_role_and_for_as_long_as_it_takes() -> None:
    found = asked(OFF, end("app"), end("app_a"))
    assert isinstance(found, dict) and found.keys() == {"app", "app_a"}
    assert {permit.deadline for permit in found.values()} == {NOW + TIMEOUT}
    assert asked(OFF) == {}


@pytest.mark.parametrize(
    ("state", "reason"),
    [({"braked": True}, "BrakeOn"), ({"mode": "Observe"}, "Observing"), ({"suspend": True}, "Suspended")],
)
def test_what_stops_all_else_stops_it(state: dict[str, Any], reason: str) -> None:
    found = asked(end("app"), **state)
    assert isinstance(found, Problem) and (found.reason, found.transient) == (reason, True)
    assert asked(OFF, **state) == {}, "what ends nothing is not asked for"


def test_nothing_ends_without_the_leave_for_that_very_role() -> None:
    found = asked(end("app"))
    assert isinstance(found, dict)
    (statement,) = render([end("app")], {}, found)
    assert "pg_terminate_backend" in statement.query.as_string(None)
    with pytest.raises(KeyError):
        list(render([end("app")], {}))
    with pytest.raises(ValueError, match="no leave to end the sessions of role app_b: EndSessions of role app"):
        list(render([end("app_b")], {}, {"app_b": found["app"]}))
    other = decide(
        Request(
            target=TARGET,
            type=TaskType.TERMINATE_QUERIES,
            object="role app",
            run_policy=RunPolicy.IMMEDIATELY,
            estimate=TIMEOUT,
        ),
        State(target=TARGET, mode="Enforce"),
        NOW,
    )
    assert isinstance(other, Permit)
    with pytest.raises(ValueError, match="no leave"):
        list(render([end("app")], {}, {"app": other}))
