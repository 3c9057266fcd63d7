"""SCRAM-SHA-256 verifiers made by us, so that no password ever crosses the wire or stands in a server's log.

What PostgreSQL does in src/common/saslprep.c and scram-common.c: RFC 4013 where the password can be prepared, its
plain bytes where not; RFC 5802 with 4096 iterations, which every client library accepts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import stringprep
import unicodedata

from pgtend.core.redaction import Sensitive

ITERATIONS = 4096
# a stored verifier with more is not compared: a hostile server would have us compute for hours. Ours has fewer
MOST_COMPARED = 10_000
_FORM = re.compile(r"SCRAM-SHA-256\$([0-9]{1,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


def verifier(password: Sensitive, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> Sensitive:
    """What goes into pg_authid.rolpassword. About a millisecond of CPU, without the interpreter's lock.

    `salt` (16 random bytes where left out) is for comparing with a verifier that exists.
    """
    salt = os.urandom(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", prepare(password.reveal()), salt, iterations)
    stored = hashlib.sha256(_keyed(salted, b"Client Key")).digest()
    server = _keyed(salted, b"Server Key")
    return Sensitive(f"SCRAM-SHA-256${iterations}:{_b64(salt)}${_b64(stored)}:{_b64(server)}")


def matches(stored: Sensitive | None, password: Sensitive) -> bool:
    """Whether a role's stored verifier is of this password. Anything but SCRAM (md5, none at all) is not, nor is one
    with iterations beyond measure."""
    form = _FORM.fullmatch(stored.reveal()) if stored is not None else None
    if stored is None or form is None or not 0 < int(form[1]) <= MOST_COMPARED:
        return False
    try:
        salt = base64.b64decode(form[2], validate=True)
    except binascii.Error:
        return False
    made = verifier(password, salt=salt, iterations=int(form[1]))
    return hmac.compare_digest(made.reveal(), stored.reveal())


def prepare(password: str) -> bytes:
    """The bytes that are hashed: SASLprep's, or the password's own where SASLprep refuses it, as PostgreSQL does."""
    plain = password.encode()
    if password.isascii():
        return plain
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c))
    text = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not text or any(_prohibited(c) for c in text) or not _bidirectional(text):
        return plain
    return text.encode()


def _prohibited(c: str) -> bool:
    return (
        stringprep.in_table_a1(c)
        or stringprep.in_table_c12(c)
        or stringprep.in_table_c21_c22(c)
        or stringprep.in_table_c3(c)
        or stringprep.in_table_c4(c)
        or stringprep.in_table_c5(c)
        or stringprep.in_table_c6(c)
        or stringprep.in_table_c7(c)
        or stringprep.in_table_c8(c)
        or stringprep.in_table_c9(c)
    )


def _bidirectional(text: str) -> bool:
    """RFC 3454, section 6: right-to-left text begins and ends so, and has no left-to-right letter."""
    if not any(stringprep.in_table_d1(c) for c in text):
        return True
    if any(stringprep.in_table_d2(c) for c in text):
        return False
    return stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])


def _keyed(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
