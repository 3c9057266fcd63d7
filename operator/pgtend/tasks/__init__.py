"""One module per task: what it would do, as a plan with a hash, and how it is carried out. MaintenanceWindow and
PostgresOperation are two ways to start the same task."""
