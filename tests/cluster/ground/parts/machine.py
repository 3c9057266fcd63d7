"""What the machine is and has: its distribution, its packages, and the capability that may be missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .settings import CACHE, SYSTEM_PATH
from .steps import GroundError, output, step

CAP_SYS_RESOURCE = 24


def is_debian_like() -> bool:
    try:
        words = Path("/etc/os-release").read_text()
    except OSError:
        return False
    return any("debian" in line for line in words.splitlines() if line.startswith(("ID=", "ID_LIKE=")))


def may_install() -> bool:
    return is_debian_like() and os.geteuid() == 0


def has_program(name: str) -> bool:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}") is not None


def install(*packages: str, why: str) -> None:
    """Install Debian packages, without what they merely recommend."""
    if not may_install():
        raise GroundError(
            f"{why} needs {', '.join(packages)}, and this is not a Debian-like machine used as root",
            remedy=f"install {' '.join(packages)} with the machine's own means and run this again",
        )
    remedy = "see the log; `apt-get update` must work on this machine (mirror, proxy, disk space)"
    with step("Debian packages", waits_for="apt-get", remedy=remedy, log=CACHE / "logs" / "apt.log") as current:
        current.run("apt-get", "update", "-q")
        current.run("apt-get", "install", "-y", "-q", "--no-install-recommends", *packages)


def install_docker() -> None:
    """Docker's daemon and client from the distribution; newer releases ship the client apart."""
    client = ["docker-cli"] if output("apt-cache", "show", "docker-cli") else []
    install("docker.io", *client, "iptables", "ca-certificates", why="a cluster without a registry")


def lacks_sys_resource() -> bool:
    """Whether no process here can ever have CAP_SYS_RESOURCE, so that runc must not ask for it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return not (int(line.split()[1], 16) >> CAP_SYS_RESOURCE) & 1
    return False


def program_of(pid: int) -> str:
    """The name of the program that a process runs, or an empty string when there is no such process."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
    except OSError:
        return ""
