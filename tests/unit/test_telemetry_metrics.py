"""What is told of an object stands in place of what was said before, and goes with it."""

from __future__ import annotations

from prometheus_client import generate_latest

from pgtend.api.conditions import Verdict
from pgtend.api.reasons import TargetReason as R
from pgtend.core.findings import ObjectKey
from pgtend.telemetry.metrics import Metrics

KEY = ObjectKey("PostgresTarget", "shop", "orders")
SERIES = 'pgtend_condition{condition="%s",kind="PostgresTarget",name="orders",namespace="shop"} %s'


def shown(metrics: Metrics) -> list[str]:
    text = generate_latest(metrics.registry).decode()
    return sorted(line for line in text.splitlines() if line.startswith("pgtend_condition{"))


def test_conditions_are_series_until_something_else_is_told() -> None:
    metrics = Metrics()
    assert shown(metrics) == []
    metrics.conditions.tell(
        KEY,
        [
            Verdict("Ready", "False", R.NO_PRIMARY, "none"),
            Verdict("Stalled", "True", R.NO_PRIMARY, "none"),
            Verdict("Accepted", "Unknown", R.NOT_PROBED, "not yet"),
        ],
    )
    assert shown(metrics) == [SERIES % ("Accepted", "-1.0"), SERIES % ("Ready", "0.0"), SERIES % ("Stalled", "1.0")]
    metrics.conditions.tell(KEY, [Verdict("Ready", "True", R.IN_FORCE, "well")])
    assert shown(metrics) == [SERIES % ("Ready", "1.0")], "what is not said any more must not stand as the last known"
    metrics.forget(KEY)
    assert shown(metrics) == []
