"""Leader by Lease: 15 s long, renewed every 2 s, given up after 10 s without a renewal, on a clock that goes on while
the machine sleeps. Losing it ends the process: nothing half-led goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pgtend.core.clock import Clock
from pgtend.kube.client import LEASES, ApiError, Conflict, KubeClient, NotFound

log = logging.getLogger(__name__)
LEASE = "pgtend-leader"
"""Its name, in the operator's namespace."""
DURATION = 15
RENEW_WITHIN = 10.0
RETRY = 2.0
ATTEMPT = 4.0


class Elector:
    """`valid()` is what every write asks. `transitions` counts leaders so far, a fencing number for the journal."""

    def __init__(
        self, *, client: KubeClient, namespace: str, name: str, identity: str, clock: Clock, on_lost: Callable[[], None]
    ) -> None:
        self._client, self._namespace, self._name, self._me = client, namespace, name, identity
        self._clock, self._on_lost = clock, on_lost
        self._renewed: float | None = None
        self._seen: tuple[str, float] | None = None
        self._lost = False
        self.transitions = 0
        self.acquired = asyncio.Event()

    def valid(self) -> bool:
        """Whether this process led a moment ago and nobody can have taken over since."""
        return self._renewed is not None and self._clock.monotonic() - self._renewed < RENEW_WITHIN

    async def run(self) -> None:
        """Acquire, then renew for ever. Calls `on_lost` and returns once the Lease is lost."""
        while True:
            started = self._clock.monotonic()
            try:
                # an API server that does not answer must not keep us from noticing that our time is over
                async with asyncio.timeout(ATTEMPT):
                    held = await self._try()
            except (ApiError, TimeoutError) as error:
                held = False
                log.warning("lease not renewed", extra={"cause": str(error) or type(error).__name__})
            if held:
                self._renewed = started
                self.acquired.set()
            elif self._lost or (self._renewed is not None and not self.valid()):
                log.error("lease lost")
                self._renewed = None
                self._on_lost()
                return
            await asyncio.sleep(RETRY)

    async def release(self) -> None:
        """Let the next leader start at once. Call after all work has ended."""
        if self._renewed is None:
            return
        self._renewed = None
        try:
            lease = await self._client.get(LEASES, self._namespace, self._name)
            if lease["spec"].get("holderIdentity") == self._me:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.replace(LEASES, self._namespace, self._name, lease)
        except ApiError as error:
            log.warning("lease not released", extra={"cause": str(error)})

    async def _try(self) -> bool:
        now = _micro(self._clock.now())
        try:
            lease = await self._client.get(LEASES, self._namespace, self._name)
        except NotFound:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": self._spec({}, now, taken=True),
            }
            await self._client.create(LEASES, self._namespace, body)
            return True
        spec: dict[str, Any] = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._me) and not self._expired(spec):
            if self._renewed is not None:
                log.error("lease taken over", extra={"by": holder})
                self._renewed, self._lost = None, True
            return False
        if holder == self._me and self._renewed is None and not self._expired(spec):
            # an earlier process of the same name (a restarted container): it is gone, its Lease is ours
            log.info("taking up our own lease")
        lease["spec"] = self._spec(spec, now, taken=holder != self._me)
        try:
            await self._client.replace(LEASES, self._namespace, self._name, lease)
        except Conflict:
            return False
        self._seen = None
        return True

    def _expired(self, spec: dict[str, Any]) -> bool:
        """By our own clock since we last saw it change: the clocks of two machines are never compared."""
        stamp = str(spec.get("renewTime"))
        now = self._clock.monotonic()
        if self._seen is None or self._seen[0] != stamp:
            self._seen = (stamp, now)
            return False
        return now - self._seen[1] > float(spec.get("leaseDurationSeconds") or DURATION)

    def _spec(self, old: dict[str, Any], now: str, *, taken: bool) -> dict[str, Any]:
        self.transitions = int(old.get("leaseTransitions") or 0) + (1 if taken and old else 0)
        return {
            "holderIdentity": self._me,
            "leaseDurationSeconds": DURATION,
            "acquireTime": now if taken else old.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": self.transitions,
        }


def _micro(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
