"""What somebody on call types first, with kubectl's words: `kubectl pgtend status`, `kubectl pgtend explain`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pgtend.cli.options import run

if TYPE_CHECKING:
    from pgtend.cli.board import Life, Row

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)
UNWELL = 2
EVERY = 2.0


def _clustered(command: F) -> F:
    for option in (
        click.option("--context", help="Of the kubeconfig."),
        click.option("--kubeconfig", type=_FILE, help="Default: the pod's account, else KUBECONFIG."),
        click.option("--namespace", "-n", help="Default: that of the kubeconfig's context."),
    ):
        command = option(command)
    return command


@click.command()
@_clustered
@click.option("--all-namespaces", "-A", "everywhere", is_flag=True)
@click.option("--all", "-a", "everything", is_flag=True, help="What is well, too.")
@click.option("--wide", is_flag=True, help="Messages in full.")
@click.option("--watch", "-w", is_flag=True, help=f"Again every {EVERY:.0f} s, until Ctrl-C.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--fail", is_flag=True, help=f"Exit code {UNWELL} where something is critical or wrong.")
@click.option("--operator-namespace", default="pgtend", show_default=True, help="Where its Lease is.")
def status(
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    everywhere: bool,
    everything: bool,
    wide: bool,
    watch: bool,
    output: str,
    fail: bool,
    operator_namespace: str,
) -> None:
    """The board: what is not well, worst first, and whether the operator is alive. Nothing is written."""
    from pgtend.cli.board import document, lines
    from pgtend.core.clock import SystemClock

    if everywhere and namespace is not None:
        raise click.UsageError("--namespace and --all-namespaces are one too many")
    if watch and (output == "json" or fail):
        raise click.UsageError("--watch is for people: without --output json and --fail")
    clock = SystemClock()
    while True:
        rows, operator = run(_read(kubeconfig, context, namespace, everywhere, operator_namespace))
        now = clock.now()
        if output == "json":
            click.echo(document(rows, operator, now))
        else:
            if watch:
                click.clear()
            for line in lines(rows, operator, now, everything=everything, wide=wide):
                click.echo(line)
        if not watch:
            break
        try:
            time.sleep(EVERY)
        except KeyboardInterrupt:
            return
    if fail and (operator.gone or any(row.level in ("Critical", "Wrong") for row in rows)):
        raise SystemExit(UNWELL)


async def _read(
    kubeconfig: Path | None, context: str | None, namespace: str | None, everywhere: bool, operator_namespace: str
) -> tuple[list[Row], Life]:
    from pgtend.cli.board import life, read
    from pgtend.core.clock import SystemClock
    from pgtend.kube.client import KubeClient
    from pgtend.kube.config import load

    cluster = load(kubeconfig, context)
    async with KubeClient(cluster) as client:
        rows = await read(client, None if everywhere else namespace or cluster.namespace)
        return rows, await life(client, operator_namespace, SystemClock().now())


@click.command()
@click.argument("what", metavar="REASON|KIND/NAME")
@click.argument("condition", required=False)
@click.option("--kind", help="Of the reason. Default: all that give it.")
@_clustered
def explain(
    what: str,
    condition: str | None,
    kind: str | None,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """What a REASON means and what to do; or the conditions of an object (pgt/orders) that are not as they should be,
    or one CONDITION of it. A reason needs no cluster."""
    from pgtend.cli.explain import conditions, kind_of, reasons

    word, slash, name = what.partition("/")

    async def told() -> list[str]:
        if not slash:
            return list(reasons(word, kind_of(kind) if kind else None))
        return list(conditions(kind_of(word), await _object(word, name, namespace, kubeconfig, context), condition))

    if condition is not None and not slash:
        raise click.UsageError("a CONDITION is one of an object: give KIND/NAME before it")
    for line in run(told()):
        click.echo(line)


async def _object(
    kind: str, name: str, namespace: str | None, kubeconfig: Path | None, context: str | None
) -> dict[str, Any]:
    from pgtend.api.base import GROUP, VERSION
    from pgtend.cli.explain import kind_of
    from pgtend.kube.client import KubeClient, NotFound, Resource
    from pgtend.kube.config import load

    cluster, found = load(kubeconfig, context), kind_of(kind)
    space = namespace or cluster.namespace
    async with KubeClient(cluster) as client:
        try:
            return dict(await client.get(Resource(GROUP, VERSION, found.plural), space, name))
        except NotFound:
            raise ValueError(f"there is no {found.name} {space}/{name}") from None
