"""What the watch has seen, parsed once: slim records by key. The hot path reads these and never asks the API."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from pgtend.api.base import ApiModel, Kind, parse_spec
from pgtend.core.clock import parse_rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.kube.compact import Packed, once

PREFIX = "pgtend.dev/"
M = TypeVar("M", bound=ApiModel)
NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One object. `spec` is None where it does not parse; then `spec_error` says which field is wrong and why."""

    key: ObjectKey
    uid: str
    generation: int
    resource_version: str
    created: datetime
    deleting: bool
    finalizers: tuple[str, ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owners: tuple[str, ...]
    spec: Any
    spec_error: str | None
    status: Mapping[str, Any]

    def parsed(self, model: type[M]) -> M:
        """The spec as the given model. Raises TypeError where it did not parse: look at spec_error first."""
        if not isinstance(self.spec, model):
            raise TypeError(f"{self.key} has no valid spec")
        return self.spec

    def reason(self, condition: str) -> str:
        """The reason of one condition of its status, empty where there is none."""
        found = next((c for c in self.status.get("conditions") or () if c["type"] == condition), None)
        return str(found["reason"]) if found is not None else ""


def record_of(kind: Kind, body: Mapping[str, Any]) -> Record:
    """Parse an object as the API gives it. A spec that does not parse is kept as an error, never raised."""
    meta = body["metadata"]
    spec: ApiModel | None = None
    error: str | None = None
    try:
        spec = once(parse_spec(kind, body))
    except ValidationError as problem:
        error = explain(problem)
    return Record(
        key=ObjectKey(kind.name, sys.intern(meta["namespace"]), meta["name"]),
        uid=meta["uid"],
        generation=meta.get("generation", 1),
        resource_version=meta["resourceVersion"],
        created=parse_rfc3339(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        finalizers=tuple(meta.get("finalizers") or ()),
        labels=dict(meta.get("labels") or {}) or NONE,
        annotations={k: v for k, v in (meta.get("annotations") or {}).items() if k.startswith(PREFIX)} or NONE,
        owners=tuple(o["uid"] for o in meta.get("ownerReferences") or ()),
        spec=spec,
        spec_error=error,
        status=Packed(body.get("status") or {}),
    )


def explain(problem: ValidationError) -> str:
    """The first three wrong fields as `spec.path: what is wrong`; values are not repeated, they may be anything."""
    lines = []
    for item in problem.errors(include_input=False, include_url=False)[:3]:
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in item["loc"])
        lines.append(f"spec{path}: {item['msg']}")
    more = problem.error_count() - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


class Index:
    """All records of all kinds that are watched."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[ObjectKey, Record]] = {}

    def get(self, key: ObjectKey) -> Record | None:
        return self._kinds.get(key.kind, {}).get(key)

    def put(self, record: Record) -> Record | None:
        """Keep this version; returns the one before."""
        kind = self._kinds.setdefault(record.key.kind, {})
        before = kind.get(record.key)
        kind[record.key] = record
        return before

    def drop(self, key: ObjectKey) -> Record | None:
        return self._kinds.get(key.kind, {}).pop(key, None)

    def of_kind(self, kind: str) -> Iterator[Record]:
        yield from tuple(self._kinds.get(kind, {}).values())
