"""`pgtend window ...`: what a MaintenanceWindow would do, before it does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgtend.cli.options import run

if TYPE_CHECKING:
    from pgtend.api.base import Kind
    from pgtend.kube.index import Record


@click.group()
def window() -> None:
    """Maintenance windows: when they open."""


@window.command("simulate")
@click.option("--file", "-f", "files", multiple=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--namespace", "-n", help="Without files: of the cluster. With files: of objects that name none (default)."
)
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--context", help="Of the kubeconfig.")
@click.option("--from", "begin", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]), help="UTC. Default: now.")
@click.option("--days", type=click.IntRange(1, 1830), default=365, show_default=True)
@click.option("--window", "name", help="This one alone.")
@click.option("--daily", is_flag=True, help="In text: days on which only tasks with runPolicy Daily run, too.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
def simulate_command(
    files: tuple[Path, ...],
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    begin: datetime | None,
    days: int,
    name: str | None,
    daily: bool,
    output: str,
) -> None:
    """Print when the MaintenanceWindows in files, or of a namespace of the cluster, open in a year; what runs then;
    which other window of the same target is open beside one; and which dumps of PostgresBackupPolicies start in it."""
    from pgtend.api.maintenancewindow import MAINTENANCE_WINDOW, WindowSpec
    from pgtend.api.postgresbackuppolicy import POSTGRES_BACKUP_POLICY
    from pgtend.api.postgrestarget import POSTGRES_TARGET
    from pgtend.cli.simulate import document, lines, simulate

    kinds = (MAINTENANCE_WINDOW, POSTGRES_BACKUP_POLICY, POSTGRES_TARGET)
    start = (begin or datetime.now(UTC)).replace(tzinfo=UTC, microsecond=0)
    end = start + timedelta(days=days)

    async def work() -> list[str]:
        found = (
            [_in_files(files, kind, namespace or "default") for kind in kinds]
            if files
            else await _in_cluster(kinds, namespace, kubeconfig, context)
        )
        windows, policies, targets = found
        if not windows:
            raise ValueError("there is no MaintenanceWindow")
        plan = simulate(windows, policies=policies, targets=targets, start=start, end=end)
        if name is not None:
            windows = [one for one in windows if one.key.name == name]
            plan = plan.only({one.key for one in windows})
        if output == "json":
            return [document(plan, start, end)]
        return list(lines(plan, {one.key: one.parsed(WindowSpec).time_zone for one in windows}, daily=daily))

    for line in run(work()):
        click.echo(line)


def _in_files(files: Sequence[Path], kind: Kind, namespace: str) -> list[Record]:
    from pgtend.cli.reach import as_served, documents
    from pgtend.kube.index import record_of

    bodies = [(path, body) for path in files for body in documents(path, kind.name)]
    return [_valid(record_of(kind, as_served(body, namespace)), f"{path}: ") for path, body in bodies]


async def _in_cluster(
    kinds: Sequence[Kind], namespace: str | None, kubeconfig: Path | None, context: str | None
) -> list[list[Record]]:
    from pgtend.api.base import GROUP, VERSION
    from pgtend.kube.client import KubeClient, Resource
    from pgtend.kube.config import load
    from pgtend.kube.index import record_of

    cluster = load(kubeconfig, context)
    space = namespace or cluster.namespace
    async with KubeClient(cluster) as client:
        return [
            [_valid(record_of(k, body)) async for body in client.list(Resource(GROUP, VERSION, k.plural), space)]
            for k in kinds
        ]


def _valid(record: Record, where: str = "") -> Record:
    if record.spec_error is not None:
        raise ValueError(f"{where}{record.key.kind} {record.key.namespace}/{record.key.name}: {record.spec_error}")
    return record
