"""Who depends on what, so that a change of a target wakes its users and nobody polls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from pgtend.core.findings import ObjectKey

ANY = "*"
"""In place of a name: whatever is in the namespace, now or later. No object is called so."""


class Dependents:
    """A map in both directions; `set` replaces what a key depended on before."""

    def __init__(self) -> None:
        self._on: dict[ObjectKey, frozenset[ObjectKey]] = {}
        self._of: defaultdict[ObjectKey, set[ObjectKey]] = defaultdict(set)

    def set(self, key: ObjectKey, depends_on: Iterable[ObjectKey]) -> None:
        new = _once(frozenset(depends_on))
        for gone in self._on.get(key, frozenset()) - new:
            self._of[gone].discard(key)
            if not self._of[gone]:
                del self._of[gone]
        for added in new:
            self._of[added].add(key)
        if new:
            self._on[key] = new
        else:
            self._on.pop(key, None)

    def drop(self, key: ObjectKey) -> None:
        self.set(key, ())

    def on(self, key: ObjectKey) -> frozenset[ObjectKey]:
        """What the key depends on."""
        return self._on.get(key, frozenset())

    def of(self, key: ObjectKey) -> tuple[ObjectKey, ...]:
        return tuple(sorted(self._of.get(key, ())))


@lru_cache(maxsize=1024)
def _once(keys: frozenset[ObjectKey]) -> frozenset[ObjectKey]:
    """A thousand users of one target depend on the same."""
    return keys
