"""Because several checkouts and several runs share one cache, a tree of programs appears there in one step, is never
changed afterwards, and is described by one JSON file that names its folders; this module owns that form.

Layout: `${XDG_CACHE_HOME:-~/.cache}/pgtend/<component>/<version>/...` and `<component>/current.json`.
Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

_KEEP = 24 * 3600  # seconds that a replaced tree stays


class InstallError(Exception):
    """What went wrong and what to do about it, in words for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One component in the cache. `folders` maps a purpose ("server", "client", "tools") to a folder of programs;
    the folders are relative to the cache root, so that a cache that was moved or copied stays valid."""

    component: str
    version: str
    recipe: str
    source: str
    folders: dict[str, str]


def cache_root() -> Path:
    """The folder of all components, e.g. `~/.cache/pgtend`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "pgtend"


def read(component: str) -> Tree | None:
    """What is installed of a component, or None where there is nothing usable."""
    try:
        tree = Tree(**json.loads((cache_root() / component / "current.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if all((cache_root() / folder).is_dir() for folder in tree.folders.values()):
        return tree
    return None


@contextlib.contextmanager
def staging(component: str) -> Iterator[Path]:
    """An empty folder on the cache's own file system, removed in the end; what is to stay is moved out by `publish`."""
    parent = cache_root() / component
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob("staging-*"):  # of a run that was killed; we hold the lock, so nobody uses it
        shutil.rmtree(left)
    folder = parent / f"staging-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(*, content: Path, component: str, version: str, recipe: str, source: str, folders: dict[str, str]) -> Tree:
    """Moves `content` into its place and makes it the component's current tree.

    `folders` are relative to `content`, or start with "/" for a folder relative to the cache root (of another tree).
    """
    parent = cache_root() / component
    base = f"{version}-{recipe}".replace(":", "_").replace("~", "_")
    name, count = base, 1
    while (parent / name).exists():
        count += 1
        name = f"{base}.{count}"
    goal = parent / name
    content.rename(goal)
    placed = {
        purpose: folder.lstrip("/") if folder.startswith("/") else f"{component}/{name}/{folder}"
        for purpose, folder in folders.items()
    }
    tree = Tree(component=component, version=version, recipe=recipe, source=source, folders=placed)
    fresh = parent / "current.json.new"
    fresh.write_text(json.dumps(asdict(tree), indent=1, sort_keys=True) + "\n")
    fresh.rename(parent / "current.json")
    for other in parent.iterdir():  # what was replaced may still be in use by a run of today
        if other.is_dir() and other != goal and other.stat().st_mtime < time.time() - _KEEP:
            shutil.rmtree(other, ignore_errors=True)
    os.utime(goal)
    return tree


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One installer at a time per cache; says so when it has to wait."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with (root / "servers.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is installing the same servers; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


_START = time.monotonic()


def say(text: str) -> None:
    """One line of progress with the seconds since the start."""
    print(f"[{time.monotonic() - _START:6.1f} s] {text}", file=sys.stderr, flush=True)
