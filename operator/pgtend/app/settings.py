"""What one process is told when it starts, and how it says that it cannot."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from secrets import token_hex

from pgtend.kube.config import ClusterConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one process runs. `namespaces` empty is the whole cluster; `namespace` is the operator's own; where
    `namespace_labels` is None, namespaces are watched for their labels if the whole cluster is."""

    cluster: ClusterConfig
    installation: str
    namespace: str
    namespaces: frozenset[str] = frozenset()
    # a restarted container has its pod's name again, and must not take itself for the holder of the Lease
    identity: str = field(default_factory=lambda: f"{os.environ.get('HOSTNAME', 'pgtend')}-{token_hex(3)}")
    health_port: int = 8080
    tools_image: str = ""
    tools_majors: frozenset[int] = frozenset()
    requesters_checked: bool = False
    namespace_labels: bool | None = None

    @property
    def watches_labels(self) -> bool:
        return not self.namespaces if self.namespace_labels is None else self.namespace_labels


class StartupError(Exception):
    """The operator cannot start; the text says what to do."""
