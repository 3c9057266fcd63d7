"""A user's effective privileges as numbers, from what was observed for a whole batch. Pure.

Which databases count depends on the user alone and not on whom it was looked at with: those of its spec, and those in
which it has been granted something. So the numbers stand still while nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgtend.users.state import EVERYBODY, SERVER, Counts, Observed
from pgtend.users.wanted import Wanted
from pgtend.users.wishes import expand


def effective(wanted: Wanted, observed: Observed) -> Counts | None:
    """None where there is no role, or a database that counts could not be looked into."""
    role = observed.roles.get(wanted.role)
    if role is None:
        return None
    wishes = expand(wanted.grants, wanted.default_privileges)
    within = role.databases | {wish.database for wish in wishes if wish.kind != "Database"}
    total = Counts()
    for name, view in observed.databases.items():
        held = wanted.role in view.itself.held
        if name in (SERVER, *wanted.databases, *role.databases) or held:
            total += _of(view.outside, wanted.role)
        if name in within and name != SERVER:
            if view.inside is None:
                return None
            total += _of(view.inside, wanted.role)
    return total


def _of(counts: Mapping[str, Counts], role: str) -> Counts:
    return counts.get(role) or counts.get(EVERYBODY) or Counts()
