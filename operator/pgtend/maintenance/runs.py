"""A MaintenanceRun as an object: how it is written when there is a plan, and what its status says of items."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from pgtend.api.base import API_VERSION, GROUP, VERSION
from pgtend.api.maintenancerun import (
    MAINTENANCE_RUN,
    CountsStatus,
    ResumeStatus,
    RunItemStatus,
    RunJournalStatus,
    RunStatus,
)
from pgtend.api.postgresoperation import ClaimedStatus, SizeStatus
from pgtend.api.types import Timestamp, format_bytes, format_duration
from pgtend.core.clock import rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.gate.classes import TaskType
from pgtend.kube.client import CONFIG_MAPS, AlreadyExists, KubeClient, Resource
from pgtend.kube.index import Record
from pgtend.maintenance.plan import Slot
from pgtend.maintenance.score import Key
from pgtend.tasks.protocol import Item, ItemResult, Outcome, TaskPlan, outcome_of
from pgtend.tasks.registry import type_of
from pgtend.tasks.room import fitted, room

RESOURCE = Resource(GROUP, VERSION, MAINTENANCE_RUN.plural)
WINDOW_LABEL, TARGET_LABEL = "pgtend.dev/window", "pgtend.dev/target"
MOST_STORED = 4000
"""Items in the ConfigMap: a ConfigMap holds one MiB."""
Results = Mapping[Key, ItemResult]


def key_of(item: Item) -> Key:
    return Key(str(item.type), item.object)


def combined_hash(plans: Iterable[TaskPlan]) -> str:
    """Of a run's plans, in order."""
    text = json.dumps([plan.plan_hash for plan in plans])
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def body(*, name: str, window: ObjectKey, target: ObjectKey, slot: Slot, plan_hash: str) -> dict[str, Any]:
    """The object, in the target's namespace. It has no owner: a record outlives its window."""
    ref = {"name": window.name}
    if window.namespace != target.namespace:
        ref["namespace"] = window.namespace
    return {
        "apiVersion": API_VERSION,
        "kind": MAINTENANCE_RUN.name,
        "metadata": {
            "name": name,
            "namespace": target.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "pgtend",
                WINDOW_LABEL: window.name,
                **({TARGET_LABEL: target.name} if len(target.name) <= 63 else {}),
            },
        },
        "spec": {
            "windowRef": ref,
            "targetRef": {"name": target.name},
            "startsAt": rfc3339(slot.starts_at),
            "endsAt": rfc3339(slot.ends_at),
            "planHash": plan_hash,
        },
    }


def counts_of(items: Sequence[Item], results: Results) -> CountsStatus:
    groups = [results[key_of(item)].outcome.group for item in items if key_of(item) in results]
    return CountsStatus(
        succeeded=groups.count("succeeded"),
        deferred=groups.count("deferred"),
        cancelled=groups.count("cancelled"),
        failed=groups.count("failed"),
    )


def status_of(
    *,
    mark: str,
    items: Sequence[Item],
    results: Results,
    started_at: datetime | None = None,
    finished_at: datetime | None = None,
    claimed_by: str | None = None,
    deadline: datetime | None = None,
    claimed: Sequence[Item] = (),
    last_done: Key | None = None,
    resume: Key | None = None,
    config_map: str | None = None,
) -> RunStatus:
    """The whole status but its conditions. `claimed` are the items that may be under way."""
    counts = counts_of(items, results)
    return RunStatus(
        progress=f"{counts.succeeded}/{len(items)}",
        counts=counts if started_at is not None else None,
        started_at=stamp(started_at),
        finished_at=stamp(finished_at),
        resume_from=ResumeStatus(type=resume.type, object=resume.object[:256]) if resume is not None else None,
        items=fitted([_item(item, results.get(key_of(item))) for item in _shown(items, results)]),
        truncated=True if len(items) > room(items) else None,
        items_config_map=config_map,
        journal=RunJournalStatus(
            mark=mark,
            claimed_at=stamp(started_at),
            claimed_by=claimed_by,
            deadline=stamp(deadline),
            resume_from=f"{last_done.type} {last_done.object}"[:256] if last_done is not None else None,
            unfinished=tuple(_claimed(item) for item in claimed[: room(claimed)]) if finished_at is None else (),
        ),
    )


def _claimed(item: Item) -> ClaimedStatus:
    """What finds an item's leftovers again after a crash."""
    place = {"type": str(item.type), "database": item.database, "schema": item.schema, "name": item.name}
    facts = {**{name: text for name, text in place.items() if text}, **item.facts}
    kept = {name: text[:128] for name, text in list(facts.items())[:8]}
    return ClaimedStatus(object=item.object[:256], facts=kept)


def claimed_items(status: Mapping[str, Any]) -> tuple[Item, ...]:
    """The items that an earlier process had under way, as far as its status tells."""
    found = []
    for entry in (status.get("journal") or {}).get("unfinished") or ():
        facts = dict(entry.get("facts") or {})
        word = facts.pop("type", "")
        if word not in set(map(str, TaskType)):
            continue
        found.append(
            Item(
                type=type_of(word),
                object=str(entry.get("object")),
                verb="",
                sql="",
                database=facts.get("database"),
                schema=facts.get("schema"),
                name=facts.get("name"),
                facts=facts,
            )
        )
    return tuple(found)


def kept_results(status: Mapping[str, Any]) -> dict[Key, ItemResult]:
    """What a status of our own says of items that are done."""
    found = {}
    for row in status.get("items") or ():
        outcome = outcome_of(str(row.get("outcome")))
        if outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
            key = Key(str(row["type"]), str(row["object"]))
            found[key] = ItemResult(
                outcome=outcome, sql_state=row.get("sqlState"), message=str(row.get("message") or "")
            )
    return found


def last_done(status: Mapping[str, Any]) -> Key | None:
    word, _, name = str((status.get("journal") or {}).get("resumeFrom") or "").partition(" ")
    return Key(word, name) if name else None


def resume_of(status: Mapping[str, Any]) -> Key | None:
    found = status.get("resumeFrom")
    return Key(str(found["type"]), str(found["object"])) if isinstance(found, Mapping) else None


def _shown(items: Sequence[Item], results: Results) -> Sequence[Item]:
    """What there is room for: what failed first, then in the order of the run."""
    if len(items) <= room(items):
        return items
    failed = {key for key, result in results.items() if result.outcome.group == "failed"}
    listed = sorted(items, key=lambda item: key_of(item) not in failed)
    return listed[: room(listed)]


def _item(item: Item, result: ItemResult | None) -> RunItemStatus:
    known = result.size_before if result is not None and result.size_before is not None else item.size_before
    before = format_bytes(known) if known is not None else None
    after = format_bytes(result.size_after) if result is not None and result.size_after is not None else None
    return RunItemStatus(
        type=str(item.type),
        object=item.object[:256],
        outcome=str(result.outcome if result is not None else Outcome.PLANNED),
        sql=item.sql[:256] or None,
        sql_state=result.sql_state if result is not None else None,
        estimate=format_duration(item.estimate) if item.estimate is not None else None,
        actual=format_duration(result.actual) if result is not None and result.actual > 0 else None,
        size=SizeStatus(before=before, after=after) if before or after else None,
        message=result.message[:256] if result is not None and result.message else None,
    )


async def store_items(client: KubeClient, record: Record, items: Sequence[Item], results: Results) -> str:
    """All items of a run in a ConfigMap that goes with it; its name. Raises ApiError."""
    name = f"{record.key.name}-items"
    rows = [_item(item, results.get(key_of(item))).to_wire() for item in items[:MOST_STORED]]
    lines = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows) + "\n]\n"
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": record.key.namespace,
            "labels": {"app.kubernetes.io/managed-by": "pgtend"},
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": MAINTENANCE_RUN.name,
                    "name": record.key.name,
                    "uid": record.uid,
                }
            ],
        },
        "data": {"items.json": lines},
    }
    with suppress(AlreadyExists):  # written by a process that was killed before it could say so
        await client.create(CONFIG_MAPS, record.key.namespace, content)
    return name


def stamp(moment: datetime | None) -> Timestamp | None:
    return Timestamp(rfc3339(moment)) if moment is not None else None
