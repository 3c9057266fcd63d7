"""Durations, sizes, percentages and names as users spell them, parsed once and carried as values."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


class _Text(str):
    """A string with a grammar. Subclasses give `pattern`, `max_length` and the parsed value."""

    pattern: ClassVar[str]
    max_length: ClassVar[int] = 32
    expects: ClassVar[str]

    def __new__(cls, value: str) -> Self:
        if len(value) > cls.max_length or not re.fullmatch(cls.pattern, value) or not cls.check(value):
            raise ValueError(f"{value!r} is no {cls.__name__.lower()}: write {cls.expects}")
        return super().__new__(cls, value)

    @classmethod
    def check(cls, value: str) -> bool:
        """What the grammar cannot say, and the API server therefore does not refuse."""
        return True

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(strict=True), serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^{cls.pattern}$", "maxLength": cls.max_length, "x-type": cls.__name__}


_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


def _milliseconds(text: str) -> int:
    return sum(int(n) * _UNITS[u] for n, u in re.findall(r"([0-9]+)(d|h|ms|m|s)", text))


class Duration(_Text):
    """A span of time such as `1h30m`, `45s`, `250ms` or `30d`."""

    pattern = r"([0-9]{1,9}(d|h|ms|m|s)){1,5}"
    expects = "numbers with the units d, h, m, s, ms, as in 1h30m, at most 36500d"

    @classmethod
    def check(cls, value: str) -> bool:
        # A century: a moment less a duration must still be one that a datetime can hold.
        return _milliseconds(value) <= 36_500 * _UNITS["d"]

    @property
    def timedelta(self) -> timedelta:
        return timedelta(milliseconds=_milliseconds(self))

    @property
    def seconds(self) -> float:
        return self.timedelta.total_seconds()


def format_duration(value: timedelta | float) -> str:
    """The two largest units of a span (seconds where a number): `1h30m`, `94s`, `<1s` below one second, `0s`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        return "<1s"
    total = int(seconds)
    if total < 120:
        return f"{total}s"
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        if total >= size:
            parts.append(f"{total // size}{unit}")
            total %= size
        elif parts:
            break
        if len(parts) == 2:
            break
    return "".join(parts)


_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50}
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}


class Quantity(_Text):
    """A size in bytes such as `8Gi`, `500M` or `0`."""

    pattern = r"[0-9]{1,15}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?"
    expects = "a Kubernetes quantity, as in 8Gi or 500M"

    @property
    def bytes(self) -> int:
        """Exact, and rounded up to a whole byte, as Kubernetes does."""
        match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", self)
        assert match is not None  # noqa: S101 - __new__ has checked the grammar
        unit = match.group(2)
        return math.ceil(Fraction(match.group(1)) * (_BINARY.get(unit) or _DECIMAL[unit]))


def format_bytes(value: int) -> str:
    """Bytes in the largest binary unit that gives a whole number of at least one: `212Mi`, `0`."""
    for unit in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        if value >= _BINARY[unit]:
            return f"{value // _BINARY[unit]}{unit}"
    return str(value)


class Percentage(_Text):
    """A share such as `80%`; above 100% where it is relative to a baseline."""

    pattern = r"[0-9]{1,4}%"
    max_length = 5
    expects = "a whole number with a percent sign, as in 80%"

    @property
    def fraction(self) -> float:
        return int(self[:-1]) / 100


class TimeOfDay(_Text):
    """A quoted time of day, `"02:00"`."""

    pattern = r"([01][0-9]|2[0-3]):[0-5][0-9]"
    max_length = 5
    expects = 'a quoted time such as "02:00"'

    @property
    def hour_minute(self) -> tuple[int, int]:
        return int(self[:2]), int(self[3:])


class Timestamp(_Text):
    """A moment in RFC 3339, UTC or with an offset."""

    pattern = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
    max_length = 40
    expects = "a moment in RFC 3339, as in 2026-11-22T15:00:00Z"

    @classmethod
    def check(cls, value: str) -> bool:
        try:
            datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            return False
        return True

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "format": "date-time", "maxLength": cls.max_length, "x-type": cls.__name__}


# A key of a list whose items have an identity, a DNS label.
ItemName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
# The name of a Kubernetes object.
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
# A namespace.
NamespaceName = ItemName
# A key of a Secret.
SecretKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
# A PostgreSQL identifier: at most 63 bytes, which CEL cannot count; the parser can.
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=63)]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9.:_]*[A-Za-z0-9])?$", max_length=253)]
