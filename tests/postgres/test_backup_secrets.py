"""No secret of a job is anywhere but in its files: looked for in arguments and environments while it runs, in what it
says, in the server's log and in the bucket, in plain, base64 and URL form."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.fixtures.plugin import Postgres
from tests.fixtures.processes import children
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_kit import Kit, make_kit

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def kit(postgres: Postgres, s3: S3Server, tmp_path: Path) -> Kit:
    return make_kit(postgres(18), s3, tmp_path)


def forms(secret: str) -> list[bytes]:
    plain = secret.encode()
    return [plain, base64.b64encode(plain), base64.urlsafe_b64encode(plain), quote(secret, safe="").encode()]


def family(pid: int) -> list[int]:
    return [pid, *(p for child in children(pid) for p in family(child))]


class Watch:
    """A job as a process of its own, looked at all the time."""

    def __init__(self, kit: Kit, kind: str, config: Path, **environment: str) -> None:
        self.seen = b""
        self.commands: set[str] = set()
        self.passfiles: list[int] = []
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT / "operator")} | environment
        process = subprocess.Popen(
            [sys.executable, "-m", "pgtend.backups.jobs", kind, "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
        )
        while process.poll() is None:
            for pid in family(process.pid):
                with contextlib.suppress(OSError):
                    command = Path(f"/proc/{pid}/cmdline").read_bytes()
                    self.seen += command + Path(f"/proc/{pid}/environ").read_bytes()
                    self.commands.update(part.decode(errors="replace") for part in command.split(b"\0"))
            with contextlib.suppress(OSError):
                self.passfiles += [p.stat().st_mode & 0o777 for p in kit.scratch.glob("pgpass*")]
            time.sleep(0.005)
        assert process.stdout is not None
        with process.stdout:
            self.output = process.stdout.read()
        self.status = process.wait()


def test_no_secret_leaves_its_file_while_jobs_run(kit: Kit) -> None:
    kit.noise(9)
    mark = kit.server.log_mark()
    secrets = [kit.role.password, kit.s3.writer.secret_key, kit.s3.reader.secret_key, str(kit.identity)]
    dump = Watch(kit, "dump", kit.config_file(kit.dump_config()))
    assert dump.status == 0, dump.output.decode()
    result = kit.result()
    assert result.manifest is not None
    verify = Watch(kit, "verify", kit.config_file(kit.verify_config(result.manifest)))
    assert verify.status == 0, verify.output.decode()
    # The negative control of the looking: both programs were seen at work, and the password file was there and private.
    assert any("--snapshot=" in part for part in dump.commands), dump.commands
    assert any("--data-only" in part for part in verify.commands)
    assert dump.passfiles and set(dump.passfiles) == {0o600}
    places = {
        "arguments and environment": dump.seen + verify.seen,
        "output": dump.output + verify.output,
        "termination message": kit.termination.read_bytes(),
        "the server's log": kit.server.log_since(mark).encode(),
        "bucket": b"".join(kit.read(k) for k in kit.s3.keys(kit.bucket) if k.endswith(".json")),
    }
    for place, text in places.items():
        for secret in secrets:
            for form in forms(secret):
                assert form not in text, f"a secret is in {place}"
    assert not list(kit.scratch.glob("pgpass*"))


@pytest.mark.parametrize("broken", ["password", "writer-secret", "address"])
def test_no_secret_is_in_what_a_failure_says(kit: Kit, broken: str) -> None:
    config = kit.dump_config()
    secrets = [kit.role.password, kit.s3.writer.secret_key]
    if broken == "address":
        config["server"]["hosts"] = [{"host": "127.0.0.1", "port": 9}]
    else:
        secrets.append("not-" + secrets[0])
        kit.write(broken, secrets[-1])
    job = Watch(kit, "dump", kit.config_file(config))
    assert job.status == 1
    for text in (job.output, kit.termination.read_bytes(), job.seen):
        for secret in secrets:
            assert all(form not in text for form in forms(secret))


def test_what_the_environment_offers_is_not_taken(kit: Kit) -> None:
    """Neither a password nor another server can be slipped in from outside."""
    misleading = {"PGPASSWORD": "slipped-in", "PGHOST": "203.0.113.1", "PGOPTIONS": "-c row_security=on", "PGUSER": "x"}
    job = Watch(kit, "dump", kit.config_file(kit.dump_config()), **misleading)
    assert job.status == 0, job.output.decode()
    kit.write("password", "wrong")
    job = Watch(kit, "dump", kit.config_file(kit.dump_config()), PGPASSWORD=kit.role.password)
    assert job.status == 1 and kit.result().reason == "AuthenticationFailed"


def test_sigterm_ends_the_process_with_a_message_and_leaves_nothing(kit: Kit) -> None:
    kit.noise(24)
    config = kit.config_file(kit.dump_config(store={"uploadRate": 4 << 20}))
    process = subprocess.Popen(
        [sys.executable, "-m", "pgtend.backups.jobs", "dump", "--config", str(config)],
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT / "operator")},
    )
    deadline = time.monotonic() + 60
    while not kit.s3.uploads(kit.bucket) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 1
    assert kit.result().reason == "Interrupted"
    kit.nothing_left()


def test_a_killed_process_leaves_an_upload_that_the_sweep_ends(kit: Kit) -> None:
    """Nothing can clean up after SIGKILL but somebody else: what is left is not listed as a backup and is swept."""
    from datetime import UTC, datetime, timedelta

    from tests.postgres.backup_kit import PREFIX, store_of

    from pgtend.backups.catalog import location_of
    from pgtend.objectstore.sweep import abort_stale_uploads

    kit.noise(12)
    config = kit.config_file(kit.dump_config())
    done = subprocess.run(
        [sys.executable, "-m", "pgtend.backups.jobs", "dump", "--config", str(config)],
        stderr=subprocess.DEVNULL,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(_ROOT / "operator"),
            "PGTEND_FAILPOINTS": "backups.dump.before_objects=kill",
        },
    )
    assert done.returncode == -9
    # the globals' upload may have begun too, or not yet
    left = len(kit.s3.uploads(kit.bucket))
    assert kit.run_keys() == [] and left in (1, 2)
    store = store_of(kit, "admin")

    def sweep(hours: int) -> int:
        now = datetime.now(UTC) + timedelta(hours=hours)
        ours = abort_stale_uploads(
            store, prefix=PREFIX, now=now, ours=lambda key: location_of(prefix=PREFIX, key=key) is not None
        )
        return len(ours)

    assert sweep(23) == 0 and len(kit.s3.uploads(kit.bucket)) == left
    assert sweep(25) == left
    assert kit.s3.uploads(kit.bucket) == []
    kit.s3.client().create_multipart_upload(Bucket=kit.bucket, Key=f"{PREFIX}/of-somebody-else")
    assert sweep(25) == 0 and len(kit.s3.uploads(kit.bucket)) == 1
    store.close()
