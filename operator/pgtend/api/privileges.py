"""What can be granted on what: the kinds of objects, their words, and the presets.

A preset is nothing but the grants that it stands for: `expand` is used for consent, for the plan and for what people
are told, so that all three speak of the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ObjectKind = Literal[
    "Database", "Schema", "Table", "Sequence", "Function", "Procedure", "Type", "Language", "ForeignServer",
    "LargeObject", "Parameter", "Tablespace",
]  # fmt: skip
Privilege = Literal[
    "Connect", "Create", "Temporary", "Usage", "Select", "Insert", "Update", "Delete", "Truncate", "References",
    "Trigger", "Maintain", "Execute", "Set", "AlterSystem",
]  # fmt: skip
Word = Literal[
    "Connect", "Create", "Temporary", "Usage", "Select", "Insert", "Update", "Delete", "Truncate", "References",
    "Trigger", "Maintain", "Execute", "Set", "AlterSystem", "All",
]  # fmt: skip
Preset = Literal["ReadOnly", "ReadWrite", "Owner", "Monitor"]

PRIVILEGES: dict[str, tuple[Privilege, ...]] = {
    "Database": ("Connect", "Create", "Temporary"),
    "Schema": ("Usage", "Create"),
    "Table": ("Select", "Insert", "Update", "Delete", "Truncate", "References", "Trigger", "Maintain"),
    "Sequence": ("Usage", "Select", "Update"),
    "Function": ("Execute",),
    "Procedure": ("Execute",),
    "Type": ("Usage",),
    "Language": ("Usage",),
    "ForeignServer": ("Usage",),
    "LargeObject": ("Select", "Update"),
    "Parameter": ("Set", "AlterSystem"),
    "Tablespace": ("Create",),
}
"""In the order in which they are told."""
WORDS: tuple[Privilege, ...] = get_args(Privilege)
OF_COLUMNS: tuple[Privilege, ...] = ("Select", "Insert", "Update", "References")
IN_SCHEMAS = frozenset({"Table", "Sequence", "Function", "Procedure", "Type"})
OF_FUTURE: dict[str, ObjectKind] = {
    f"Default{kind}": kind for kind in ("Schema", "Table", "Sequence", "Function", "Type")
}
"""Default privileges, as kinds of their own: of objects that a role will make. Function is procedures too."""
PRIVILEGES |= {name: PRIVILEGES[kind] for name, kind in OF_FUTURE.items()}
SERVER_WIDE = frozenset({"Parameter", "Tablespace"})
"""Kinds that belong to no database."""
SINCE: dict[tuple[str, Privilege], int] = {
    ("Table", "Maintain"): 17,
    ("DefaultTable", "Maintain"): 17,
    ("Parameter", "Set"): 15,
    ("Parameter", "AlterSystem"): 15,
}
"""The major that brought a privilege, where it is not as old as 14."""


def words_of(kind: str, *, columns: bool = False) -> tuple[Privilege, ...]:
    """What All stands for."""
    return OF_COLUMNS if columns else PRIVILEGES[kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One grant of a preset, on all objects of a kind."""

    kind: ObjectKind
    words: tuple[Privilege, ...]


_READ = (
    Part(kind="Database", words=("Connect",)),
    Part(kind="Schema", words=("Usage",)),
    Part(kind="Table", words=("Select",)),
    Part(kind="Sequence", words=("Select",)),
)
PRESETS: dict[str, tuple[Part, ...]] = {
    "ReadOnly": _READ,
    "ReadWrite": (
        *_READ[:2],
        Part(kind="Table", words=("Select", "Insert", "Update", "Delete")),
        Part(kind="Sequence", words=("Usage", "Select", "Update")),
    ),
    "Owner": tuple(
        Part(kind=kind, words=PRIVILEGES[kind])
        for kind in ("Database", "Schema", "Table", "Sequence", "Function", "Procedure", "Type")
    ),
    "Monitor": (Part(kind="Database", words=("Connect",)),),
}
MEMBER_OF: dict[str, str] = {"Monitor": "pg_monitor"}
"""Roles that a preset makes a member of."""
