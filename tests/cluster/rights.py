"""Whether every right that the chart grants was used: what no test needed is not to be granted.

Compares the chart's roles with the API server's audit log of this checkout's cluster, which the cluster and end-to-end
tests have filled. `make test` ends with it; by itself, after those tests:

    make test-rights            lists what was never used; exit 1 if there is any
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.harness import CHART, Cluster

Right = tuple[str, str]
_ACCOUNT = re.compile(rb'"username":"system:serviceaccount:[^":]+:(pgtend|pgtend-uninstall)"')


def granted(cluster: Cluster) -> set[Right]:
    """(verb, group/resource) of every role that the chart binds, the uninstall job's among them: those that it only
    offers to people are theirs to use."""
    version = yaml.safe_load(cluster.kubectl("version", "-o", "yaml"))["serverVersion"]["gitVersion"]
    text = cluster.run(
        *("helm", "template", "pgtend", str(CHART), "-n", "pgtend", "--kube-version", version),
        *("--set", "installationID=rights,crds.install=false"),
    )
    objects = [body for body in yaml.safe_load_all(text) if body]
    bound = {body["roleRef"]["name"] for body in objects if "roleRef" in body}
    roles = [body for body in objects if body["kind"] in ("Role", "ClusterRole") and body["metadata"]["name"] in bound]
    return {
        (verb, f"{group}/{resource}")
        for role in roles
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def used(lines: Iterable[bytes]) -> set[Right]:
    """(verb, group/resource) of what accounts of the chart were allowed to do."""
    return {right for event in _ours(lines) if (right := _right(event)) is not None}


def _ours(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if _ACCOUNT.search(line) and line.endswith(b"}\n"):
            yield json.loads(line)


def _right(event: dict[str, Any]) -> Right | None:
    ref = event.get("objectRef")
    allowed = (event.get("annotations") or {}).get("authorization.k8s.io/decision") != "forbid"
    if not ref or not allowed:
        return None
    sub = f"/{ref['subresource']}" if ref.get("subresource") else ""
    return event["verb"], f"{ref.get('apiGroup', '')}/{ref['resource']}{sub}"


def main() -> int:
    cluster = Cluster.up()
    if cluster.audit is None or not Path(cluster.audit).exists():
        # a cluster that the caller names keeps its log to itself
        print("not checked: this cluster has no audit log that can be read")
        return 0
    with Path(cluster.audit).open("rb") as log:
        seen = used(log)
    idle = sorted(granted(cluster) - seen)
    for verb, what in idle:
        print(f"never used: {verb} {what}")
    print(f"{len(seen & granted(cluster))} rights were used, {len(idle)} were not")
    return 1 if idle else 0


if __name__ == "__main__":
    sys.exit(main())
