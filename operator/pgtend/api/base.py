"""The shape every kind shares, so that the CRD generator, the parser and the status writer agree by construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

GROUP = "pgtend.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "pgtend"
RECORDS_CATEGORY = "pgtend-records"


class ApiModel(BaseModel):
    """Base of every spec and status model: camelCase on the wire, snake_case in code, immutable, nothing unknown.

    `cel` are the CEL rules of this object as (rule, message); the generator writes them as x-kubernetes-validations.
    The parser of a model is made when the first object comes: kinds that nobody uses take no memory.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_enum_values=False,
        defer_build=True,
    )
    cel: ClassVar[tuple[tuple[str, str], ...]] = ()

    def to_wire(self) -> dict[str, Any]:
        """The JSON object as Kubernetes stores it: aliases, no absent values."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One additionalPrinterColumn of a CRD."""

    name: str
    json_path: str
    type: Literal["string", "integer", "date"] = "string"
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All that is needed to generate the CRD of a kind and to parse its objects.

    `conditions` are the condition types in the order in which they are read, without Ready, Reconciling and Stalled.
    """

    name: str
    plural: str
    short: str
    spec: type[ApiModel]
    status: type[ApiModel]
    reasons: type[Any]
    columns: tuple[Column, ...]
    conditions: tuple[str, ...]
    category: str = CATEGORY
    selectable: tuple[str, ...] = ()
    """jsonPaths that field selectors may use."""
    description: str = ""
    name_max_length: int | None = None
    """Where names of children derive from the object's own name."""
    extra_cel: tuple[tuple[str, str], ...] = field(default=())
    never: frozenset[Any] = frozenset()
    """Reasons of an enum that several kinds share, which this one does not give."""

    @property
    def own_reasons(self) -> tuple[Any, ...]:
        return tuple(reason for reason in self.reasons if reason not in self.never)

    @property
    def singular(self) -> str:
        return self.name.lower()


def parse_spec(kind: Kind, body: Mapping[str, Any]) -> ApiModel:
    """Parse the `spec` of an object. Raises pydantic.ValidationError with the path of each wrong field.

    A field that is unknown here is ignored: the API server lets none through that is not in the CRD, so the CRD is of a
    newer version. During an upgrade it comes first, and the operator that still leads must go on as it was.
    """
    return kind.spec.model_validate(body.get("spec") or {}, extra="ignore")
