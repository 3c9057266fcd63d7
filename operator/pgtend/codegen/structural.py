"""The rules of apiextensions.k8s.io/v1 that a schema must keep, so that a mistake shows in a unit test and not when
somebody applies the CRD. The CEL cost estimator is satisfied by bounds on everything: every node must have its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]

SIZE_LIMIT = 150 * 1024  # client-side apply keeps a copy in an annotation, and all annotations share 256 KiB

_ALLOWED = {
    "description", "type", "format", "enum", "default", "pattern", "minLength", "maxLength", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "minProperties", "maxProperties",
    "required", "properties", "additionalProperties", "items", "x-kubernetes-validations", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip
_SCALARS = ("string", "integer", "boolean")
_YAML_BOOLEANS = {"y", "n", "yes", "no", "on", "off"}
_LOOK_AROUND = re.compile(r"\(\?[=!<]|\\[1-9]")
_RESERVED = (
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return",
)  # fmt: skip
_RESERVED_USE = re.compile(r"\.(" + "|".join(_RESERVED) + r")\b(?!\()")


def problems(schema: Node) -> list[str]:
    """What is wrong with an openAPIV3Schema, as `path: cause`; empty where it will be accepted."""
    found = list(_node(schema, "", root=True))
    if (size := len(json.dumps(schema))) > SIZE_LIMIT:
        found.append(f"the schema has {size} bytes, more than {SIZE_LIMIT}")
    return found


def _node(node: Node, path: str, *, root: bool = False) -> Iterator[str]:
    here = path or "root"
    for key in sorted(node.keys() - _ALLOWED):
        yield f"{here}: {key} is not allowed in a structural schema"
    kind = node.get("type")
    if kind is None and not node.get("x-kubernetes-int-or-string"):
        yield f"{here}: has no type"
    elif kind == "number":
        yield f"{here}: no floating point numbers in an API; use an integer, a quantity or a percentage"
    elif kind not in (None, *_SCALARS, "array", "object"):
        yield f"{here}: type {kind!r} is unknown"
    if (kind == "string" or kind is None) and "maxLength" not in node and "enum" not in node:
        yield f"{here}: a string needs maxLength"
    if (pattern := node.get("pattern")) is not None:
        yield from _pattern(pattern, here)
    for rule in node.get("x-kubernetes-validations", ()):
        yield from _rule(rule, here)
        if isinstance(node.get("default"), dict):
            yield from _of_default(rule["rule"], node, here)
    if kind == "array":
        yield from _array(node, path)
    elif kind == "object":
        yield from _object(node, path, root=root)
    elif node.keys() & {"items", "properties", "additionalProperties"}:
        yield f"{here}: only arrays have items, only objects properties"


def _pattern(pattern: str, here: str) -> Iterator[str]:
    if _LOOK_AROUND.search(pattern):
        yield f"{here}: RE2 has neither look-around nor back-references"
    try:
        re.compile(pattern)
    except re.error as error:
        yield f"{here}: pattern does not compile: {error}"


def _rule(rule: Node, here: str) -> Iterator[str]:
    if not rule.get("rule") or not rule.get("message"):
        yield f"{here}: a CEL rule needs rule and message"
        return
    if "\n" in rule["message"]:
        yield f"{here}: the message of a CEL rule has one line"
    if "duration(self." in rule["rule"] and ".contains('d')" not in rule["rule"]:
        yield f"{here}: CEL knows no days; ask .contains('d') before duration()"
    code = re.sub(r"'[^']*'|\"[^\"]*\"", "''", rule["rule"])
    for word in _RESERVED_USE.findall(code):
        yield f"{here}: in CEL the field {word} is written __{word}__"


def _of_default(rule: str, node: Node, here: str) -> Iterator[str]:
    """The API server tries the rules on the default too, and refuses the CRD where one fails."""
    given = node["default"].keys() | {n for n, child in node.get("properties", {}).items() if "default" in child}
    for name in sorted(set(re.findall(r"\bself\.([A-Za-z_]\w*)", rule)) - given):
        if f"has(self.{name})" not in rule:
            yield f"{here}: its default has no {name}, so the rule must ask has(self.{name}) first"


def _array(node: Node, path: str) -> Iterator[str]:
    here, items = path or "root", node.get("items")
    if "maxItems" not in node:
        yield f"{here}: an array needs maxItems"
    if not isinstance(items, dict):
        yield f"{here}: an array needs items"
        return
    list_type = node.get("x-kubernetes-list-type")
    if list_type is None:
        yield f"{here}: an array needs x-kubernetes-list-type"
    if list_type == "set" and items.get("type") not in _SCALARS:
        yield f"{here}: only scalars make a set"
    if list_type == "map":
        fields = items.get("properties", {})
        for key in node.get("x-kubernetes-list-map-keys", ()):
            if fields.get(key, {}).get("type") not in _SCALARS:
                yield f"{here}: the map key {key} must be a scalar field of the items"
            elif key not in items.get("required", ()) and "default" not in fields[key]:
                yield f"{here}: the map key {key} must be required or have a default"
        if not node.get("x-kubernetes-list-map-keys"):
            yield f"{here}: a list map needs its keys"
    yield from _node(items, f"{path}[]")


def _object(node: Node, path: str, *, root: bool) -> Iterator[str]:
    here = path or "root"
    properties = node.get("properties", {})
    values = node.get("additionalProperties")
    if values is not None and properties:
        yield f"{here}: properties and additionalProperties exclude each other"
    if isinstance(values, bool):
        yield f"{here}: additionalProperties must be a schema"
    elif values is not None:
        if "maxProperties" not in node:
            yield f"{here}: a map needs maxProperties"
        yield from _node(values, f"{path}.*")
    for name in node.get("required", ()):
        if name not in properties:
            yield f"{here}: requires {name}, which it does not have"
    for name, child in properties.items():
        if name in _YAML_BOOLEANS:
            yield f"{here}: YAML 1.1 reads the name {name} as a boolean"
        if root and name in ("apiVersion", "kind"):
            continue
        if root and name == "metadata":
            if child != {"type": "object"}:
                yield "metadata: must be left as it is"
            continue
        yield from _node(child, f"{path}.{name}".removeprefix("."))
