"""`pgtend backup` as a person at a laptop types it: a bucket by flags, a credential and an identity in files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from click.testing import CliRunner, Result
from tests.postgres.backup_kit import PREFIX, Kit

from pgtend.__main__ import main


def place(kit: Kit, login: str = "reader", **changes: str | None) -> list[str]:
    """The flags that say where the kit's bucket is, and with which login."""
    told = {
        "bucket": kit.bucket,
        "prefix": PREFIX,
        "endpoint": kit.s3.endpoint,
        "ca-file": str(kit.s3.ca_path),
        "key-id-file": str(kit.folder / f"{login}-id"),
        "secret-key-file": str(kit.folder / f"{login}-secret"),
    } | changes
    words = [word for name, value in told.items() if value is not None for word in (f"--{name}", value)]
    return [*words, "--path-style"]


def command(kit: Kit, *words: str, env: dict[str, str] | None = None) -> Result:
    """In a thread of its own: some commands bring their own event loop. No secret is ever in what it says."""
    with ThreadPoolExecutor(1) as pool:
        done: Result = pool.submit(CliRunner(env=env or {}).invoke, main, ["backup", *words]).result()
    said = done.output_bytes + str(done.exception).encode()
    for name in ("reader", "writer", "admin"):
        assert getattr(kit.s3, name).secret_key.encode() not in said
    for identity in (kit.identity, kit.escrow):
        assert str(identity).encode() not in said
    return done


def refused(done: Result, exit_code: int, *texts: str) -> Any:
    """It ended so, and said these on standard error; nothing is a traceback."""
    assert done.exit_code == exit_code, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit), done.exception
    for text in texts:
        assert text in done.stderr, (text, done.stderr)
    return done
