"""PostgreSQL's own programs as children: found, checked, fed, and believed only when they have ended well.

No secret is in their arguments or environment. A child's standard output is a stream; its standard error is read all
the time (a full pipe would stop it) and its last lines end up in the message, redacted.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fcntl import fcntl
from pathlib import Path
from typing import IO

from pgtend.backups.jobs.config import JobReason
from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive, redact

_F_SETPIPE_SZ = 1031
_PIPE = 1 << 20
_LINES = 20
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


class Programs:
    """Where the programs are and what they run with."""

    def __init__(self, *, folder: Path | None) -> None:
        self._folder = folder
        self.environment = {k: os.environ[k] for k in _KEPT_VARIABLES if k in os.environ}
        self.environment |= {"HOME": "/nonexistent", "PGPASSFILE": os.devnull}

    def path(self, name: str) -> str:
        return str(self._folder / name) if self._folder is not None else name

    def version(self, name: str) -> str:
        """Such as `15.18`. Raises PgtendError(VersionMismatch) where there is no such program."""
        try:
            done = subprocess.run(
                [self.path(name), "--version"], capture_output=True, text=True, timeout=30, check=True,
                env=self.environment,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise PgtendError(JobReason.VERSION_MISMATCH, f"{name} does not run: {error}", transient=False) from None
        found = re.search(r"\(PostgreSQL\) ([0-9][0-9.a-z]*)", done.stdout)
        if found is None:
            raise PgtendError(JobReason.VERSION_MISMATCH, f"{name} says {done.stdout[:80]!r}", transient=False)
        return found[1]

    @contextmanager
    def run(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        secrets: Sequence[Sensitive] = (),
        stdin: bool = False,
        stdout: bool = True,
    ) -> Iterator[Child]:
        """Start a program for the length of a `with`; whatever happens it does not outlive that."""
        process = subprocess.Popen(
            [self.path(name), *arguments],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd="/",
            bufsize=0,
        )
        child = Child(name, process, secrets)
        try:
            yield child
        finally:
            child.end()


class Child:
    """A running program. `stdout` and `stdin` are raw: a read gives what is there."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], secrets: Sequence[Sensitive]) -> None:
        self.name = name
        self._process = process
        self._secrets = secrets
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._drain = threading.Thread(target=self._read_errors, name=f"{name}-stderr", daemon=True)
        self._drain.start()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # the pipe's size is a matter of speed only
                    fcntl(pipe.fileno(), _F_SETPIPE_SZ, _PIPE)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None  # noqa: S101 - asked for by run()
        return self._process.stdout

    @property
    def stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 - asked for by run()
        return self._process.stdin

    def wait(self) -> int:
        """The exit status, once everything that it said on standard error was read."""
        status = self._process.wait()
        self._drain.join(10)
        return status

    @property
    def errors(self) -> list[str]:
        """Its last lines on standard error, without secrets."""
        return [redact(line, self._secrets) for line in self._lines]

    def end(self) -> None:
        """Kill it where it still runs, and reap it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._drain.join(10)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def kill(self) -> None:
        """Make it end now; `end` reaps it."""
        with suppress(ProcessLookupError):
            self._process.kill()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - always piped
        rest = b""
        with suppress(OSError, ValueError):
            while data := self._process.stderr.read(1 << 16):
                *lines, rest = (rest + data).split(b"\n")
                self._lines.extend(line.decode(errors="replace")[:500] for line in lines if line.strip())
                rest = rest[-2000:]
        if rest.strip():
            self._lines.append(rest.decode(errors="replace")[:500])


def raise_if_failed(child: Child, *, doing: str) -> list[str]:
    """Wait for a dump program; its warnings where it ended well. Raises PgtendError(DumpFailed, ClientTooOld,
    LocksExhausted).

    Status 0 is not enough: an error on standard error is a failure too.
    """
    status = child.wait()
    lines = child.errors
    failed = [line for line in lines if re.match(rf"{re.escape(child.name)}: (error|fatal)", line)]
    if status == 0 and not failed:
        return [line for line in lines if "warning:" in line]
    if any('invalid connection option "require_auth"' in line for line in lines):
        raise PgtendError(
            JobReason.CLIENT_TOO_OLD, f"the libpq of {child.name} does not know require_auth", transient=False
        )
    if any("out of shared memory" in line for line in lines):
        text = f"{doing}: the server's table of locks is full: raise max_locks_per_transaction, which needs a restart"
        raise PgtendError(JobReason.LOCKS_EXHAUSTED, text)
    how = f"ended with status {status}" if status >= 0 else f"was killed by signal {-status}"
    said = " | ".join(lines[-4:]) or "said nothing"
    raise PgtendError(JobReason.DUMP_FAILED, f"{doing}: {child.name} {how}: {said}")


def waited_for_lock(lines: Sequence[str]) -> bool:
    """Whether pg_dump gave up because of --lock-wait-timeout, by what it said."""
    said = "\n".join(lines)
    return "LOCK TABLE" in said and ("statement timeout" in said or "lock timeout" in said)
