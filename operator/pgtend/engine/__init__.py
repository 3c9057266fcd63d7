"""Decides when what is reconciled: queue with lanes, loop, dependents, the Lease. app hands it the controllers."""
