"""Programs built from Go modules, each kept in the cache under a key of what it is made of.

Kubernetes, CoreDNS and our own small programs share one go.mod and one call of the compiler, so that nothing is
compiled twice. The compiler's own cache would be 11 GB and is not kept.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .settings import CACHE, GROUND, HELM, KIND, KUBERNETES, bin_folder, digest
from .steps import GroundError, output, step

STORE = CACHE / "store"
FLAGS = " ".join(
    [
        "-s -w",
        f"-X k8s.io/component-base/version.gitVersion={KUBERNETES}",
        f"-X k8s.io/component-base/version.gitMajor={KUBERNETES[1:].split('.')[0]}",
        f"-X k8s.io/component-base/version.gitMinor={KUBERNETES.split('.')[1]}",
        "-X k8s.io/component-base/version.gitTreeState=clean",
        f"-X helm.sh/helm/v3/internal/version.version={HELM}",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """`module` is a package at a version, installed as it is; without one the source is our folder of that name."""

    name: str
    module: str = ""

    @property
    def stored(self) -> Path:
        go = GROUND / "go"
        inputs: list[str | Path] = [self.module] if self.module else [go / self.name]
        if not self.module and self.name != "nosysres":
            inputs += [go / "go.mod", go / "go.sum"]
        return STORE / f"{self.name}-{digest(*inputs, FLAGS, os.uname().machine)[:12]}"


KIND_PROGRAM = Program(name="kind", module=f"sigs.k8s.io/kind@{KIND}")
HELM_PROGRAM = Program(name="helm", module=f"helm.sh/helm/v3/cmd/helm@{HELM}")
WRAPPER = Program(name="nosysres")
OURS = tuple(Program(name=name) for name in ("kube", "agent", "coredns", "pause"))
CLIENT = Program(name="kube")


def ensure(*programs: Program) -> None:
    """Build what the cache lacks and link all of it into this version's folder."""
    missing = [p for p in programs if not p.stored.exists()]
    if missing:
        _build(missing)
    folder = bin_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for program in programs:
        names = [program.name, "kubectl"] if program.name == "kube" else [program.name]
        for name in names:
            link(folder / name, program.stored)


def link(at: Path, to: Path) -> None:
    if not at.is_symlink() or at.readlink() != to:
        at.unlink(missing_ok=True)
        at.symlink_to(to)


def module_folder(module: str) -> Path:
    """Where the Go module cache keeps `path@version`, fetched again if it is gone."""
    told = output("go", "mod", "download", "-json", module, timeout=300)
    if told is None:
        raise GroundError(f"Go cannot fetch {module}", remedy=f"try `go mod download {module}` and mend what it says")
    return Path(json.loads(told)["Dir"])


def _build(programs: list[Program]) -> None:
    if output("go", "version") is None:
        raise GroundError(
            "Go is not installed", remedy="install Go 1.24 or newer; it fetches a newer toolchain by itself if needed"
        )
    log = CACHE / "logs" / "go.log"
    STORE.mkdir(parents=True, exist_ok=True)
    work = CACHE / "building"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    # A compiler cache that the caller names is theirs to keep; ours goes when everything is built, and stays after a
    # failure, so that the next try goes on where this one stopped.
    temporary = CACHE / "gocache-tmp"
    cache = os.environ.get("GOCACHE") or str(temporary)
    env = {"CGO_ENABLED": "0", "GOCACHE": cache, "GOBIN": str(work), "GOFLAGS": "-buildvcs=false -trimpath"}
    remedy = "see the log; the Go module proxy must be reachable (`go env GOPROXY`) and 12 GB of disk be free"
    ours = [p.name for p in programs if not p.module]
    names = ", ".join(p.name for p in programs)
    with step(f"Go: {names}", waits_for="the compiler", remedy=remedy, log=log) as current:
        if ours:
            command = ["go", "build", "-mod=readonly", f"-ldflags={FLAGS}", "-o", f"{work}/"]
            current.run(*command, *(f"./{name}" for name in ours), cwd=GROUND / "go", timeout=3600, env=env)
        for program in programs:
            if program.module:
                current.run("go", "install", f"-ldflags={FLAGS}", program.module, timeout=1800, env=env)
        for program in programs:
            (work / program.name).replace(program.stored)
    shutil.rmtree(work, ignore_errors=True)
    if not os.environ.get("GOCACHE"):
        shutil.rmtree(temporary, ignore_errors=True)
