"""`pgtend backup fetch`: a database of a backup, or its roles, out of the bucket as PostgreSQL's own programs take it.
A file has its name only when every byte was found to be what was written; who reads from a pipe is told at its end, by
the exit code."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EEXIST
from pathlib import Path
from types import FrameType
from typing import IO, Any

from pgtend.backups.jobs.opening import compare_raw, pour
from pgtend.backups.manifest import StoredData
from pgtend.objectstore.s3 import Store


def fetch(store: Store, data: StoredData, identities: Sequence[Any], sink: IO[bytes]) -> int:
    """The raw bytes of an object into `sink`; returns their number. All that was stored is read and compared, whatever
    happens to it later: damage in the store is named as such. Raises PgtendError, and what the sink raises."""
    raw = pour(store, data, identities, sink.write)
    compare_raw(data, raw)
    return raw


@contextmanager
def fresh_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that nobody else can read, that gets its name when the `with` has ended well, and takes nobody's place.
    Raises OSError."""
    if os.path.lexists(path):
        raise _taken(path)
    descriptor, partial = tempfile.mkstemp(prefix=".pgtend-", suffix=".partial", dir=path.parent)
    try:
        with _told_to_stop(), os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
            _name(Path(partial), path)
    finally:
        with suppress(FileNotFoundError):
            Path(partial).unlink()


def _name(partial: Path, path: Path) -> None:
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise _taken(path) from None
    except OSError:  # a file system without links: the name is taken first, then what has it is replaced
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise _taken(path) from None
        partial.replace(path)


def _taken(path: Path) -> FileExistsError:
    return FileExistsError(EEXIST, "it exists and is not overwritten", str(path))


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """SIGTERM ends the process as Ctrl-C does, by way of the cleaning up."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    previous: Any = None
    with suppress(ValueError):  # not the main thread: a test, which is not told to stop
        previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
