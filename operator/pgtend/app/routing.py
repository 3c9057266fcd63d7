"""Which lock a key needs, and who else is due when an object changes."""

from __future__ import annotations

from pgtend.api.databaseuser import DATABASE_USER, UserSpec
from pgtend.api.maintenancewindow import MAINTENANCE_WINDOW
from pgtend.api.postgresoperation import POSTGRES_OPERATION
from pgtend.core.clock import Clock
from pgtend.core.findings import ObjectKey
from pgtend.engine.dependents import ANY, Dependents
from pgtend.engine.queue import WorkQueue
from pgtend.kube.index import Index
from pgtend.users.wanted import target_key

# the kinds of those who may ask something of a target of another namespace
ASKING = (DATABASE_USER, MAINTENANCE_WINDOW, POSTGRES_OPERATION)


class Routing:
    """The index of what is known, the queue of what is due, and the ways between them."""

    def __init__(self, *, clock: Clock) -> None:
        self.index = Index()
        self.dependents = Dependents()
        self.queue = WorkQueue(clock=clock, lane_of=self._lane_of)
        # of each target: the version of its spec that its dependents know of
        self._generations: dict[ObjectKey, tuple[int, tuple[tuple[str, str], ...]]] = {}

    def seen(self, key: ObjectKey) -> None:
        """What the watch has seen is due; a target's new spec (mode, access, credentials) concerns its dependents."""
        self.queue.add(key)
        if key.kind != "PostgresTarget":
            return
        record = self.index.get(key)
        if record is None:
            self._generations.pop(key, None)
            for dependent in self._dependents_of(key):
                if dependent.kind == "MaintenanceWindow":
                    self.queue.add(dependent)
            return
        # labels too: windows select by them
        version = (record.generation, tuple(sorted(record.labels.items())))
        if self._generations.get(key) != version:
            self._generations[key] = version
            self.wake_dependents(key)

    def relabelled(self, namespace: str) -> None:
        """A namespace has other labels: whether a target admits who asks from there is judged anew."""
        for kind in ASKING:
            for record in self.index.of_kind(kind.name):
                if record.key.namespace == namespace:
                    self.queue.add(record.key)

    def wake_dependents(self, key: ObjectKey) -> None:
        for dependent in self._dependents_of(key):
            self.queue.add(dependent)

    def _dependents_of(self, key: ObjectKey) -> tuple[ObjectKey, ...]:
        """Those who name it, and those who select among its namespace."""
        return (*self.dependents.of(key), *self.dependents.of(key._replace(name=ANY)))

    def _lane_of(self, key: ObjectKey) -> str:
        """The users of one target share its lane, so that they come in batches; a target's probe stands beside the
        work on it."""
        record = self.index.get(key) if key.kind == "DatabaseUser" else None
        if record is not None and isinstance(record.spec, UserSpec):
            return f"work/{target_key(key, record.spec)}"
        if key.kind == "DatabaseUser":
            # an object that is gone and left something behind
            for target in self.dependents.on(key):
                return f"work/{target}"
        return f"{key.kind}/{key}"
