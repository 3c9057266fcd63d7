"""Passwords and what a Secret says about them. Pure but for chance; what is named here is what a program reads.

The Secret holds all that a program needs to log in, in the forms that programs read; the forms agree with each other,
so that a password which somebody changed by hand in one key alone is noticed.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from pgtend.api.databaseuser import Generate, UserSpec
from pgtend.api.postgrestarget import Member, Pooler, TargetSpec
from pgtend.core.redaction import Sensitive

_ALPHABETS = {
    "URLSafe": string.ascii_letters + string.digits + "-_",
    "Alphanumeric": string.ascii_letters + string.digits,
}


def generate(rule: Generate) -> Sensitive:
    """A new password, 128 bits of chance at the least. It begins with a letter or digit, since a program would take a
    leading dash for an option."""
    first = secrets.choice(_ALPHABETS["Alphanumeric"])
    rest = (secrets.choice(_ALPHABETS[rule.alphabet]) for _ in range(rule.length - 1))
    return Sensitive(first + "".join(rest))


def endpoints(spec: UserSpec, target: TargetSpec) -> Sequence[Member | Pooler]:
    """Where the Secret leads to; empty where spec.secret asks for a pooler and the target has none."""
    if spec.secret.endpoint == "Members":
        return target.members
    return [target.pooler] if target.pooler is not None else []


def database_of(spec: UserSpec, target: TargetSpec) -> str:
    """Key dbname."""
    named = next((g.database for g in spec.grants if g.database is not None), target.maintenance_database)
    return spec.secret.database or named


def secret_values(*, role: str, password: Sensitive | None, spec: UserSpec, target: TargetSpec) -> dict[str, Sensitive]:
    """The keys of the Secret: username, password, host, port, dbname, uri, jdbc-uri, pgpass, and the spec's templates.

    Where the target has several members all are named, in the order of its spec, for a client to find the one that
    takes writes: so a failover changes no Secret. TLS is asked for; which CA to trust is the client's to say. Without a
    password there is no password and no pgpass.
    """
    places = endpoints(spec, target)
    several = len(places) > 1
    hosts = ",".join(f"{_bracketed(p.host)}:{p.port}" for p in places)
    database = database_of(spec, target)
    name, user = quote(database, safe=""), quote(role, safe="")
    options = "sslmode=require" + ("&target_session_attrs=read-write" if several else "")
    jdbc = f"sslmode=require{'&targetServerType=primary' if several else ''}"
    found = {
        "username": role,
        "host": ",".join(p.host for p in places),
        "port": ",".join(str(p.port) for p in places),
        "dbname": database,
        "uri": f"postgresql://{user}@{hosts}/{name}?{options}",
        "jdbc-uri": f"jdbc:postgresql://{hosts}/{name}?user={user}&{jdbc}",
    }
    if password is not None:
        plain = password.reveal()
        secret = quote(plain, safe="")
        found |= {
            "password": plain,
            "uri": f"postgresql://{user}:{secret}@{hosts}/{name}?{options}",
            "jdbc-uri": f"jdbc:postgresql://{hosts}/{name}?user={user}&password={secret}&{jdbc}",
            "pgpass": _pgpass(places, role, plain),
        }
    made = {key: _filled(text, found) for key, text in spec.secret.templates.items()}
    return {key: Sensitive(value) for key, value in (found | made).items()}


def _filled(template: str, values: Mapping[str, str]) -> str:
    """One pass: what a value brings along is not looked at again."""
    return re.sub(r"\{\{ ?\.([a-z-]+) ?\}\}", lambda found: values[found[1]], template)


def agrees(values: Mapping[str, Sensitive]) -> bool:
    """Whether the Secret's own uri is of its password: it is not where somebody changed the password alone."""
    password, uri = values.get("password"), values.get("uri")
    return password is not None and uri is not None and f":{quote(password.reveal(), safe='')}@" in uri.reveal()


def _pgpass(places: Sequence[Member | Pooler], role: str, password: str) -> str:
    """One line per place, for every database. What a line cannot hold is left out: a file with half a password would
    be worse than none."""
    if "\n" in role + password or "\r" in role + password:
        return ""
    fields = [(p.host, str(p.port)) for p in places]
    return "".join(f"{_escaped(host)}:{port}:*:{_escaped(role)}:{_escaped(password)}\n" for host, port in fields)


def _escaped(text: str) -> str:
    return re.sub(r"([:\\])", r"\\\1", text)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
