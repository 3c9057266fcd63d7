"""Marks in the outside world, made of the installation and the object's name, never of UIDs, so that a cluster
rebuilt from Git takes up its own again (api.md, "Identity across rebuilds")."""

from __future__ import annotations

import base64
import hashlib
import re

_MARK = re.compile(r" ?\[pgtend:1:([a-z0-9-]{4,20}):([^\s\]/]+/[^\s\]]+)\]")


def short_hash(text: str) -> str:
    """The first 10 characters of lower-case base32 of sha256."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:10]


def application_name(*, installation: str, purpose: str, namespace: str, name: str) -> str:
    """`pgtend/<installation>/<purpose>/<hash>`, at most 63 bytes, which is all that PostgreSQL keeps."""
    return f"pgtend/{installation}/{purpose}/{short_hash(f'{namespace}/{name}')}"


def role_mark(*, installation: str, namespace: str, name: str) -> str:
    return f"[pgtend:1:{installation}:{namespace}/{name}]"


def read_mark(comment: str | None) -> tuple[str, str] | None:
    """(installation, namespace/name) of the mark in a comment, or None. Of several the last: ours is at the end."""
    found = _MARK.findall(comment or "")
    return found[-1] if found else None


def with_mark(comment: str | None, mark: str) -> str:
    """The user's text with this mark at its end, in place of an earlier one."""
    text = without_mark(comment)
    return f"{text} {mark}" if text else mark


def without_mark(comment: str | None) -> str:
    """The user's text alone, also where taking one mark away lets the text around it read as another."""
    text = comment or ""
    while (rest := _MARK.sub("", text)) != text:
        text = rest
    return text.rstrip()
