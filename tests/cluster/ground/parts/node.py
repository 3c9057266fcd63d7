"""The node image, made of Debian packages and our own programs where no registry has one to give."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from . import binaries
from .machine import has_program, install
from .settings import BASE_IMAGE, CACHE, DEBIAN, DEBIAN_MIRROR, GROUND, KIND, KUBERNETES, NODE_DEBIAN_IMAGE, inputs_key
from .steps import Step, output, step

LOG = CACHE / "logs" / "node.log"
REMEDY = "see the log; Debian's mirror must be reachable from here and from `docker build --network host`"
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
# The names that kubeadm of this version asks for; what is inside is built from the versions in go.mod.
TAGS = {
    "kube": [*(f"registry.k8s.io/{name}:{KUBERNETES}" for name in CONTROL_PLANE), "registry.k8s.io/etcd:3.6.5-0"],
    "coredns": ["registry.k8s.io/coredns/coredns:v1.12.1"],
    "pause": ["registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10.1"],
    "agent": ["pgtend-ground/agent:local"],
}


def image() -> str:
    return f"kindest/node:{inputs_key()}"


def exists(name: str) -> bool:
    return output("docker", "image", "inspect", "--format", "{{.Id}}", name) is not None


def ensure() -> None:
    """The node image is there, and so is the Debian root that the project's images start from."""
    ensure_base()
    if exists(image()):
        return
    binaries.ensure(*binaries.OURS)
    with (
        step("node image", waits_for="docker build", remedy=REMEDY, log=LOG) as current,
        tempfile.TemporaryDirectory(dir=CACHE, prefix="node-") as folder,
    ):
        _parts(current, Path(folder) / "parts")
        _node(current, Path(folder) / "node")


def ensure_base() -> None:
    if exists(BASE_IMAGE):
        return
    if not has_program("debootstrap"):
        install("debootstrap", "debian-archive-keyring", why="a Debian root without a registry")
    with (
        step(f"Debian {DEBIAN}", waits_for="debootstrap", remedy=REMEDY, log=LOG) as current,
        tempfile.TemporaryDirectory(dir=CACHE, prefix="debian-") as folder,
    ):
        root = Path(folder) / "root"
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        trusted = [f"--keyring={keyring}"] if Path(keyring).exists() else []
        current.run("debootstrap", "--variant=minbase", *trusted, DEBIAN, root, f"{DEBIAN_MIRROR}/debian")
        (root / "etc/apt/sources.list").write_text(
            f"deb {DEBIAN_MIRROR}/debian {DEBIAN} main\n"
            f"deb {DEBIAN_MIRROR}/debian {DEBIAN}-updates main\n"
            f"deb {DEBIAN_MIRROR}/debian-security {DEBIAN}-security main\n"
        )
        unwanted = [f"/usr/share/{part}" for part in ("doc", "man", "info", "locale")]
        (root / "etc/dpkg/dpkg.cfg.d/slim").write_text("".join(f"path-exclude {part}/*\n" for part in unwanted))
        # As Debian's own image does: the package cache is not kept in layers.
        (root / "etc/apt/apt.conf.d/docker-clean").write_text(
            'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
            'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };\n'
        )
        for part in [*unwanted, "/var/cache/apt/archives", "/var/lib/apt/lists", "/var/log/bootstrap.log"]:
            _empty(root / part.lstrip("/"))
        packed = Path(folder) / "root.tar"
        current.run("tar", "-C", root, "--numeric-owner", "-cf", packed, ".")
        current.run("docker", "import", "-c", 'CMD ["bash"]', packed, BASE_IMAGE)


def _empty(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
    else:
        path.unlink(missing_ok=True)


def _parts(current: Step, context: Path) -> None:
    kube = context / "bin" / "kube"
    kube.mkdir(parents=True)
    for program in binaries.OURS:
        to = kube if program.name == "kube" else context / "bin"
        shutil.copy(program.stored, to / program.name)
    for name in (*CONTROL_PLANE, "etcd"):
        (kube / name).symlink_to("kube")
    build = ["docker", "build", "--network", "host", "--build-arg", f"BASE={BASE_IMAGE}"]
    build += ["-f", str(GROUND / "node" / "parts.Dockerfile")]
    current.run(*build, "--target", "debian", "-t", NODE_DEBIAN_IMAGE, context)
    for target, tags in TAGS.items():
        current.run(*build, "--target", target, *(word for tag in tags for word in ("-t", tag)), context)


def _node(current: Step, context: Path) -> None:
    tags = [tag for group in TAGS.values() for tag in group]
    context.mkdir()
    shutil.copytree(GROUND / "node" / "manifests", context / "manifests")
    shutil.copytree(binaries.module_folder(f"sigs.k8s.io/kind@{KIND}") / "images/base/files", context / "files")
    for path in [context / "files", *(context / "files").rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)  # module caches are read-only
    (context / "bin").mkdir()
    shutil.copy(binaries.CLIENT.stored, context / "bin" / "kube")
    for name in ("kubeadm", "kubelet", "kubectl"):
        (context / "bin" / name).symlink_to("kube")
    current.run("docker", "save", "-o", context / "images.tar", *tags)
    current.run(
        *("docker", "build", "--network", "none", "-t", image(), "-f", GROUND / "node" / "Dockerfile"),
        *("--build-arg", f"DEBIAN={NODE_DEBIAN_IMAGE}", "--build-arg", f"VERSION={KUBERNETES}", context),
    )
    current.run("docker", "image", "rm", *tags)
