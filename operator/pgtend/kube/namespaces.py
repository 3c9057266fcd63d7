"""The labels of namespaces, by which a target's consent may select.

Where all namespaces are watched for pgtend's objects they are watched themselves, so that a label's change is seen at
once and costs nothing in between. Else a namespace is asked for by its name where it matters; and where that is not
allowed either, as in namespaced mode, nothing is known of it and no selector fits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from pgtend.core.clock import Clock
from pgtend.kube.client import NAMESPACES, Forbidden, KubeClient, NotFound

log = logging.getLogger(__name__)
RECENT = 2.0
"""Seconds: a batch of objects asks once."""
Labels = Mapping[str, str]


class NamespaceLabels:
    """`changed` is called with the name of a namespace whose labels are others than before."""

    def __init__(self, *, client: KubeClient, clock: Clock, changed: Callable[[str], None]) -> None:
        self._client, self._clock, self._changed = client, clock, changed
        self._told: dict[str, Labels] = {}
        self._asked: dict[str, tuple[float, Labels | None]] = {}

    async def of(self, namespace: str) -> Labels | None:
        """None where they may not be read, or there is no such namespace. Raises ApiError where nobody can tell."""
        if (told := self._told.get(namespace)) is not None:
            return told
        now = self._clock.monotonic()
        known = self._asked.get(namespace)
        if known is None or now - known[0] >= RECENT:
            try:
                known = (now, _labels(await self._client.get(NAMESPACES, None, namespace)))
            except (Forbidden, NotFound):
                known = (now, None)
            self._asked[namespace] = known
        return known[1]

    async def see(self) -> None:
        """All of them once, before anything is judged by them. Raises ApiError."""
        async for body in self._client.list(NAMESPACES):
            self.take(None, body)

    def take(self, type_: str | None, body: Mapping[str, Any]) -> None:
        """One event of the watch. Never raises."""
        try:
            name = str(body["metadata"]["name"])
            if type_ == "DELETED":
                self._told.pop(name, None)
                self._asked.pop(name, None)
                return
            known = name in self._told or name in self._asked
            before = self._told.get(name, self._asked.get(name, (0.0, None))[1])
            self._told[name] = now = _labels(body)
            if known and before != now:
                self._changed(name)
        except Exception:
            log.exception("event of a namespace not understood")


def _labels(body: Mapping[str, Any]) -> Labels:
    return dict(body["metadata"].get("labels") or {})
