"""Where backups lie. This package knows S3 and bytes: it uploads in parts within a bound on memory, compresses and
encrypts on the way, reads back as a stream, lists and deletes. It knows nothing of PostgreSQL or Kubernetes, so that
the operator and the pods of its Jobs use the very same code. `config`, `errors` and `parts` are pure; the S3 library is
imported by `boto` alone."""
