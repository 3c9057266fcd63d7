"""The kinds that exist, in the order in which they are watched. Generators and the watcher walk this list."""

from __future__ import annotations

from pgtend.api.backupdestination import BACKUP_DESTINATION
from pgtend.api.base import Kind
from pgtend.api.databaseuser import DATABASE_USER
from pgtend.api.maintenancerun import MAINTENANCE_RUN
from pgtend.api.maintenancewindow import MAINTENANCE_WINDOW
from pgtend.api.postgresbackup import POSTGRES_BACKUP
from pgtend.api.postgresbackuppolicy import POSTGRES_BACKUP_POLICY
from pgtend.api.postgresoperation import POSTGRES_OPERATION
from pgtend.api.postgrestarget import POSTGRES_TARGET

KINDS: tuple[Kind, ...] = (
    POSTGRES_TARGET,
    DATABASE_USER,
    BACKUP_DESTINATION,
    POSTGRES_BACKUP_POLICY,
    POSTGRES_BACKUP,
    POSTGRES_OPERATION,
    MAINTENANCE_WINDOW,
    MAINTENANCE_RUN,
)
BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}
