"""What runs in pods: `dump` and `verify`. They get a JSON file and mounted secrets, have no access to Kubernetes, and
report by termination message and by what lies in the bucket. `config` is what controllers import: it needs neither
psycopg nor boto."""
