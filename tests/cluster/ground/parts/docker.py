"""The Docker daemon: the one that answers, else our own with its data in the cache, started over whatever a crash left.

Where CAP_SYS_RESOURCE is out of reach our daemon's default runtime takes that wish out of every container.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import binaries
from .machine import has_program, install_docker, lacks_sys_resource, may_install, program_of
from .settings import CACHE, SYSTEM_PATH, bin_folder, environment
from .steps import GroundError, output, say, step

PIDFILE = CACHE / "dockerd.pid"
LOG = CACHE / "logs" / "dockerd.log"
DATA = CACHE / "docker"


def client() -> str | None:
    """A client that the daemon understands: a newer one on the PATH may refuse the distribution's daemon."""
    found = dict.fromkeys(c for c in (shutil.which("docker"), "/usr/bin/docker") if c and Path(c).exists())
    for candidate in found:
        if output(candidate, "version", "--format", "{{.Server.Version}}", timeout=20):
            return candidate
    return None


def ensure() -> None:
    """A daemon answers, and `docker` in this version's folder of programs is a client that suits it."""
    answering = client()
    if answering is None:
        if not may_install():
            raise GroundError(
                "no Docker daemon answers, and this is not a Debian-like machine used as root",
                remedy="start Docker and let this user reach it, or name a cluster: PGTEND_CONTEXT=<context>",
            )
        if not has_program("dockerd"):
            install_docker()
        answering = client() or _start()
    bin_folder().mkdir(parents=True, exist_ok=True)
    binaries.link(bin_folder() / "docker", Path(answering))


def _start() -> str:
    wrapper: list[str] = []
    if lacks_sys_resource():
        binaries.ensure(binaries.WRAPPER)
        wrapper = ["--add-runtime", f"nosysres={binaries.WRAPPER.stored}", "--default-runtime", "nosysres"]
    remedy = f"read {LOG}; another daemon that hangs is ended by its process id, then run this again"
    with step("Docker daemon", waits_for="dockerd", remedy=remedy, log=CACHE / "logs" / "docker.log") as current:
        _clear_remains()
        LOG.parent.mkdir(parents=True, exist_ok=True)
        with LOG.open("ab") as log:
            daemon = subprocess.Popen(
                ["dockerd", "--data-root", str(DATA), "--pidfile", str(PIDFILE), *wrapper],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                env=environment(PATH=SYSTEM_PATH),
            )

        def answers() -> bool:
            if daemon.poll() is not None:
                raise current.failure(f"dockerd ended with {daemon.returncode}")
            return client() is not None

        # After a crash it first ends what the old containers left behind, which takes a while.
        current.until("dockerd to answer", answers, seconds=90, every=0.3)
    return client() or "docker"


def _clear_remains() -> None:
    """Remove pid files of a killed machine: their numbers may belong to other programs by now, and Docker would wait
    for these. A daemon that really runs is left alone."""
    for file, program in (
        (Path("/var/run/docker.pid"), "dockerd"),
        (PIDFILE, "dockerd"),
        (Path("/var/run/docker/containerd/containerd.pid"), "containerd"),
    ):
        pid = _pid(file)
        if pid is None:
            continue
        running = program_of(pid)
        if running != program:
            say(f"  removes {file}, left by a {program} that is gone (process {pid} is {running or 'nobody'})")
            file.unlink(missing_ok=True)
        elif program == "dockerd":
            raise GroundError(
                f"dockerd (process {pid}) runs, but does not answer",
                remedy=f"wait a minute and run this again, or end it: kill {pid}",
                log=LOG,
            )


def _pid(file: Path) -> int | None:
    try:
        return int(file.read_text().strip())
    except (OSError, ValueError):
        return None


def stop_ours() -> None:
    """Stop the daemon that we started, unless somebody's container still runs on it."""
    pid = _pid(PIDFILE)
    if pid is None or program_of(pid) != "dockerd":
        return
    if output("docker", "ps", "-q"):
        say("  the Docker daemon stays: other containers run on it")
        return
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + 20
    while program_of(pid) == "dockerd" and time.monotonic() < end:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.1)
    say("  Docker daemon stopped")
