"""The fields of a kind as flat rows: what the reference prints, the snapshot keeps and the ledger counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pgtend.api.base import Kind
from pgtend.codegen.crd import schema
from pgtend.codegen.schema import Node

_BOUNDS = (
    "format", "pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minItems", "maxItems", "minProperties", "maxProperties", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field. `path` begins with spec or status; `[]` follows a list, `.*` a map.

    `type` is what users read (Duration, `list of objects`), `wire` the JSON type. A leaf has no fields below it.
    """

    path: str
    type: str
    wire: str
    required: bool
    default: Any = None
    has_default: bool = False
    enum: tuple[Any, ...] = ()
    bounds: tuple[tuple[str, Any], ...] = ()
    description: str = ""
    leaf: bool = True

    @property
    def name(self) -> str:
        """The path without list marks, as a test spells it."""
        return self.path.replace("[]", "")


def rows(kind: Kind, part: str = "spec") -> list[Row]:
    """The fields of `spec` or `status`, parents before their children, in the order of the models."""
    root = schema(kind)["properties"][part]
    return list(_below(root, part))


def spec_leaves(kind: Kind) -> list[str]:
    """What the ledger wants a test for: every field of the spec that takes a value, as `Kind.spec.a.b`."""
    return [f"{kind.name}.{row.name}" for row in rows(kind) if row.leaf]


def reason_names(kind: Kind) -> list[str]:
    """Every reason of a kind, as `Kind.reason.Name`."""
    return [f"{kind.name}.reason.{reason}" for reason in kind.own_reasons]


def rules(kind: Kind) -> list[tuple[str, str]]:
    """(path, message) of every CEL rule."""
    return list(_rules(schema(kind), ""))


def _below(node: Node, path: str) -> Iterator[Row]:
    required = node.get("required", ())
    for name, child in node.get("properties", {}).items():
        yield from _field(child, f"{path}.{name}", required=name in required)


def _field(node: Node, path: str, *, required: bool) -> Iterator[Row]:
    inner, marks = _innermost(node)
    yield Row(
        path=path,
        type=_readable(node),
        wire=_wire(node),
        required=required,
        default=node.get("default"),
        has_default="default" in node,
        enum=tuple(inner.get("enum", ())),
        bounds=tuple((key, node[key]) for key in _BOUNDS if key in node),
        description=node.get("description", ""),
        leaf=not inner.get("properties"),
    )
    yield from _below(inner, path + marks)


def _innermost(node: Node) -> tuple[Node, str]:
    marks = ""
    while True:
        if node.get("type") == "array":
            node, marks = node["items"], f"{marks}[]"
        elif isinstance(node.get("additionalProperties"), dict):
            node, marks = node["additionalProperties"], f"{marks}.*"
        else:
            return node, marks


def _wire(node: Node) -> str:
    if node.get("type") == "array":
        return f"array of {_wire(node['items'])}"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map of {_wire(node['additionalProperties'])}"
    return "integer or string" if node.get("x-kubernetes-int-or-string") else str(node["type"])


def _readable(node: Node) -> str:
    if node.get("type") == "array":
        return f"list of {_readable(node['items'])}"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map of {_readable(node['additionalProperties'])}"
    return str(node.get("x-type") or _wire(node))


def _rules(node: Node, path: str) -> Iterator[tuple[str, str]]:
    for rule in node.get("x-kubernetes-validations", ()):
        yield path or "the object", rule["message"]
    for name, child in node.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}".removeprefix("."))
    if "items" in node:
        yield from _rules(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _rules(node["additionalProperties"], f"{path}.*")
