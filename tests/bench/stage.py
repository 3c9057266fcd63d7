"""What the benches of the operator share: a real server, the checkout's cluster, and the operator as a process, whose
CPU and memory the kernel counts."""

from __future__ import annotations

import compileall
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.harness import ROOT, Cluster, OperatorProcess, wait
from tests.fixtures.counters import ApiCounter
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.processes import ProcessRegistry
from tests.fixtures.tls import CertificateAuthority


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a process has used so far: CPU seconds, and resident MiB now and at most; `files` of it are pages of
    programs and libraries, which the kernel shares and can take back."""

    cpu: float
    rss: float
    files: float
    peak: float

    @classmethod
    def of(cls, pid: int) -> Cost:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        rss, files, peak = (round(int(status[name].split()[0]) / 1024, 1) for name in ("VmRSS", "RssFile", "VmHWM"))
        ticks = os.sysconf("SC_CLK_TCK")
        return cls(cpu=sum(int(f) for f in fields[11:13]) / ticks, rss=rss, files=files, peak=peak)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    cluster: Cluster
    server: PostgresServer
    process: OperatorProcess
    space: str

    def api(self) -> ApiCounter:
        """Counts the operator's requests from now on."""
        assert self.cluster.audit is not None, "this cluster has no audit log that can be read"
        return ApiCounter(self.cluster.audit, user=self.process.user)

    def items(self, kind: str) -> list[dict[str, Any]]:
        return self.cluster.list(kind, self.space)

    def all_ready(self, kind: str, count: int, *, seconds: float) -> None:
        """Looks at the objects when as many statuses were written as there are, else every ten seconds: to list a
        thousand objects twice a second takes as much of the machine as the work that is measured."""
        api, looked = self.api(), time.monotonic()

        def ready() -> bool:
            nonlocal looked
            written = sum(n for (_, what), n in api.writes().items() if what.startswith(kind) and "/status" in what)
            if written < count and time.monotonic() - looked < 10:
                return False
            looked = time.monotonic()
            found = Counter(
                condition["status"]
                for item in self.items(kind)
                for condition in item.get("status", {}).get("conditions", [])
                if condition["type"] == "Ready"
            )
            return found["True"] == count

        wait(f"{count} of {kind} are Ready", ready, seconds=seconds, every=0.5)


@contextmanager
def stage(*, settings: Mapping[str, str], major: int = 18) -> Iterator[Stage]:
    """Everything ends with it. The operator is installed and not started."""
    # as in the image: a process that compiles what it imports takes megabytes for that, and keeps them
    compileall.compile_dir(ROOT / "operator", quiet=1)
    registry = ProcessRegistry()
    cluster = Cluster.up()
    cluster.kubectl("apply", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    own, space = cluster.namespace("bench"), cluster.namespace("bench")
    try:
        folder = registry.root / "ca"
        folder.mkdir(mode=0o755)
        ca = CertificateAuthority(folder)
        server = PostgresServer.create(major, registry=registry, ca=ca, settings=dict(settings))
        with tempfile.TemporaryDirectory() as scratch:
            process = OperatorProcess(
                cluster,
                namespace=own,
                watched=[space],
                folder=Path(scratch),
                installation=f"bench-{secrets.token_hex(3)}",
                strict=False,
            )
            process.install()
            try:
                yield Stage(cluster=cluster, server=server, process=process, space=space)
            finally:
                process.stop()
    finally:
        cluster.kubectl("delete", "namespace", "--wait=false", own, space)
        registry.close()


def per(counts: Mapping[tuple[str, str], int], number: int) -> dict[str, float]:
    """API calls by `verb resource` for each of `number`, without the leader's pulse."""
    return {
        f"{verb} {resource}": round(count / number, 3)
        for (verb, resource), count in sorted(counts.items())
        if resource != "leases"
    }
