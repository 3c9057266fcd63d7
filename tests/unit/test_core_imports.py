"""The walls of the house stand, and each would be seen to fall.

.importlinter holds the contracts; what it cannot see (the standard library, parts of an external package) is checked
here by walking the imports in the source.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator" / "pgtend"
PURE_STEMS = {"plan", "judge", "score", "windows"}
IMPURE = {"asyncio", "psycopg", "aiohttp", "kopf", "boto3", "botocore", "socket", "subprocess", "ssl"}
# Where the whole driver may be used; elsewhere psycopg.sql, to quote what is handed to a session, and psycopg.Error, to
# catch what a session raises.
DRIVER_ROOMS = ("pgtend.postgres", "pgtend.server", "pgtend.backups.jobs")


def modules(package: Path) -> dict[str, Path]:
    """Module name -> file, of the whole package."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Every name that a file imports at any depth, `from a import b` as both a and a.b. Imports are absolute here."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_pure(module: str) -> bool:
    parts = module.split(".")
    return parts[1:2] in (["core"], ["api"]) or bool(PURE_STEMS.intersection(parts[2:]))


def impurities(package: Path) -> list[str]:
    """`chain of modules -> impure` for each pure module that reaches something impure."""
    known = modules(package)
    found = []
    for start in sorted(filter(is_pure, known)):
        chains: dict[str, tuple[str, ...]] = {start: (start,)}
        waiting = [start]
        while waiting:
            module = waiting.pop()
            for name in sorted(set(imported(known[module]))):
                chain = (*chains[module], name)
                if name.split(".")[0] in IMPURE:
                    found.append(" -> ".join(chain))
                # Importing a.b.c runs a and a.b too.
                for end in range(1, len(name.split(".")) + 1):
                    part = ".".join(name.split(".")[:end])
                    if part in known and part not in chains:
                        chains[part] = chain
                        waiting.append(part)
    return found


def driver_uses(package: Path) -> list[str]:
    """`module: name` of each use of psycopg beyond quoting and catching, outside the rooms that own connections."""
    found = []
    for module, path in sorted(modules(package).items()):
        if not module.startswith(DRIVER_ROOMS):
            found += [f"{module}: {name}" for name in sorted(set(_of_psycopg(path))) if not _harmless(name)]
    return found


def _of_psycopg(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):  # of a plain `import psycopg` the uses tell, further down
            yield from (
                a.name for a in node.names if a.name.startswith("psycopg.") or (a.name == "psycopg" and a.asname)
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "psycopg":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "psycopg":
            yield f"psycopg.{node.attr}"


def _harmless(name: str) -> bool:
    return name in ("psycopg.Error", "psycopg.sql") or name.startswith("psycopg.sql.")


def lint(source_root: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    environment = {**os.environ, "PYTHONPATH": str(source_root), "NO_COLOR": "1", "COLUMNS": "400"}
    arguments = ["--config", str(ROOT / ".importlinter"), "--cache-dir", str(cache)]
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cache.parent, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def package_of(root: Path, sources: dict[str, str]) -> Path:
    """A small pgtend with the given files, and the packages that must exist."""
    for name, text in {"codegen/__init__.py": "", "core/__init__.py": "", "api/__init__.py": "", **sources}.items():
        path = root / "operator" / "pgtend" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.parents:
            if folder == root / "operator":
                break
            (folder / "__init__.py").touch()
        path.write_text(text)
    return root / "operator" / "pgtend"


def test_the_walls_stand(tmp_path: Path) -> None:
    done = lint(PACKAGE.parent, tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_decides_reaches_nothing_impure() -> None:
    assert impurities(PACKAGE) == []


def test_only_quoting_and_catching_outside_the_drivers_rooms() -> None:
    assert driver_uses(PACKAGE) == []


BROKEN = {
    "Imports go down only": {"engine/loop.py": "import pgtend.tasks.vacuum", "tasks/vacuum.py": ""},
    "What decides is pure": {"users/plan.py": "from pgtend.users import more", "users/more.py": "import aiohttp"},
    "Pods have no API access": {"backups/jobs/dump.py": "import pgtend.kube.client", "kube/client.py": ""},
    "kopf is the watcher's own affair": {"engine/loop.py": "import kopf"},
    "Connections are made in few places": {"users/controller.py": "import psycopg"},
    "The official client serves tests": {"kube/client.py": "import kubernetes"},
}


def test_each_wall_would_be_seen_to_fall(tmp_path: Path) -> None:
    """A package that breaks every contract at once, each in its own way: none of them is kept."""
    sources = {name: text for broken in BROKEN.values() for name, text in broken.items()}
    sources["engine/loop.py"] = "import pgtend.tasks.vacuum\nimport kopf"
    sources["users/neighbour.py"] = "import pgtend.backups.jobs.dump"
    sources["attic/__init__.py"] = ""
    package_of(tmp_path, sources)
    done = lint(tmp_path / "operator", tmp_path / "cache")
    verdicts = dict(re.findall(r"(?m)^(.+?) (KEPT|BROKEN)", done.stdout))
    assert done.returncode == 1
    assert len(verdicts) == len(BROKEN), done.stdout + done.stderr
    for start in BROKEN:
        (verdict,) = [found for name, found in verdicts.items() if name.startswith(start)]
        assert verdict == "BROKEN", start
    assert "pgtend.users.neighbour -> pgtend.backups.jobs.dump" in done.stdout
    assert "attic" in done.stdout, "a package without a place must be told"


def test_what_is_allowed_is_allowed(tmp_path: Path) -> None:
    package_of(
        tmp_path,
        {
            "app.py": "import kopf\nimport pgtend.users.apply\nimport pgtend.kube.watch",
            "kube/watch.py": "import kopf",
            "postgres/connect.py": "import psycopg\nimport aiohttp",
            "users/apply.py": "from psycopg import sql\nimport pgtend.server.session\nimport pgtend.users.plan",
            "users/plan.py": "from pgtend.core import names",
            "core/names.py": "import pgtend.api",
            "server/session.py": "import psycopg\nimport pgtend.postgres.connect",
            "backups/jobs/dump.py": "import psycopg\nimport pgtend.postgres.connect",
            "cli/report.py": "import kubernetes",
        },
    )
    done = lint(tmp_path / "operator", tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_walk_sees_what_the_linter_cannot(tmp_path: Path) -> None:
    package = package_of(
        tmp_path,
        {
            "core/journal.py": "def f():\n    import asyncio",
            "users/plan.py": "from pgtend.users import quoting",
            "users/quoting.py": "from pgtend.tasks.base import Task",
            "tasks/base.py": "",
            "gate/windows.py": "import datetime",
            "users/observe.py": "from psycopg import sql\nfrom psycopg.sql import SQL",
            "users/apply.py": "from psycopg import sql, AsyncConnection",
            "users/controller.py": "import psycopg\npsycopg.connect()\ntry: ...\nexcept psycopg.Error: ...",
            "users/renamed.py": "import psycopg as p\nimport psycopg.rows",
            "postgres/connect.py": "import psycopg.rows",
        },
    )
    (package / "tasks" / "__init__.py").write_text("import asyncio.locks")  # what runs before tasks.base does
    assert impurities(package) == [
        "pgtend.core.journal -> asyncio",
        "pgtend.users.plan -> pgtend.users.quoting -> pgtend.tasks.base -> asyncio.locks",
    ]
    assert driver_uses(package) == [
        "pgtend.users.apply: psycopg.AsyncConnection",
        "pgtend.users.controller: psycopg.connect",
        "pgtend.users.renamed: psycopg",
        "pgtend.users.renamed: psycopg.rows",
    ]


@pytest.mark.parametrize(
    ("module", "pure"),
    [
        ("pgtend.core", True), ("pgtend.core.clock", True), ("pgtend.api.types", True), ("pgtend.users.plan", True),
        ("pgtend.users.plan.grants", True), ("pgtend.gate.windows", True), ("pgtend.maintenance.score", True),
        ("pgtend.users.apply", False), ("pgtend.engine.core", False), ("pgtend", False),
    ],
)  # fmt: skip
def test_which_modules_are_pure(module: str, pure: bool) -> None:
    assert is_pure(module) is pure


def test_the_official_client_is_in_no_image() -> None:
    """It costs twice the CPU of our own per write, and tens of megabytes; tests and development have it. Both images
    are made of one lock."""
    named = {
        line.split("==")[0]
        for line in (ROOT / "requirements" / "operator.txt").read_text().splitlines()
        if "==" in line
    }
    heavy = {"kubernetes", "kubernetes-asyncio", "lightkube", "kr8s", "pykube-ng"}
    assert named & {"kopf", "aiohttp", "psycopg"} and not named & heavy
    used = {name.split(".")[0] for path in modules(PACKAGE).values() for name in imported(path)}
    assert not used & {name.replace("-", "_") for name in heavy}
    (installed,) = re.findall(r"^\s*-r /build/(\S+) ", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert installed == "operator.txt"
