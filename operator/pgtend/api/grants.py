"""What a DatabaseUser asks for on objects: privileges in SQL's words, and those on objects that others will make.

What can be said of which kind of object is checked twice, by CEL in the API server and here, in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from pgtend.api.base import ApiModel
from pgtend.api.privileges import IN_SCHEMAS, OF_COLUMNS, OF_FUTURE, PRIVILEGES, SERVER_WIDE, ObjectKind, Preset, Word
from pgtend.api.types import Identifier

_OF_KIND = {
    "Database": "kind Database takes database and",
    "Schema": "kind Schema takes database, names and",
    "Language": "kind Language takes database, names and",
    "ForeignServer": "kind ForeignServer takes database, names and",
    "LargeObject": "kind LargeObject takes database, names (OIDs) and",
    "Parameter": "kind Parameter takes names, no database, and",
    "Tablespace": "kind Tablespace takes names, no database, and",
}
_KINDS = {
    kind: f"{_OF_KIND.get(kind, f'kind {kind} takes database, schema, perhaps names, and')} privileges of"
    f" {', '.join(words)} or All"
    for kind, words in PRIVILEGES.items()
    if kind not in OF_FUTURE
}
_FUTURE = {
    kind: f"of objects to come of kind {kind} the privileges are {', '.join(PRIVILEGES[kind])} or All"
    for kind in OF_FUTURE.values()
}
_SCHEMALESS = "schemas live in no schema: leave schema out for kind Schema"
_CREATORS = "exactly one of auto and names is needed"
_AUTO = "creators auto is of one schema: name it"
_SHAPE = (
    "a grant takes either a preset with its database and perhaps schemas, or kind and privileges with what they need"
)
_COLUMNS = f"columns are of kind Table, with privileges of {', '.join(OF_COLUMNS)} or All"
_SYSTEM_TEXT = "nothing is granted in pg_catalog, information_schema and the like"


def quoted(words: Iterable[str]) -> str:
    """A list of CEL's."""
    return "[" + ", ".join(f"'{word}'" for word in words) + "]"


def _system(schema: str) -> bool:
    return schema.startswith("pg_") or schema == "information_schema"


def _fits(value: str) -> str:
    """What CEL cannot count: PostgreSQL cuts a name at 63 bytes, so that two names would become one."""
    if len(value.encode()) > 63 or "\0" in value:
        raise ValueError("at most 63 bytes of UTF-8, and no NUL")
    return value


def _is_oid(name: str) -> bool:
    """One that the server would not read breaks the look at all that others have in that database."""
    return re.fullmatch("[0-9]{1,10}", name) is not None and int(name) < 2**32


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("no NUL")
    return value


DatabaseName = Annotated[Identifier, AfterValidator(_fits)]


ObjectPattern = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_no_nul)]


class Grant(ApiModel):
    """Privileges on objects of one kind, as in SQL's GRANT, or a preset that stands for several."""

    database: DatabaseName | None = None
    """Left out for kinds Parameter and Tablespace, which belong to the server."""
    preset: Preset | None = None
    """In place of kind and privileges; docs/users.md prints what each expands to."""
    schemas: Annotated[
        tuple[DatabaseName, ...] | None, Field(min_length=1, max_length=64, json_schema_extra={"x-list-type": "set"})
    ] = None
    """Of a preset; `*` stands for any characters. Default: all schemas but the system's."""
    kind: ObjectKind | None = None
    schema_: Annotated[DatabaseName | None, Field(alias="schema")] = None
    """Of what lives in one: Table, Sequence, Function, Procedure, Type."""
    names: Annotated[
        tuple[ObjectPattern, ...] | None, Field(min_length=1, max_length=64, json_schema_extra={"x-list-type": "set"})
    ] = None
    """`*` stands for any characters; functions and procedures with the types of their arguments, `pay(integer, text)`;
    large objects by OID. Default, for what lives in a schema: all. Table is views and foreign tables too."""
    columns: Annotated[
        tuple[DatabaseName, ...] | None, Field(min_length=1, max_length=64, json_schema_extra={"x-list-type": "set"})
    ] = None
    """Of kind Table: these alone."""
    privileges: Annotated[tuple[Word, ...], Field(max_length=16)] = ()
    """All is what the server's version has for the kind."""
    grant_option: bool = False
    """May hand them on."""
    cel = (
        (
            "has(self.preset) ? (has(self.database) && !has(self.kind) && !has(self.schema) && !has(self.names)"
            " && !has(self.columns) && !has(self.privileges) && !self.grantOption)"
            " : (has(self.kind) && has(self.privileges) && size(self.privileges) > 0 && !has(self.schemas))",
            _SHAPE,
        ),
        *(
            (
                f"!has(self.kind) || self.kind != '{kind}' || ("
                + ("!" if kind in SERVER_WIDE else "")
                + "has(self.database) && "
                + ("" if kind in IN_SCHEMAS else "!")
                + "has(self.schema) && "
                + ("!has(self.names) && " if kind == "Database" else "")
                + ("has(self.names) && " if kind != "Database" and kind not in IN_SCHEMAS else "")
                + f"(!has(self.privileges) || self.privileges.all(p, p in {quoted([*words, 'All'])})))",
                _KINDS[kind],
            )
            for kind, words in PRIVILEGES.items()
            if kind not in OF_FUTURE
        ),
        (
            "!has(self.columns) || (has(self.kind) && self.kind == 'Table'"
            f" && self.privileges.all(p, p in {quoted([*OF_COLUMNS, 'All'])}))",
            _COLUMNS,
        ),
        (
            "(!has(self.schema) || !(self.schema.startsWith('pg_') || self.schema == 'information_schema'))"
            " && (!has(self.kind) || self.kind != 'Schema' || !has(self.names)"
            " || self.names.all(n, !(n.startsWith('pg_') || n == 'information_schema')))",
            _SYSTEM_TEXT,
        ),
    )

    @model_validator(mode="after")
    def _shape(self) -> Self:
        if self.preset is not None:
            others = (self.kind, self.schema_, self.names, self.columns)
            if self.database is None or any(o is not None for o in others) or self.privileges or self.grant_option:
                raise ValueError(_SHAPE)
            return self
        if self.kind is None or not self.privileges or self.schemas is not None:
            raise ValueError(_SHAPE)
        lives = self.kind in IN_SCHEMAS
        wrong = (
            (self.database is None) != (self.kind in SERVER_WIDE)
            or (self.schema_ is None) == lives
            or (self.names is not None if self.kind == "Database" else not lives and self.names is None)
            or not {*self.privileges} <= {*PRIVILEGES[self.kind], "All"}
        )
        if wrong:
            raise ValueError(_KINDS[self.kind])
        if self.columns is not None and not (self.kind == "Table" and {*self.privileges} <= {*OF_COLUMNS, "All"}):
            raise ValueError(_COLUMNS)
        if any(_system(name) for name in (*(self.names or () if self.kind == "Schema" else ()), self.schema_ or "")):
            raise ValueError(_SYSTEM_TEXT)
        if self.kind == "LargeObject" and not all(map(_is_oid, self.names or ())):
            raise ValueError("large objects are named by their OID")
        return self


class Auto(ApiModel):
    """Whoever may make objects in the schema by a grant of its own: its owner, roles with CREATE on it, and the owners
    of what is there; no superusers."""


class Creators(ApiModel):
    """Exactly one member."""

    auto: Auto | None = None
    names: Annotated[
        tuple[DatabaseName, ...] | None, Field(min_length=1, max_length=32, json_schema_extra={"x-list-type": "set"})
    ] = None
    cel = (("has(self.auto) != has(self.names)", _CREATORS),)

    @model_validator(mode="after")
    def _one_member(self) -> Self:
        if (self.auto is None) == (self.names is None):
            raise ValueError(_CREATORS)
        return self


class DefaultPrivilege(ApiModel):
    """Privileges on objects that others will make, as in ALTER DEFAULT PRIVILEGES FOR ROLE."""

    database: DatabaseName
    schema_: Annotated[DatabaseName | None, Field(alias="schema")] = None
    """Default: all schemas."""
    creators: Creators
    kind: Literal["Schema", "Table", "Sequence", "Function", "Type"]
    """Function is procedures too."""
    privileges: Annotated[tuple[Word, ...], Field(min_length=1, max_length=16)]
    cel = (
        *(
            (
                f"self.kind != '{kind}' || self.privileges.all(p, p in {quoted([*PRIVILEGES[kind], 'All'])})",
                text,
            )
            for kind, text in _FUTURE.items()
        ),
        ("self.kind != 'Schema' || !has(self.schema)", _SCHEMALESS),
        ("!has(self.creators.auto) || has(self.schema)", _AUTO),
    )

    @model_validator(mode="after")
    def _shape(self) -> Self:
        if not {*self.privileges} <= {*PRIVILEGES[self.kind], "All"}:
            raise ValueError(_FUTURE[self.kind])
        if self.kind == "Schema" and self.schema_ is not None:
            raise ValueError(_SCHEMALESS)
        if self.creators.auto is not None and self.schema_ is None:
            raise ValueError(_AUTO)
        return self
