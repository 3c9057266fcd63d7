"""What people and hooks run besides the operator: the API server by the small client, PostgreSQL read only."""
