"""The command line. Imports are lazy: `pgtend --help` must not load a Kubernetes client."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from pgtend import __version__
from pgtend.cli.access import access
from pgtend.cli.backup import backup
from pgtend.cli.oncall import explain, status
from pgtend.cli.preview import plan
from pgtend.cli.target import target
from pgtend.cli.user import user
from pgtend.cli.window import window


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """pgtend tends PostgreSQL: day-2 operations, declared as Kubernetes resources."""


main.add_command(target)
main.add_command(access)
main.add_command(user)
main.add_command(plan)
main.add_command(backup)
main.add_command(window)
main.add_command(status)
main.add_command(explain)


@main.command()
@click.option("--installation-id", envvar="PGTEND_INSTALLATION_ID", required=True, help="Goes into all marks.")
@click.option("--namespace", envvar="PGTEND_NAMESPACE", help="The operator's own. Default: the pod's.")
@click.option("--watch-namespace", "watched", multiple=True, envvar="PGTEND_WATCH_NAMESPACES", help="Default: all.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's account, else KUBECONFIG.")
@click.option("--context", help="Of the kubeconfig.")
@click.option("--identity", help="In the Lease, no other process's. Default: the host's name and something random.")
@click.option("--health-port", default=8080, show_default=True, envvar="PGTEND_HEALTH_PORT")
@click.option("--log-level", default="INFO", show_default=True, envvar="PGTEND_LOG_LEVEL")
@click.option("--tools-image", default="", envvar="PGTEND_TOOLS_IMAGE", help="Of backups; {major} is the server's.")
@click.option("--tools-major", "majors", multiple=True, type=int, envvar="PGTEND_TOOLS_MAJORS", help="Default: all.")
@click.option(
    "--namespace-labels/--no-namespace-labels",
    default=None,
    help="Watch Namespaces for consent by labels. Default: where all are watched.",
)
@click.option(
    "--requesters-checked",
    is_flag=True,
    envvar="PGTEND_REQUESTERS_CHECKED",
    help="The chart's admission policy checks requestedBy; without it records call it a claim.",
)
def operator(
    installation_id: str,
    namespace: str | None,
    watched: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
    identity: str | None,
    health_port: int,
    log_level: str,
    tools_image: str,
    majors: tuple[int, ...],
    namespace_labels: bool | None,
    requesters_checked: bool,
) -> None:
    """Run the operator."""
    import asyncio

    from pgtend.engine import thrift
    from pgtend.kube.config import load
    from pgtend.telemetry.logs import configure

    with thrift.importing():
        from pgtend import app

    if not re.fullmatch(r"[a-z0-9-]{4,20}", installation_id):
        raise click.BadParameter("4 to 20 of a-z, 0-9 and -", param_hint="--installation-id")
    configure(log_level)
    cluster = load(kubeconfig, context)
    extra = {"identity": identity} if identity else {}
    settings = app.Settings(
        cluster=cluster,
        installation=installation_id,
        namespace=namespace or cluster.namespace,
        namespaces=frozenset(watched),
        health_port=health_port,
        tools_image=tools_image,
        tools_majors=frozenset(majors),
        requesters_checked=requesters_checked,
        namespace_labels=namespace_labels,
        **extra,
    )
    try:
        sys.exit(asyncio.run(app.Operator(settings).run()))
    except app.StartupError as error:
        click.echo(f"pgtend: {error}", err=True)
        sys.exit(2)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def job(words: tuple[str, ...]) -> None:
    """Run one job of a backup in its pod: dump, verify or restore, --config FILE."""
    from pgtend.backups.jobs.__main__ import main as run

    sys.exit(run(words))


@main.command()
@click.option("--namespace", envvar="PGTEND_NAMESPACE", help="The operator's own. Default: the pod's.")
@click.option("--watch-namespace", "watched", multiple=True, envvar="PGTEND_WATCH_NAMESPACES", help="Default: all.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's account, else KUBECONFIG.")
def uninstall(namespace: str | None, watched: tuple[str, ...], kubeconfig: Path | None) -> None:
    """Before the operator goes: set the brake, release finalizers, tell what is left."""
    import asyncio

    from pgtend.cli.uninstall import uninstall as carry_out
    from pgtend.kube.client import ApiError
    from pgtend.kube.config import load

    cluster = load(kubeconfig)
    try:
        said = asyncio.run(
            carry_out(cluster=cluster, namespace=namespace or cluster.namespace, namespaces=frozenset(watched))
        )
    except ApiError as error:
        click.echo(f"pgtend: {error}", err=True)
        sys.exit(1)
    for line in said:
        click.echo(line)


@main.command()
def failpoints() -> None:
    """List every failpoint, one a line."""
    from pgtend.core.failpoints import names

    for name in names(Path(__file__).parent):
        click.echo(name)


if __name__ == "__main__":
    main()
