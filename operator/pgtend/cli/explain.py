"""`pgtend explain`: what a reason means and what to do, without a cluster and without looking for its page; or the same
for each condition of an object that is not as it should be, with what its status says."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import click

from pgtend.api.base import Kind
from pgtend.api.conditions import ABNORMAL, Reason
from pgtend.api.kinds import KINDS
from pgtend.cli.options import printable

WIDTH = 100


def kind_of(word: str) -> Kind:
    """By name, plural or short name. Raises ValueError."""
    for kind in KINDS:
        if word.lower().removesuffix(".pgtend.dev") in (kind.singular, kind.plural, kind.short):
            return kind
    raise ValueError(f"no kind {word}: there are {', '.join(kind.name for kind in KINDS)}")


def reasons(word: str, kind: Kind | None) -> Iterator[str]:
    """What the reason means in each kind that gives it. Raises ValueError with the nearest where there is none."""
    kinds = KINDS if kind is None else (kind,)
    found: dict[tuple[str, str], list[str]] = {}
    every: set[str] = set()
    for one in kinds:
        for reason in one.own_reasons:
            every.add(str(reason))
            if str(reason).lower() == word.lower():
                found.setdefault((reason.meaning, reason.remedy), []).append(one.name)
                word = str(reason)
    if not found:
        near = difflib.get_close_matches(word, sorted(every), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "kubectl get shows them in the column REASON"
        raise ValueError(f"no reason {word}{f' of {kind.name}' if kind else ''}: {hint}")
    for (meaning, remedy), names in found.items():
        yield click.style(f"{word} ({', '.join(names)})", bold=True)
        yield from _text(meaning, remedy)


def conditions(kind: Kind, body: Mapping[str, Any], wanted: str | None) -> Iterator[str]:
    """One condition, or all that are not as they should be. Raises ValueError where there is no such one."""
    known = {str(reason): reason for reason in kind.own_reasons}
    told = {str(c["type"]): c for c in (body.get("status") or {}).get("conditions") or ()}
    if wanted is not None:
        chosen = [c for name, c in told.items() if name.lower() == wanted.lower()]
        if not chosen:
            raise ValueError(f"no condition {wanted} there: {', '.join(told) or 'it has none yet'}")
    else:
        chosen = [c for c in told.values() if (c["status"] == "True") is (c["type"] in ABNORMAL) and _matters(known, c)]
    if not told:
        yield "nobody has looked at it yet: is the operator running, and does it watch this namespace?"
    elif not chosen:
        yield "all is as it should be"
    for condition in chosen:
        head = f"{condition['type']}={condition['status']}/{condition['reason']}"
        yield click.style(f"{head} since {condition['lastTransitionTime']}", bold=True)
        yield from _wrapped(str(condition.get("message") or ""))
        reason = known.get(str(condition["reason"]))
        if isinstance(reason, Reason):
            yield from _text(reason.meaning, reason.remedy)


def _matters(known: Mapping[str, Reason], condition: Mapping[str, Any]) -> bool:
    """What was not asked for is Unknown, and nobody has to do anything about it."""
    reason = known.get(str(condition["reason"]))
    return condition["status"] != "Unknown" or reason is None or reason.remedy != "Nothing."


def _text(meaning: str, remedy: str) -> Iterator[str]:
    yield from _wrapped(f"Meaning: {meaning}")
    yield from _wrapped(f"What to do: {remedy}")
    yield ""


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(printable(text), WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
