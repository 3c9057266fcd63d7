"""Who we are and where we go: values, nothing is opened here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from pgtend.core.redaction import Sensitive


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who we are. Exactly one of `password` and `certificate` (PEM certificate and key) is given."""

    user: str
    password: Sensitive | None = None
    certificate: tuple[Sensitive, Sensitive] | None = None
    allow_md5: bool = False

    @property
    def secrets(self) -> tuple[Sensitive, ...]:
        return tuple(s for s in (self.password, *(self.certificate or ())) if s is not None)

    @property
    def fingerprint(self) -> str:
        """Changes when the credential does; gives nothing away."""
        text = "\0".join((self.user, *(s.reveal() for s in self.secrets)))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to. `name` is how people know it."""

    name: str
    host: str
    port: int
    sslmode: str = "require"
    ca: str | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        return f"{self.name} ({self.host}:{self.port})"
