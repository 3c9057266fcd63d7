"""Versions, names and places, so that no other part decides where something lies or what it is called."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

KUBERNETES = "v1.34.4"
KIND = "v0.33.0"
HELM = "v3.22.0"
DEBIAN = "bookworm"
DEBIAN_MIRROR = os.environ.get("PGTEND_DEBIAN_MIRROR", "http://deb.debian.org")

GROUND = Path(__file__).resolve().parents[1]
CHECKOUT = GROUND.parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgtend" / "ground"

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE_IMAGE = f"pgtend-ground/debian:{DEBIAN}"
NODE_DEBIAN_IMAGE = "pgtend-ground/node-debian:latest"


def digest(*parts: bytes | str | Path) -> str:
    """Sha256 in hex over strings and over files; a folder counts with the names and contents of all its files."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
            for file in files:
                if "__pycache__" not in file.parts:
                    total.update(f"{file.relative_to(part.parent)}\0{oct(file.stat().st_mode & 0o111)}\0".encode())
                    total.update(file.read_bytes())
        else:
            total.update(part.encode() if isinstance(part, str) else part)
        total.update(b"\0")
    return total.hexdigest()


def inputs_key() -> str:
    """Names what the built cluster is made of: a change of version, Go source or node file is another key."""
    return f"{KUBERNETES}-{digest(KIND, HELM, DEBIAN, os.uname().machine, GROUND / 'go', GROUND / 'node')[:10]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One cluster of one checkout. Paths are absolute."""

    name: str
    state: Path
    kubeconfig: Path

    @classmethod
    def of(cls, *, name: str | None, kubeconfig: str | None) -> Settings:
        """The cluster of this checkout, or another one beside it that `name` tells apart."""
        usual = f"pgtend-{digest(str(CHECKOUT))[:6]}"
        state = CHECKOUT / ".ground" / "clusters" / name if name else CHECKOUT / ".ground"
        known = _read(state / "state.json")
        path = kubeconfig or known.get("kubeconfig") or str(state / "kubeconfig")
        return cls(name=f"{usual}-{name}" if name else usual, state=state, kubeconfig=Path(path).resolve())

    @property
    def node(self) -> str:
        return f"{self.name}-control-plane"

    @property
    def audit(self) -> Path:
        return self.state / "audit"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    def remember(self, facts: dict[str, str]) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        file = self.state / "state.json"
        file.with_suffix(".new").write_text(json.dumps(facts, indent=2) + "\n")
        file.with_suffix(".new").replace(file)

    def recall(self) -> dict[str, str]:
        return _read(self.state / "state.json")

    def forget(self) -> None:
        for file in (self.state / "state.json", self.state / "loaded.json", self.kubeconfig):
            file.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, str]:
    try:
        facts = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def bin_folder() -> Path:
    """Where the programs of this version are linked; first on the PATH of everything that the ground runs."""
    return CACHE / inputs_key() / "bin"


def environment(**more: str) -> dict[str, str]:
    """The environment of every command that the ground starts."""
    path = f"{bin_folder()}:{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    return {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **more}
