"""The hot path to the API server: one aiohttp session, typed errors, no models. A status PATCH costs about a third of a
millisecond of CPU here (measured in shared design work: 0.76 in kubernetes_asyncio, 1.08 in lightkube, 4.3 in kr8s)."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from pgtend.kube.config import ClusterConfig

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A collection of the API, such as Resource("apps", "v1", "deployments")."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, *(("namespaces", namespace) if namespace else ()), self.plural]
        parts += [part for part in (name, sub) if part]
        return "/".join(parts)


SECRETS = Resource("", "v1", "secrets")
CONFIG_MAPS = Resource("", "v1", "configmaps")
NAMESPACES = Resource("", "v1", "namespaces")
PODS = Resource("", "v1", "pods")
EVENTS = Resource("events.k8s.io", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
CRON_JOBS = Resource("batch", "v1", "cronjobs")
JOBS = Resource("batch", "v1", "jobs")


class ApiError(Exception):
    """The API server said no: HTTP status, its reason, its message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


class NotFound(ApiError): ...


class Conflict(ApiError):
    """The object has changed since it was read."""


class AlreadyExists(ApiError): ...


class Forbidden(ApiError): ...


class Invalid(ApiError): ...


class Unavailable(ApiError):
    """Unreachable, overloaded, timed out, or a list that expired between two chunks: later may help."""


_BY_STATUS: dict[int, type[ApiError]] = {403: Forbidden, 404: NotFound, 409: Conflict, 410: Unavailable, 422: Invalid}
_RETRIES = 3
# what asyncio keeps for each TLS connection as long as that is open: with the 256 KiB that it would take, the ten that
# an idle operator has are two and a half megabytes, though no TLS record has more than 16 KiB
asyncio.sslproto.SSLProtocol.max_size = 32 << 10
CHUNK = 25
"""Objects in one answer to a list: parsed they take 25 KB each, and what memory they take once a process keeps."""


class KubeClient:
    """Use as an async context manager. `connections` bounds the sockets, `timeout` (seconds) each request."""

    def __init__(self, config: ClusterConfig, *, connections: int = 64, timeout: float = 15.0) -> None:
        self._config = config
        self._token = config.read_token()
        # sock_connect, not connect: waiting for one of our own sockets does not mean that the server is away
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=5)
        self._limit = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = self._config.ssl_context()
        self._session = aiohttp.ClientSession(
            base_url=self._config.server,
            connector=aiohttp.TCPConnector(limit=self._limit, ssl=context if context is not None else False),
            timeout=self._timeout,
            headers={"User-Agent": "pgtend", "Accept": "application/json"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return await self._call("GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str | None = None, chunk: int = CHUNK
    ) -> AsyncIterator[Object]:
        """Every object of the collection, read in chunks. Items of built-in lists lack apiVersion and kind."""
        params: dict[str, str] = {"limit": str(chunk)}
        if labels:
            params["labelSelector"] = labels
        while True:
            page = await self._call("GET", resource.path(namespace), params=params)
            for item in page.get("items") or ():
                yield item
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            params["continue"] = token

    async def create(self, resource: Resource, namespace: str | None, body: Mapping[str, Any]) -> Object:
        """Raises AlreadyExists."""
        return await self._call("POST", resource.path(namespace), body=body)

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Mapping[str, Any],
        *,
        sub: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        """With `resource_version` the patch is refused (Conflict) where the object has changed since."""
        if resource_version is not None:
            metadata = {**body.get("metadata", {}), "resourceVersion": resource_version}
            body = {**body, "metadata": metadata}
        path = resource.path(namespace, name, sub)
        return await self._call("PATCH", path, body=body, content_type="application/merge-patch+json")

    async def json_patch(
        self, resource: Resource, namespace: str | None, name: str, operations: Sequence[Mapping[str, Any]]
    ) -> Object:
        path = resource.path(namespace, name)
        return await self._call("PATCH", path, body=operations, content_type="application/json-patch+json")

    async def replace(self, resource: Resource, namespace: str | None, name: str, body: Mapping[str, Any]) -> Object:
        """PUT; with metadata.resourceVersion in the body it is refused (Conflict) where the object has changed."""
        return await self._call("PUT", resource.path(namespace, name), body=body)

    async def apply(self, resource: Resource, namespace: str | None, name: str, body: Mapping[str, Any]) -> Object:
        """Server-side apply as field manager pgtend, taking over what conflicts."""
        return await self._call(
            "PATCH",
            resource.path(namespace, name),
            body=body,
            params={"fieldManager": "pgtend", "force": "true"},
            content_type="application/apply-patch+yaml",
        )

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str | None = None, background: bool = True
    ) -> None:
        """Gone already counts as deleted. With `uid` another object of the same name is left alone (Conflict)."""
        body: Object = {"propagationPolicy": "Background" if background else "Foreground"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", resource.path(namespace, name), body=body)
        except NotFound:
            return

    async def raw(self, method: str, path: str, *, body: Any = None) -> Object:
        """For the few requests that are no resource, such as /version."""
        return await self._call(method, path, body=body)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        renewed = False
        for attempt in range(_RETRIES + 1):
            status, retry_after, answer = await self._send(method, path, data, params, content_type)
            if status < 400:
                return answer
            if status == 401 and not renewed:
                self._token, renewed = self._config.read_token(), True
                continue
            if status in (429, 503) and retry_after is not None and attempt < _RETRIES:
                await asyncio.sleep(min(retry_after, 10.0))
                continue
            raise _error(status, answer)
        raise Unavailable(429, "TooManyRequests", f"{method} {path}: still refused after {_RETRIES} retries")

    async def _send(
        self, method: str, path: str, data: bytes | None, params: Mapping[str, str] | None, content_type: str
    ) -> tuple[int, float | None, Object]:
        if self._session is None:
            raise RuntimeError("the client is not open")
        headers = {"Content-Type": content_type} if data is not None else {}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            async with self._session.request(method, path, data=data, params=params, headers=headers) as response:
                text = await response.read()
                after = response.headers.get("Retry-After", "")
                return response.status, float(after) if after.isdigit() else None, _decode(text)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(0, "Unreachable", f"{method} {path}: {error or type(error).__name__}") from error


def _decode(text: bytes) -> Object:
    try:
        answer = json.loads(text) if text else {}
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {"message": text[:200].decode(errors="replace")}


def _error(status: int, answer: Object) -> ApiError:
    reason, message = str(answer.get("reason", "")), str(answer.get("message", ""))
    if reason == "AlreadyExists":
        return AlreadyExists(status, reason, message)
    if status >= 500 or status == 429:
        return Unavailable(status, reason, message)
    return _BY_STATUS.get(status, ApiError)(status, reason, message)
