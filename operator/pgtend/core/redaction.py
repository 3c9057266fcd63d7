"""Secrets travel in a wrapper that prints as stars, and texts from outside pass a filter before they are shown."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

STARS = "***"
MOST = 32_768


class Sensitive:
    """A secret text. It compares and hashes, but neither repr, str, format nor pickle give it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return STARS

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return STARS

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sensitive) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Sensitive", self._value))

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled")


_PASSWORD_SQL = re.compile(r"(?i)(password\s+)'(?:[^']|'')*'")
_PASSWORD_PARAM = re.compile(
    r"(?i)((?:password|passwd|secret|token)[\"']?\s*[=:]\s*)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s,;&]+)"
)
# Up to the last @ before the path: a password with an @ in it is wrong in a URI, but libpq is sent such ones too. The
# scheme is bounded, else a long word without any :// is read once from each of its letters.
_URI = re.compile(r"(?i)([a-z][a-z0-9+.-]{0,30}://[^\s:/@]*:)[^\s/]+@")
_VERIFIER = re.compile(r"SCRAM-SHA-256\$[^\s']+")


def redact(text: str, secrets: Iterable[Sensitive] = ()) -> str:
    """`text` without the given secrets (plain, base64 and URL form) and without what looks like a password.

    Of a text that is longer than MOST it is the beginning.

    Secrets below 4 characters are not searched for: stars for every `a` would hide the text and show the secret.
    """
    forms = {form for secret in secrets if len(plain := secret.reveal()) >= 4 for form in _forms(plain)}
    for form in sorted(forms, key=len, reverse=True):  # the longest first, else the tail of one remains behind another
        text = text.replace(form, STARS)
    # a hostile server's error may have megabytes; what begins before the cut is still seen to its end
    whole, text = len(text) <= MOST, text[: MOST + 1024]
    text = _PASSWORD_SQL.sub(rf"\1'{STARS}'", text)
    text = _URI.sub(rf"\1{STARS}@", text)
    text = _PASSWORD_PARAM.sub(rf"\1{STARS}", text)
    text = _VERIFIER.sub(STARS, text)
    return text if whole else f"{text[:MOST]}…"


def _forms(plain: str) -> set[str]:
    """A secret as it may appear: as it is, within an SQL or JSON literal, in base64 and in a URL."""
    encoded = plain.encode("utf-8", "surrogatepass")
    return {
        plain,
        plain.replace("'", "''"),
        json.dumps(plain)[1:-1],
        json.dumps(plain, ensure_ascii=False)[1:-1],
        base64.b64encode(encoded).decode().rstrip("="),
        base64.urlsafe_b64encode(encoded).decode().rstrip("="),
        quote(encoded, safe=""),
        quote_plus(encoded),
    }
