"""What people may say about the pods that we start: a bounded part of a PodTemplateSpec, the same for every kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pgtend.api.base import ApiModel
from pgtend.api.types import ObjectName

LabelKey = Annotated[str, Field(max_length=316)]
LabelValue = Annotated[str, Field(max_length=63)]
Amount = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|[KMGTP]i?)?$", max_length=20)]


class Toleration(ApiModel):
    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int | None, Field(ge=0)] = None


class Amounts(ApiModel):
    cpu: Amount | None = None
    memory: Amount | None = None


class Resources(ApiModel):
    """Of the one container. What is not said is pgtend's: requests of 100m and 256Mi, a limit of 1Gi."""

    requests: Amounts = Amounts()
    limits: Amounts = Amounts()


class PullSecret(ApiModel):
    name: ObjectName


class EnvironmentVariable(ApiModel):
    """For proxies and the like. No secret belongs here: secrets are mounted as files."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    value: Annotated[str, Field(max_length=1024)]


class PodSettings(ApiModel):
    """Of every pod that this object starts. The rest is pgtend's: restricted, no API access, read-only root."""

    service_account_name: ObjectName | None = None
    """Default: the namespace's."""
    labels: Annotated[dict[LabelKey, LabelValue], Field(default_factory=dict, max_length=16)]
    annotations: Annotated[
        dict[LabelKey, Annotated[str, Field(max_length=1024)]], Field(default_factory=dict, max_length=16)
    ]
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(default_factory=dict, max_length=16)]
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    priority_class_name: ObjectName | None = None
    resources: Resources = Resources()
    image_pull_secrets: Annotated[
        tuple[PullSecret, ...], Field(max_length=8, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = ()
    env: Annotated[
        tuple[EnvironmentVariable, ...], Field(max_length=16, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = ()

    def requests(self) -> dict[str, Any]:
        return {"cpu": "100m", "memory": "256Mi"} | self.resources.requests.to_wire()

    def limits(self) -> dict[str, Any]:
        return {"memory": "1Gi"} | self.resources.limits.to_wire()
