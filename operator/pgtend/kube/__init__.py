"""All that talks to the Kubernetes API: the small client, the watch, the status writer, events. Knows no PostgreSQL."""
