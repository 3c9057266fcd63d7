"""What DatabaseUsers cost: made all at once, left alone, and repaired after a drift of all of them.

    python tests/bench/bench_users.py [--count 1000] [--grants 10] [--steady 300]

All users are there when the operator starts, and for the repair it starts again: so the figure is that of the work, not
of the wheel that brings a user round every five minutes. Counts hold on any machine; users per second, seconds and MiB
are this machine's, of two runs on one that does nothing else. Says each phase as it ends, and ends with one line of
JSON: users_per_second, api_writes_per_user (without Events), round_trips_per_batch (of a hundred users, on the wire),
steady_api_writes (all, without the Lease), steady_queries_per_interval (of 300 s, for all users), repair_seconds,
peak_mib.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "operator")]

from psycopg import sql  # noqa: E402
from tests.bench.stage import Cost, Stage, per, stage  # noqa: E402
from tests.cluster.harness import wait  # noqa: E402
from tests.cluster.users_ground import KIND, open_target, user  # noqa: E402
from tests.fixtures.counters import SqlCounter  # noqa: E402
from tests.fixtures.proxy import Proxy  # noqa: E402
from tests.postgres.users_ground import Shop  # noqa: E402

BATCH = 100
INTERVAL = 300.0
TABLES = 8


@dataclass
class Bench:
    """The stage with its target reached and its users applied."""

    found: Stage
    shop: Shop
    proxy: Proxy
    names: list[str]

    def create(self) -> dict[str, Any]:
        count = len(self.names)
        api, before, started = self.found.api(), self.proxy.counts(user="pgtend_users"), time.monotonic()
        self.found.process.start()
        self.found.all_ready(KIND, count, seconds=900)
        seconds = time.monotonic() - started
        time.sleep(1)  # the audit log is written in batches of its own
        spent, writes = self.proxy.counts(user="pgtend_users") - before, api.writes()
        cost = Cost.of(self.found.process.pid)
        own = sum(n for (_, what), n in writes.items() if "users" in what or what == "secrets")
        return {
            "seconds": round(seconds, 1),
            "users_per_second": round(count / seconds, 1),
            "api_writes_per_user": round(own / count, 3),
            "api_writes": per(writes, count),
            "round_trips": spent.round_trips,
            "round_trips_per_batch": round(spent.round_trips / -(-count // BATCH), 1),
            "connections": spent.connections,
            "cpu_ms_per_user": round(1000 * cost.cpu / count, 1),
            "peak_mib": cost.peak,
        }

    def steady(self, seconds: float) -> dict[str, Any]:
        """Nothing changes, and time passes."""
        self.found.server.configure(log_statement="all")
        time.sleep(5)  # what began before
        api, statements = self.found.api(), SqlCounter(self.found.server, user="pgtend_users")
        before = Cost.of(self.found.process.pid)
        time.sleep(seconds)
        told, writes = statements.statements(), api.writes(without=("leases",))
        after = Cost.of(self.found.process.pid)
        self.found.server.configure(log_statement="none")
        return {
            "seconds": seconds,
            "steady_api_writes": sum(writes.values()),
            "api_writes": {f"{verb} {what}": n for (verb, what), n in writes.items()},
            "steady_queries_per_interval": round(sum("pg_shdepend" in text for text in told) * INTERVAL / seconds, 1),
            "statements": len(told),
            "cpu_percent": round(100 * (after.cpu - before.cpu) / seconds, 2),
        }

    def repair(self) -> dict[str, Any]:
        """By hand a privilege is taken from each, another given, and the connection limit changed."""
        self.found.process.stop()
        with self.found.server.superuser_connect(self.shop.name) as connection:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(self.shop.owner)))
            roles = sql.SQL(", ").join(sql.Identifier(name) for name in self.names)
            connection.execute(sql.SQL("REVOKE SELECT ON shop.t0 FROM {}").format(roles))
            connection.execute(sql.SQL("GRANT TRUNCATE ON shop.t1 TO {}").format(roles))
            connection.execute("RESET ROLE")
            for name in self.names:
                connection.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 1").format(sql.Identifier(name)))

            def repaired() -> bool:
                row = connection.execute(_DRIFTED, {"roles": self.names}).fetchone()
                return row is not None and row[0] == 0

            assert not repaired(), "the drift is there"
            started = time.monotonic()
            self.found.process.start()
            wait("every drift is set right", repaired, seconds=900, every=0.1)
            seconds = time.monotonic() - started
        return {"repair_seconds": round(seconds, 1), "peak_mib": Cost.of(self.found.process.pid).peak}


_DRIFTED = """
SELECT count(*) FROM pg_roles AS r WHERE rolname = ANY(%(roles)s) AND (rolconnlimit <> -1
    OR NOT has_table_privilege(r.oid, 'shop.t0', 'SELECT') OR has_table_privilege(r.oid, 'shop.t1', 'TRUNCATE'))"""


def grants(shop: Shop, count: int) -> list[dict[str, Any]]:
    """Of the database, the schema, and tables by name."""
    tables = [
        {"database": shop.name, "kind": "Table", "schema": "shop", "names": [name], "privileges": ["Select"]}
        for name in shop.tables
    ]
    return [*shop.trio()[:2], *tables][:count]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--grants", type=int, default=10, choices=range(4, TABLES + 3))
    parser.add_argument("--steady", type=float, default=INTERVAL, help="seconds, an interval of 300 at least")
    options = parser.parse_args()
    if options.steady < INTERVAL:
        parser.error("--steady is 300 at least: in less the users may not be looked at once")
    with stage(settings={"log_statement": "none"}) as found:
        shop = Shop.open(found.server, tables=[f"t{n}" for n in range(TABLES)])
        proxy = Proxy.before(found.server)
        found.process.start()
        members = [{"name": "a", "host": proxy.host, "port": proxy.port}]
        open_target(found.cluster, found.space, found.server, members=members)
        found.process.stop()
        names = [found.server.fresh_name("many").replace("_", "-") for _ in range(options.count)]
        bodies = [user(found.space, name, grants=grants(shop, options.grants)) for name in names]
        for first in range(0, len(bodies), BATCH):
            found.cluster.apply({"apiVersion": "v1", "kind": "List", "items": bodies[first : first + BATCH]})
        bench = Bench(found, shop, proxy, names)
        told: dict[str, dict[str, Any]] = {}
        for name, phase in (
            ("create", bench.create),
            ("steady", lambda: bench.steady(options.steady)),
            ("repair", bench.repair),
        ):
            told[name] = phase()
            print(name, json.dumps(told[name]), "load", os.getloadavg(), flush=True)
        found.process.stop()  # first: else its sessions end in the proxy with noise
        proxy.close()
    result = {
        "users_per_second": told["create"]["users_per_second"],
        "api_writes_per_user": told["create"]["api_writes_per_user"],
        "round_trips_per_batch": told["create"]["round_trips_per_batch"],
        "steady_api_writes": told["steady"]["steady_api_writes"],
        "steady_queries_per_interval": told["steady"]["steady_queries_per_interval"],
        "repair_seconds": told["repair"]["repair_seconds"],
        "peak_mib": max(told["create"]["peak_mib"], told["repair"]["peak_mib"]),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
