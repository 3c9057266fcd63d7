"""Secrets are got by name, when they are needed, and never listed or watched; a short cache spares the API."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Protocol

from pgtend.core.clock import Clock
from pgtend.core.redaction import Sensitive
from pgtend.kube.client import SECRETS, KubeClient, NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretData:
    """The decoded text values of a Secret, its version, and its annotations for ownership."""

    name: str
    resource_version: str
    values: dict[str, Sensitive]
    annotations: dict[str, str]


class Secrets(Protocol):
    """Where values are read from: None for a Secret that does not exist."""

    async def get(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None: ...


class SecretReader:
    """`get` returns None for a Secret that does not exist. What is cached lives `ttl` seconds; what is only ever read
    `fresh`, as those of users are, is not cached at all."""

    def __init__(self, *, client: KubeClient, clock: Clock, ttl: float = 60.0) -> None:
        self._client, self._clock, self._ttl = client, clock, ttl
        self._cache: dict[tuple[str, str], tuple[float, SecretData | None]] = {}

    async def get(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None:
        now = self._clock.monotonic()
        cached = self._cache.get((namespace, name))
        if cached is not None and not fresh and now - cached[0] < self._ttl:
            return cached[1]
        try:
            body = await self._client.get(SECRETS, namespace, name)
        except NotFound:
            found = None
        else:
            found = SecretData(
                name=name,
                resource_version=body["metadata"]["resourceVersion"],
                values=_decode(body.get("data") or {}),
                annotations=dict(body["metadata"].get("annotations") or {}),
            )
        # what nobody has asked for lately must not stay in memory: these are passwords
        self._cache = {k: entry for k, entry in self._cache.items() if now - entry[0] < self._ttl}
        if not fresh or cached is not None:
            self._cache[(namespace, name)] = (now, found)
        return found

    def forget(self, namespace: str, name: str | None = None) -> None:
        """Read it anew next time: one Secret, or all of a namespace."""
        for key in [k for k in self._cache if k[0] == namespace and name in (None, k[1])]:
            del self._cache[key]


def _decode(data: dict[str, str]) -> dict[str, Sensitive]:
    values = {}
    for key, encoded in data.items():
        try:
            values[key] = Sensitive(base64.b64decode(encoded, validate=True).decode())
        except (binascii.Error, UnicodeDecodeError):
            continue  # binary values (keystores) are none of ours
    return values
