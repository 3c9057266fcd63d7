"""Steps that show what they wait for and fail with cause and remedy, because a silent minute looks like a hang."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from .settings import environment

BEAT = 20.0


class GroundError(Exception):
    """A step that failed: why, what to do about it, and where the whole output is."""

    def __init__(self, cause: str, *, remedy: str, log: Path | None = None) -> None:
        super().__init__(cause)
        self.cause, self.remedy, self.log = cause, remedy, log


class Step:
    """What runs inside `step(...)`; the output of its commands goes to one log."""

    def __init__(self, name: str, waits_for: str, remedy: str, log: Path) -> None:
        self.name, self.waits_for, self.remedy, self.log = name, waits_for, remedy, log
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def run(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        stdin: int | None = None,
        timeout: float = 1800,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Run a program to its end; a non-zero exit or `timeout` seconds end the step."""
        words = [str(word) for word in command]
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(words)}\n".encode())
            log.flush()
            try:
                code = subprocess.run(
                    words,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL if stdin is None else stdin,
                    stdout=log,
                    stderr=log,
                    env=environment(**(env or {})),
                    timeout=timeout,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise self.failure(f"{words[0]} did not end within {timeout:.0f} s") from None
            except FileNotFoundError:
                raise self.failure(f"{words[0]} is not installed") from None
        if code:
            raise self.failure(f"{' '.join(words)[:160]} ended with {code}")

    def until(self, what: str, done: Callable[[], bool], *, seconds: float, every: float = 0.25) -> None:
        """Ask until it is so; `what` is what the reader is told that we wait for."""
        self.waits_for = what
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise self.failure(f"{what}: not within {seconds:.0f} s")
            time.sleep(every)

    def failure(self, cause: str) -> GroundError:
        return GroundError(f"{self.name}: {cause}", remedy=self.remedy, log=self.log)


@contextlib.contextmanager
def step(name: str, *, waits_for: str, remedy: str, log: Path) -> Iterator[Step]:
    """One line when it begins to take long, one each 20 s while it lasts, and one with its seconds at the end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    current = Step(name, waits_for, remedy, log)
    ended = threading.Event()

    def beat() -> None:
        pause = 2.0
        while not ended.wait(pause):
            say(f"  ... {name}: {current.seconds:.0f} s, waits for {current.waits_for} (log {log})")
            pause = BEAT

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield current
    finally:
        ended.set()
        thread.join()
    say(f"  {name + ' ':.<34} {current.seconds:6.1f} s")


def say(text: str) -> None:
    print(text, flush=True)


def output(*command: str | Path, timeout: float = 30, stdin: str | None = None) -> str | None:
    """What a quick command prints, or None when it fails, is missing or takes longer than `timeout` seconds."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@contextlib.contextmanager
def alone(file: Path, what: str) -> Iterator[None]:
    """Hold a lock file; another run that holds it is waited for, and named."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(f"  waits for process {lock.read().strip() or '?'}, which works on {what}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def tail(log: Path, lines: int = 12) -> Sequence[str]:
    try:
        return log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
