"""What a Restore is asked: from which backup, what of it, and where it goes. Nothing is ever dropped for it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pgtend.api.base import ApiModel
from pgtend.api.refs import LocalRef
from pgtend.api.types import Identifier

_TEMPLATES = ("template0", "template1")
_NO_TEMPLATE = "a template takes no restore: what is in it gets into every database that is made"


class RestoreFrom(ApiModel):
    """Where it comes from."""

    backup_ref: LocalRef
    """A PostgresBackup."""


class RestoreSelect(ApiModel):
    """What of the backup."""

    databases: Annotated[tuple[Identifier, ...], Field(max_length=1)] = ()
    """The one to restore; may be left out where the backup holds one."""
    schemas: Annotated[tuple[Identifier, ...], Field(max_length=50, json_schema_extra={"x-list-type": "set"})] = ()
    """Of that only these, with all that is in them, their grants and comments. Default: everything."""


class RestoreDatabase(ApiModel):
    """A database of the target. One that does not exist is created as the one that was dumped: encoding, locale."""

    name: Identifier
    owner: Identifier | None = None
    """Of the database, if it is created, and of everything that is restored. Default: as in the backup."""
    if_not_empty: Literal["Refuse", "Add"] = "Refuse"
    """Add restores beside what is there; what has a name that is taken makes it fail, and then nothing is restored."""
    cel = (("!(self.name in ['template0', 'template1'])", _NO_TEMPLATE),)

    @model_validator(mode="after")
    def _no_template(self) -> Self:
        if getattr(self, "name", None) in _TEMPLATES:
            raise ValueError(_NO_TEMPLATE)
        return self


class RestoreInto(ApiModel):
    """Where it goes."""

    database: RestoreDatabase


class RestoreOptions(ApiModel):
    """One database of a backup, or schemas of it, into one database of the target, in a single transaction."""

    from_: Annotated[RestoreFrom, Field(alias="from")]
    select: RestoreSelect = RestoreSelect()
    into: RestoreInto
