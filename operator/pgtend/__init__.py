"""pgtend: day-2 operations on any PostgreSQL that can be reached, declared as Kubernetes resources."""

__version__ = "0.1.0"
