"""A page of reasons per kind: what each means and what to do, which is what somebody at 3 a.m. searches for."""

from __future__ import annotations

from collections.abc import Iterable

from pgtend.api.base import Kind
from pgtend.api.conditions import Reason
from pgtend.codegen.reference import HEADER, prose


def file_name(kind: Kind) -> str:
    return f"{kind.name}.md"


def page(kind: Kind) -> str:
    """One section per reason, in the order of the enum; the anchor is the reason in lower case."""
    blocks = [
        f"# Reasons of {kind.name}",
        f"What a condition of a [{kind.name}](../reference/{kind.singular}.md) can give as its reason, "
        "which `kubectl get` prints as REASON.",
    ]
    for reason in kind.own_reasons:
        blocks += [f"## {reason}", f"**Meaning:** {prose(reason.meaning)}", f"**What to do:** {prose(reason.remedy)}"]
    return HEADER + "\n\n".join(blocks) + "\n"


def index(kinds: Iterable[Kind]) -> str:
    """Every reason of every kind, by name."""
    found: dict[str, list[tuple[Kind, Reason]]] = {}
    for kind in kinds:
        for reason in kind.own_reasons:
            found.setdefault(str(reason), []).append((kind, reason))
    lines = ["| Reason | Kind | Meaning |", "| --- | --- | --- |"]
    for name in sorted(found):
        for kind, reason in found[name]:
            meaning = prose(reason.meaning).replace("|", "\\|")
            lines.append(f"| [{name}]({file_name(kind)}#{name.lower()}) | {kind.name} | {meaning} |")
    blocks = [
        "# Reasons",
        "A reason is part of the API: once released it is never renamed. Search this page for what a column REASON, "
        "a condition or an event shows.",
        "\n".join(lines),
    ]
    return HEADER + "\n\n".join(blocks) + "\n"
