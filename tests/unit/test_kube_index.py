"""What the index keeps of an object."""

from __future__ import annotations

import json
from typing import Any

from pgtend.api.kinds import KINDS
from pgtend.kube.index import record_of

TARGET = next(kind for kind in KINDS if kind.name == "PostgresTarget")


def body(name: str, status: dict[str, Any]) -> dict[str, Any]:
    """As it comes over the wire."""
    metadata = {
        "name": name,
        "namespace": "shop",
        "uid": name,
        "resourceVersion": "7",
        "creationTimestamp": "2026-11-22T15:00:00Z",
    }
    return dict(json.loads(json.dumps({"metadata": metadata, "spec": {}, "status": status})))


def test_a_status_is_kept_as_it_is() -> None:
    status = {
        "conditions": [{"type": "Ready", "status": "True", "reason": "InForce", "message": "erreicht, *ü*"}],
        "members": [{"name": "a", "timeline": 3, "lag": None, "writable": True, "roles": ["primary", "leader"]}],
        "figures": {"load": 0.5},
    }
    one, other = (record_of(TARGET, body(name, status)) for name in ("one", "other"))
    assert one.status == other.status == status
    assert dict(one.status.items()) == {**other.status} == status
    assert (list(one.status), len(one.status)) == (list(status), 3)
    assert (one.reason("Ready"), one.reason("Absent")) == ("InForce", "")
    assert record_of(TARGET, {**body("new", {}), "status": None}).status == {}
