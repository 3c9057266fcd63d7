"""What watching N targets costs the operator in CPU and memory, and the server in connections and round trips.

    python tests/bench/bench_targets.py [--count 50] [--seconds 60] [--interval 15s]

The targets are of one real server on the loopback, observed: as many probes, sessions and verdicts as of N servers. A
server that answers late costs more time and no more CPU. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "operator")]

from tests.bench.stage import Cost, per, stage  # noqa: E402
from tests.cluster.builders import target  # noqa: E402
from tests.fixtures.proxy import Proxy  # noqa: E402

from pgtend.api.types import Duration  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="at most 200, a connection each")
    parser.add_argument("--seconds", type=float, default=60, help="of steady state")
    parser.add_argument("--interval", default="15s", help="probeInterval of each")
    options = parser.parse_args()
    count = min(int(options.count), 200)
    with stage(settings={"log_statement": "none", "max_connections": "500"}) as found:
        proxy = Proxy.before(found.server)
        members = [{"name": "a", "host": proxy.host, "port": proxy.port}]
        for number in range(count):
            name = f"t{number}"
            target(found.cluster, found.space, found.server, name=name, members=members, probeInterval=options.interval)
        found.process.start()
        found.all_ready("postgrestarget", count, seconds=300)
        interval = Duration(options.interval).seconds
        time.sleep(2 * interval)  # the first probes read more than the later ones
        api, before, counted = found.api(), Cost.of(found.process.pid), proxy.counts()
        started = time.monotonic()
        time.sleep(options.seconds)
        took = time.monotonic() - started
        after, spent = Cost.of(found.process.pid), proxy.counts() - counted
        writes, links = api.writes(), proxy.open_links
        found.process.stop()  # first: else its sessions end in the proxy with noise
        proxy.close()
    probes = count * took / interval
    result = {
        "bench": "targets",
        "count": count,
        "interval_s": interval,
        "seconds": round(took, 1),
        "cpu_percent_of_a_core": round(100 * (after.cpu - before.cpu) / took, 2),
        "cpu_ms_per_probe": round(1000 * (after.cpu - before.cpu) / probes, 2),
        "rss_mib": after.rss,
        "grown_mib": round(after.rss - before.rss, 1),
        "peak_mib": after.peak,
        "sessions": links,
        "new_connections": spent.connections,
        "round_trips_per_probe": round(spent.round_trips / probes, 2),
        "api_writes": per(writes, 1),
        "load": os.getloadavg(),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
