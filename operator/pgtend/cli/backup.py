"""`pgtend backup`: what people do with backups from where they are: see what there is, read one back, take one out, and
ask for one now. A bucket, a credential and an identity are enough for all but the last."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from pgtend.cli.bucket import Place, guarded, in_bucket
from pgtend.cli.options import FAILED, printable, run

if TYPE_CHECKING:
    from datetime import datetime

    from pgtend.backups.jobs.config import Termination
    from pgtend.backups.jobs.report import Report
    from pgtend.cli.backup_list import Found

F = TypeVar("F", bound=Callable[..., Any])
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

    def work(report: Report) -> Found:
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


def _identity(command: F) -> F:
    option: Callable[[F], F] = click.option(
        "--identity-file",
        type=_FILE,
        envvar="PGTEND_AGE_IDENTITY_FILE",
        required=True,
        metavar="FILE",
        help="As age-keygen writes it, of one of the recipients.",
    )
    return option(command)


@backup.command("fetch")
@click.argument("name", metavar="BACKUP")
@in_bucket
@_identity
@click.option("--database", help="The dump of this database: a custom-format archive for pg_restore.")
@click.option("--globals", "roles", is_flag=True, help="Roles and tablespaces: SQL for psql.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), required=True, metavar="FILE", help="A new file, - for a pipe."
)
def fetch_command(
    name: str, identity_file: Path, database: str | None, roles: bool, output: Path, **where: Any
) -> None:
    """Download, decrypt and decompress one database of a backup, or its globals. BACKUP is a name as `list` prints it,
    or a manifest's key. The file appears when all of it was found to be what was written, and overwrites nothing."""
    if (database is not None) == roles:
        raise click.UsageError("exactly one of --database and --globals is needed")
    place, piped = Place(**where), str(output) == "-"
    place.check()
    if piped and database is not None and sys.stdout.isatty():
        raise click.UsageError("an archive is nothing for a terminal: name a file, or read it by a pipe")

    def work(report: Report) -> str:
        from pgtend.api.types import format_bytes
        from pgtend.backups.jobs.destination import open_store
        from pgtend.backups.jobs.opening import matching_key, read_identities
        from pgtend.cli.backup_fetch import fetch, fresh_file
        from pgtend.cli.chosen import choose

        identities = read_identities(identity_file, report)
        store = open_store(place.destination(), report)
        try:
            chosen = choose(store, name)
            key = matching_key(chosen.record, identities)
            data = chosen.roles() if database is None else chosen.dump(database)
            if piped:
                raw = fetch(store, data, identities, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            else:
                with fresh_file(output) as file:
                    raw = fetch(store, data, identities, file)
        finally:
            store.close()
        whole = f"{format_bytes(raw)}, checksum as written, opened with {key}"
        return f"{database or 'globals'} of {chosen.record.backup_name}: {whole}"

    click.echo(f"pgtend: {printable(guarded(work))}", err=True)


@backup.command("verify")
@click.argument("names", metavar="BACKUP...", nargs=-1, required=True)
@in_bucket
@_identity
@click.option(
    "--programs-folder", type=click.Path(path_type=Path, file_okay=False), help="Of pg_restore. Default: the PATH."
)
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--verbose", is_flag=True, help="Say what is being done.")
def verify_command(
    names: tuple[str, ...],
    identity_file: Path,
    programs_folder: Path | None,
    output: str,
    verbose: bool,
    **where: Any,
) -> None:
    """Read backups back whole, as the pods of a policy do: every byte is compared, decrypted, and read by pg_restore;
    tables and rows are compared with the manifest. Exit code 1 where one is not whole. Where the credential may write,
    the evidence is put beside the manifest."""
    import json
    import logging

    place = Place(**where)
    place.check()
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    else:
        # what it would say there is said below
        logging.getLogger("pgtend.backups.job").addHandler(logging.NullHandler())
    documents, failed = [], False
    for name in names:
        try:
            result = guarded(partial(_read_back, place, name, identity_file, programs_folder))
        except SystemExit:
            failed = True
            continue
        from pgtend.cli.backup_verify import told

        bad = result.outcome == "Failed"
        failed = failed or bad
        documents.append({"backup": name, **result.to_wire()})
        if output == "text":
            click.echo(printable(f"{'pgtend: ' if bad else ''}{name}: {told(result)}"), err=bad)
    if output == "json":
        click.echo(json.dumps({"schema": "pgtend.dev/backup-verify/v1", "backups": documents}, indent=1))
    if failed:
        raise SystemExit(FAILED)


def _read_back(place: Place, name: str, identity: Path, programs: Path | None, report: Report) -> Termination:
    from pgtend.backups.jobs.config import Termination
    from pgtend.backups.jobs.destination import open_store
    from pgtend.cli.backup_verify import read_back
    from pgtend.cli.chosen import choose
    from pgtend.core.errors import PgtendError
    from pgtend.core.redaction import redact

    destination = place.destination()
    try:
        store = open_store(destination, report)
        try:
            chosen = choose(store, name)
        finally:
            store.close()
        return read_back(chosen, destination=destination, identity=identity, programs=programs)
    except PgtendError as error:
        return Termination(
            kind="Verify",
            outcome="Failed",
            reason=str(error.reason.value),
            message=redact(error.message, report.secrets),
            object=error.object,
            transient=error.transient,
        )


@backup.command("now")
@click.argument("policy", metavar="[NAMESPACE/]POLICY")
@click.option("--name", help="Of the PostgresBackup. Default: the policy's, and something random.")
@click.option("--reason", help="Kept in the manifest.")
@click.option("--not-after", metavar="TIME", help="Not begun any more after this moment, as in 2026-11-22T04:00:00Z.")
@click.option("--retain-until", metavar="TIME", help="Kept until then, beyond the policy's retention.")
@click.option("--wait", is_flag=True, help="Until it is committed; exit code 1 where that does not come.")
@click.option("--until", type=click.Choice(["Complete", "Verified"]), help="With --wait. Default: Complete.")
@click.option("--timeout", default="1h", show_default=True, help="Of --wait; the backup goes on after it.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--kubeconfig", type=_FILE, help="Default: the pod's account, else KUBECONFIG.")
@click.option("--context", help="Of the kubeconfig.")
def now_command(
    policy: str,
    name: str | None,
    reason: str | None,
    not_after: str | None,
    retain_until: str | None,
    wait: bool,
    until: Literal["Complete", "Verified"] | None,
    timeout: str,
    output: str,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Ask the operator for a backup by a policy's settings: a PostgresBackup is created, and its name printed."""
    import json

    from pgtend.api.types import Duration
    from pgtend.cli.backup_now import Outcome, ask, follow, wish
    from pgtend.kube.client import KubeClient
    from pgtend.kube.config import load

    if until is not None and not wait:
        raise click.UsageError("--until is for --wait")
    try:
        seconds = Duration(timeout).seconds
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from None

    async def work() -> Outcome:
        cluster = load(kubeconfig, context)
        namespace, _, plain = policy.rpartition("/")
        spec = {"reason": reason, "notAfter": not_after, "retainUntil": retain_until}
        body = wish(plain, namespace or cluster.namespace, name=name, spec=spec)
        async with KubeClient(cluster) as client:
            asked = await ask(client, body)
            if not wait:
                return asked
            if output == "text":
                click.echo(printable(asked.text))
            return await follow(client, asked, until=until or "Complete", seconds=seconds)

    outcome = run(work())
    if output == "json":
        click.echo(json.dumps(outcome.document, indent=1))
    else:
        click.echo(printable(outcome.text), err=not outcome.good)
    if not outcome.good:
        raise SystemExit(FAILED)
