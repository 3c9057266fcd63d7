"""PostgresTarget: probes its members, judges what they say, gathers findings of other domains, writes its status."""
