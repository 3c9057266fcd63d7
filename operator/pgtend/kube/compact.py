"""How much of an object stays in memory between two looks at it: a thousand of them are to cost a few megabytes.

Statuses are rarely read and unlike each other: they lie packed. Specs are read all the time and are made of the same
parts over and over, such as the grants on one database: each part is kept once.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from pgtend.api.base import ApiModel

M = TypeVar("M", bound=ApiModel)
WINDOW = 11
"""Bits of deflate's window: a status is smaller than 2 KiB or repeats itself sooner, and setting up a larger one takes
longer than the packing."""
UNPACKED = 32
"""How many are kept as they were read last: whoever looks at an object looks several times, and a batch works at a few
objects at a time."""


class Packed(Mapping[str, Any]):
    """A JSON object that takes a sixth of the memory; it is unpacked when somebody looks into it. What is in it belongs
    to everybody: nobody changes it."""

    __slots__ = ("_bytes",)

    def __init__(self, value: Mapping[str, Any]) -> None:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        packer = zlib.compressobj(1, zlib.DEFLATED, -WINDOW, 5)
        self._bytes = packer.compress(text.encode("utf-8", "surrogatepass")) + packer.flush()

    def __getitem__(self, name: str) -> Any:
        return _unpacked(self._bytes)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_unpacked(self._bytes))

    def __len__(self) -> int:
        return len(_unpacked(self._bytes))

    def __repr__(self) -> str:
        return f"Packed({_unpacked(self._bytes)!r})"


@lru_cache(maxsize=UNPACKED)
def _unpacked(packed: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(packed, -WINDOW).decode("utf-8", "surrogatepass"))
    return found


_parts: WeakValueDictionary[int, ApiModel] = WeakValueDictionary()


def once(model: M) -> M:
    """The same with every model in it kept once in the process, as long as somebody has it: they are immutable."""
    values = model.__dict__
    for name, value in values.items():
        if isinstance(value, ApiModel):
            values[name] = once(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], ApiModel):
            values[name] = tuple(once(item) for item in value)
    try:
        number = hash((type(model), *(_token(value) for value in values.values())))
    except TypeError:
        return model
    found = _parts.setdefault(number, model)
    # two that are different and have the same number by chance are both kept
    return found if isinstance(found, type(model)) and found == model else model


def _token(value: Any) -> Any:
    """A number for what was kept once already, and something to hash for everything else."""
    if isinstance(value, ApiModel):
        return id(value)
    if isinstance(value, tuple | list):
        return tuple(_token(item) for item in value)
    if isinstance(value, Mapping):
        return tuple((name, _token(item)) for name, item in value.items())
    return value
