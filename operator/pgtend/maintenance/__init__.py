"""MaintenanceWindow and MaintenanceRun: when work may run, what runs then, in which order, and what came of it."""
