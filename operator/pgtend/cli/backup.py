"""`pgtend backup`: what people do with backups from where they are: see what there is, read one back, take one out, and
ask for one now. A bucket, a credential and an identity are enough for all but the last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgtend.cli.bucket import Place, guarded, in_bucket
from pgtend.cli.options import run

if TYPE_CHECKING:
    from datetime import datetime

    from pgtend.cli.backup_list import Found

HARMED = 2
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def backup() -> None:
    """Backups: what there is, whether it is whole, out of the bucket, and one now."""


@backup.command("list")
@in_bucket
@click.option("--namespace", "-n", help="Instead of a bucket: the cluster's records in this namespace.")
@click.option("--all-namespaces", "-A", "everywhere", is_flag=True, help="The cluster's records in all of them.")
@click.option("--kubeconfig", type=_FILE, help="Default: the pod's account, else KUBECONFIG.")
@click.option("--context", help="Of the kubeconfig.")
@click.option("--policy", metavar="[NAMESPACE/]NAME", help="Backups of this policy alone.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--fail", is_flag=True, help="Exit code 2 where a backup is broken or a manifest unreadable.")
def list_command(
    namespace: str | None,
    everywhere: bool,
    kubeconfig: Path | None,
    context: str | None,
    policy: str | None,
    output: str,
    fail: bool,
    **where: Any,
) -> None:
    """List the backups in a bucket, or those that the cluster has records of, oldest first. Only what was committed is
    a backup; what else lies there is told below. Nothing is written."""
    from pgtend.cli.backup_list import render
    from pgtend.core.clock import SystemClock

    place = Place(**where)
    if place.given + (namespace is not None) + everywhere != 1:
        raise click.UsageError("exactly one of a bucket, --namespace and --all-namespaces is needed")
    now = SystemClock().now()
    if place.given:
        place.check()
        found = _in_bucket(place, policy, now)
    else:
        found = run(_recorded(namespace, kubeconfig, context, policy))
    for line in render(found, output, now=now):
        click.echo(line)
    if fail and found.harmed:
        raise SystemExit(HARMED)


def _in_bucket(place: Place, policy: str | None, now: datetime) -> Found:
    from pgtend.backups.bucket import read_all
    from pgtend.backups.jobs.destination import open_store
    from pgtend.cli.backup_list import of_catalog

    def work(report: Any) -> Found:
        store = open_store(place.destination(), report)
        try:
            return of_catalog(read_all(store), location=store.config.location, policy=policy, now=now)
        finally:
            store.close()

    return guarded(work)


async def _recorded(namespace: str | None, kubeconfig: Path | None, context: str | None, policy: str | None) -> Found:
    from pgtend.api.base import GROUP, VERSION
    from pgtend.api.postgresbackup import POSTGRES_BACKUP
    from pgtend.cli.backup_list import of_records
    from pgtend.kube.client import KubeClient, Resource
    from pgtend.kube.config import load

    resource = Resource(GROUP, VERSION, POSTGRES_BACKUP.plural)
    async with KubeClient(load(kubeconfig, context)) as client:
        bodies = [body async for body in client.list(resource, namespace)]
    source = f"namespace {namespace}" if namespace is not None else "all namespaces"
    return of_records(bodies, source=source, policy=policy)
