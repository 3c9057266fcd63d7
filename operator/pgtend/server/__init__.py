"""From a reference to a server that may be used: target, consent, Secret, sessions, identity, mode. The one door to
PostgreSQL for every domain."""
