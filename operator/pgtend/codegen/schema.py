"""From a pydantic model to the structural schema that Kubernetes wants: no references, a type on every node, bounds,
CEL rules, and defaults that mean on the server what they mean in the model.

The nodes carry `x-type` (the name of a value type such as Duration) for the reference pages; `strip` takes it away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pgtend.api.base import ApiModel
from pgtend.codegen.docstrings import attribute_docs, paragraph

Node = dict[str, Any]

_ORDER = (
    "description", "type", "format", "enum", "default", "pattern", "minLength", "maxLength", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "minProperties", "maxProperties",
    "required", "properties", "additionalProperties", "items",
)  # fmt: skip
_COPIED = frozenset(_ORDER) - {"description", "default", "required", "properties", "additionalProperties", "items"}
_SCALARS = ("string", "integer", "boolean")


class SchemaError(Exception):
    """A model says something that a CRD cannot. The text begins with the path."""


def build(model: type[ApiModel], *, defaults: bool = True) -> Node:
    """The schema of `model` as one tree. A status is built without defaults: nobody but the operator fills it."""
    return _Builder(model, defaults=defaults).root()


def strip(node: Node) -> Node:
    """The same tree without what only the generators read."""
    clean: Node = {}
    for key, value in node.items():
        if key == "x-type":
            continue
        if key == "properties":
            clean[key] = {name: strip(child) for name, child in value.items()}
        elif key in ("items", "additionalProperties"):
            clean[key] = strip(value)
        else:
            clean[key] = value
    return clean


class _WithModels(GenerateJsonSchema):
    """Keeps the class beside each object, so that its CEL rules, defaults and docstrings can be found."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.models: dict[str, type[BaseModel]] = {}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        node = super().model_schema(schema)
        cls = schema["cls"]
        key = f"{cls.__module__}.{cls.__qualname__}"
        self.models[key] = cls
        node["x-model"] = key
        return node


class _Builder:
    def __init__(self, model: type[ApiModel], *, defaults: bool) -> None:
        generator = _WithModels(by_alias=True)
        self.tree = generator.generate(TypeAdapter(model).core_schema, mode="validation")
        self.defs: dict[str, Node] = self.tree.get("$defs", {})
        self.models = generator.models
        self.defaults = defaults

    def root(self) -> Node:
        return self._node(self.tree, path="", seen=())

    def _node(self, raw: Node, *, path: str, seen: tuple[str, ...]) -> Node:
        raw, seen = self._resolve(raw, path=path, seen=seen)
        if "anyOf" in raw:
            raw = self._int_or_string(raw, path=path)
        if "const" in raw:
            raw = {**raw, "enum": [raw["const"]]}
        node: Node = {key: raw[key] for key in _COPIED if key in raw}
        for bound in ("Minimum", "Maximum"):
            if (limit := node.get(f"exclusive{bound}")) is not None:  # OpenAPI 3.0 spells it as a flag
                node[bound.lower()] = limit
                node[f"exclusive{bound}"] = True
        node |= {key: value for key, value in raw.items() if key.startswith("x-kubernetes-")}
        if "x-type" in raw:
            node["x-type"] = raw["x-type"]
        if raw.get("description"):
            node["description"] = paragraph(raw["description"])
        kind = node.get("type")
        if kind == "integer":
            node.setdefault("format", "int64")
        elif kind == "array":
            self._array(node, raw, path=path, seen=seen)
        elif kind == "object" and "x-model" in raw:
            self._object(node, raw, path=path, seen=seen)
        elif kind == "object":
            self._map(node, raw, path=path, seen=seen)
        elif kind is None and node.get("x-kubernetes-preserve-unknown-fields"):
            node["type"] = "object"
        elif kind is None and not node.get("x-kubernetes-int-or-string"):
            raise SchemaError(f"{path or 'root'}: has no type; a CRD takes no Any and no union of types")
        return _ordered(node)

    def _resolve(self, raw: Node, *, path: str, seen: tuple[str, ...]) -> tuple[Node, tuple[str, ...]]:
        """Without $ref, without the null of an optional, without a single allOf; outer keywords win."""
        while True:
            if "$ref" in raw:
                name = raw["$ref"].rsplit("/", 1)[-1]
                if name in seen:
                    raise SchemaError(f"{path}: {name} contains itself, which a CRD cannot say")
                seen = (*seen, name)
                raw = {**self.defs[name], **{k: v for k, v in raw.items() if k != "$ref"}}
            elif len(raw.get("allOf", ())) == 1:
                raw = {**raw["allOf"][0], **{k: v for k, v in raw.items() if k != "allOf"}}
            elif "anyOf" in raw and len(rest := [one for one in raw["anyOf"] if one != {"type": "null"}]) == 1:
                raw = {**rest[0], **{k: v for k, v in raw.items() if k != "anyOf"}}
            else:
                return raw, seen

    def _int_or_string(self, raw: Node, *, path: str) -> Node:
        types = sorted(one.get("type", "") for one in raw["anyOf"] if one != {"type": "null"})
        if types != ["integer", "string"]:
            raise SchemaError(f"{path}: a union of types; make every member optional and add a CEL rule")
        outer = {k: v for k, v in raw.items() if k not in ("anyOf", "type")}
        (text,) = [one for one in raw["anyOf"] if one.get("type") == "string"]
        bounds = {k: v for k, v in text.items() if k in ("maxLength", "pattern")}  # of an integer they say nothing
        return {**outer, **bounds, "x-kubernetes-int-or-string": True}

    def _array(self, node: Node, raw: Node, *, path: str, seen: tuple[str, ...]) -> None:
        if "prefixItems" in raw or "items" not in raw:
            raise SchemaError(f"{path}: a tuple of fixed shape; write tuple[X, ...]")
        items = node["items"] = self._node(raw["items"], path=f"{path}[]", seen=seen)
        if keys := raw.get("x-list-map-keys"):
            node["x-kubernetes-list-type"] = "map"
            node["x-kubernetes-list-map-keys"] = list(keys)
            return
        # A list of words is a set: order means nothing, and two owners can each add theirs.
        a_set = raw.get("uniqueItems") or ("enum" in items and items.get("type") in _SCALARS)
        node["x-kubernetes-list-type"] = raw.get("x-list-type", "set" if a_set else "atomic")

    def _map(self, node: Node, raw: Node, *, path: str, seen: tuple[str, ...]) -> None:
        values = raw.get("additionalProperties")
        if node.get("x-kubernetes-preserve-unknown-fields"):
            return
        if not isinstance(values, dict) or not values:
            raise SchemaError(f"{path}: a map needs a type of its values, as in dict[str, str]")
        node["additionalProperties"] = self._node(values, path=f"{path}.*", seen=seen)
        longest = raw.get("propertyNames", {}).get("maxLength")
        if longest is not None:  # of a key CEL can only afford to look at the length; the parser checks the rest
            rule = {"rule": f"self.all(k, size(k) <= {longest})", "message": f"keys have at most {longest} characters"}
            node["x-kubernetes-validations"] = [*node.get("x-kubernetes-validations", ()), rule]

    def _object(self, node: Node, raw: Node, *, path: str, seen: tuple[str, ...]) -> None:
        cls = self.models[raw["x-model"]]
        names = {field.alias or name: name for name, field in cls.model_fields.items()}
        docs = attribute_docs(cls)
        required = list(raw.get("required", ()))
        properties = {}
        for alias, child in raw.get("properties", {}).items():
            field = names[alias]
            made = self._node(child, path=f"{path}.{alias}".removeprefix("."), seen=seen)
            if docs.get(field):
                made = {"description": docs[field], **{k: v for k, v in made.items() if k != "description"}}
            if self.defaults and alias not in required:
                self._default(made, cls, field)
            properties[alias] = _ordered(made)
        if required:
            node["required"] = required
        if properties:
            node["properties"] = properties
        if cel := getattr(cls, "cel", ()):
            rules = [{"rule": rule, "message": message} for rule, message in cel]
            node["x-kubernetes-validations"] = [*node.get("x-kubernetes-validations", ()), *rules]

    def _default(self, node: Node, cls: type[BaseModel], field: str) -> None:
        """Scalars as they are; an object where it leads to a default, since the server only defaults what exists."""
        value = cls.model_fields[field].get_default(call_default_factory=True, validated_data={})
        if value is None:
            return
        wire = _wire(value)
        if wire not in ([], {}) or (isinstance(value, BaseModel) and leads_to_default(node)):
            node["default"] = wire


def leads_to_default(node: Node) -> bool:
    """Whether an empty object at this node would be filled by the server."""
    return any("default" in child for child in node.get("properties", {}).values())


def _wire(value: Any) -> Any:
    """A default as JSON. Of a model what was said, since the server fills in the rest."""
    if isinstance(value, BaseModel):
        # in the model's order: model_fields_set is a set, and another order in each process
        said = {
            (field.alias or name): getattr(value, name)
            for name, field in type(value).model_fields.items()
            if name in value.model_fields_set
        }
        return {name: _wire(item) for name, item in said.items() if item is not None}
    if isinstance(value, tuple | list):
        return [_wire(item) for item in value]
    if isinstance(value, frozenset | set):
        return sorted(_wire(item) for item in value)
    if isinstance(value, Mapping):
        return {str(key): _wire(item) for key, item in value.items()}
    return str(value) if isinstance(value, str) else value


def _ordered(node: Node) -> Node:
    return {key: node[key] for key in (*_ORDER, *sorted(node.keys() - set(_ORDER))) if key in node}
