"""The targets of a window: whom it names or selects, who of them admits it, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from pgtend.api.maintenancewindow import WindowSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import WindowReason as W
from pgtend.core.findings import ObjectKey
from pgtend.engine.dependents import ANY, Dependents
from pgtend.kube.index import Index
from pgtend.maintenance.admission import refusal
from pgtend.maintenance.judge import Trouble
from pgtend.server.consent import Requester

Labels = Callable[[str], Awaitable[Mapping[str, str] | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """`matched` is how many there are; `refused` says of each that does not admit the window why."""

    matched: int
    admitted: Mapping[ObjectKey, TargetSpec]
    refused: Mapping[ObjectKey, str]
    troubles: tuple[Trouble, ...]


class Targets:
    """`labels_of` gives the labels of a namespace (None where they may not be read); `watched` are the namespaces that
    this installation sees, empty for all."""

    def __init__(self, *, index: Index, dependents: Dependents, labels_of: Labels, watched: Collection[str]) -> None:
        self._index, self._dependents, self._labels_of, self._watched = index, dependents, labels_of, watched

    async def serve(self, key: ObjectKey, spec: WindowSpec) -> Served:
        """Whom the window names or selects, and who of them admits it."""
        wanted = self._named(key, spec)
        troubles: list[Trouble] = []
        admitted: dict[ObjectKey, TargetSpec] = {}
        refused: dict[ObjectKey, str] = {}
        words = [task.type for task in spec.tasks]
        for target in wanted:
            found = self._index.get(target)
            if found is None or found.deleting:
                hint = "create it, or correct the reference"
                if self._watched and target.namespace not in self._watched:
                    hint = f"namespace {target.namespace} is not watched by this installation"
                text = f"PostgresTarget {target} does not exist: {hint}"
                troubles.append(Trouble(reason=W.TARGET_NOT_FOUND, message=text, object=target.name))
                continue
            if found.spec_error is not None:
                text = f"the spec of target {target} does not parse: {found.spec_error}"
                troubles.append(Trouble(reason=W.TARGET_NOT_READY, message=text, object=target.name))
                continue
            target_spec = found.parsed(TargetSpec)
            selecting = any(entry.namespaces.selector is not None for entry in target_spec.access)
            labels = await self._labels_of(key.namespace) if selecting else None
            requester = Requester(namespace=key.namespace, labels=labels)
            no = refusal(words=words, target=target, target_spec=target_spec, requester=requester)
            if no is not None:
                refused[target] = no.message
                troubles.append(no)
                continue
            admitted[target] = target_spec
        if not wanted:
            text = f"targetSelector fits no PostgresTarget of namespace {key.namespace}: label one, or correct it"
            troubles.append(Trouble(reason=W.NO_TARGETS, message=text))
        return Served(matched=len(wanted), admitted=admitted, refused=refused, troubles=tuple(troubles))

    def _named(self, key: ObjectKey, spec: WindowSpec) -> list[ObjectKey]:
        if spec.target_refs is not None:
            named = [ObjectKey("PostgresTarget", r.namespace or key.namespace, r.name) for r in spec.target_refs]
            self._dependents.set(key, named)
            return list(dict.fromkeys(named))
        assert spec.target_selector is not None  # noqa: S101 - the model admits no third way
        labels = spec.target_selector.match_labels
        self._dependents.set(key, [ObjectKey("PostgresTarget", key.namespace, ANY)])
        return sorted(
            record.key
            for record in self._index.of_kind("PostgresTarget")
            if record.key.namespace == key.namespace
            and not record.deleting
            and all(record.labels.get(name) == value for name, value in labels.items())
        )
