"""Three ways to a cluster, tried in order: the one that the caller names, upstream images from a registry, our own.

Nothing outside this folder knows which of them was taken.
"""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request

from . import binaries, cluster, docker, node
from .settings import CACHE, Settings, inputs_key
from .steps import GroundError, alone, output, say

REGISTRY = "https://registry-1.docker.io/v2/"
NAMED, UPSTREAM, BUILT = "named", "upstream", "built"


def up(settings: Settings) -> None:
    """A cluster that answers, with its kubeconfig in place; a healthy one is left as it is."""
    started = time.monotonic()
    known = settings.recall()
    if _named():
        _take_named(settings)
    elif known.get("key") == inputs_key() and cluster.healthy(settings, image=known.get("image")):
        say(f"cluster {settings.name} is up")
    else:
        with alone(CACHE / "lock", "Docker and the node image"):
            docker.ensure()
            way = UPSTREAM if _registry_answers() else BUILT
            binaries.ensure(binaries.KIND_PROGRAM, binaries.HELM_PROGRAM, *binaries.OURS)
            if way == BUILT:
                node.ensure()
        with alone(settings.state / "lock", f"cluster {settings.name}"):
            image = node.image() if way == BUILT else None  # upstream: the one that this kind was released with
            wanted = image or known.get("image")
            if not cluster.healthy(settings, image=wanted) and not (wanted and cluster.revive(settings, image=wanted)):
                cluster.create(settings, image=image)
            facts = {"way": way, "image": image or "", "key": inputs_key(), "kubeconfig": str(settings.kubeconfig)}
            settings.remember(facts)
    say(f"kubeconfig {settings.kubeconfig} ({time.monotonic() - started:.1f} s)")


def down(settings: Settings, *, keep_docker: bool) -> None:
    """Remove the cluster, and stop the Docker daemon if it is ours and idle. A named cluster is only forgotten."""
    if settings.recall().get("way") == NAMED:
        settings.forget()
    elif docker.client() is None:
        say("no Docker daemon answers: nothing runs that could be removed")
        settings.forget()
    else:
        cluster.delete(settings)
        if not keep_docker:
            docker.stop_ours()


def _named() -> bool:
    return bool(os.environ.get("PGTEND_CONTEXT") or os.environ.get("PGTEND_KUBECONFIG"))


def _take_named(settings: Settings) -> None:
    binaries.ensure(binaries.HELM_PROGRAM, binaries.CLIENT)
    file = os.environ.get("PGTEND_KUBECONFIG")
    context = os.environ.get("PGTEND_CONTEXT")
    where = ["--kubeconfig", file] if file else []
    where += ["--context", context] if context else []
    config = output("kubectl", *where, "config", "view", "--raw", "--minify", "--flatten")
    if not config:
        remedy = "`kubectl config get-contexts` lists what there is"
        raise GroundError(f"context {context or 'current'} is not in {file or 'the kubeconfig'}", remedy=remedy)
    settings.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    settings.kubeconfig.touch(mode=0o600)
    settings.kubeconfig.write_text(config + "\n")
    if not cluster.ready(settings.kubeconfig):
        remedy = f"`kubectl --kubeconfig {settings.kubeconfig} get --raw /readyz` must say ok"
        raise GroundError(f"context {context or 'current'} does not answer", remedy=remedy)
    settings.remember({"way": NAMED, "key": inputs_key(), "kubeconfig": str(settings.kubeconfig)})


def _registry_answers() -> bool:
    """Whether upstream's images can be had. This way is not run in CI, which has no registry."""
    wanted = os.environ.get("PGTEND_GROUND")
    if wanted in (UPSTREAM, BUILT):
        return wanted == UPSTREAM
    try:
        urllib.request.urlopen(REGISTRY, timeout=5).close()
    except urllib.error.HTTPError as answer:
        return answer.code == 401  # it asks who we are: that is how a registry greets
    except OSError:
        return False
    return True
