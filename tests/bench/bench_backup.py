"""How long a backup takes, as a ratio to the least that any logical backup needs: `pg_dump -Fc -Z0 > /dev/null`.

    python tests/bench/bench_backup.py [--megabytes 300] [--rounds 3] [--major 18] [--only compressible]

On a busy machine prefix it with `chrt -r 1` (as root): then others wait, for the length of the run.

Rounds are interleaved (baseline, ours, baseline, ours, ...), so that a busy machine hurts both alike; medians count.
Ours is the whole job as a process of its own: checks, snapshot, locks, row counts, dump, encryption, upload over TLS,
manifest. Ends with one line of JSON. Rows of a shop compress about 6 to 1; keys, digests and signatures as text hardly.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(_ROOT), str(_ROOT / "operator")]

from tests.fixtures.postgres import PostgresServer  # noqa: E402
from tests.fixtures.processes import ProcessRegistry  # noqa: E402
from tests.fixtures.s3 import S3Server  # noqa: E402
from tests.fixtures.tls import CertificateAuthority  # noqa: E402
from tests.postgres.backup_kit import Kit  # noqa: E402

BARS = {"compressible": 1.2, "incompressible": 1.5}
MEMORY_BAR = 192

COMPRESSIBLE = """
CREATE TABLE data AS
SELECT g AS id, 'customer ' || (g % 50000) AS customer, md5((g % 3000)::text) AS product,
       'order of ' || (g % 97) || ' pieces, to be delivered to street ' || (g % 1000) || ' by courier' AS note,
       now() - g * interval '1 second' AS made, (g * 17) % 100000 / 100.0 AS price
FROM generate_series(1, {rows}) g
"""
INCOMPRESSIBLE = """
CREATE TABLE data AS
SELECT g AS id, gen_random_uuid() AS token, encode(sha256(g::text::bytea), 'base64') AS digest,
       encode(sha512(g::text::bytea), 'base64') AS signature, random() AS score
FROM generate_series(1, {rows}) g
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300, help="raw size of the dump")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--major", type=int, default=18)
    parser.add_argument("--only", choices=sorted(BARS), help="one kind of data")
    options = parser.parse_args()
    registry = ProcessRegistry()
    results = {}
    try:
        folder = registry.root / "ca"
        folder.mkdir(mode=0o755)
        ca = CertificateAuthority(folder)
        settings = {"log_statement": "none", "shared_buffers": "256MB", "max_wal_size": "4GB"}
        server = PostgresServer.create(options.major, registry=registry, ca=ca, settings=settings)
        s3 = S3Server(registry=registry, ca=ca)
        for kind in [options.only] if options.only else list(BARS):
            results[kind] = measure(server, s3, kind, options.megabytes, options.rounds)
    finally:
        registry.close()
    good = all(r["ratio"] <= BARS[k] and r["rss_mib"] <= MEMORY_BAR for k, r in results.items())
    summary = {"bench": "backup", "major": options.major, "within_bars": good, "load": os.getloadavg()}
    print(json.dumps(summary | results))
    return 0


def measure(server: PostgresServer, s3: S3Server, kind: str, megabytes: int, rounds: int) -> dict[str, float]:
    database = server.fresh_database(kind[:6])
    rows = megabytes * (1_000_000 // (150 if kind == "compressible" else 210))
    print(f"{kind}: making {megabytes} MB ...", flush=True)
    template = COMPRESSIBLE if kind == "compressible" else INCOMPRESSIBLE
    server.execute(template.format(rows=rows), dbname=database)
    server.execute("VACUUM (FREEZE, ANALYZE) data", dbname=database)
    with tempfile.TemporaryDirectory() as scratch:
        kit = Kit(server=server, s3=s3, folder=Path(scratch), role=server.superuser, databases=[database])
        config = kit.config_file(kit.dump_config())
        baseline, ours, rss, cpu = [], [], [], []
        raw = stored = 0
        for number in range(rounds + 1):
            before = cpu_of(server, s3)
            base_seconds = run_baseline(kit, database)
            time.sleep(0.3)  # until the backend has ended: only then its CPU time is counted
            base_server = cpu_of(server, s3)[0] - before[0]
            before = cpu_of(server, s3)
            seconds, memory, cpu_seconds, child_seconds = run_ours(config)
            time.sleep(0.3)
            server_seconds, store_seconds = (b - a for a, b in zip(before, cpu_of(server, s3), strict=True))
            result = kit.result()
            if result.outcome != "Succeeded" or result.size is None:
                raise SystemExit(f"the job failed: {result.reason}: {result.message}")
            raw, stored = result.size.raw, result.size.stored
            note = "(warm-up, not counted)" if number == 0 else ""
            print(
                f"  pg_dump {base_seconds:.2f}s (server's CPU {base_server:.2f})   ours {seconds:.2f}s "
                f"(CPU: server {server_seconds:.2f}, pg_dump {child_seconds:.2f}, our process {cpu_seconds:.2f}, "
                f"S3 server {store_seconds:.2f}; {memory} MiB; dump {result.phases['dump']}s) {note}",
                flush=True,
            )
            if number:
                baseline.append(base_seconds)
                ours.append(seconds)
                rss.append(memory)
                cpu.append(cpu_seconds)
    server.execute(f'DROP DATABASE "{database}"')
    ratio = statistics.median(ours) / statistics.median(baseline)
    print(f"{kind}: {ratio:.2f} x pg_dump -Fc -Z0 (bar {BARS[kind]}), {raw >> 20} MiB raw, {stored >> 20} MiB stored")
    return {
        "ratio": round(ratio, 3),
        "ratio_best": round(min(ours) / min(baseline), 3),
        "pg_dump_s": round(statistics.median(baseline), 2),
        "ours_s": round(statistics.median(ours), 2),
        "our_cpu_s": round(statistics.median(cpu), 2),
        "rss_mib": max(rss),
        "raw_mib": raw >> 20,
        "stored_mib": stored >> 20,
    }


def cpu_of(server: PostgresServer, s3: S3Server) -> tuple[float, float]:
    """CPU seconds so far of the server with its backends that have ended, and of the S3 server."""
    ticks = os.sysconf("SC_CLK_TCK")

    def seconds(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(f) for f in fields[11:15]) / ticks

    return seconds(server.pid), seconds(s3._process.pid)  # type: ignore[union-attr]


def run_baseline(kit: Kit, database: str) -> float:
    started = time.monotonic()
    subprocess.run(
        [kit.programs / "pg_dump", "-Fc", "-Z0", "-d", kit.server.dsn(dbname=database)],
        stdout=subprocess.DEVNULL,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    return time.monotonic() - started


def run_ours(config: Path) -> tuple[float, int, float, float]:
    """Seconds, peak resident memory of our own process in MiB, its CPU seconds, those of pg_dump."""
    code = (
        "import sys, resource\n"
        "from pgtend.backups.jobs.__main__ import main\n"
        "status = main(sys.argv[1:])\n"
        "own, kids = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(own.ru_maxrss, own.ru_utime + own.ru_stime, kids.ru_utime + kids.ru_stime)\n"
        "sys.exit(status)\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "dump", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT / "operator")},
    )
    seconds = time.monotonic() - started
    if done.returncode != 0:
        raise SystemExit(f"the job failed:\n{done.stderr[-2000:]}")
    memory, own, children = done.stdout.split()
    return seconds, int(memory) // 1024, float(own), float(children)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
