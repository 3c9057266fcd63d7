"""Because tests look often: a kubectl process costs a tenth of a second of a core, a request on a kept connection two
thousandths. What users do (apply, get, describe, delete) still goes through kubectl."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kubernetes import config
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import NotFoundError, ResourceNotFoundError

TIMEOUT = 20.0


class Reading:
    """Objects by kind as kubectl spells it (`postgrestarget`, `cronjobs`, `pgt`), with the rights of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        api = config.new_client_from_config(str(kubeconfig))
        # what the API server has may be another tomorrow: nothing is kept
        with TemporaryDirectory() as folder:
            self._client = DynamicClient(api, cache_file=f"{folder}/kinds.json")
        self._paths: dict[str, Any] = {}

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """One object, None where there is none. Raises DynamicApiError for anything else."""
        try:
            return self._read(self._resource(kind).path(name=name, namespace=namespace))
        except NotFoundError:
            return None

    def list(self, kind: str, namespace: str, *, labels: str | None = None) -> list[dict[str, Any]]:
        """The objects of a namespace, perhaps those with a label selector only."""
        return list(self._read(self._resource(kind).path(namespace=namespace), label_selector=labels)["items"])

    def _read(self, path: str, **options: Any) -> dict[str, Any]:
        given = {name: value for name, value in options.items() if value is not None}
        answer = self._client.request("get", path, serialize=False, _request_timeout=TIMEOUT, **given)
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
