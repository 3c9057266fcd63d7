"""status.effective: which databases it counts, and that it is a figure and no verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pgtend.api.conditions import Verdict
from pgtend.api.databaseuser import UserSpec
from pgtend.api.reasons import UserReason as R
from pgtend.core.findings import ObjectKey
from pgtend.kube.status import worth_writing
from pgtend.users import judge as judges
from pgtend.users.admission import Admitted
from pgtend.users.controller import FIGURES
from pgtend.users.effective import effective
from pgtend.users.judge import Facts, PasswordFacts
from pgtend.users.plan import Plan
from pgtend.users.state import Counts, DatabaseView, ObjectState, Observed, RoleState
from pgtend.users.wanted import wanted

NOW = datetime(2026, 11, 22, 9, 58, tzinfo=UTC)
GRANT = {"database": "orders", "kind": "Table", "schema": "shop", "privileges": ["Select"]}
SPEC = UserSpec.model_validate({"targetRef": {"name": "orders"}, "roleName": "shop_app", "grants": [GRANT]})
WANTED = wanted(ObjectKey("DatabaseUser", "shop", "shop-app"), SPEC, installation="here")


def facts(**rest: Any) -> Facts:
    base: dict[str, Any] = {
        "wanted": WANTED,
        "admitted": Admitted(by="target databases/orders"),
        "unique": Verdict("Unique", "True", R.AS_EXPECTED, "tended by this object alone"),
        "plan": Plan(privileges=14, databases=1),
        "password": PasswordFacts(secret="shop-app", source="Generate", written=True, set_at="2026-11-22T09:00:00Z"),
        "role_exists": True,
    }
    return Facts(**{**base, **rest})


def test_effective_privileges_are_figures_of_the_status() -> None:
    """They come and go with what others are granted: no verdict, and no transition of the status either."""
    shown = judges.judge(facts(effective=Counts(14, 3, 2)), previous={}, now=NOW)
    assert shown.status.to_wire()["effective"] == {"direct": 14, "viaRoles": 3, "viaPublic": 2}
    assert "effective" not in judges.judge(facts(), previous={}, now=NOW).status.to_wire()
    was = shown.status.to_wire()
    now = judges.judge(facts(effective=Counts(90, 3, 2)), previous=was, now=NOW).status.to_wire()
    soon, later = "2026-11-22T09:59:00Z", "2026-11-22T10:30:00Z"
    was["observedAt"] = "2026-11-22T09:58:00Z"
    assert not worth_writing(was, now, FIGURES, soon)
    assert worth_writing(was, now, FIGURES, later)


def test_effective_privileges_are_of_the_databases_that_are_the_users_own() -> None:
    item = ObjectState(kind="Database", database="orders", name="orders")
    seen = DatabaseView(itself=item, outside={"": Counts(0, 0, 2), "shop_app": Counts(1, 0, 1)}, inside={})
    dark = replace(seen, inside=None)
    role = RoleState(name="shop_app")

    def count(*, orders: DatabaseView, other: DatabaseView = seen, **rest: Any) -> Counts | None:
        observed = Observed(roles={"shop_app": replace(role, **rest)}, databases={"orders": orders, "other": other})
        return effective(WANTED, observed)

    assert WANTED.databases == {"orders"}
    assert count(orders=seen) == count(orders=seen, other=dark) == Counts(1, 0, 1)
    assert count(orders=dark) is None
    assert count(orders=seen, other=dark, databases=frozenset({"other"})) is None
    assert count(orders=seen, databases=frozenset({"other"})) == Counts(2, 0, 2)
    assert effective(WANTED, Observed(databases={"orders": seen})) is None
