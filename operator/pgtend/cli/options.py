"""What the commands that read a server have in common. Imports nothing heavy: `pgtend --help` is quick."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
FAILED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What was said on the command line; `check` has seen that it makes sense."""

    target: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    dsn: str | None = None
    dsn_file: Path | None = None
    target_file: Path | None = None

    @property
    def by_dsn(self) -> bool:
        return self.dsn is not None or self.dsn_file is not None

    def check_file(self) -> None:
        """Where files name the target. Raises click.UsageError."""
        if self.dsn is not None and self.dsn_file is not None:
            raise click.UsageError("--dsn and --dsn-file are one too many")
        if self.by_dsn != (self.target_file is not None):
            raise click.UsageError("a DSN and --target-file need each other; without both the cluster is asked")

    def check(self) -> None:
        """Raises click.UsageError."""
        if (self.target is not None) + (self.dsn is not None) + (self.dsn_file is not None) != 1:
            raise click.UsageError("exactly one of --target, --dsn and --dsn-file is needed")
        if self.target is not None:
            namespaced(self.target)
            if self.target_file is not None:
                raise click.UsageError("--target-file is for --dsn and --dsn-file: --target reads it from the cluster")


def reaching(command: F) -> F:
    """The options of a command that reads a server."""
    target = click.option("--target", metavar="NAMESPACE/NAME", help="A PostgresTarget of the cluster.")
    return target(reaching_by_file(command))


def reaching_by_file(command: F) -> F:
    """The same for one whose files name the target."""
    here = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option("--target-file", type=here, help="With a DSN: the PostgresTarget's YAML."),
        click.option("--dsn-file", type=here, help="A file with a connection string."),
        click.option("--dsn", help="Without a password, such as service=orders."),
        click.option("--context", help="Of the kubeconfig."),
        click.option("--kubeconfig", type=here, help="Default: the pod's account, else KUBECONFIG."),
    ):
        command = option(command)
    return command


def namespaced(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (slash and namespace and name):
        raise click.BadParameter("write NAMESPACE/NAME", param_hint="--target")
    return namespace, name


def run(work: Coroutine[Any, Any, T]) -> T:
    """To its end; what went wrong outside is one line and exit code 1."""
    from pgtend.core.errors import PgtendError
    from pgtend.kube.client import ApiError

    try:
        return asyncio.run(work)
    except (PgtendError, ApiError, ValueError, OSError) as error:
        text = error.message if isinstance(error, PgtendError) else str(error)
        click.echo(f"pgtend: {text}", err=True)
        raise SystemExit(FAILED) from None


def printable(text: str) -> str:
    """A name may hold anything, sequences for the terminal too."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
