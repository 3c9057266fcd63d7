"""Kubernetes Events on transitions: at most one per status write, rate-limited per object, never a reason to fail."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from pgtend.api.base import API_VERSION
from pgtend.core.clock import Clock, rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.core.names import short_hash
from pgtend.kube.client import EVENTS, ApiError, KubeClient
from pgtend.kube.index import Record

log = logging.getLogger(__name__)
BURST = 10
REFILL_SECONDS = 300.0
# objects to remember before those whose bucket is full again are forgotten
MOST = 4096
# the API counts bytes
NOTE_BYTES = 1024


class EventRecorder:
    """A token bucket per object (10, one more every 5 minutes), as client-go's spam filter does it."""

    def __init__(self, *, client: KubeClient, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._buckets: dict[ObjectKey, tuple[float, float]] = {}
        self._instance = os.environ.get("HOSTNAME", "pgtend")[:128]

    async def transition(self, record: Record, *, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Tell of the change of the worst condition between two statuses, if there is one."""
        old, new = before.get("worst") or {}, after.get("worst") or {}
        if (old.get("condition"), old.get("reason"), old.get("object")) == (
            new.get("condition"),
            new.get("reason"),
            new.get("object"),
        ):
            return
        condition = next((c for c in after["conditions"] if c["type"] == new["condition"]), None)
        if condition is None:
            return
        well = condition["status"] == "True"
        await self.say(record, reason=new["reason"], note=condition.get("message", ""), warning=not well)

    async def say(self, record: Record, *, reason: str, note: str, warning: bool, action: str = "Reconcile") -> None:
        if not self._admit(record.key):
            return
        now = self._clock.now()
        stamp = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{record.key.name[:200].rstrip('.-')}.{short_hash(record.uid + reason + stamp)}",
                "namespace": record.key.namespace,
            },
            "eventTime": stamp,
            "reportingController": "pgtend.dev/operator",
            "reportingInstance": self._instance,
            "action": action,
            "reason": reason,
            "note": note.encode()[:NOTE_BYTES].decode(errors="ignore"),
            "type": "Warning" if warning else "Normal",
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": record.key.kind,
                "namespace": record.key.namespace,
                "name": record.key.name,
                "uid": record.uid,
            },
        }
        try:
            await self._client.create(EVENTS, record.key.namespace, body)
        except ApiError as error:
            log.warning("no event", extra={"object": str(record.key), "cause": str(error), "at": rfc3339(now)})

    def _admit(self, key: ObjectKey) -> bool:
        now = self._clock.monotonic()
        tokens, at = self._buckets.get(key, (float(BURST), now))
        tokens = min(float(BURST), tokens + (now - at) / REFILL_SECONDS)
        admitted = tokens >= 1
        # a refusal costs nothing, else an object that flaps faster than the bucket fills is never heard of again
        self._buckets[key] = (tokens - 1 if admitted else tokens, now)
        if len(self._buckets) > MOST:
            full = now - BURST * REFILL_SECONDS
            self._buckets = {k: bucket for k, bucket in self._buckets.items() if bucket[1] > full}
        return admitted
