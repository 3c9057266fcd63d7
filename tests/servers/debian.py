"""Because no single release has every major, programs of several Debian releases run side by side here, unpacked
rather than installed: nothing on the machine changes, root is not needed, and a program of a newer release brings its
own C library.

How: apt with a configuration, state and sources list of its own resolves the closure and downloads it, checked against
Debian's signatures; `dpkg -x` unpacks it; each program becomes a three-line script that starts the real one
(in `elf/` beside `bin/`) through the loader of its own release. The programs find each other by the name they were
called with, which is the script's, so pg_ctl finds postgres and initdb finds its templates.
Standard library only.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from tests.servers.trees import InstallError, Tree, cache_root, publish, say, staging

RECIPE = "debian-4"

PUBLIC_MIRROR = "http://deb.debian.org/debian/"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# The closure of a server contains what installs and configures a machine, and the compilers of optional languages;
# nothing that we run needs them, and `_check` finds out if that ever changes.
NOT_NEEDED = re.compile(
    r"^(adduser|base-passwd|debconf|dpkg|init-system-helpers|libc-l10n|libllvm.*|libperl.*|libsystemd-shared|"
    r"locales|login.*|lsb-base|netbase|openssl|passwd|perl.*|postgresql-client-common|postgresql-common.*|procps|"
    r"readline-common|sensible-utils|ssl-cert|systemd|sysvinit-utils|tzdata.*|ucf|lib.*-perl|gcc-.*-base|libdb5.*|"
    r"libpam-modules.*|libsemanage.*|libsepol.*|mawk|tar|libdebconfclient0|libproc2.*|libprocps.*|libfdisk1|"
    r"libapparmor1|libmount1|libblkid1|libcryptsetup.*|libkmod2|libseccomp2|libip4tc2|libdevmapper.*|dmsetup|"
    r"libjson-c.*|libargon2.*|mount|util-linux.*|libsmartcols1|dbus.*|libdbus.*|libexpat1|libapt.*|libsqlite.*)$"
)
# Modules that are part of the server's package but stay unused, because what they need was left out above.
UNUSED_MODULES = {"llvmjit.so", "plperl.so", "bool_plperl.so", "hstore_plperl.so", "jsonb_plperl.so"}


def install(*, component: str, suite: str, packages: list[str], programs: dict[str, str]) -> Tree:
    """Fetches `packages` of `suite` with what they need, and publishes them under `component`.

    `programs` maps a purpose to the folder of its programs within the unpacked packages.
    """
    for tool in ("apt-get", "apt-cache", "dpkg"):
        if shutil.which(tool) is None:
            raise InstallError(f"{tool} is missing: these servers come from Debian, so a Debian-like machine is needed")
    with staging(component) as folder:
        apt = _Apt(suite=suite)
        version = apt.version(packages[0])
        say(f"{component}: {packages[0]} {version} of Debian {suite}")
        debs = apt.download(packages, into=folder / "debs")
        content = folder / "content"
        content.mkdir()
        for deb in debs:
            _run(["dpkg", "-x", str(deb), str(content)])
        for unused in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "etc", "var"):
            shutil.rmtree(content / unused, ignore_errors=True)
        for purpose_folder in sorted(set(programs.values())):
            _wrap(content, content / purpose_folder)
        _check(content, sorted(set(programs.values())))
        return publish(
            content=content,
            component=component,
            version=f"{suite}-{version}",
            recipe=RECIPE,
            source=f"Debian {suite}: {' '.join(packages)} {version}",
            folders=programs,
        )


def install_modules(*, component: str, suite: str, package: str, folder: str) -> Tree:
    """Fetches one package of modules that the server of the same suite loads, without what it needs: that is there."""
    with staging(component) as place:
        apt = _Apt(suite=suite)
        version = apt.version(package)
        say(f"{component}: {package} {version} of Debian {suite}")
        content = place / "content"
        content.mkdir()
        _run(["dpkg", "-x", str(apt.fetch([package], into=place / "debs")[0]), str(content)])
        if not any((content / folder).glob("*.so")):
            raise InstallError(f"package {package} has no module in {folder}")
        return publish(
            content=content,
            component=component,
            version=f"{suite}-{version}",
            recipe=RECIPE,
            source=f"Debian {suite}: {package} {version}",
            folders={"modules": folder},
        )


class _Apt:
    """apt on a configuration that shares nothing with the machine's own but the mirror and the archive's keys."""

    def __init__(self, *, suite: str) -> None:
        if not KEYRING.exists():
            raise InstallError(f"{KEYRING} is missing: install the package debian-archive-keyring, then run this again")
        state = cache_root() / "apt" / suite
        for folder in ("state/lists/partial", "cache/archives/partial", "parts"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()  # nothing counts as installed: the closure is complete
        self._sources = state / "sources.list"
        # A mirror that stands still on purpose (a snapshot) outlives the dates in its index; the signature counts.
        self._sources.write_text(f"deb [signed-by={KEYRING} check-valid-until=no] {_mirror()} {suite} main\n")
        config = state / "apt.conf"
        config.write_text(
            f'Dir::State "{state}/state";\nDir::State::status "{state}/status";\nDir::Cache "{state}/cache";\n'
            f'Dir::Etc::sourcelist "{self._sources}";\nDir::Etc::sourceparts "{state}/parts";\n'
            f'Dir::Etc::preferencesparts "{state}/parts";\nDir::Etc::preferences "/dev/null";\n'
            f'APT::Sandbox::User "{"root" if os.geteuid() == 0 else ""}";\n'
            'APT::Install-Recommends "false";\nAcquire::Languages "none";\nAcquire::Retries "3";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
            'APT::Update::Post-Invoke-Success "";\n'
        )
        self._env = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        _run(["apt-get", "-qq", "update"], env=self._env)

    def version(self, package: str) -> str:
        out = _run(["apt-cache", "show", "--no-all-versions", package], env=self._env)
        found = re.search(r"^Version: (\S+)$", out, re.MULTILINE)
        if found is None:
            raise InstallError(f"{package} is not on the mirror {self._sources.read_text().strip()!r}")
        return found.group(1)

    def download(self, packages: list[str], *, into: Path) -> list[Path]:
        """With what they need."""
        plan = _run(["apt-get", "-qq", "--simulate", "install", *packages], env=self._env)
        wanted = re.findall(r"^Inst (\S+) ", plan, re.MULTILINE)
        wanted = [name for name in wanted if not NOT_NEEDED.match(name) or name in packages]
        return self.fetch(wanted, into=into)

    def fetch(self, packages: list[str], *, into: Path) -> list[Path]:
        """These alone."""
        into.mkdir()
        _run(["apt-get", "-qq", "download", *packages], env=self._env, cwd=into)
        return sorted(into.glob("*.deb"))


def _mirror() -> str:
    """The Debian mirror that this machine is configured for, or the public one (on Ubuntu, for example)."""
    given = os.environ.get("PGTEND_DEBIAN_MIRROR")
    if given:
        return given
    out = _run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages"], strict=False)
    for line in out.splitlines():
        uri, _, origin = line.partition(" ")
        if origin == "Debian" and uri.rstrip("/").endswith("/debian"):
            return uri
    return PUBLIC_MIRROR


def _library_folders(content: Path) -> list[Path]:
    found = [content / top / _triplet() for top in ("usr/lib", "lib")]
    return [folder for folder in found if folder.is_dir()]


def _triplet() -> str:
    machine = os.uname().machine
    return {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}.get(machine, f"{machine}-linux-gnu")


def _loader(content: Path) -> Path:
    for folder in _library_folders(content):
        for loader in folder.glob("ld-linux-*.so.*"):
            return loader
    raise InstallError(f"no dynamic loader in {content}: the closure lacks libc6")


def _wrap(content: Path, programs: Path) -> None:
    """Moves the ELF programs of a folder to `elf/` beside it and leaves scripts in their place."""
    if not programs.is_dir():
        raise InstallError(f"the packages do not contain {programs.relative_to(content)}")
    real = programs.parent / "elf"
    real.mkdir(exist_ok=True)
    up = os.path.relpath(content, programs)
    loader = f"{up}/{_loader(content).relative_to(content)}"
    libraries = ":".join(f"$d/{up}/{folder.relative_to(content)}" for folder in _library_folders(content))
    for program in sorted(programs.iterdir()):
        if program.is_symlink() and not program.exists():
            program.unlink()  # pointed into a package that was left out
        elif not program.is_symlink() and program.read_bytes()[:4] == b"\x7fELF":
            program.rename(real / program.name)
            program.write_text(
                "#!/bin/sh\n"
                "d=${0%/*}\n"
                f'exec "$d/{loader}" --argv0 "$0" --library-path "{libraries}" '
                f'"$d/../elf/"{shlex.quote(program.name)} "$@"\n'
            )
            program.chmod(0o755)


def _check(content: Path, folders: list[str]) -> None:
    """Every program and every module must find its libraries inside the tree, or the tree is not published."""
    libraries = ":".join(str(folder) for folder in _library_folders(content))
    command = [str(_loader(content)), "--library-path", libraries, "--list"]
    candidates = [elf for folder in folders for elf in (content / folder).parent.glob("elf/*")]
    candidates += [
        module for module in content.glob("usr/lib/postgresql/*/lib/*.so") if module.name not in UNUSED_MODULES
    ]
    for candidate in candidates:
        out = _run([*command, str(candidate)], strict=False)
        missing = re.findall(r"^\s*(\S+) => not found", out, re.MULTILINE)
        outside = [path for path in re.findall(r"=> (/\S+) \(", out) if not path.startswith(str(content))]
        if missing or outside or ("=>" not in out and "statically linked" not in out):
            raise InstallError(
                f"{candidate.relative_to(content)} lacks {missing or outside or out!r}: "
                "its package was left out by NOT_NEEDED in tests/servers/debian.py"
            )


def _run(command: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None, strict: bool = True) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    if strict and done.returncode != 0:
        raise InstallError(f"{shlex.join(command)} failed:\n{(done.stdout + done.stderr).strip()}")
    return done.stdout
