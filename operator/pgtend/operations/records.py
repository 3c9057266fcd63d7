"""The items that a status has no room for: in a ConfigMap beside the operation, owned by it and immutable.

One is written with the claim, so that after a crash the next leader knows all that was planned and what finds it again;
another at the end, with what came of each. So the operator needs no right to change anybody's ConfigMap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pgtend.api.base import API_VERSION
from pgtend.api.postgresoperation import ItemStatus
from pgtend.api.reasons import OperationReason as R
from pgtend.core.errors import PgtendError
from pgtend.core.journal import Claimed
from pgtend.kube.client import CONFIG_MAPS, AlreadyExists, KubeClient, NotFound
from pgtend.kube.index import Record

KEY = "items.json"
LIMIT = 900_000
"""Bytes: a ConfigMap holds a MiB."""


class ItemRecords:
    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def keep(
        self, record: Record, suffix: str, rows: Sequence[ItemStatus], facts: Mapping[str, Mapping[str, str]]
    ) -> str:
        """Write all rows, with what finds each again; the ConfigMap's name. One that is there already is the same,
        written before a crash. Raises ApiError, and PgtendError where it is somebody else's."""
        name = f"{record.key.name[:200]}-{suffix}"
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": record.key.namespace,
                "labels": {"app.kubernetes.io/managed-by": "pgtend"},
                "ownerReferences": [
                    {"apiVersion": API_VERSION, "kind": record.key.kind, "name": record.key.name, "uid": record.uid}
                ],
            },
            "immutable": True,
            "data": {KEY: _encode(rows, facts)},
        }
        try:
            await self._client.create(CONFIG_MAPS, record.key.namespace, body)
        except AlreadyExists:
            found = await self._client.get(CONFIG_MAPS, record.key.namespace, name)
            if not _ours(found, record):
                text = f"ConfigMap {name} is not this operation's: remove it, or give the operation another name"
                raise PgtendError(R.CONFIG_MAP_NOT_OWNED, text, object=name) from None
        return name

    async def read(self, record: Record, name: str) -> tuple[tuple[ItemStatus, ...], tuple[Claimed, ...]] | None:
        """All rows and what finds each again; None where it is gone or not ours. Raises ApiError."""
        try:
            found = await self._client.get(CONFIG_MAPS, record.key.namespace, name)
        except NotFound:
            return None
        if not _ours(found, record):
            return None
        entries = json.loads((found.get("data") or {}).get(KEY, "[]"))
        rows = tuple(
            ItemStatus.model_validate({key: value for key, value in entry.items() if key != "facts"})
            for entry in entries
        )
        claimed = tuple(Claimed(object=entry["object"], facts=entry.get("facts") or {}) for entry in entries)
        return rows, claimed


def _ours(found: Mapping[str, Any], record: Record) -> bool:
    owners = found.get("metadata", {}).get("ownerReferences") or ()
    return any(owner.get("uid") == record.uid for owner in owners)


def _encode(rows: Sequence[ItemStatus], facts: Mapping[str, Mapping[str, str]]) -> str:
    """One item a line. What is longest and least missed goes first where all of it would be too much."""
    for left_out in ((), ("sql",), ("sql", "message")):
        entries = [
            {key: value for key, value in row.to_wire().items() if key not in left_out}
            | ({"facts": dict(facts[row.object])} if row.object in facts else {})
            for row in rows
        ]
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in entries)
        if len(lines.encode()) <= LIMIT:
            break
    return f"[\n{lines}\n]\n"
