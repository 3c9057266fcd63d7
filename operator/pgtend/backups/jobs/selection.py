"""What of a database a dump takes, in our patterns and in those of pg_dump: both must mean the same, or what is locked,
counted and compared is not what is dumped."""

from __future__ import annotations

from dataclasses import dataclass

from pgtend.api.postgresbackuppolicy import Chosen, ChosenTables, DumpedDatabase
from pgtend.core.patterns import pattern


@dataclass(frozen=True, slots=True)
class Selection:
    """Of one database; without `chosen` it is everything."""

    chosen: DumpedDatabase | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing is left out because it is not named: then extensions, publications and large objects come
        along."""
        return self.chosen is None or not (self.chosen.schemas.include or self.chosen.tables.include)

    @property
    def everything(self) -> bool:
        return self.whole and (self.chosen is None or not (self.chosen.schemas.exclude or self.chosen.tables.exclude))

    def takes(self, schema: str, name: str, *, owner: tuple[str, str] | None = None) -> bool:
        """Whether pg_dump takes this table, partition or sequence. `owner` is the table that a sequence belongs to: one
        that is taken by its name brings it along."""
        if self.chosen is None:
            return True
        schemas, tables = self.chosen.schemas, self.chosen.tables
        if any(_matches_table(text, schema, name) for text in tables.exclude):
            return False
        if tables.include:
            named = any(_matches_table(text, schema, name) for text in tables.include)
            return named or (owner is not None and self.takes(*owner))
        if any(_matches(text, schema) for text in schemas.exclude):
            return False
        return not schemas.include or any(_matches(text, schema) for text in schemas.include)

    def arguments(self) -> list[str]:
        """For pg_dump."""
        if self.chosen is None:
            return []
        schemas, tables = self.chosen.schemas, self.chosen.tables
        return [
            *(f"--schema={_quoted(text)}" for text in schemas.include),
            *(f"--exclude-schema={_quoted(text)}" for text in schemas.exclude),
            *(f"--table={_dotted(text)}" for text in tables.include),
            *(f"--exclude-table={_dotted(text)}" for text in tables.exclude),
        ]

    def told(self) -> str:
        """For people: empty where it is everything."""
        if self.chosen is None:
            return ""
        return ", ".join(
            part
            for what, given in (("schemas", self.chosen.schemas), ("tables", self.chosen.tables))
            for part in _told(what, given)
        )


EVERYTHING = Selection()


def _told(what: str, given: Chosen | ChosenTables) -> list[str]:
    return [f"{what} {word} {' '.join(names)}" for word, names in
            (("include", given.include), ("exclude", given.exclude)) if names]  # fmt: skip


def _matches(text: str, name: str) -> bool:
    return pattern(text).fullmatch(name) is not None


def _matches_table(text: str, schema: str, name: str) -> bool:
    """The schema's part ends at the first dot."""
    first, _, second = text.partition(".")
    return _matches(first, schema) and _matches(second, name)


def _dotted(text: str) -> str:
    schema, _, table = text.partition(".")
    return f"{_quoted(schema)}.{_quoted(table)}"


def _quoted(text: str) -> str:
    """pg_dump takes what stands in quotation marks literally, and knows `*` outside of them."""
    parts = text.split("*")
    return "*".join('"' + part.replace('"', '""') + '"' if part else "" for part in parts)
