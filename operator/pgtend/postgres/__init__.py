"""Talking to PostgreSQL: connecting safely, timeouts by purpose, SQLSTATE classes, quoting. Knows no Kubernetes."""
