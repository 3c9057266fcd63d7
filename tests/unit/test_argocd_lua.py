"""Argo CD's answers, by the Lua version that it embeds: cases in upstream's own format, and the rules behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lupa.lua51 import LuaRuntime  # type: ignore[import-untyped]

from pgtend.api.base import GROUP, parse_spec
from pgtend.api.kinds import BY_NAME, KINDS

FOLDER = Path(__file__).parents[2] / "argocd"
READ = ("Ready", "Stalled", "Complete")
STATUSES = {"Healthy", "Progressing", "Degraded", "Suspended"}


def script(kind: str) -> str:
    return (FOLDER / GROUP / kind / "health.lua").read_text()


def health(body: dict[str, Any], text: str = "") -> tuple[str, str]:
    """(status, message) as Argo CD would show them for this object."""
    lua = LuaRuntime(register_eval=False, unpack_returned_tuples=True)
    lua.globals().obj = lua.table_from(body, recursive=True)
    # Argo CD's sandbox opens neither of these
    for name in ("os", "io", "package", "require", "python"):
        lua.globals()[name] = None
    answer = lua.execute(text or script("PostgresTarget"))
    return answer["status"], answer["message"]


def cases() -> list[Any]:
    found = []
    for path in sorted((FOLDER / GROUP).glob("*/health_test.yaml")):
        for case in yaml.safe_load(path.read_text())["tests"]:
            found.append(pytest.param(path.parent, case, id=f"{path.parent.name}-{Path(case['inputPath']).stem}"))
    return found


@pytest.mark.parametrize(("folder", "case"), cases())
def test_answers_as_told(folder: Path, case: dict[str, Any]) -> None:
    body = yaml.safe_load((folder / case["inputPath"]).read_text())
    assert body["kind"] == folder.name
    expected = case["healthStatus"]
    assert health(body, script(folder.name)) == (expected["status"], expected["message"])


@pytest.mark.parametrize(
    "path", sorted((FOLDER / GROUP).glob("*/testdata/*.yaml")), ids=lambda p: f"{p.parts[-3]}-{p.stem}"
)
def test_the_objects_are_such_as_exist(path: Path) -> None:
    """A case about a reason or a field that pgtend does not know would prove nothing."""
    body = yaml.safe_load(path.read_text())
    kind = BY_NAME[body["kind"]]
    parse_spec(kind, body)
    for condition in body.get("status", {}).get("conditions", []):
        assert condition["type"] in {"Ready", "Stalled", "Reconciling", *kind.conditions}
        kind.reasons(condition["reason"])
    named = {case["inputPath"] for case in yaml.safe_load((path.parents[1] / "health_test.yaml").read_text())["tests"]}
    assert f"testdata/{path.name}" in named, "no case looks at this object"


def test_every_kind_has_the_same_check() -> None:
    assert {path.name for path in (FOLDER / GROUP).iterdir()} == {kind.name for kind in KINDS}
    assert {script(kind.name) for kind in KINDS} == {script("PostgresTarget")}
    for kind in KINDS:
        tests = yaml.safe_load((FOLDER / GROUP / kind.name / "health_test.yaml").read_text())["tests"]
        assert {"Healthy", "Progressing", "Degraded"} <= {case["healthStatus"]["status"] for case in tests}


def test_the_component_delivers_every_check() -> None:
    component = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    wanted = [
        f"resource.customizations.health.{GROUP}_{kind.name}={GROUP}/{kind.name}/health.lua"
        for kind in sorted(KINDS, key=lambda kind: kind.name)
    ]
    assert sorted(component["configMapGenerator"][0]["files"]) == wanted


def condition(type_: str, status: str, reason: str = "R", *, generation: int | None = 1) -> dict[str, Any]:
    made: dict[str, Any] = {"type": type_, "status": status, "reason": reason, "message": f"{type_} is {status}"}
    return made if generation is None else made | {"observedGeneration": generation}


def run(*conditions: dict[str, Any], generation: int = 1, seen: int | None = 1) -> dict[str, Any]:
    """Any object of the group: the check does not look at the kind."""
    status: dict[str, Any] = {"conditions": list(conditions)}
    if seen is not None:
        status["observedGeneration"] = seen
    return {"kind": "Any", "metadata": {"name": "x", "generation": generation}, "spec": {}, "status": status}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # a run: under way, done, failed, refused, waiting for its window, too late
        (run(condition("Ready", "False"), condition("Complete", "False")), "Progressing"),
        (run(condition("Ready", "Unknown"), condition("Complete", "Unknown")), "Progressing"),
        (run(condition("Ready", "True"), condition("Complete", "True", "DryRun")), "Healthy"),
        (run(condition("Ready", "False"), condition("Complete", "False"), condition("Stalled", "True")), "Degraded"),
        (run(condition("Ready", "False"), condition("Complete", "True")), "Degraded"),
        (run(condition("Ready", "True", "Scheduled"), condition("Complete", "False")), "Healthy"),
        (run(condition("Ready", "True", "Expired"), condition("Complete", "False")), "Healthy"),
        # what lasts
        (run(condition("Ready", "True")), "Healthy"),
        (run(condition("Ready", "True", "Suspended")), "Suspended"),
        (run(condition("Ready", "True", "Suspended"), condition("Stalled", "True")), "Degraded"),
        (run(condition("Ready", "False")), "Degraded"),
        (run(condition("Ready", "False"), condition("Stalled", "False")), "Degraded"),
        (run(condition("Ready", "Unknown")), "Progressing"),
        (run(condition("Accepted", "True")), "Progressing"),
        (run(), "Progressing"),
        # an older generation is no evidence, neither good nor bad
        (run(condition("Ready", "True"), generation=2), "Progressing"),
        (run(condition("Ready", "False"), generation=2), "Progressing"),
        (run(condition("Ready", "True"), generation=2, seen=2), "Progressing"),
        (run(condition("Ready", "True", generation=2), condition("Stalled", "True"), generation=2, seen=2), "Healthy"),
        (run(condition("Ready", "True", generation=None), seen=None), "Healthy"),
        ({"kind": "Any", "metadata": {"name": "x", "generation": 1}, "spec": {}}, "Progressing"),
        ({"kind": "Any", "metadata": {"name": "x"}, "spec": {}, "status": {"health": "Healthy"}}, "Progressing"),
    ],
)
def test_rules(body: dict[str, Any], expected: str) -> None:
    assert health(body)[0] == expected


def test_a_message_may_be_missing() -> None:
    bare = {"type": "Ready", "status": "False", "reason": "Why"}
    assert health(run(bare)) == ("Degraded", "Why")


conditions = st.lists(
    st.builds(
        condition,
        st.sampled_from([*READ, "Accepted", "Reachable", "ReplicationHealthy", "Reconciling"]),
        st.sampled_from(["True", "False", "Unknown"]),
        st.sampled_from(["InForce", "Suspended", "Failed"]),
        generation=st.sampled_from([None, 1, 2]),
    ),
    unique_by=lambda c: c["type"],
    max_size=7,
)


@given(conditions, st.sampled_from([1, 2]), st.sampled_from([None, 1, 2]))
def test_nothing_else_is_read(given_: list[dict[str, Any]], generation: int, seen: int | None) -> None:
    answer = health(run(*given_, generation=generation, seen=seen))
    assert answer[0] in STATUSES
    assert answer[1]
    rest = [c for c in given_ if c["type"] in READ]
    assert health(run(*rest, generation=generation, seen=seen)) == answer
    assert health(run(*reversed(given_), generation=generation, seen=seen)) == answer
    if answer[0] == "Healthy":
        assert any(c["type"] == "Ready" and c["status"] == "True" for c in rest)
        assert not any(
            c["type"] == "Stalled" and c["status"] == "True" and c.get("observedGeneration") in (None, generation)
            for c in rest
        )
