"""The chart as text: what it says of the code is true, its schema refuses what it must, and no right is granted that
nobody reads about. Rendering is tested where Helm is: tests/cluster/test_delivery.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml

import pgtend
from pgtend import __main__ as command_line
from pgtend.api.base import GROUP
from pgtend.api.kinds import KINDS
from pgtend.api.postgresoperation import OperationSpec
from pgtend.app.operator import LEASE
from pgtend.engine import brake
from pgtend.gate.classes import TaskClass, TaskType
from pgtend.server import ledger

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "pgtend"
TEMPLATES = CHART / "templates"
MANIFESTS = ROOT / "manifests"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


VALUES = load(CHART / "values.yaml")
SCHEMA = yaml.safe_load((CHART / "values.schema.json").read_text())


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """As Helm merges values: maps member by member, everything else as a whole."""
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = merge(base[name], value) if both else value
    return merged


def problems(**values: Any) -> list[str]:
    given = merge(VALUES, {"installationID": "prod-eu1", **values})
    validator = jsonschema.Draft7Validator(SCHEMA)
    return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(given)]


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_only_the_installation_id_is_required() -> None:
    assert problems() == []
    validator = jsonschema.Draft7Validator(SCHEMA)
    assert [e.message for e in validator.iter_errors(VALUES)] == ["'installationID' is a required property"]


@pytest.mark.parametrize("path", sorted((CHART / "ci").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_example_values_are_valid(path: Path) -> None:
    assert problems(**load(path)) == []


@pytest.mark.parametrize(
    "values",
    [
        {"installationID": "abc"},
        {"installationID": "a" * 21},
        {"installationID": "Prod"},
        {"installationID": "prod_eu"},
        {"installationId": "prod-eu1"},
        {"mode": "namespaced"},
        {"mode": "Namespaced"},
        {"watchNamespaces": ["databases"]},
        {"mode": "Namespaced", "watchNamespaces": ["Databases"]},
        {"mode": "Namespaced", "watchNamespaces": ["a", "a"]},
        {"mode": "Namespaced", "watchNamespaces": "databases"},
        {"replicas": "2"},
        {"replicas": -1},
        {"image": {"name": "x"}},
        {"image": {"digest": "latest"}},
        {"image": {"pullSecrets": ["login"]}},
        {"logLevel": "info"},
        {"resources": {"limits": {"memory": "lots"}}},
        {"resources": {"memory": "1Gi"}},
        {"affinity": {"nodeAfinity": {}}},
        {"extraEnv": [{"name": "PGTEND_NAMESPACE", "value": "elsewhere"}]},
        {"extraEnv": [{"name": "A", "valeu": "b"}]},
        {"extraEnv": {"A": "b"}},
        {"networkPolicy": {"databasePorts": []}},
        {"networkPolicy": {"databasePorts": [70000]}},
        {"networkPolicy": {"databasePorts": ["5432"]}},
        {"metrics": {"serviceMonitor": {"interval": 30}}},
        {"terminationGracePeriodSeconds": 5},
        {"uninstallHook": {"timeoutSeconds": 1}},
        {"crds": {"remove": True}},
    ],
    ids=str,
)
def test_the_schema_refuses(values: dict[str, Any]) -> None:
    assert problems(**values) != []


def test_the_schema_is_closed_everywhere() -> None:
    """A value that is spelled wrong must never be ignored; Kubernetes' own objects are checked by its API server."""
    open_ones = {"global", "valueFrom", "nodeAffinity", "podAffinity", "podAntiAffinity", "items"}

    def walk(node: Any, name: str) -> list[str]:
        if isinstance(node, list):
            return [found for item in node for found in walk(item, name)]
        if not isinstance(node, dict):
            return []
        loose = node.get("type") == "object" and "additionalProperties" not in node and name not in open_ones
        return [name] * loose + [found for key, value in node.items() for found in walk(value, key)]

    assert walk(SCHEMA, "values") == []


def test_every_value_is_in_the_schema_and_in_a_template() -> None:
    used = "".join(path.read_text() for path in TEMPLATES.iterdir())

    def walk(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        for name, value in values.items():
            assert name in schema["properties"], f"{path}{name} is not in the schema"
            assert name in used, f"{path}{name} is used by no template"
            whole = f"toYaml .Values.{path}{name}" in used
            if isinstance(value, dict) and "properties" in schema["properties"][name] and not whole:
                walk(value, schema["properties"][name], f"{path}{name}.")

    walk(VALUES, SCHEMA, "")
    assert set(SCHEMA["properties"]) - set(VALUES) == {"installationID", "global"}


def test_versions_are_those_of_the_code() -> None:
    chart = load(CHART / "Chart.yaml")
    assert chart["appVersion"] == pgtend.__version__
    base = load(MANIFESTS / "base" / "kustomization.yaml")
    assert base["images"] == [{"name": VALUES["image"]["repository"], "newTag": pgtend.__version__}]
    for path in MANIFESTS.rglob("kustomization.yaml"):
        for labels in load(path).get("labels", []):
            assert labels["pairs"]["app.kubernetes.io/version"] == pgtend.__version__, path


def test_every_kind_has_its_rights() -> None:
    """A new kind: one line in pgtend.kinds of templates/_rules.tpl, and the same rules in manifests/."""
    text = (TEMPLATES / "_rules.tpl").read_text()
    listed = re.search(r'define "pgtend.kinds" -}}\n(.*?)\n\{\{- end', text, re.DOTALL)
    assert listed is not None
    kinds = yaml.safe_load(listed.group(1))
    assert [(k["kind"], k["plural"]) for k in kinds] == [(kind.name, kind.plural) for kind in KINDS]
    for name in ("watched/rbac.yaml", "overlays/cluster/rbac.yaml"):
        role = next(iter(yaml.safe_load_all((MANIFESTS / name).read_text())))
        seen = next(rule for rule in role["rules"] if "watch" in rule["verbs"])
        assert seen["resources"] == [kind.plural for kind in KINDS]


def rules() -> list[tuple[str, dict[str, Any]]]:
    """Every rule of the templates and the manifests, with the template's own directives taken out."""
    found = []
    text = re.sub(r"\{\{-? */\*.*?\*/ *-?\}\}", "", (TEMPLATES / "_rules.tpl").read_text(), flags=re.DOTALL)
    for name, body in re.findall(r'define "(pgtend\.rules\.[A-Za-z]+)" -}}\n(.*?)\n\{\{- end -}}', text, re.DOTALL):
        plain = re.sub(r"^\s*\{\{.*\}\}\s*\n", "", body + "\n", flags=re.MULTILINE)
        plain = re.sub(r"\{\{ ?\.plural ?\}\}", "kinds", plain)
        found += [(name, rule) for rule in yaml.safe_load(plain)]
    for path in MANIFESTS.rglob("rbac.yaml"):
        for body in yaml.safe_load_all(path.read_text()):
            found += [(path.parent.name, rule) for rule in body.get("rules", [])]
    return found


VERBS = {"get", "list", "watch", "create", "update", "patch", "delete"}
# of people, who ask and do nothing themselves: what the admission policy asks for
PEOPLE = {"view", "edit", "admin", "terminate", "restore"}
ASKED = {"cancel", "terminate", "restore"}


def test_no_right_is_wide() -> None:
    everything = rules()
    assert {"pgtend.rules.watched", "pgtend.rules.own", "pgtend.rules.uninstall", "watched", "base"} <= {
        where for where, _ in everything
    }
    for where, rule in everything:
        people = where.removeprefix("pgtend.rules.") in PEOPLE
        assert set(rule["verbs"]) <= VERBS | (ASKED if people else set()), (where, rule)
        if people:
            assert rule["apiGroups"] == [GROUP] and not any("/" in what for what in rule["resources"]), (where, rule)
        assert "*" not in [*rule["apiGroups"], *rule["resources"]], (where, rule)
        if "secrets" in rule["resources"]:
            assert rule["resources"] == ["secrets"], (where, rule)
            assert not {"list", "watch", "deletecollection"} & set(rule["verbs"]), (where, rule)
        if "configmaps" in rule["resources"]:  # by name at most, and never changed unless it is ours by its name
            assert set(rule["verbs"]) <= {"create", "get"} or rule["resourceNames"], (where, rule)
        if "leases" in rule["resources"]:
            assert rule["verbs"] == ["create"] or rule["resourceNames"], (where, rule)


def test_people_may_write_what_is_theirs() -> None:
    """Whoever edits a namespace asks; credentials, consent and where backups go are its administrator's."""
    text = (TEMPLATES / "_rules.tpl").read_text()
    kinds = yaml.safe_load(re.search(r'define "pgtend.kinds" -}}\n(.*?)\n\{\{- end', text, re.DOTALL).group(1))  # type: ignore[union-attr]
    writer = {kind["kind"]: kind.get("people", "edit") for kind in kinds}
    assert set(writer.values()) <= {"edit", "admin", "nobody"}
    for kind in KINDS:
        if "credentials" in str(kind.spec.model_fields) or kind.name == "BackupDestination":
            assert writer[kind.name] == "admin", kind.name


def test_the_admission_policy_knows_the_types() -> None:
    """What ends other people's work needs a verb of its own, word by word."""
    text = (TEMPLATES / "admissionpolicy.yaml").read_text()
    listed = re.search(r"object.spec.type in \[(.*?)\] \? 'terminate'", text)
    assert listed is not None
    offered = set(get_args(OperationSpec.model_fields["type"].annotation))
    emergency = {str(type_) for type_ in TaskType if type_.task_class is TaskClass.EMERGENCY}
    assert set(re.findall(r"'(\w+)'", listed.group(1))) == emergency & offered
    data = {str(type_) for type_ in TaskType if type_.task_class is TaskClass.DATA}
    assert set(re.findall(r"object.spec.type == '(\w+)' \?", text)) == data & offered


def test_names_in_the_rights_are_those_of_the_code() -> None:
    named = {
        name
        for where, rule in rules()
        if where in ("pgtend.rules.own", "base")
        for name in rule.get("resourceNames", [])
    }
    assert named == {LEASE, ledger.NAME, brake.NAME}
    assert brake.NAME in (TEMPLATES / "NOTES.txt").read_text()


def environment(text: str) -> set[str]:
    return set(re.findall(r"name: (PGTEND_[A-Z_]+)", text))


def test_pods_are_told_what_the_command_line_reads() -> None:
    commands = command_line.main.commands
    known = {str(option.envvar) for option in commands["operator"].params if getattr(option, "envvar", None)}
    for text in ((TEMPLATES / "_helpers.tpl").read_text(), (MANIFESTS / "base" / "deployment.yaml").read_text()):
        assert environment(text) == known - {"PGTEND_HEALTH_PORT"}
    for path in (TEMPLATES / "deployment.yaml", TEMPLATES / "uninstall-hook.yaml"):
        for words in re.findall(r"args: \[(\w+)\]", path.read_text()):
            assert words in ("operator", "uninstall")
    port = next(option for option in commands["operator"].params if option.name == "health_port")
    assert f"containerPort: {port.default}" in (TEMPLATES / "deployment.yaml").read_text()


def test_watched_namespaces_reach_the_operator_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chart joins them with blanks; click must take them apart, and an empty text for none at all."""
    import click

    option = next(o for o in command_line.main.commands["operator"].params if o.name == "watched")
    seen: list[tuple[str, ...]] = []

    @click.command(params=[option])
    def probe(watched: tuple[str, ...]) -> None:
        seen.append(watched)

    for text in ("databases shop", ""):
        monkeypatch.setenv("PGTEND_WATCH_NAMESPACES", text)
        probe.main([], standalone_mode=False)
    assert seen == [("databases", "shop"), ()]


def test_the_alert_watches_a_metric_that_exists() -> None:
    from pgtend.telemetry.metrics import METRICS

    rules_file = load(CHART / "rules" / "pgtend.yaml")
    alerts = [rule for group in rules_file["groups"] for rule in group["rules"]]
    assert [alert["alert"] for alert in alerts] == ["PgtendDown"]
    families = {family.name for family in METRICS.registry.collect()}
    for alert in alerts:
        assert set(re.findall(r"pgtend_[a-z_]+", alert["expr"])) <= families
        assert alert["labels"]["severity"]
        assert alert["annotations"]["summary"]
    assert 'replace "pgtend_leader"' in (TEMPLATES / "prometheusrule.yaml").read_text()


def test_pods_are_restricted() -> None:
    """As pod security's standard "restricted" wants it; the API server says the same in the cluster tests."""
    helpers = (TEMPLATES / "_helpers.tpl").read_text()
    for word in (
        "runAsNonRoot: true",
        "runAsUser: 10001",
        "type: RuntimeDefault",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "drop: [ALL]",
    ):
        assert word in helpers
    for name in ("deployment.yaml", "uninstall-hook.yaml"):
        text = (TEMPLATES / name).read_text()
        assert text.count('include "pgtend.podSecurityContext"') == 1
        assert text.count('include "pgtend.securityContext"') == text.count("image:") == 1
        assert text.count("medium: Memory") == 1


def test_what_the_hook_needs_goes_with_it() -> None:
    text = (TEMPLATES / "uninstall-hook.yaml").read_text()
    objects = text.count("\nkind: ")
    assert text.count('include "pgtend.hook"') == objects - 1  # all but the job, which has its own
    assert "helm.sh/hook: pre-delete" in text


def test_the_crds_of_the_chart_are_conditional() -> None:
    assert (TEMPLATES / "crds.yaml").read_text().count(f".{GROUP}\n") == len(KINDS)
    assert {"install", "keep"} == set(VALUES["crds"])
