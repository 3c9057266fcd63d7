"""The operator's metrics, in one place so that names and labels stay bounded. Per-object series carry the object's
namespace and name only where a person alerts on one object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pgtend.api.conditions import Verdict
from pgtend.core.findings import ObjectKey

BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
MOST = 1000
Numbers = tuple[tuple[str, int], ...]


class Conditions(Collector):
    """`pgtend_condition`. There is a series for each condition of each object: kept as numbers and made into series
    when somebody asks, they take a tenth of what ready-made ones would."""

    def __init__(self) -> None:
        self._numbers: dict[ObjectKey, Numbers] = {}
        # those of a thousand objects that are well are kept once
        self._known: dict[Numbers, Numbers] = {}

    def tell(self, key: ObjectKey, verdicts: Iterable[Verdict]) -> None:
        """All that is judged of an object, in place of what was said of it before."""
        number = {"True": 1, "False": 0, "Unknown": -1}
        told = tuple((verdict.type, number[verdict.status]) for verdict in verdicts)
        if len(self._known) > MOST:
            self._known.clear()
        self._numbers[key] = self._known.setdefault(told, told)

    def forget(self, key: ObjectKey) -> None:
        self._numbers.pop(key, None)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield self._family()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = self._family()
        for key, told in self._numbers.items():
            for condition, number in told:
                family.add_metric((*key, condition), number)
        yield family

    def _family(self) -> GaugeMetricFamily:
        text = "Conditions of each object: 1 True, 0 False, -1 Unknown"
        return GaugeMetricFamily("pgtend_condition", text, labels=("kind", "namespace", "name", "condition"))


class Metrics:
    """All series of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.reconciles = Counter("pgtend_reconciles", "Objects reconciled", ["kind"], registry=r)
        self.failures = Counter("pgtend_reconcile_failures", "Reconciles that ended in back-off", ["kind"], registry=r)
        self.seconds = Histogram("pgtend_batch_seconds", "Time per batch", ["kind"], buckets=BUCKETS, registry=r)
        self.lateness = Histogram(
            "pgtend_lateness_seconds",
            "How long a batch waited beyond its due time",
            ["kind"],
            buckets=BUCKETS,
            registry=r,
        )
        self.connects = Counter("pgtend_postgres_connects", "Connections opened", ["purpose"], registry=r)
        self.statements = Counter("pgtend_postgres_round_trips", "Round trips to servers", ["purpose"], registry=r)
        self.leader = Gauge("pgtend_leader", "1 while this process leads", registry=r)
        self.conditions = Conditions()
        r.register(self.conditions)
        self.rotations = Counter(
            "pgtend_password_rotations",
            "Passwords made anew, and logins not published",
            ["strategy", "outcome"],
            registry=r,
        )
        self.items = Counter(
            "pgtend_maintenance_items", "Items of maintenance runs by outcome", ["type", "outcome"], registry=r
        )
        self.operations = Counter("pgtend_operations", "Operations that have ended", ["type", "reason"], registry=r)
        self.abandoned = Gauge("pgtend_abandoned", "Things left behind that could not be undone", registry=r)
        self.lag = Gauge(
            "pgtend_replication_lag_seconds", "Of each standby", ["namespace", "target", "member"], registry=r
        )

        self.last_verified = Gauge(
            "pgtend_backup_last_verified_timestamp_seconds",
            "When the newest backup that was read back had been finished",
            ["namespace", "policy"],
            registry=r,
        )

    def forget(self, key: ObjectKey) -> None:
        """Drop the series of an object that is gone."""
        self.conditions.forget(key)
        if key.kind == "PostgresTarget":
            self.lag.remove_by_labels({"namespace": key.namespace, "target": key.name})
        if key.kind == "PostgresBackupPolicy":
            self.last_verified.remove_by_labels({"namespace": key.namespace, "policy": key.name})


METRICS = Metrics()
