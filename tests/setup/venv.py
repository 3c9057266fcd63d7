"""Make the locked virtual environment, and whatever the distribution lacks for that. Standard library only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(target: str) -> None:
    started = time.monotonic()
    folder = ROOT / target
    _ensure_venv_module()
    python = folder / "bin" / "python"
    # an environment that was moved or half made is of no use
    if folder.exists() and subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode:
        shutil.rmtree(folder)
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    lock = ROOT / "requirements" / "dev.txt"
    print(f"installing {lock.relative_to(ROOT)} into {target} ...", flush=True)
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes"]
    subprocess.run([*command, "-r", str(lock)], check=True)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (Path(site) / "pgtend.pth").write_text(f"{ROOT / 'operator'}\n")
    (folder / "stamp").touch()
    print(f"environment ready after {time.monotonic() - started:.0f} s", flush=True)


def _ensure_venv_module() -> None:
    """Debian ships venv apart."""
    if subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        sys.exit("Python's venv is missing: install the package python3-venv")
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "python3-venv"],
        check=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )


if __name__ == "__main__":
    main(sys.argv[1])
