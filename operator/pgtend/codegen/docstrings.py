"""The string under a field is its documentation, and only the source has it: pydantic drops it unless each model reads
its own source at import, which the operator should not pay for."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap

from pydantic import BaseModel


def paragraph(text: str | None) -> str:
    """A docstring as one line per paragraph, without its indentation."""
    blocks = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(" ".join(block.split()) for block in blocks if block.strip())


@functools.cache
def attribute_docs(cls: type) -> dict[str, str]:
    """Field name -> the string that stands under it, inherited fields included; the nearest class wins."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            docs.update(_own(base))
    return docs


def _own(cls: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # built in, or made without a source
        return {}
    (node,) = tree.body
    if not isinstance(node, ast.ClassDef):
        return {}
    docs = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            docs[field.target.id] = paragraph(text.value.value)
    return docs
