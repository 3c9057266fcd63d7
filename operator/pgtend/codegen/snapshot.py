"""What has been released, kept beside the tests, so that a change that would break users' YAML is noticed when it is
made. Additions are taken up by themselves; anything else needs `--accept-snapshot` in a commit that says why."""

from __future__ import annotations

import json
from typing import Any

from pgtend.api.base import Kind
from pgtend.codegen.fields import Row, reason_names, rows

Shape = dict[str, Any]

_AT_MOST = ("maximum", "maxLength", "maxItems", "maxProperties")
_AT_LEAST = ("minimum", "minLength", "minItems", "minProperties")
HOW = (
    "a released field is never renamed, retyped, removed, narrowed or given another default; if it is not released yet,"
    " run `python -m pgtend.codegen --accept-snapshot` and say why in the commit"
)


def shape(kind: Kind) -> Shape:
    """What users can rely on: fields, their types, defaults, words and bounds; reasons and condition types."""
    fields = {row.path: _field(row) for part in ("spec", "status") for row in rows(kind, part)}
    return {
        "kind": kind.name,
        "fields": dict(sorted(fields.items())),
        "conditions": sorted(kind.conditions),
        "reasons": sorted(name.rsplit(".", 1)[-1] for name in reason_names(kind)),
    }


def dump(value: Shape) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def breaks(released: Shape, current: Shape) -> list[str]:
    """Each difference that an object or a reader of the released API would notice."""
    kind = released["kind"]
    found: list[str] = []
    for what in ("conditions", "reasons"):
        found += [f"{kind}: {what[:-1]} {name} is gone" for name in released[what] if name not in current[what]]
    old_fields, new_fields = released["fields"], current["fields"]
    for path, old in old_fields.items():
        new = new_fields.get(path)
        if new is None:
            found.append(f"{kind}.{path}: is gone")
        else:
            found += [f"{kind}.{path}: {cause}" for cause in _changes(old, new)]
    for path, new in new_fields.items():
        parent = path.rpartition(".")[0].removesuffix(".*").rstrip("[]")
        if path not in old_fields and new.get("required") and (parent in old_fields or "." not in parent):
            found.append(f"{kind}.{path}: is new and required")
    return found


def _changes(old: Shape, new: Shape) -> list[str]:
    causes = []
    if old["type"] != new["type"]:
        causes.append(f"type was {old['type']}, is {new['type']}")
    if ("default" in old) != ("default" in new) or old.get("default") != new.get("default"):
        causes.append(f"default was {_shown(old)}, is {_shown(new)}")
    if new.get("required") and not old.get("required"):
        causes.append("was optional, is required")
    if "enum" in new and "enum" not in old:
        causes.append("took any value, takes some")
    elif "enum" in new and (gone := [word for word in old["enum"] if word not in new["enum"]]):
        causes.append(f"no longer takes {', '.join(map(str, gone))}")
    for key in _AT_MOST:
        if key in new and (key not in old or new[key] < old[key]):
            causes.append(f"{key} was {old.get(key, 'none')}, is {new[key]}")
    for key in _AT_LEAST:
        if new.get(key, 0) > old.get(key, 0):
            causes.append(f"{key} was {old.get(key, 'none')}, is {new[key]}")
    for key in ("pattern", "format", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"):
        if old.get(key) != new.get(key):
            causes.append(f"{key} was {old.get(key, 'none')}, is {new.get(key, 'none')}")
    return causes


def _shown(field: Shape) -> str:
    return json.dumps(field["default"]) if "default" in field else "none"


def _field(row: Row) -> Shape:
    field: Shape = {"type": row.wire}
    if row.required:
        field["required"] = True
    if row.has_default:
        field["default"] = row.default
    if row.enum:
        field["enum"] = list(row.enum)
    return field | dict(row.bounds)
