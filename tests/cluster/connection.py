"""Because tests look often and prepare much: a kubectl process costs a tenth of a second of a core, a request on a kept
connection two thousandths. What users do (apply, describe, delete) still goes through kubectl."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kubernetes import config
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError, DynamicApiError, NotFoundError, ResourceNotFoundError
from urllib3.exceptions import HTTPError

TIMEOUT = 20.0
TRIES = 4
Body = Mapping[str, Any]


class Connection:
    """Objects by kind as kubectl spells it (`postgrestarget`, `cronjobs`, `pgt`), with the rights of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        api = config.new_client_from_config(str(kubeconfig))
        # what the API server has may be another tomorrow: nothing is kept
        with TemporaryDirectory() as folder:
            self._client = DynamicClient(api, cache_file=f"{folder}/kinds.json")
        self._paths: dict[str, Any] = {}

    @property
    def version(self) -> str:
        """The API server's, such as v1.33.1."""
        return str(self._client.version["kubernetes"]["gitVersion"])

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """One object, None where there is none. Raises DynamicApiError for anything else."""
        try:
            return self._read(self._resource(kind).path(name=name, namespace=namespace))
        except NotFoundError:
            return None

    def list(self, kind: str, namespace: str, *, labels: str | None = None) -> list[dict[str, Any]]:
        """The objects of a namespace, perhaps those with a label selector only."""
        return list(self._read(self._resource(kind).path(namespace=namespace), label_selector=labels)["items"])

    def create(self, kind: str, namespace: str | None, body: Body) -> None:
        self._request("post", self._resource(kind).path(namespace=namespace), body=dict(body))

    def put(self, kind: str, namespace: str, body: Body) -> None:
        """The object is as `body` says, whatever it was before."""
        try:
            self.create(kind, namespace, body)
        except ConflictError:
            path = self._resource(kind).path(name=body["metadata"]["name"], namespace=namespace)
            self._request("put", path, body=dict(body))

    def patch(self, kind: str, namespace: str, name: str, body: Body) -> None:
        """A merge patch."""
        path = self._resource(kind).path(name=name, namespace=namespace)
        self._request("patch", path, body=dict(body), content_type="application/merge-patch+json")

    def delete(self, kind: str, namespace: str | None, name: str) -> None:
        """Begins to delete it; it is no error that it is gone."""
        try:
            self._request("delete", self._resource(kind).path(name=name, namespace=namespace))
        except NotFoundError:
            return

    def token(self, namespace: str, account: str) -> str:
        """Of a ServiceAccount, for six hours."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 21600}}
        return str(self._request("post", path, body=body)["status"]["token"])

    def _read(self, path: str, **options: Any) -> dict[str, Any]:
        """Looking is harmless, so a server that is busy for a moment is asked again."""
        given = {name: value for name, value in options.items() if value is not None}
        for left in reversed(range(TRIES)):
            try:
                return self._request("get", path, **given)
            except (HTTPError, DynamicApiError) as error:
                if not left or (isinstance(error, DynamicApiError) and error.status not in (429, 500, 503, 504)):
                    raise
                time.sleep(1.0)
        raise AssertionError("not reached")

    def _request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._client.request(method, path, serialize=False, _request_timeout=TIMEOUT, **options)
        return dict(json.loads(answer.data))

    def _resource(self, kind: str) -> Any:
        if kind not in self._paths:
            self._paths[kind] = self._discovered(kind)
        return self._paths[kind]

    def _discovered(self, kind: str) -> Any:
        for again in (False, True):
            if again:
                self._client.resources.invalidate_cache()
            for words in ({"singular_name": kind}, {"name": kind}, {"kind": kind}):
                found = [r for r in self._client.resources.search(**words) if not r.kind.endswith("List")]
                if found:
                    return next((r for r in found if r.preferred), found[0])
            for resource in self._client.resources.search():
                if kind in (getattr(resource, "short_names", None) or ()):
                    return resource
        raise ResourceNotFoundError(f"the API server has no kind {kind!r}")
