"""The brake: one key in one ConfigMap pauses every write of this installation within five seconds.

`kubectl -n pgtend create configmap pgtend-brake --from-literal=paused=true`; deleting it goes on. While it cannot be
read for ten seconds it counts as on: a write that nobody could stop is not started.
"""

from __future__ import annotations

import asyncio
import logging

from pgtend.core.clock import Clock
from pgtend.kube.client import CONFIG_MAPS, ApiError, KubeClient, NotFound

log = logging.getLogger(__name__)
NAME = "pgtend-brake"
EVERY = 2.0
BLIND = 10.0


class Brake:
    def __init__(self, *, client: KubeClient, namespace: str, clock: Clock) -> None:
        self._client, self._namespace, self._clock = client, namespace, clock
        self._on = True
        self._read_at: float | None = None

    def on(self) -> bool:
        blind = self._read_at is None or self._clock.monotonic() - self._read_at > BLIND
        return self._on or blind

    async def read(self) -> None:
        """Look once. A failure keeps what was known."""
        try:
            found = await self._client.get(CONFIG_MAPS, self._namespace, NAME)
            on = (found.get("data") or {}).get("paused", "").lower() == "true"
        except NotFound:
            on = False
        except ApiError as error:
            log.warning("brake not read", extra={"cause": str(error)})
            return
        if on != self._on:
            log.info("brake", extra={"on": on})
        self._on, self._read_at = on, self._clock.monotonic()

    async def run(self) -> None:
        """Look every two seconds, for ever."""
        while True:
            await asyncio.sleep(EVERY)
            await self.read()
