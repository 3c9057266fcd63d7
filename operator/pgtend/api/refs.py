"""How one object points at another, and a value at a Secret. Secrets are always of the object's own namespace."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pgtend.api.base import ApiModel
from pgtend.api.types import NamespaceName, ObjectName, SecretKey


class SecretKeyRef(ApiModel):
    name: ObjectName
    key: SecretKey | None = None
    """Default depends on the value: password, ca.crt, token, identity."""


class SecretName(ApiModel):
    name: ObjectName


class FromSecret(ApiModel):
    """`<value>: {secretRef: {name, key}}`."""

    secret_ref: SecretKeyRef


class FromTlsSecret(ApiModel):
    """`<value>: {secretRef: {name}}` of a kubernetes.io/tls Secret."""

    secret_ref: SecretName


class TargetRef(ApiModel):
    name: ObjectName
    namespace: Annotated[NamespaceName | None, Field(default=None)] = None
    """Default: the object's own namespace."""


class LocalRef(ApiModel):
    """An object of the own namespace."""

    name: ObjectName
