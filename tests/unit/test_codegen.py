"""What is generated is fresh, the API server would take it, and it means on the server what it means in the model."""

from __future__ import annotations

import copy
import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, Field, StringConstraints

from pgtend.api.base import ApiModel, Column, Kind
from pgtend.api.conditions import BaseStatus, Reason
from pgtend.api.kinds import KINDS
from pgtend.api.types import Duration, Timestamp
from pgtend.codegen import crd, files, reasons, reference, snapshot, structural
from pgtend.codegen.__main__ import main
from pgtend.codegen.docstrings import attribute_docs
from pgtend.codegen.fields import reason_names, rows, spec_leaves
from pgtend.codegen.schema import SchemaError, build, strip

ROOT = Path(__file__).parents[2]
Text = Annotated[str, Field(max_length=20)]


class Colour(StrEnum):
    RED = "Red"
    BLUE = "Blue"


class Leaf(ApiModel):
    """A leaf."""

    size: Annotated[int, Field(ge=1, le=9)] = 3
    """How large."""
    span: Duration = Duration("5s")
    for_: Annotated[Text | None, Field(alias="for")] = None


class Empty(ApiModel):
    pass


class Branch(ApiModel):
    leaf: Leaf = Leaf()
    bare: Empty = Empty()
    large: Leaf = Leaf(size=9)
    maybe: Leaf | None = None
    cel = (("!has(self.maybe) || self.leaf.size > 1", "a small leaf stands alone"),)


class Item(ApiModel):
    name: Text
    colour: Colour = Colour.RED


class ToySpec(ApiModel):
    """A toy."""

    branch: Branch = Branch()
    items: Annotated[
        tuple[Item, ...], Field(min_length=1, max_length=5, json_schema_extra={"x-list-map-keys": ["name"]})
    ]
    words: Annotated[tuple[Colour, ...], Field(max_length=2)] = (Colour.BLUE,)
    """Which colours."""
    names: Annotated[tuple[Text, ...], Field(max_length=2)] = ()
    kept: Annotated[tuple[Text, ...], Field(max_length=2, json_schema_extra={"x-list-type": "set"})] = ()
    labels: Annotated[dict[Annotated[str, StringConstraints(max_length=7)], Text], Field(max_length=4)] = Field(
        default_factory=dict
    )
    only: Literal["One"] = "One"
    on_or_off: bool = False
    amount: Annotated[
        int | Annotated[str, Field(max_length=9, pattern="^[0-9]+$")] | None, Field(description="Any amount.")
    ] = None
    above: Annotated[int | None, Field(gt=0)] = None
    moment: Timestamp | None = None
    free: Annotated[dict[str, Any] | None, Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] = (
        None
    )


class ToyStatus(BaseStatus):
    """A toy's status."""

    count: int = 0


class ToyReason(Reason):
    FINE = "Fine", "All is `<well>`.", "Nothing."
    BROKEN = "Broken", "A wheel is off.", "Put it on."


TOY = Kind(
    name="Toy",
    plural="toys",
    short="ty",
    spec=ToySpec,
    status=ToyStatus,
    reasons=ToyReason,
    columns=(
        Column(name="Ready", json_path='.status.conditions[?(@.type=="Ready")].status'),
        Column(name="Count", json_path=".status.count", type="integer", description="How many.", priority=1),
    ),
    conditions=("Accepted",),
    selectable=(".spec.only",),
    description="What tests play with: {{ braces }} | bars.",
    name_max_length=40,
    extra_cel=(("self.metadata.name != 'x'", "not x"),),
)


def openapi(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = crd.crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def defaulted(node: dict[str, Any], value: Any) -> Any:
    """What the API server makes of a value: absent fields get their default, then what is there is looked into."""
    if isinstance(value, dict):
        value = dict(value)
        for name, child in node.get("properties", {}).items():
            if name not in value and "default" in child:
                value[name] = copy.deepcopy(child["default"])
            if name in value:
                value[name] = defaulted(child, value[name])
    elif isinstance(value, list):
        value = [defaulted(node["items"], item) for item in value]
    return value


# The generated files


def test_generated_files_are_fresh() -> None:
    made = files.outputs(KINDS)
    stale = files.stale(ROOT, made | files.snapshots(KINDS)) + files.left_over(ROOT, made)
    assert not stale, "run `python -m pgtend.codegen`"


def test_the_released_api_is_not_broken() -> None:
    assert not files.breaks(ROOT, KINDS), snapshot.HOW


@pytest.mark.parametrize("kind", [*KINDS, TOY], ids=lambda kind: kind.name)
def test_the_api_server_takes_the_schema(kind: Kind) -> None:
    assert structural.problems(openapi(kind)) == []
    assert len(crd.crd_file(kind).encode()) <= structural.SIZE_LIMIT


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_names_do_not_collide_and_columns_lead_somewhere(kind: Kind) -> None:
    assert len({k.plural for k in KINDS} | {k.short for k in KINDS} | {k.singular for k in KINDS}) == 3 * len(KINDS)
    known = {row.name for part in ("spec", "status") for row in rows(kind, part)}
    for column in kind.columns:
        path = re.sub(r"\[.*?\]", "", column.json_path).removeprefix(".")
        assert path in known or path.startswith("metadata."), column
    for path in kind.selectable:
        assert path.removeprefix(".") in known, path
    for condition in re.findall(r'@\.type=="(\w+)"', "".join(column.json_path for column in kind.columns)):
        assert condition in ("Ready", *kind.conditions)


@pytest.mark.parametrize("kind", [*KINDS, TOY], ids=lambda kind: kind.name)
def test_every_reason_is_explained_once(kind: Kind) -> None:
    page = reasons.page(kind)
    for reason in kind.own_reasons:
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]{1,127}", reason), reason
        assert page.count(f"\n## {reason}\n") == 1
        assert reason.meaning.endswith("."), f"{reason}: the meaning is a sentence"
        assert reason.remedy.endswith("."), f"{reason}: the remedy is a sentence"
    assert len({name.lower() for name in reason_names(kind)}) == len(reason_names(kind))


# Defaults mean the same on both sides


def check_defaults(cls: type[BaseModel], node: dict[str, Any], path: str) -> int:
    """Every default below `node`: the server fills in what the model would have. Returns how many there were."""
    count = 0
    for name, field in cls.model_fields.items():
        if field.is_required():
            continue
        child = node["properties"][field.alias or name]
        model_default = field.get_default(call_default_factory=True)
        if isinstance(model_default, BaseModel):
            filled = defaulted(child, child.get("default", {}))
            assert type(model_default).model_validate(filled) == model_default, f"{path}.{name}"
            if "default" in child:
                jsonschema.validate(filled, child)
            count += 1 + check_defaults(type(model_default), child, f"{path}.{name}")
        elif model_default is not None and model_default not in ((), {}, frozenset()):
            jsonschema.validate(child["default"], child)
            assert cls.__pydantic_validator__.validate_assignment(cls.model_construct(), name, child["default"]), (
                f"{path}.{name}"
            )
            count += 1
        else:
            assert "default" not in child, f"{path}.{name}"
    return count


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_defaults_of_the_server_are_those_of_the_model(kind: Kind) -> None:
    check_defaults(kind.spec, openapi(kind)["properties"]["spec"], "spec")


@pytest.mark.parametrize(
    "given",
    [
        {"items": [{"name": "a"}]},
        {"items": [{"name": "a", "colour": "Blue"}], "branch": {"maybe": {}}, "words": []},
        {"items": [{"name": "a"}], "branch": {"leaf": {"size": 2}, "large": {"span": "1m"}}, "onOrOff": True},
    ],
)
def test_an_object_parses_the_same_with_and_without_the_servers_defaults(given: dict[str, Any]) -> None:
    filled = defaulted(openapi(TOY)["properties"]["spec"], given)
    assert filled != given
    assert ToySpec.model_validate(filled) == ToySpec.model_validate(given)


def test_an_object_is_defaulted_only_where_that_leads_somewhere() -> None:
    branch = openapi(TOY)["properties"]["spec"]["properties"]["branch"]
    assert branch["default"] == {}
    assert branch["properties"]["leaf"]["default"] == {}
    assert branch["properties"]["large"]["default"] == {"size": 9}
    assert "default" not in branch["properties"]["bare"]
    assert "default" not in branch["properties"]["maybe"]
    assert defaulted(branch, {})["large"] == {"size": 9, "span": "5s"}


def test_a_spec_without_required_fields_may_be_left_out() -> None:
    class Lenient(ApiModel):
        size: Annotated[int, Field(ge=0)] = 1

    root = openapi(copy_of(TOY, spec=Lenient))
    assert "required" not in root
    assert root["properties"]["spec"]["default"] == {}
    assert openapi(TOY)["required"] == ["spec"]


def test_a_status_has_no_defaults() -> None:
    assert "default" not in json.dumps(openapi(TOY)["properties"]["status"])


def copy_of(kind: Kind, **changes: Any) -> Kind:
    return Kind(**{name: getattr(kind, name) for name in Kind.__slots__} | changes)


# The schema itself


def test_every_shape_of_a_field() -> None:
    properties = openapi(TOY)["properties"]["spec"]["properties"]
    assert properties["items"] == {
        "type": "array",
        "minItems": 1,
        "maxItems": 5,
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "maxLength": 20},
                "colour": {"type": "string", "enum": ["Red", "Blue"], "default": "Red"},
            },
        },
        "x-kubernetes-list-map-keys": ["name"],
        "x-kubernetes-list-type": "map",
    }
    assert properties["words"] == {
        "description": "Which colours.",
        "type": "array",
        "default": ["Blue"],
        "maxItems": 2,
        "items": {"type": "string", "enum": ["Red", "Blue"]},
        "x-kubernetes-list-type": "set",
    }
    assert properties["names"]["x-kubernetes-list-type"] == "atomic"
    assert properties["kept"]["x-kubernetes-list-type"] == "set"
    assert properties["labels"] == {
        "type": "object",
        "maxProperties": 4,
        "additionalProperties": {"type": "string", "maxLength": 20},
        "x-kubernetes-validations": [
            {"rule": "self.all(k, size(k) <= 7)", "message": "keys have at most 7 characters"}
        ],
    }
    assert properties["only"] == {"type": "string", "enum": ["One"], "default": "One"}
    assert properties["onOrOff"] == {"type": "boolean", "default": False}
    assert properties["amount"] == {
        "description": "Any amount.",
        "maxLength": 9,
        "pattern": "^[0-9]+$",
        "x-kubernetes-int-or-string": True,
    }
    assert properties["above"] == {"type": "integer", "format": "int64", "minimum": 0, "exclusiveMinimum": True}
    assert properties["moment"] == {"type": "string", "format": "date-time", "maxLength": 40}
    assert properties["free"] == {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    leaf = properties["branch"]["properties"]["leaf"]
    assert leaf["description"] == "A leaf."
    assert leaf["properties"]["size"] == {
        "description": "How large.",
        "type": "integer",
        "format": "int64",
        "default": 3,
        "minimum": 1,
        "maximum": 9,
    }
    assert list(leaf["properties"]) == ["size", "span", "for"]


def test_rules_stand_where_their_object_is() -> None:
    root = openapi(TOY)
    assert root["properties"]["spec"]["properties"]["branch"]["x-kubernetes-validations"] == [
        {"rule": "!has(self.maybe) || self.leaf.size > 1", "message": "a small leaf stands alone"}
    ]
    assert [rule["rule"] for rule in root["x-kubernetes-validations"]] == [
        "self.metadata.name != 'x'",
        "size(self.metadata.name) <= 40",
    ]


def test_conditions_are_a_map_by_type() -> None:
    conditions = openapi(TOY)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert conditions["items"]["properties"]["lastTransitionTime"]["format"] == "date-time"


def test_the_crd_around_the_schema() -> None:
    made = crd.crd(TOY)
    assert made["metadata"] == {"name": "toys.pgtend.dev"}
    assert made["spec"]["names"] == {
        "kind": "Toy",
        "listKind": "ToyList",
        "plural": "toys",
        "singular": "toy",
        "shortNames": ["ty"],
        "categories": ["pgtend"],
    }
    (version,) = made["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert version["selectableFields"] == [{"jsonPath": ".spec.only"}]
    assert version["additionalPrinterColumns"][1] == {
        "name": "Count",
        "type": "integer",
        "jsonPath": ".status.count",
        "description": "How many.",
        "priority": 1,
    }


class Recursive(ApiModel):
    child: Recursive | None = None


class Union(ApiModel):
    value: Leaf | Item


class Anything(ApiModel):
    value: Any


class Pair(ApiModel):
    value: tuple[int, str]


class Untyped(ApiModel):
    value: dict[str, Any]


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (Recursive, "contains itself"),
        (Union, "value: a union of types"),
        (Anything, "value: has no type"),
        (Pair, "value: a tuple of fixed shape"),
        (Untyped, "value: a map needs a type of its values"),
    ],
)
def test_what_a_crd_cannot_say_is_refused(model: type[ApiModel], cause: str) -> None:
    with pytest.raises(SchemaError, match=cause):
        build(model)


STRING = {"type": "string", "maxLength": 5}


@pytest.mark.parametrize(
    ("node", "cause"),
    [
        ({"type": "string"}, "a.b: a string needs maxLength"),
        ({"x-kubernetes-int-or-string": True}, "a.b: a string needs maxLength"),
        ({}, "a.b: has no type"),
        ({"type": "number"}, "a.b: no floating point"),
        ({"type": "null"}, "a.b: type 'null' is unknown"),
        ({**STRING, "title": "B"}, "a.b: title is not allowed"),
        ({"anyOf": [STRING], **STRING}, "a.b: anyOf is not allowed"),
        ({"$ref": "#/x", **STRING}, r"a.b: \$ref is not allowed"),
        ({**STRING, "nullable": True}, "a.b: nullable is not allowed"),
        ({**STRING, "pattern": "^(?!x)"}, "a.b: RE2 has neither"),
        ({**STRING, "pattern": r"(a)\1"}, "a.b: RE2 has neither"),
        ({**STRING, "pattern": "("}, "a.b: pattern does not compile"),
        ({**STRING, "items": STRING}, "a.b: only arrays have items"),
        ({"type": "array", "items": STRING, "x-kubernetes-list-type": "atomic"}, "a.b: an array needs maxItems"),
        ({"type": "array", "maxItems": 1, "x-kubernetes-list-type": "atomic"}, "a.b: an array needs items"),
        ({"type": "array", "maxItems": 1, "items": STRING}, "a.b: an array needs x-kubernetes-list-type"),
        (
            {"type": "array", "maxItems": 1, "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"},
            r"a.b\[\]: a string needs maxLength",
        ),
        (
            {"type": "array", "maxItems": 1, "items": {"type": "object"}, "x-kubernetes-list-type": "set"},
            "a.b: only scalars make a set",
        ),
        (
            {
                "type": "array", "maxItems": 1, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": STRING}},
            },
            "a.b: the map key n must be required",
        ),
        (
            {
                "type": "array", "maxItems": 1, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["m"],
                "items": {"type": "object", "properties": {"n": STRING}},
            },
            "a.b: the map key m must be a scalar",
        ),
        (
            {"type": "array", "maxItems": 1, "x-kubernetes-list-type": "map", "items": {"type": "object"}},
            "a.b: a list map needs its keys",
        ),
        ({"type": "object", "additionalProperties": STRING}, "a.b: a map needs maxProperties"),
        ({"type": "object", "additionalProperties": False}, "a.b: additionalProperties must be a schema"),
        (
            {"type": "object", "maxProperties": 1, "additionalProperties": STRING, "properties": {"c": STRING}},
            "a.b: properties and additionalProperties exclude",
        ),
        ({"type": "object", "required": ["c"]}, "a.b: requires c"),
        ({"type": "object", "properties": {"on": STRING}}, "a.b: YAML 1.1 reads the name on"),
        ({**STRING, "x-kubernetes-validations": [{"rule": "true"}]}, "a.b: a CEL rule needs rule and message"),
        (
            {**STRING, "x-kubernetes-validations": [{"rule": "true", "message": "a\nb"}]},
            "a.b: the message of a CEL rule has one line",
        ),
        (
            {**STRING, "x-kubernetes-validations": [{"rule": "has(self.namespace)", "message": "m"}]},
            "a.b: in CEL the field namespace is written __namespace__",
        ),
    ],
)  # fmt: skip
def test_the_checker_sees_what_the_api_server_refuses(node: dict[str, Any], cause: str) -> None:
    root = {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": node}}}}
    assert any(re.match(cause, problem) for problem in structural.problems(root)), structural.problems(root)


def test_a_rule_on_a_duration_knows_of_days() -> None:
    """`duration('1d')` is an error in CEL, which would refuse the object with a text that helps nobody."""
    blind = {"rule": "duration(self.a) > duration('5s')", "message": "m"}
    aware = {"rule": "self.a.contains('d') || duration(self.a) > duration('5s')", "message": "m"}
    for rule, seen in ((blind, ["root: CEL knows no days; ask .contains('d') before duration()"]), (aware, [])):
        assert structural.problems({"type": "object", "x-kubernetes-validations": [rule]}) == seen


def test_a_default_must_pass_the_rules_as_it_stands() -> None:
    def found(rule: str, default: dict[str, str]) -> list[str]:
        inner = {"type": "string", "maxLength": 5}
        validations = [{"rule": rule, "message": "m"}]
        node = {
            "type": "object",
            "default": default,
            "properties": {"a": inner},
            "x-kubernetes-validations": validations,
        }
        return structural.problems({"type": "object", "properties": {"spec": node}})

    assert found("self.a != 'y'", {}) == ["spec: its default has no a, so the rule must ask has(self.a) first"]
    assert found("!has(self.a) || self.a != 'y'", {}) == []
    assert found("self.a != 'y'", {"a": "x"}) == []


def test_the_checker_leaves_the_root_to_kubernetes_but_not_its_metadata_or_size() -> None:
    good: dict[str, Any] = {
        "type": "object",
        "properties": {"kind": {"type": "string"}, "metadata": {"type": "object"}},
    }
    assert structural.problems(good) == []
    good["properties"]["metadata"] = {"type": "object", "properties": {"name": STRING}}
    assert structural.problems(good) == ["metadata: must be left as it is"]
    large = {"type": "object", "description": "x" * structural.SIZE_LIMIT}
    assert re.match(r"the schema has \d+ bytes", structural.problems(large)[0])


def test_reserved_words_in_quotes_and_calls_are_no_fields() -> None:
    rule = {"rule": "self.a == 'x.namespace' && self.matches('.for')", "message": "m"}
    assert structural.problems({"type": "object", "x-kubernetes-validations": [rule]}) == []


def test_strings_under_fields_are_found_in_base_classes_too() -> None:
    class Child(Leaf):
        span: Duration = Duration("1s")
        """How
        long."""

    assert attribute_docs(Child) == {"size": "How large.", "span": "How long."}


# Chart and pages


def test_the_chart_carries_the_same_crds_behind_its_switches() -> None:
    text = crd.chart_file([*KINDS, TOY])
    assert text.startswith(crd.HEADER + "{{- if .Values.crds.install }}\n---\n")
    assert text.endswith("\n{{- end }}\n")
    assert text.count("{{- if .Values.crds.keep }}") == len(KINDS) + 1
    rendered = re.sub(r"(?m)^ *\{\{- (if|end).*\n", "", text).replace('{{ "{{" }}', "{{")
    for document, kind in zip(yaml.safe_load_all(rendered), [*KINDS, TOY], strict=True):
        assert document["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert document == yaml.safe_load(crd.crd_file(kind)) == crd.crd(kind)


def test_nothing_of_the_generator_reaches_the_crd() -> None:
    assert '"x-type"' in json.dumps(crd.schema(TOY))
    assert '"x-type"' not in json.dumps(crd.crd(TOY))
    assert not set(re.findall(r'"(x-[a-z-]+)":', json.dumps(strip(crd.schema(TOY))))) - {
        "x-kubernetes-validations",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
    }


def test_a_page_has_a_row_per_field() -> None:
    page = reference.page(TOY)
    for row in (*rows(TOY, "spec"), *rows(TOY, "status")):
        assert page.count(f"\n| `{row.path}` |") == 1
    assert "| `spec.branch.leaf.size` | integer | `3` |  | How large. 1 to 9. |" in page
    assert "| `spec.branch.leaf.span` | Duration | `5s` |  |  |" in page
    assert "| `spec.items` | list of object |  | yes | 1 to 5 items. Keyed by `name`. |" in page
    assert "| `spec.labels` | map of string |  |  | At most 4 entries. |" in page
    assert "| `spec.items[].colour` | string | `Red` |  | `Red` or `Blue`. |" in page
    assert "What tests play with: {{ braces }} | bars." in page
    assert "- `spec.branch`: a small leaf stands alone" in page
    assert "`COUNT` | `.status.count` | with `-o wide`" in page
    assert "The name has at most 40 characters." in page
    assert "Field selectors: `spec.only`." in page
    assert "What tests play with: {{ braces }} \\| bars." in reference.index([TOY])


def test_angle_brackets_survive_markdown() -> None:
    assert reference.prose("a <b> and `<c>`") == "a &lt;b> and `<c>`"
    assert "**Meaning:** All is `<well>`." in reasons.page(TOY)
    assert "| [Broken](Toy.md#broken) | Toy | A wheel is off. |" in reasons.index([TOY])


def test_what_the_ledger_wants() -> None:
    leaves = spec_leaves(TOY)
    assert "Toy.spec.branch.leaf.for" in leaves
    assert "Toy.spec.items.colour" in leaves
    assert "Toy.spec.labels" in leaves
    assert "Toy.spec.branch.bare" in leaves
    assert "Toy.spec.items" not in leaves
    assert not [leaf for leaf in leaves if ".status." in leaf]
    assert reason_names(TOY) == ["Toy.reason.Fine", "Toy.reason.Broken"]


# The snapshot


def shape() -> snapshot.Shape:
    return json.loads(snapshot.dump(snapshot.shape(TOY)))  # type: ignore[no-any-return]


def test_nothing_breaks_while_nothing_changes() -> None:
    assert snapshot.breaks(shape(), shape()) == []


@pytest.mark.parametrize(
    ("path", "change", "cause"),
    [
        ("spec.onOrOff", {"type": "string"}, "type was boolean, is string"),
        ("spec.onOrOff", {"default": True}, "default was false, is true"),
        ("spec.onOrOff", {"default": None}, "default was false, is none"),
        ("spec.moment", {"default": "x"}, 'default was none, is "x"'),
        ("spec.moment", {"required": True}, "was optional, is required"),
        ("spec.moment", {"enum": ["a"]}, "took any value, takes some"),
        ("spec.items[].colour", {"enum": ["Red"]}, "no longer takes Blue"),
        ("spec.branch.leaf.size", {"maximum": 8}, "maximum was 9, is 8"),
        ("spec.branch.leaf.size", {"minimum": 2}, "minimum was 1, is 2"),
        ("spec.onOrOff", {"maxLength": 8}, "maxLength was none, is 8"),
        ("spec.labels", {"maxProperties": 3}, "maxProperties was 4, is 3"),
        ("spec.branch.leaf.span", {"pattern": "x"}, "pattern was .*, is x"),
        ("spec.items", {"x-kubernetes-list-type": "atomic"}, "x-kubernetes-list-type was map, is atomic"),
        ("status.count", {"type": "string"}, "type was integer, is string"),
    ],
)
def test_a_change_that_breaks_is_told(path: str, change: dict[str, Any], cause: str) -> None:
    now = shape()
    now["fields"][path].update(change)
    if change.get("default", ...) is None:
        del now["fields"][path]["default"]
    (found,) = snapshot.breaks(shape(), now)
    assert re.fullmatch(re.escape(f"Toy.{path}: ") + cause, found)


def test_what_is_gone_is_told() -> None:
    now = shape()
    del now["fields"]["spec.names"]
    now["reasons"].remove("Broken")
    now["conditions"].remove("Accepted")
    assert snapshot.breaks(shape(), now) == [
        "Toy: condition Accepted is gone",
        "Toy: reason Broken is gone",
        "Toy.spec.names: is gone",
    ]


@pytest.mark.parametrize("path", ["spec.extra", "spec.branch.leaf.extra", "spec.items[].extra"])
def test_a_new_field_must_be_optional(path: str) -> None:
    now = shape()
    now["fields"][path] = {"type": "string"}
    assert snapshot.breaks(shape(), now) == []
    now["fields"][path]["required"] = True
    assert snapshot.breaks(shape(), now) == [f"Toy.{path}: is new and required"]


def test_a_required_field_of_a_new_object_breaks_nobody() -> None:
    now = shape()
    now["fields"]["spec.extra"] = {"type": "object"}
    now["fields"]["spec.extra.name"] = {"type": "string", "required": True}
    now["fields"]["spec.more"] = {"type": "array of object"}
    now["fields"]["spec.more[].name"] = {"type": "string", "required": True}
    assert snapshot.breaks(shape(), now) == []


def test_widening_breaks_nobody() -> None:
    now = shape()
    now["fields"]["spec.items[].colour"]["enum"].append("Green")
    now["fields"]["spec.branch.leaf.size"] |= {"maximum": 10, "minimum": 0}
    now["fields"]["spec.names"]["maxItems"] = 9
    now["reasons"].append("New")
    del now["fields"]["spec.items"]["required"]
    assert snapshot.breaks(shape(), now) == []


# The command


class Renamed(ApiModel):
    title: Text = "t"


def test_the_command_writes_checks_and_protects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str, kinds: tuple[Kind, ...] = (TOY,)) -> tuple[int, str]:
        code = main([*arguments, "--root", str(tmp_path)], kinds=kinds)
        return code, "".join(capsys.readouterr())

    code, told = run("--check")
    assert code == 1
    assert "  crds/pgtend.dev_toys.yaml\n" in told
    assert not list(tmp_path.iterdir())
    assert run()[0] == 0
    assert run("--check") == (0, "")
    assert run() == (0, "")

    (tmp_path / "docs/reasons/Toy.md").write_text("tampered")
    (tmp_path / "docs/reference/ledger.md").write_text("written by something else")
    code, told = run("--check")
    assert (code, "  docs/reasons/Toy.md\n" in told, "ledger" in told) == (1, True, False)
    assert run() == (0, "wrote docs/reasons/Toy.md\n")

    renamed = (copy_of(TOY, spec=Renamed, selectable=()),)
    code, told = run("--check", kinds=renamed)
    assert code == 1
    assert "Toy.spec.items: is gone" in told
    assert "--accept-snapshot" in told
    assert run(kinds=renamed)[0] == 1
    assert "spec.items" in (tmp_path / "tests/unit/crd_snapshot/toys.json").read_text()
    assert run("--accept-snapshot", kinds=renamed) == (0, "wrote tests/unit/crd_snapshot/toys.json\n")
    assert run("--check", kinds=renamed) == (0, "")

    code, told = run("--check", kinds=())
    assert code == 1
    assert "Toy: the kind is gone" in told
    assert "  crds/pgtend.dev_toys.yaml\n" in told
    assert run("--accept-snapshot", kinds=())[0] == 0
    assert not list((tmp_path / "crds").iterdir())
    assert (tmp_path / "docs/reference/ledger.md").exists()
    assert run("--check", kinds=()) == (0, "")


def test_the_command_refuses_a_schema_that_the_server_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Unbounded(ApiModel):
        text: str = ""

    assert main(["--root", str(tmp_path)], kinds=[copy_of(TOY, spec=Unbounded, selectable=())]) == 1
    assert "Toy: spec.text: a string needs maxLength" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
