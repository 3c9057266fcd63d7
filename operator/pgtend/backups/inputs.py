"""What a pod is given: its configuration, and the Secrets that it mounts from where people put them, each pod its own
and no other. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pgtend.api.backupdestination import S3, AgeRecipient, DestinationSpec, StoreCredential
from pgtend.api.postgresbackuppolicy import Chosen, ChosenTables, PolicySpec
from pgtend.api.postgrestarget import Credential, TargetSpec
from pgtend.api.restore import RestoreDatabase
from pgtend.backups.jobs.config import (
    Destination,
    DumpConfig,
    HostPort,
    PolicyName,
    Recipient,
    RestoreConfig,
    ServerAccess,
    VerifyConfig,
)
from pgtend.core.findings import ObjectKey
from pgtend.objectstore.config import (
    AccessKeyFiles,
    CredentialFiles,
    Limits,
    ObjectLock,
    ServerSideEncryption,
    StoreConfig,
)

Body = dict[str, Any]
ROOT = Path("/etc/pgtend")
_MODES: dict[str, Literal["GOVERNANCE", "COMPLIANCE"]] = {"Governance": "GOVERNANCE", "Compliance": "COMPLIANCE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """All that a policy's pods are made of. `identifier` and `timeline` are the server's that was recorded."""

    installation: str
    policy: ObjectKey
    uid: str
    spec: PolicySpec
    target: TargetSpec
    credential: Credential
    destination: DestinationSpec
    image: str
    identifier: str
    timeline: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoring:
    """All that a restore's pod is made of. `identifier` and `timeline` are the server's that was recorded."""

    installation: str
    operation: ObjectKey
    target: TargetSpec
    credential: Credential
    destination: DestinationSpec
    recipient: AgeRecipient
    manifest: str
    source: str
    schemas: tuple[str, ...]
    database: RestoreDatabase
    identifier: str
    timeline: int


def dump_config(
    setting: Setting,
    *,
    backup: str | None = None,
    reason: str | None = None,
    retain_until: datetime | None = None,
) -> Body:
    """What the dump is told. Without a name it makes one of policy and start, as a CronJob's run needs."""
    spec, target, credential = setting.spec, setting.target, setting.credential
    databases = spec.dump.databases
    config = DumpConfig(
        installation_id=setting.installation,
        policy=PolicyName(namespace=setting.policy.namespace, name=setting.policy.name),
        destination=_destination(setting.destination),
        backup_name=backup,
        reason=reason,
        retain_until=retain_until,
        server=_access(target, credential, "backup", setting.identifier, setting.timeline),
        databases=None if databases is None else tuple(database.name for database in databases),
        parts=tuple(d for d in databases or () if d.schemas != Chosen() or d.tables != ChosenTables()),
        globals=spec.dump.globals,
        row_counts=spec.dump.row_counts,
        compression_level=spec.dump.compression_level,
        lock_timeout=spec.dump.lock_timeout,
        yield_after=spec.dump.yield_to_ddl_after,
        recipients=tuple(
            Recipient(name=recipient.name, public_key=recipient.public_key)
            for recipient in setting.destination.encryption.age.recipients
            if not recipient.decrypt_only
        ),
    )
    return config.to_wire()


def restore_config(restoring: Restoring) -> Body:
    """What a restore is told."""
    target, database = restoring.target, restoring.database
    config = RestoreConfig(
        installation_id=restoring.installation,
        operation=PolicyName(namespace=restoring.operation.namespace, name=restoring.operation.name),
        destination=_destination(restoring.destination),
        manifest=restoring.manifest,
        identity_file=ROOT / "identity" / "identity",
        server=_access(target, restoring.credential, "restore", restoring.identifier, restoring.timeline),
        source=restoring.source,
        schemas=restoring.schemas,
        database=database.name,
        owner=database.owner,
        if_not_empty=database.if_not_empty,
    )
    return config.to_wire()


def restore_sources(restoring: Restoring) -> dict[str, list[Body]]:
    """The login that restores, the credential that reads, and a key that opens."""
    read = verify_sources(restoring.destination, restoring.recipient)
    server = _server_sources(restoring.target, restoring.credential)
    return {"server": server, "store": read["store"], "identity": read["identity"]}


def _access(target: TargetSpec, credential: Credential, purpose: str, identifier: str, timeline: int) -> ServerAccess:
    server = ROOT / "server"
    certificate = credential.client_certificate is not None
    return ServerAccess(
        hosts=tuple(HostPort(host=member.host, port=member.port) for member in target.members),
        maintenance_database=target.maintenance_database,
        user=credential.username or f"pgtend_{purpose}",
        password_file=None if certificate else server / "password",
        certificate_file=server / "tls.crt" if certificate else None,
        key_file=server / "tls.key" if certificate else None,
        allow_md5=credential.password is not None and credential.password.method == "Md5",
        sslmode=_sslmode(target),
        ca_file=server / "ca.crt" if target.tls.ca is not None else None,
        system_identifier=identifier,
        minimum_timeline=timeline,
    )


def verify_config(*, installation: str, policy: ObjectKey, destination: DestinationSpec, manifest: str) -> Body:
    """What a verification is told. It writes its evidence with the credential that writes, where another reads."""
    config = VerifyConfig(
        installation_id=installation,
        policy=PolicyName(namespace=policy.namespace, name=policy.name),
        destination=_destination(destination),
        manifest=manifest,
        identity_file=ROOT / "identity" / "identity",
        evidence_credentials=_files("evidence") if _reads_apart(destination) else None,
    )
    return config.to_wire()


def verify_sources(destination: DestinationSpec, recipient: AgeRecipient) -> dict[str, list[Body]]:
    """The credential that reads, and a key that opens."""
    assert recipient.identity is not None  # noqa: S101 - the caller chose one that has
    given, key = destination.s3.credentials, recipient.identity.secret_ref
    sources = {
        "store": _store_sources(destination, given.read or given.write),
        "identity": [_source(key.name, {key.key or "identity": "identity"})],
    }
    return sources | ({"evidence": _key_sources(given.write)} if _reads_apart(destination) else {})


def _reads_apart(destination: DestinationSpec) -> bool:
    given = destination.s3.credentials
    return given.read is not None and given.read != given.write


def dump_sources(setting: Setting) -> dict[str, list[Body]]:
    write = setting.destination.s3.credentials.write
    server = _server_sources(setting.target, setting.credential)
    return {"server": server, "store": _store_sources(setting.destination, write)}


def _server_sources(target: TargetSpec, credential: Credential) -> list[Body]:
    tls = target.tls
    server: list[Body] = []
    if credential.password is not None:
        ref = credential.password.secret_ref
        server.append(_source(ref.name, {ref.key or "password": "password"}))
    elif credential.client_certificate is not None:
        pair = {"tls.crt": "tls.crt", "tls.key": "tls.key"}
        server.append(_source(credential.client_certificate.secret_ref.name, pair))
    if tls.ca is not None:
        server.append(_source(tls.ca.secret_ref.name, {tls.ca.secret_ref.key or "ca.crt": "ca.crt"}))
    return server


def _store_sources(destination: DestinationSpec, credential: StoreCredential) -> list[Body]:
    sources = _key_sources(credential)
    if destination.s3.ca is not None:
        ref = destination.s3.ca.secret_ref
        sources.append(_source(ref.name, {ref.key or "ca.crt": "ca.crt"}))
    return sources


def _key_sources(credential: StoreCredential) -> list[Body]:
    key = credential.access_key
    return [
        _source(key.id.secret_ref.name, {key.id.secret_ref.key or "id": "id"}),
        _source(key.secret.secret_ref.name, {key.secret.secret_ref.key or "secret": "secret"}),
    ]


def _source(name: str, keys: Mapping[str, str]) -> Body:
    return {"secret": {"name": name, "items": [{"key": key, "path": path} for key, path in keys.items()]}}


def _files(folder: str) -> CredentialFiles:
    return CredentialFiles(
        access_key=AccessKeyFiles(id_file=ROOT / folder / "id", secret_file=ROOT / folder / "secret")
    )


def _destination(destination: DestinationSpec) -> Destination:
    s3 = destination.s3
    store = store_config(s3, ca_file=ROOT / "store" / "ca.crt" if s3.ca is not None else None)
    return Destination(store=store, credentials=_files("store"))


def store_config(s3: S3, *, ca_file: Path | None = None) -> StoreConfig:
    """`ca_file` None where the certificate is handed over in memory, or the system's roots will do."""
    encryption, lock = s3.server_side_encryption, s3.object_lock
    asked: ServerSideEncryption | None = None
    if encryption is not None:
        kms = encryption.kms
        asked = ServerSideEncryption(type="KMS" if kms else "AES256", kms_key_id=kms.key_id if kms else None)
    return StoreConfig(
        bucket=s3.bucket,
        prefix=s3.prefix,
        region=s3.region,
        endpoint=s3.endpoint,
        addressing=s3.addressing,
        ca_file=ca_file,
        server_side_encryption=asked,
        object_lock=ObjectLock(mode=_MODES[lock.mode], seconds=int(lock.duration.seconds)) if lock else None,
        limits=Limits(parts=s3.limits.parts, object_size=s3.limits.object_size.bytes),
        upload_rate=s3.upload_rate.bytes if s3.upload_rate is not None else None,
    )


def _sslmode(target: TargetSpec) -> Literal["require", "verify-ca", "verify-full"]:
    modes: dict[str, Literal["require", "verify-ca", "verify-full"]] = {
        "require": "require",
        "verify-ca": "verify-ca",
        "verify-full": "verify-full",
    }
    return modes[target.tls.sslmode]
