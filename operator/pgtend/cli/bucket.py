"""Where a command finds backups when there is no cluster to ask: a bucket, by flags or by the YAML of its
BackupDestination, and credentials that are named by files, never given as arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pgtend.cli.options import FAILED, printable

if TYPE_CHECKING:
    from pgtend.backups.jobs.config import Destination
    from pgtend.backups.jobs.report import Report

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What was said on the command line of a bucket."""

    destination_file: Path | None = None
    bucket: str | None = None
    prefix: str | None = None
    region: str | None = None
    endpoint: str | None = None
    path_style: bool = False
    ca_file: Path | None = None
    key_id_file: Path | None = None
    secret_key_file: Path | None = None

    @property
    def given(self) -> bool:
        return self.destination_file is not None or self.bucket is not None

    def check(self) -> None:
        """Raises click.UsageError."""
        flags = self.bucket, self.prefix, self.region, self.endpoint, self.path_style or None
        if self.destination_file is not None and any(flag is not None for flag in flags):
            raise click.UsageError("--destination-file says where the bucket is: leave the flags that say it too out")
        if self.destination_file is None and (self.bucket is None or self.prefix is None):
            raise click.UsageError("--destination-file, or --bucket and --prefix, are needed")
        if (self.key_id_file is None) != (self.secret_key_file is None):
            raise click.UsageError("--key-id-file and --secret-key-file need each other")

    def destination(self) -> Destination:
        """As a pod is told. Raises ValueError or OSError."""
        from pgtend.backups.jobs.config import Destination
        from pgtend.objectstore.config import AccessKeyFiles, CredentialFiles

        keys = None
        if self.key_id_file is not None and self.secret_key_file is not None:
            keys = AccessKeyFiles(id_file=self.key_id_file.absolute(), secret_file=self.secret_key_file.absolute())
        return Destination.model_validate(
            {"store": self._store(), "credentials": CredentialFiles(access_key=keys).to_wire()}
        )

    def _store(self) -> dict[str, Any]:
        ca = {"caFile": str(self.ca_file.absolute())} if self.ca_file is not None else {}
        if self.destination_file is not None:
            return _of_file(self.destination_file, own_ca=self.ca_file is not None) | ca
        told = {"bucket": self.bucket, "prefix": (self.prefix or "").strip("/"), "region": self.region}
        told |= {"endpoint": self.endpoint, "addressing": "Path" if self.path_style else None}
        return {name: value for name, value in told.items() if value is not None} | ca


def _of_file(path: Path, *, own_ca: bool) -> dict[str, Any]:
    from pgtend.api.backupdestination import BACKUP_DESTINATION, DestinationSpec
    from pgtend.backups.inputs import store_config
    from pgtend.cli.reach import as_served, documents
    from pgtend.kube.index import record_of

    found = documents(path, BACKUP_DESTINATION.name)
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} BackupDestinations: exactly one is needed")
    record = record_of(BACKUP_DESTINATION, as_served(found[0], "default"))
    if record.spec_error is not None:
        raise ValueError(f"{path}: {record.spec_error}")
    s3 = record.parsed(DestinationSpec).s3
    if s3.ca is not None and not own_ca:
        raise ValueError(f"{path}: the store's CA is in Secret {s3.ca.secret_ref.name}: give its file by --ca-file")
    return store_config(s3).to_wire()


def in_bucket(command: F) -> F:
    """The options of a command that reads a bucket."""
    here = click.Path(path_type=Path, dir_okay=False)
    otherwise = "Default: what the environment, a profile or the machine itself gives for S3."
    for option in (
        click.option(
            "--secret-key-file",
            type=here,
            envvar="PGTEND_S3_SECRET_KEY_FILE",
            help="Beside --key-id-file.",
            metavar="FILE",
        ),
        click.option(
            "--key-id-file",
            type=here,
            envvar="PGTEND_S3_KEY_ID_FILE",
            metavar="FILE",
            help=f"A file with the id. {otherwise}",
        ),
        click.option("--ca-file", type=here, metavar="FILE", help="Of the store. Default: the system's roots."),
        click.option("--path-style", is_flag=True, help="The bucket stands in the path, not in the host's name."),
        click.option("--endpoint", help="Default: AWS of the region."),
        click.option("--region", help="Default: us-east-1."),
        click.option("--prefix", help="Of the backups in the bucket."),
        click.option("--bucket", help="Where the backups are."),
        click.option("--destination-file", type=here, metavar="FILE", help="Instead: a BackupDestination's YAML."),
    ):
        command = option(command)
    return command


def guarded(work: Callable[[Report], T]) -> T:
    """To its end. What went wrong outside is one line with its reason and without secrets, and exit code 1."""
    from pgtend.backups.jobs.report import Report
    from pgtend.core.errors import PgtendError
    from pgtend.core.redaction import redact

    report = Report(kind="Verify", path=Path("/dev/null"))
    try:
        return work(report)
    except BrokenPipeError:
        raise  # who read our output has gone: click knows what to do
    except (PgtendError, ValueError, OSError) as error:
        text = f"{error.reason}: {error.message}" if isinstance(error, PgtendError) else _said(error)
        click.echo(f"pgtend: {printable(redact(text, report.secrets))}", err=True)
        raise SystemExit(FAILED) from None


def _said(error: ValueError | OSError) -> str:
    """A model's own text repeats what it was given, over several lines."""
    from pydantic import ValidationError

    from pgtend.kube.index import explain

    return explain(error).replace("spec.store.", "--") if isinstance(error, ValidationError) else str(error)
