"""What people install: the chart renders, lints and is accepted in both modes, the kustomize manifests say the same,
the rights are enough and no more. Needs helm and kubectl, which the ground brings; it never skips."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster import rights as rights_script
from tests.cluster.conftest import Tenant
from tests.cluster.harness import CHART, ROOT, Cluster

from pgtend.api.base import CATEGORY, GROUP
from pgtend.api.kinds import KINDS

MANIFESTS = ROOT / "manifests"
CI = sorted((CHART / "ci").glob("*.yaml"))
# set by Helm, or by nobody
OWN_LABELS = ("app.kubernetes.io/managed-by", "helm.sh/chart")
Objects = dict[tuple[str, str, str], dict[str, Any]]


def by_name(text: str) -> Objects:
    """(kind, namespace, name) -> object. Two of one name would be an error of the package."""
    found: Objects = {}
    for body in yaml.safe_load_all(text):
        if body:
            key = (body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"])
            assert key not in found, f"{key} twice"
            found[key] = body
    return found


def render(cluster: Cluster, *words: str, namespace: str = "pgtend", hooks: bool = True) -> Objects:
    """The chart's objects. `helm template` knows no cluster, so it is told a version."""
    version = yaml.safe_load(cluster.kubectl("version", "-o", "yaml"))["serverVersion"]["gitVersion"]
    text = cluster.run(
        *("helm", "template", "pgtend", str(CHART), "-n", namespace, "--kube-version", version),
        *(() if hooks else ("--no-hooks",)),
        *words,
    )
    return by_name(text)


@pytest.mark.parametrize("values", CI, ids=lambda p: p.stem)
def test_the_chart_lints(cluster: Cluster, values: Path) -> None:
    cluster.run("helm", "lint", "--strict", str(CHART), "-f", str(values))


def test_helm_says_which_value_is_wrong(cluster: Cluster) -> None:
    said = cluster.run(
        *("helm", "template", "pgtend", str(CHART), "--set", "installationID=NO,replica=2,mode=Namespaced"), check=False
    )
    for word in ("installationID", "replica", "watchNamespaces"):
        assert word in said
    assert "missing property 'installationID'" in cluster.run("helm", "template", "pgtend", str(CHART), check=False)


@pytest.mark.parametrize("values", [p for p in CI if p.stem != "everything-values"], ids=lambda p: p.stem)
def test_the_api_server_accepts_every_object(cluster: Cluster, tenant: Tenant, values: Path, tmp_path: Path) -> None:
    """With strict validation, so that a field spelled wrong is an error."""
    namespace = tenant.namespace("chart")
    given = yaml.safe_load(values.read_text())
    if given.get("mode") == "Namespaced":
        given["watchNamespaces"] = [namespace, tenant.namespace("watched")]
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(given))
    found = render(cluster, "-f", str(path), namespace=namespace)
    said = cluster.kubectl(
        *("apply", "--dry-run=server", "--validate=strict", "-f", "-"), text=yaml.safe_dump_all(found.values())
    )
    assert said.count("(server dry run)") == len(found)


def test_everything_optional_renders(cluster: Cluster) -> None:
    found = render(cluster, "-f", str(CHART / "ci" / "everything-values.yaml"), namespace="tending")
    kinds = {kind for kind, _, _ in found}
    assert {"PodDisruptionBudget", "ServiceMonitor", "PrometheusRule", "NetworkPolicy", "Job"} <= kinds
    rule = found["PrometheusRule", "tending", "pgtend"]
    assert rule["spec"]["groups"][0]["rules"][0]["expr"] == 'absent(pgtend_leader{namespace="tending"} == 1)'
    pod = found["Deployment", "tending", "pgtend"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"].startswith("registry.example.com/mirror/pgtend/operator@sha256:")
    assert pod["topologySpreadConstraints"]


def comparable(objects: Objects) -> Objects:
    """Without what only one of the two ways of delivery has."""
    kept: Objects = {}
    for key, body in objects.items():
        if key[0] in ("CustomResourceDefinition", "Namespace"):
            continue
        metadata = dict(body["metadata"])
        metadata["labels"] = {k: v for k, v in metadata["labels"].items() if k not in OWN_LABELS}
        metadata.pop("annotations", None)
        kept[key] = {**body, "metadata": metadata}
        if key[0] == "Deployment":
            # a patch of kustomize moves what it touches to the front
            body["spec"]["template"]["spec"]["containers"][0]["env"].sort(key=lambda variable: variable["name"])
    return kept


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ("cluster", ()),
        ("namespaced", ("--set", "mode=Namespaced", "--set", "watchNamespaces={databases}")),
    ],
)
def test_kustomize_says_the_same_as_the_chart(cluster: Cluster, overlay: str, words: tuple[str, ...]) -> None:
    chart = comparable(render(cluster, "--set", "installationID=example", *words, hooks=False))
    manifests = comparable(by_name(cluster.kubectl("kustomize", str(MANIFESTS / "overlays" / overlay))))
    assert manifests.keys() == chart.keys()
    for key, body in chart.items():
        assert manifests[key] == body, key


def test_kustomize_needs_an_installation_id(cluster: Cluster) -> None:
    base = by_name(cluster.kubectl("kustomize", str(MANIFESTS / "base")))
    env = base["Deployment", "pgtend", "pgtend"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert next(e for e in env if e["name"] == "PGTEND_INSTALLATION_ID")["value"] == ""


def test_namespaced_mode_has_nothing_cluster_wide(cluster: Cluster) -> None:
    found = render(cluster, "-f", str(CHART / "ci" / "namespaced-values.yaml"), "--set", "crds.install=false")
    assert [key for key in found if key[0].startswith("Cluster") or not key[1]] == []
    bound = {key[1] for key, body in found.items() if key[0] == "RoleBinding"}
    assert bound == {"pgtend", "databases", "shop"}


@pytest.mark.parametrize("values", CI, ids=lambda p: p.stem)
def test_no_right_is_wide(cluster: Cluster, values: Path) -> None:
    roles = [body for key, body in render(cluster, "-f", str(values)).items() if key[0] in ("Role", "ClusterRole")]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not {"*", "escalate", "bind", "impersonate"} & set(words), role["metadata"]["name"]
            if "secrets" in rule["resources"]:
                assert not {"list", "watch"} & set(rule["verbs"]), role["metadata"]["name"]


@pytest.mark.parametrize(("keep", "expected"), [("true", {"helm.sh/resource-policy": "keep"}), ("false", None)])
def test_crds_are_kept(cluster: Cluster, keep: str, expected: dict[str, str] | None) -> None:
    found = render(cluster, "--set", f"installationID=example,crds.keep={keep}")
    crds = [body for key, body in found.items() if key[0] == "CustomResourceDefinition"]
    assert {crd["metadata"]["name"] for crd in crds} == {f"{kind.plural}.{GROUP}" for kind in KINDS}
    assert [crd["metadata"].get("annotations") for crd in crds] == [expected] * len(KINDS)


def test_pods_meet_the_restricted_standard(cluster: Cluster, tenant: Tenant) -> None:
    namespace = tenant.namespace("restricted")
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    found = render(cluster, "--set", "installationID=example", namespace=namespace)
    templates = [body["spec"]["template"] for key, body in found.items() if key[0] in ("Deployment", "Job")]
    assert len(templates) == 2
    for number, template in enumerate(templates):
        # the ServiceAccount is not there; what is asked here is about the pod
        spec = {**template["spec"], "serviceAccountName": "default", "automountServiceAccountToken": False}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"p{number}", "namespace": namespace},
            "spec": spec,
        }
        cluster.kubectl("apply", "--dry-run=server", "-f", "-", text=yaml.safe_dump(pod))
        loose = {**spec, "securityContext": {}}
        said = cluster.kubectl(
            "apply", "--dry-run=server", "-f", "-", text=yaml.safe_dump({**pod, "spec": loose}), check=False
        )
        assert "violates PodSecurity" in said


Right = tuple[str, str, str]


def rights(cluster: Cluster, namespace: str, user: str) -> set[Right]:
    """All that a user may do in a namespace, as (verb, group/resource, name or "")."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    said = cluster.kubectl("create", f"--as={user}", "--raw", path, "-f", "-", text=json.dumps(review))
    status = json.loads(said)["status"]
    assert not status["incomplete"]
    return {
        (verb, f"{group}/{resource}", name)
        for rule in status["resourceRules"]
        for verb in rule["verbs"]
        for group in rule.get("apiGroups", [""])
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
    }


WATCHED: set[Right] = {
    *((verb, f"{GROUP}/{kind.plural}", "") for kind in KINDS for verb in ("list", "watch")),
    *(("patch", f"{GROUP}/{kind.plural}/status", "") for kind in KINDS),
    *(("patch", f"{GROUP}/{plural}", "") for plural in ("postgrestargets", "databaseusers")),
    ("get", "/secrets", ""),
    ("create", "events.k8s.io/events", ""),
    # what a status has no room for
    ("create", "/configmaps", ""),
    ("get", "/configmaps", ""),
}
OWN: set[Right] = {
    ("get", "/configmaps", "pgtend-brake"),
    ("get", "/configmaps", "pgtend-ledger"),
    ("get", "coordination.k8s.io/leases", "pgtend-leader"),
    ("update", "coordination.k8s.io/leases", "pgtend-leader"),
    ("create", "coordination.k8s.io/leases", ""),
}
# resource -> verbs that are never granted without a name
NEVER = {
    "/secrets": {"list", "watch", "deletecollection"},
    "/configmaps": {"list", "watch", "delete", "patch", "update"},
    "/pods": {"create", "delete", "patch", "update"},
    "/pods/exec": {"create", "get"},
    "/serviceaccounts/token": {"create"},
    "coordination.k8s.io/leases": {"get", "update", "delete"},
    "rbac.authorization.k8s.io/roles": {"create", "bind", "escalate"},
    "rbac.authorization.k8s.io/rolebindings": {"create"},
    **{
        f"{GROUP}/{kind.plural}": {"create", "update", "delete", "deletecollection"}
        for kind in KINDS
        if kind.category == CATEGORY
    },
}


@pytest.mark.alone  # it brings the admission policy of the whole cluster
@pytest.mark.parametrize("mode", ["Cluster", "Namespaced"])
def test_rights_are_enough_and_no_more(cluster: Cluster, tenant: Tenant, mode: str) -> None:
    namespace, watched, other = (tenant.namespace(name) for name in ("own", "watched", "other"))
    user = f"system:serviceaccount:{namespace}:pgtend"
    anybody = rights(cluster, other, user)
    assert not any(verb == "*" or what == "*/*" for verb, what, _ in anybody), (
        "this cluster gives everything to everyone"
    )
    names = json.dumps([watched] if mode == "Namespaced" else [])
    cluster.run(
        *("helm", "install", "pgtend", str(CHART), "-n", namespace, "--set", f"installationID=rights,mode={mode}"),
        *("--set-json", f"watchNamespaces={names}"),
        *("--set", "replicas=0,crds.install=false,uninstallHook.enabled=false"),
    )
    try:
        here, there, elsewhere = (rights(cluster, place, user) - anybody for place in (namespace, watched, other))
        assert there >= WATCHED
        assert elsewhere == (there if mode == "Cluster" else set())
        assert here - there >= OWN
        for verb, what, name in here | there:
            assert verb != "*"
            assert "*" not in what
            assert name or verb not in NEVER.get(what, set()), (verb, what)
    finally:
        cluster.run("helm", "uninstall", "pgtend", "-n", namespace)
    assert rights(cluster, watched, user) == anybody


def test_two_installations_do_not_collide(cluster: Cluster, tenant: Tenant) -> None:
    """Of one release name, in two namespaces, over one watched namespace."""
    watched = tenant.namespace("watched")
    first, second = (render(cluster, *_watching(watched), namespace=name) for name in ("one", "two"))
    assert not first.keys() & second.keys()
    first, second = (
        render(cluster, "--set", "installationID=example,crds.install=false", namespace=name) for name in ("one", "two")
    )
    assert not first.keys() & second.keys()


def _watching(namespace: str) -> tuple[str, ...]:
    given = f"installationID=example,crds.install=false,mode=Namespaced,watchNamespaces={{{namespace}}}"
    return ("--set", given)


def test_argo_cd_is_taught_by_the_component(cluster: Cluster, tmp_path: Path) -> None:
    """Merged into an argocd-cm that has keys of its own; kustomize wants everything below one root."""
    shutil.copytree(ROOT / "argocd", tmp_path / "argocd")
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": "argocd"}}
    (tmp_path / "cm.yaml").write_text(yaml.safe_dump({**config, "data": {"url": "https://argocd.example.com"}}))
    (tmp_path / "kustomization.yaml").write_text("resources: [cm.yaml]\ncomponents: [argocd]\n")
    data = by_name(cluster.kubectl("kustomize", str(tmp_path)))["ConfigMap", "argocd", "argocd-cm"]["data"]
    assert data.pop("url") == "https://argocd.example.com"
    for kind in KINDS:
        lua = (ROOT / "argocd" / GROUP / kind.name / "health.lua").read_text()
        assert data.pop(f"resource.customizations.health.{GROUP}_{kind.name}") == lua
    assert data == {}


def test_what_the_audit_log_tells_of_rights(cluster: Cluster) -> None:
    """The script that finds idle rights: it counts the chart's accounts alone, what was allowed alone, and subresources
    by name; and it knows what is granted."""

    def line(user: str, verb: str, resource: str, *, decision: str = "allow", **ref: str) -> bytes:
        event = {
            "user": {"username": user},
            "verb": verb,
            "objectRef": {"resource": resource, **ref},
            "annotations": {"authorization.k8s.io/decision": decision},
        }
        return json.dumps(event, separators=(",", ":")).encode() + b"\n"

    ours = "system:serviceaccount:somewhere:pgtend"
    lines = [
        line(ours, "patch", "postgrestargets", apiGroup=GROUP, subresource="status"),
        line(ours, "get", "secrets"),
        line(ours, "list", "secrets", decision="forbid"),
        line("system:serviceaccount:somewhere:pgtend-demo", "delete", "secrets"),
        line("admin", "watch", "secrets"),
        b'{"user":{"username":"' + ours.encode() + b'"},"verb":"get","objectRef":{"resour',
    ]
    assert rights_script.used(lines) == {("patch", f"{GROUP}/postgrestargets/status"), ("get", "/secrets")}
    known = rights_script.granted(cluster)
    assert {(verb, what) for verb, what, _ in WATCHED | OWN} <= known
    assert ("list", "/secrets") not in known
