"""What is kept of a target while something is still to be undone on its server: the Secrets that were read for it.

Users are often deleted together with their target and its Secret, as with their namespace. What they made on the server
is undone all the same, with what is in the memory of this process and is nowhere else written down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

from pgtend.kube.client import ApiError
from pgtend.kube.secrets import SecretData, Secrets


class Kept:
    """Reads what was kept, and nothing else."""

    def __init__(self, found: Mapping[tuple[str, str], SecretData]) -> None:
        self._found = dict(found)

    async def get(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None:
        return self._found.get((namespace, name))


class Keeping:
    """Reads as always, and keeps what it finds as long as it is `wanted`; asked with every read, so that passwords do
    not outlive their purpose. Once its target is being deleted, what was kept stands in for a Secret that is gone."""

    def __init__(self, secrets: Secrets, *, wanted: Callable[[], bool]) -> None:
        self._secrets, self._wanted = secrets, wanted
        self._found: dict[tuple[str, str], SecretData] = {}
        self._stands_in = False

    def stand_in(self) -> None:
        self._stands_in = True

    async def get(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None:
        found = await self._secrets.get(namespace, name, fresh=fresh)
        if not self._wanted():
            self._found.clear()
        elif found is not None:
            self._found[namespace, name] = found
        return self._found.get((namespace, name)) if found is None and self._stands_in else found

    async def complete(self, namespace: str, names: Iterable[str]) -> None:
        """Read those of these Secrets that nobody has read while they were wanted."""
        for name in names:
            if (namespace, name) not in self._found:
                with contextlib.suppress(ApiError):  # whoever needs it says so
                    await self.get(namespace, name)

    def kept(self, namespace: str, names: Iterable[str]) -> Kept | None:
        """What was kept, where these are all there."""
        there = all((namespace, name) in self._found for name in names)
        return Kept(self._found) if there and self._wanted() else None
