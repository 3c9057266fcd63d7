"""From events to records: what does not parse is told and never raised, echoes are dropped, ghosts are found."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pgtend.api.postgrestarget import POSTGRES_TARGET, TargetSpec
from pgtend.core.clock import FakeClock
from pgtend.core.findings import ObjectKey
from pgtend.kube.client import (
    PODS,
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Resource,
    Unavailable,
    _error,
)
from pgtend.kube.config import ClusterConfig, from_kubeconfig
from pgtend.kube.index import Index, Record, record_of
from pgtend.kube.secrets import SecretReader
from pgtend.kube.sweep import sweep
from pgtend.kube.watch import Intake, without_known

SPEC = {
    "members": [{"name": "a", "host": "db.example.com"}],
    "credentials": {"monitor": {"password": {"secretRef": {"name": "m"}}}},
}


def body(
    name: str = "orders", *, version: str = "1", uid: str = "u", spec: Any = SPEC, touch: str | None = None
) -> dict[str, Any]:
    annotations = {"pgtend.dev/reconcile": touch} if touch else {}
    return {
        "metadata": {
            "name": name,
            "namespace": "db",
            "uid": uid,
            "resourceVersion": version,
            "creationTimestamp": "2026-11-22T12:00:00Z",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "long", **annotations},
        },
        "spec": spec,
    }


def parsed(spec: Any) -> Record:
    return record_of(POSTGRES_TARGET, body(spec=spec))


def test_a_record_has_what_is_needed_and_no_more() -> None:
    made = record_of(POSTGRES_TARGET, body(touch="1"))
    assert made.key == ObjectKey("PostgresTarget", "db", "orders")
    assert made.parsed(TargetSpec).members[0].port == 5432
    assert made.annotations == {"pgtend.dev/reconcile": "1"}
    assert (made.deleting, made.spec_error, made.status, made.generation) == (False, None, {}, 1)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, ["spec.members: Field required", "spec.credentials: Field required"]),
        ({**SPEC, "mode": "Enforced"}, ["spec.mode: "]),
        ({**SPEC, "probeInterval": "soon"}, ["spec.probeInterval: ", "no duration"]),
        ({**SPEC, "members": [{"name": "a"}]}, ["spec.members[0].host: Field required"]),
        (None, ["spec.members: Field required"]),
    ],
)
def test_a_spec_that_does_not_parse_says_where_and_why(spec: Any, told: list[str]) -> None:
    made = parsed(spec)
    assert made.spec is None and made.spec_error is not None
    assert all(text in made.spec_error for text in told)
    with pytest.raises(TypeError, match="no valid spec"):
        made.parsed(TargetSpec)


def test_only_the_first_three_wrong_fields_are_told() -> None:
    wrong = dict.fromkeys(("mode", "suspend", "members", "credentials", "tls", "pooler", "probeInterval"), 7)
    made = parsed(wrong)
    assert made.spec_error is not None
    assert made.spec_error.count("spec.") == 3
    assert made.spec_error.endswith("; and 4 more")


def test_the_fields_of_a_newer_crd_are_ignored_at_any_depth() -> None:
    """Defaults of a newer CRD are in every object as soon as it is applied; the older operator still leads then."""
    newer = {**SPEC, "later": {"on": True}, "thresholds": {"laterToo": {"warning": "75%"}, "queryDuration": {"x": 1}}}
    made = parsed(newer)
    assert made.spec_error is None
    assert made.parsed(TargetSpec) == parsed({**SPEC, "thresholds": {"queryDuration": {}}}).parsed(TargetSpec)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(changed=st.dictionaries(st.sampled_from([*SPEC, "mode", "tls", "access", "thresholds"]), JSON, max_size=3))
def test_no_spec_raises(changed: dict[str, Any]) -> None:
    made = parsed({**SPEC, **changed})
    assert (made.spec is None) is (made.spec_error is not None)


class Taking:
    def __init__(self) -> None:
        self.index = Index()
        self.queued: list[str] = []
        self.touched: list[str] = []
        self.intake = Intake(
            index=self.index,
            enqueue=lambda key: self.queued.append(key.name),
            touched=lambda record: self.touched.append(record.resource_version),
        )

    def take(self, type_: str | None, given: Any) -> None:
        self.intake.take(POSTGRES_TARGET, type_, given)

    @property
    def known(self) -> list[str]:
        return [record.resource_version for record in self.index.of_kind("PostgresTarget")]


def test_each_version_is_queued_once() -> None:
    kit = Taking()
    for type_, version in ((None, "1"), ("ADDED", "1"), ("MODIFIED", "2"), ("MODIFIED", "2")):
        kit.take(type_, body(version=version))
    assert kit.queued == ["orders", "orders"]
    assert (kit.intake.events, kit.intake.echoes, kit.known) == (4, 2, ["2"])


def test_a_list_lacks_what_stands_in_the_index() -> None:
    kit = Taking()
    kit.take(None, body("known", uid="1", version="7"))
    kit.take(None, body("newer", uid="2", version="7"))
    kit.take(None, body("another", uid="3", version="7"))
    items = [
        body("known", uid="1", version="7"),
        body("newer", uid="2", version="8"),
        body("another", uid="4", version="7"),
        body("new", uid="5", version="7"),
        {},
        None,
    ]
    answer = {"kind": "PostgresTargetList", "metadata": {"continue": "more"}, "items": items}
    assert without_known(answer, kit.intake) == {**answer, "items": items[1:]}
    assert (len(items), kit.intake.events, kit.known) == (6, 3, ["7", "7", "7"])


@pytest.mark.parametrize("kind", ["NamespaceList", "DatabaseUserList", None])
def test_a_list_of_anything_else_is_whole(kind: str | None) -> None:
    kit = Taking()
    kit.take(None, body("known", uid="1", version="7"))
    answer = {"kind": kind, "items": [body("known", uid="1", version="7"), {"metadata": {"name": "known"}}]}
    assert without_known(answer, kit.intake) == answer
    for other in ({"resources": []}, {"kind": "Status", "items": None}, [], None):
        assert without_known(other, kit.intake) == other


def test_deletion_is_queued_and_the_same_name_may_come_again() -> None:
    kit = Taking()
    kit.take(None, body())
    kit.take("DELETED", body(version="5"))
    assert kit.known == []
    kit.take("ADDED", body(uid="v"))
    assert kit.queued == ["orders"] * 3
    assert kit.known == ["1"]


def test_another_object_with_the_same_version_is_no_echo() -> None:
    kit = Taking()
    kit.take(None, body())
    kit.take("ADDED", body(uid="v"))
    assert len(kit.queued) == 2


def test_touching_the_annotation_is_seen_when_it_changes() -> None:
    kit = Taking()
    kit.take(None, body(touch="1"))
    kit.take("MODIFIED", body(version="2", touch="1"))
    kit.take("MODIFIED", body(version="3", touch="2"))
    kit.take("MODIFIED", body(version="4"))
    assert kit.touched == ["3", "4"]


@pytest.mark.parametrize("given", [{}, {"metadata": {}}, {"metadata": {"name": "x"}}, None, {"metadata": None}])
@pytest.mark.parametrize("type_", [None, "ADDED", "DELETED"])
def test_nothing_makes_it_raise(given: Any, type_: str | None, caplog: pytest.LogCaptureFixture) -> None:
    kit = Taking()
    kit.take(type_, given)
    assert (kit.intake.errors, kit.queued) == (1, [])
    assert [record.getMessage() for record in caplog.records] == ["event not understood"]


class Listing:
    """An API server's view: `meanwhile` runs after the last item."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.bodies = bodies
        self.meanwhile: Any = None
        self.error: ApiError | None = None
        self.asked: list[str | None] = []

    async def list(self, resource: Resource, namespace: str | None) -> AsyncIterator[dict[str, Any]]:
        self.asked.append(namespace)
        for one in self.bodies:
            if namespace in (None, one["metadata"]["namespace"]):
                yield one
        if self.error:
            raise self.error
        if self.meanwhile:
            self.meanwhile()


async def swept(kit: Taking, api: Listing, namespaces: frozenset[str] = frozenset()) -> int:
    return await sweep(
        client=api,  # type: ignore[arg-type]
        index=kit.index,
        kinds=[POSTGRES_TARGET],
        namespaces=namespaces,
        enqueue=lambda key: kit.queued.append(key.name),
    )


async def test_what_went_unseen_is_found_and_what_is_there_stays() -> None:
    kit = Taking()
    for n in "abc":
        kit.take(None, body(n, uid=n))
    kit.queued.clear()
    assert await swept(kit, Listing(body("a", uid="a", version="7"), body("c", uid="another"))) == 2
    assert kit.queued == ["b", "c"]
    assert [r.key.name for r in kit.index.of_kind("PostgresTarget")] == ["a"]


async def test_what_appears_or_is_made_again_while_we_look_is_not_taken_for_gone() -> None:
    kit, api = Taking(), Listing()
    kit.take(None, body("old", uid="1"))

    def meanwhile() -> None:
        kit.take("ADDED", body("new", uid="2"))
        kit.take("DELETED", body("old", uid="1"))
        kit.take("ADDED", body("old", uid="3"))

    api.meanwhile = meanwhile
    assert await swept(kit, api) == 0
    assert {r.uid for r in kit.index.of_kind("PostgresTarget")} == {"2", "3"}


async def test_a_list_that_breaks_off_drops_nothing() -> None:
    kit, api = Taking(), Listing()
    kit.take(None, body())
    api.error = Unavailable(410, "Expired", "")
    with pytest.raises(Unavailable):
        await swept(kit, api)
    assert kit.known == ["1"]


async def test_only_watched_namespaces_are_asked() -> None:
    kit, api = Taking(), Listing(body())
    kit.take(None, body())
    assert await swept(kit, api, frozenset({"db", "apps"})) == 0
    assert api.asked == ["apps", "db"]


class Secrets:
    def __init__(self) -> None:
        self.data: dict[str, dict[str, str]] = {}
        self.reads = 0

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        self.reads += 1
        if name not in self.data:
            raise NotFound(404, "NotFound", "")
        return {"metadata": {"resourceVersion": "1"}, "data": self.data[name]}


async def test_secrets_are_cached_for_a_while_absence_too_and_not_kept_for_ever() -> None:
    api, clock = Secrets(), FakeClock()
    reader = SecretReader(client=api, clock=clock)  # type: ignore[arg-type]
    assert await reader.get("n", "a") is None
    api.data["a"] = {"password": base64.b64encode(b"p").decode(), "binary": base64.b64encode(b"\xff").decode()}
    assert await reader.get("n", "a") is None
    found = await reader.get("n", "a", fresh=True)
    assert found is not None and {k: v.reveal() for k, v in found.values.items()} == {"password": "p"}
    assert await reader.get("n", "a") is found
    assert api.reads == 2
    reader.forget("n", "other")
    assert await reader.get("n", "a") is found
    reader.forget("n")
    await reader.get("n", "a")
    assert api.reads == 3
    clock.advance(61)
    await reader.get("n", "a")
    assert api.reads == 4
    clock.advance(61)
    await reader.get("n", "b")
    assert list(reader._cache) == [("n", "b")]


@pytest.mark.parametrize(
    ("status", "reason", "wanted"),
    [
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Unavailable),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Unavailable),
        (500, "InternalError", Unavailable),
        (400, "BadRequest", ApiError),
    ],
)
def test_errors_have_types(status: int, reason: str, wanted: type[ApiError]) -> None:
    assert type(_error(status, {"reason": reason, "message": "m"})) is wanted


def test_paths() -> None:
    assert PODS.path("n", "p") == "/api/v1/namespaces/n/pods/p"
    assert PODS.path() == "/api/v1/pods"
    targets = Resource("pgtend.dev", "v1alpha1", "postgrestargets")
    assert targets.path("n", "t", "status") == "/apis/pgtend.dev/v1alpha1/namespaces/n/postgrestargets/t/status"


def kubeconfig(folder: Path, **user: Any) -> Path:
    config = {
        "current-context": "first",
        "contexts": [
            {"name": "first", "context": {"cluster": "c", "user": "u", "namespace": "here"}},
            {"name": "second", "context": {"cluster": "c", "user": "u"}},
            {"name": "broken", "context": {"cluster": "absent", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443", "certificate-authority": "pki/ca.crt"}}],
        "users": [{"name": "u", "user": user}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    (folder / "pki").mkdir()
    (folder / "pki" / "ca.crt").write_text("the CA")
    (folder / "token").write_text("from a file\n")
    return path


def test_a_kubeconfig_is_read_with_paths_from_its_own_folder(tmp_path: Path) -> None:
    found = from_kubeconfig(kubeconfig(tmp_path, tokenFile="token"))
    assert found.server == "https://api:6443"
    assert (found.ca, found.namespace, found.read_token()) == ("the CA", "here", "from a file")
    (tmp_path / "token").write_text("renewed")
    assert found.read_token() == "renewed"


def test_another_context_and_inline_certificates(tmp_path: Path) -> None:
    pair = {f"client-{part}-data": base64.b64encode(part.encode()).decode() for part in ("certificate", "key")}
    found = from_kubeconfig(kubeconfig(tmp_path, **pair), "second")
    assert found.client_cert == ("certificate", "key")
    assert (found.namespace, found.read_token()) == ("default", None)


@pytest.mark.parametrize(("context", "says"), [("absent", "no context 'absent'"), ("broken", "no cluster 'absent'")])
def test_what_is_not_there_is_said(tmp_path: Path, context: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_kubeconfig(kubeconfig(tmp_path, token="t"), context)


def test_a_login_plugin_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use a token or a client certificate"):
        from_kubeconfig(kubeconfig(tmp_path, exec={"command": "aws"}))


def test_plain_http_needs_no_context() -> None:
    assert ClusterConfig(server="http://127.0.0.1:8001").ssl_context() is None
