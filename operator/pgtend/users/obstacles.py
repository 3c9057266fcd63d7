"""What stands in the way of dropping a role, read before anything is changed, each with the SQL that moves it.

What a later minor release refuses is refused on all of them, so that a role's end does not depend on the day its server
was updated: CVE-2026-120146 (a database is given away without CREATEDB) and CVE-2026-116311 (a role leaves the policies
of tables that the caller does not own), both of November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence

from pgtend.api.reasons import UserReason as R
from pgtend.postgres.quoting import identifier
from pgtend.users.judge import number
from pgtend.users.look import Looker
from pgtend.users.observe.depends import Dependents
from pgtend.users.state import Observed, Problem

SHOWN = 10
ONE_OF = "reassign or drop them, or set deletionPolicy: Retain"


async def obstacle(
    looker: Looker, role: str, found: Dependents, heir: str | None, observed: Observed
) -> Problem | None:
    """The first one. Raises PgtendError where a database cannot be read."""
    if found.owned and heir is None:
        named = await looker.named(role, found, owned=True)
        text = f"role {role} owns {number(found.owned, 'object')} ({listed(named, found.owned)}): set"
        return _blocked(role, f"{text} drop.reassignOwnedTo, {ONE_OF}")
    problem = _of_heir(role, found, str(heir), observed) if found.owned else None
    problem = problem or _of_database(role, found, observed)
    return problem or await _of_policy(looker, role, found, observed)


def _of_heir(role: str, found: Dependents, heir: str, observed: Observed) -> Problem | None:
    if found.heir is None:
        return _blocked(
            heir, f"role {heir}, who is to get what {role} owns, does not exist: create it, or name another"
        )
    if found.heir.powerful:
        return _blocked(heir, f"role {heir} has the powers of a superuser, to whom nothing is given: name another")
    if not found.heir.ours:
        grant = f"GRANT {identifier(heir)} TO {identifier(observed.grantor)}"
        return _blocked(
            heir, f"{observed.grantor} may not give anything to role {heir}: as an administrator run {grant}"
        )
    if found.databases and not found.gives_databases:
        first = found.databases[0]
        text = f"role {role} owns {number(len(found.databases), 'database')} ({listed(found.databases)}), which"
        text += f" {observed.grantor} may not give away: as an administrator run"
        return _blocked(first, f"{text} ALTER DATABASE {identifier(first)} OWNER TO {identifier(heir)}")
    return None


def _of_database(role: str, found: Dependents, observed: Observed) -> Problem | None:
    first = next((place for place in found.places if not place.connectable), None)
    if first is None:
        return None
    text = f"{first.owned + first.others} objects in database {first.database} depend on role {role}, and"
    text += f" {observed.grantor} may not connect there: as an administrator run GRANT CONNECT ON DATABASE"
    return _blocked(first.database, f"{text} {identifier(str(first.database))} TO {identifier(observed.grantor)}")


async def _of_policy(looker: Looker, role: str, found: Dependents, observed: Observed) -> Problem | None:
    """A policy whose table's owner we may not act for."""
    for place in found.places:
        policy = await looker.foreign_policy(role, str(place.database)) if place.policies else None
        if policy is not None:
            name = identifier(policy.policy)
            text = f"policy {policy.policy} on table {policy.table} in database {place.database} names role {role},"
            text += f" and {observed.grantor} may not change what {policy.owner} owns: as {policy.owner} or an"
            text += f" administrator run ALTER POLICY {name} ON {policy.table} TO whom it is for, or DROP POLICY {name}"
            return _blocked(policy.table, f"{text} ON {policy.table}")
    return None


def _blocked(what: str | None, text: str) -> Problem:
    return Problem(reason=R.DROP_BLOCKED, object=what, message=text)


def listed(named: Sequence[str], count: int | None = None) -> str:
    """The first few of `count`, or of all that are named."""
    some = named[:SHOWN]
    return ", ".join(some) + (", …" if (len(named) if count is None else count) > len(some) else "")
