"""The advisory locks that everything of pgtend takes which changes what is shared, the operator and its pods alike: two
changes of one row of a shared catalog at a time fail with `tuple concurrently updated`."""

from __future__ import annotations

from enum import Enum

# advisory lock (classid, objid): "pgtd", then what is locked
LOCK_CLASS = 0x70677464


class Lock(Enum):
    """Roles, memberships, database and tablespace ACLs are shared objects: their DDL locks SHARED, always in the
    maintenance database (advisory locks are per database). Database-local ACLs lock LOCAL in their database."""

    SHARED = 1
    LOCAL = 2
