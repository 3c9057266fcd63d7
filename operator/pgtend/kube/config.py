"""Where the API server is and how we prove who we are: a pod's ServiceAccount, or a kubeconfig on a laptop."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """`token_file` is read again when a request is refused; `client_cert` is (certificate, key) as PEM."""

    server: str
    ca: str | None = None
    token: str | None = None
    token_file: Path | None = None
    client_cert: tuple[str, str] | None = None
    namespace: str = "default"

    def read_token(self) -> str | None:
        if self.token_file is not None:
            return self.token_file.read_text(encoding="utf-8").strip()
        return self.token

    def ssl_context(self) -> ssl.SSLContext | None:
        """None for plain http. Raises ssl.SSLError where a certificate does not parse."""
        if not self.server.startswith("https"):
            return None
        context = ssl.create_default_context(cadata=self.ca)
        if self.client_cert is not None:
            # ssl reads key pairs from files only
            with tempfile.TemporaryDirectory() as folder:
                pair = Path(folder) / "pair.pem"
                pair.touch(mode=0o600)
                pair.write_text("\n".join(self.client_cert), encoding="utf-8")
                context.load_cert_chain(pair)
        return context


def in_cluster() -> ClusterConfig | None:
    """The ServiceAccount of the pod we run in, or None outside of one."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if not host or not (SERVICE_ACCOUNT / "token").exists():
        return None
    host = f"[{host}]" if ":" in host else host
    return ClusterConfig(
        server=f"https://{host}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}",
        ca=(SERVICE_ACCOUNT / "ca.crt").read_text(encoding="utf-8"),
        token_file=SERVICE_ACCOUNT / "token",
        namespace=(SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip(),
    )


def from_kubeconfig(path: Path | None = None, context: str | None = None) -> ClusterConfig:
    """The given (or current) context of a kubeconfig with tokens or client certificates.

    Raises ValueError for what is not there or for exec plugins, which need the official client.
    """
    path = path or Path(os.environ.get("KUBECONFIG", "").split(":")[0] or Path.home() / ".kube" / "config")
    doc = yaml.safe_load(path.read_text(encoding="utf-8"))
    name = context or doc.get("current-context")
    chosen = _named(doc, "contexts", "context", name)
    cluster = _named(doc, "clusters", "cluster", chosen["cluster"])
    user = _named(doc, "users", "user", chosen["user"])
    if "exec" in user or "auth-provider" in user:
        raise ValueError(f"user {chosen['user']!r} of {path} logs in by a plugin: use a token or a client certificate")
    cert, key = _pem(path, user, "client-certificate"), _pem(path, user, "client-key")
    return ClusterConfig(
        server=cluster["server"],
        ca=_pem(path, cluster, "certificate-authority"),
        token=user.get("token"),
        token_file=path.parent / user["tokenFile"] if "tokenFile" in user else None,
        client_cert=(cert, key) if cert and key else None,
        namespace=chosen.get("namespace") or "default",
    )


def load(path: Path | None = None, context: str | None = None) -> ClusterConfig:
    """The pod's own account where there is one and nothing else was named, else the kubeconfig."""
    if path is None and context is None and (config := in_cluster()) is not None:
        return config
    return from_kubeconfig(path, context)


def _named(doc: dict[str, Any], section: str, member: str, name: str | None) -> dict[str, Any]:
    for item in doc.get(section) or ():
        if item.get("name") == name:
            found: dict[str, Any] = item[member]
            return found
    raise ValueError(f"no {member} {name!r} in the kubeconfig")


def _pem(config: Path, item: dict[str, Any], key: str) -> str | None:
    """Inline, or a file whose path counts from the kubeconfig's folder, as for kubectl."""
    if data := item.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    return (config.parent / item[key]).read_text(encoding="utf-8") if key in item else None
