"""What the operator costs where there is nothing to do: no target at all, one that is well, then a thousand objects
that are as they should be.

    python tests/bench/bench_idle.py [--seconds 45] [--objects 1000]

With the thousand it waits for five minutes at least. Ends with one line of JSON.
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

from tests.bench.stage import Cost, Stage, per, stage  # noqa: E402
from tests.cluster.harness import wait  # noqa: E402
from tests.cluster.users_ground import KIND, open_target, user  # noqa: E402
from tests.postgres.users_ground import Shop  # noqa: E402

BATCH = 100
TURN = 310.0
"""Seconds in which every user is looked at: in fewer a thousand of them may cost nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45, help="of each state")
    parser.add_argument("--objects", type=int, default=1000, help="a target and its users; 0 leaves this state out")
    options = parser.parse_args()
    with stage(settings={"log_statement": "none"}) as found:
        found.process.start()
        wait("it leads", lambda: '"leading"' in found.process.log, seconds=60)
        time.sleep(5)
        nothing = spent(found, options.seconds)
        result: dict[str, object] = {"bench": "idle", "nothing": nothing}
        open_target(found.cluster, found.space, found.server, probeInterval="15s")
        found.all_ready("postgrestarget", 1, seconds=60)
        time.sleep(20)
        result["one_target"] = spent(found, options.seconds)
        if options.objects:
            populate(found, options.objects - 1)
            # as after an upgrade: what making them took is not what keeping them takes
            found.process.restart()
            time.sleep(60)
            result["many"] = {"objects": options.objects, **spent(found, max(options.seconds, TURN))}
    print(json.dumps(result | {"load": os.getloadavg()}))
    return 0


def populate(found: Stage, users: int) -> None:
    """Users with three grants each, all Ready."""
    shop = Shop.open(found.server)
    names = [found.server.fresh_name("idle").replace("_", "-") for _ in range(users)]
    for first in range(0, users, BATCH):
        items = [user(found.space, name, grants=shop.trio("Select")) for name in names[first : first + BATCH]]
        found.cluster.apply({"apiVersion": "v1", "kind": "List", "items": items})
    found.all_ready(KIND, users, seconds=600)


def spent(found: Stage, seconds: float) -> dict[str, object]:
    api, before, started = found.api(), Cost.of(found.process.pid), time.monotonic()
    time.sleep(seconds)
    took, after = time.monotonic() - started, Cost.of(found.process.pid)
    return {
        "seconds": round(took, 1),
        "cpu_percent_of_a_core": round(100 * (after.cpu - before.cpu) / took, 2),
        "rss_mib": after.rss,
        "of_files_mib": after.files,
        "peak_mib": after.peak,
        "api_writes": per(api.writes(), 1),
        "lease_renewals_per_minute": round(60 * api.counts()[("update", "leases")] / took, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
