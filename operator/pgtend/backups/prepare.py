"""May this policy take backups now, and of what are its pods made: asked by the policy for its CronJob and by a backup
now for its Job, so that both always agree."""

from __future__ import annotations

from dataclasses import dataclass

from pgtend.api.backupdestination import DestinationSpec
from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import BackupReason as R
from pgtend.backups.inputs import Setting
from pgtend.backups.judge import Trouble
from pgtend.backups.plan import Timetable, ToolsImages, major_of, timetable
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.gate.walltime import ScheduleError
from pgtend.kube.index import Index, Record
from pgtend.server.consent import Requester, consent_for
from pgtend.server.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """`setting` is None where `trouble` stands in the way; `destination` is there wherever it can be used."""

    timetable: Timetable | None = None
    setting: Setting | None = None
    destination: DestinationSpec | None = None
    trouble: Trouble | None = None
    observing: bool = False

    @property
    def permitted(self) -> bool:
        return self.trouble is None or self.trouble.reason is not R.NOT_PERMITTED


class Preparer:
    def __init__(self, *, index: Index, registry: Registry, installation: str, images: ToolsImages) -> None:
        self._index, self._registry = index, registry
        self._installation, self.images = installation, images

    def prepare(self, record: Record, *, kind: str = "PostgresBackupPolicy") -> Prepared:
        """`record` is the policy's; `kind` is whose consent is asked for."""
        spec, namespace = record.parsed(PolicySpec), record.key.namespace
        times: Timetable | None = None
        try:
            times = timetable(spec, policy=str(record.key))
        except ScheduleError as error:
            return Prepared(trouble=_no(R.INVALID_SCHEDULE, error.message))
        if spec.target_ref.namespace not in (None, namespace):
            where = spec.target_ref.namespace
            text = f"its pods mount the Secrets of the target's namespace {where}: make the policy there"
            return Prepared(timetable=times, trouble=_no(R.MUST_BE_IN_TARGET_NAMESPACE, text))
        usable, destination, bucket = self.destination(namespace, spec.destination_ref.name)
        target_key = ObjectKey("PostgresTarget", namespace, spec.target_ref.name)
        target_record = self._index.get(target_key)
        if target_record is None or target_record.deleting:
            text = f"PostgresTarget {target_key} does not exist: create it"
            return Prepared(
                timetable=times, destination=usable, trouble=_no(R.TARGET_NOT_FOUND, text, spec.target_ref.name)
            )
        if target_record.spec_error is not None:
            text = f"PostgresTarget {target_key} is not valid: {target_record.spec_error}"
            return Prepared(timetable=times, destination=usable, trouble=_not_yet(R.TARGET_NOT_READY, text))
        target = target_record.parsed(TargetSpec)
        consent = consent_for(
            access=target.access,
            target_namespace=namespace,
            requester=Requester(namespace=namespace, labels=None),
            kind=kind,
        )
        observing = "Observe" in (spec.mode, target.mode)
        if isinstance(consent, str):
            return Prepared(
                timetable=times, destination=usable, observing=observing, trouble=_no(R.NOT_PERMITTED, consent)
            )
        trouble = bucket or self._target_trouble(target_key, target_record, target)
        if trouble is not None or destination is None or target.credentials.backup is None:
            return Prepared(timetable=times, destination=usable, trouble=trouble, observing=observing)
        version = str(target_record.status.get("serverVersion") or "")
        major, identity = major_of(version), self._identity(target_key)
        if major is None or identity is None:
            trouble = Trouble(
                condition="Ready",
                reason=R.TARGET_NOT_READY,
                message=f"the version of target {target_key} is not known yet: wait",
                object=target_key.name,
                status="Unknown",
            )
            return Prepared(timetable=times, destination=usable, trouble=trouble, observing=observing)
        image = self.images.of(major)
        if image is None:
            text = (
                f"no tools image is configured for PostgreSQL {version}: set the chart's tools.image and tools.majors"
            )
            trouble = _not_yet(R.TOOLS_IMAGE_MISSING, text)
            return Prepared(timetable=times, destination=usable, trouble=trouble, observing=observing)
        setting = Setting(
            installation=self._installation,
            policy=ObjectKey("PostgresBackupPolicy", namespace, record.key.name),
            uid=record.uid,
            spec=spec,
            target=target,
            credential=target.credentials.backup,
            destination=destination,
            image=image,
            identifier=identity[0],
            timeline=identity[1],
        )
        return Prepared(timetable=times, setting=setting, destination=usable, observing=observing)

    def destination(
        self, namespace: str, name: str
    ) -> tuple[DestinationSpec | None, DestinationSpec | None, Trouble | None]:
        """The destination where the store answers, the destination where it parses, and what is wrong with it."""
        key = ObjectKey("BackupDestination", namespace, name)
        record = self._index.get(key)
        if record is None or record.deleting:
            text = f"BackupDestination {key} does not exist: create it"
            return None, None, _no(R.DESTINATION_NOT_FOUND, text, name)
        if record.spec_error is not None:
            text = f"BackupDestination {key} is not valid: {record.spec_error}"
            return None, None, _not_yet(R.DESTINATION_NOT_READY, text, name)
        spec = record.parsed(DestinationSpec)
        ready = next((c for c in record.status.get("conditions") or () if c["type"] == "Ready"), None)
        if ready is None or record.status.get("observedGeneration") != record.generation:
            text = f"BackupDestination {key} was not looked at yet: wait"
            return (
                None,
                spec,
                Trouble(condition="Ready", reason=R.DESTINATION_NOT_READY, message=text, object=name, status="Unknown"),
            )
        if ready["status"] != "True":
            text = f"BackupDestination {key}: {ready['reason']}: {ready.get('message', '')}"
            return None, spec, _not_yet(R.DESTINATION_NOT_READY, text, name)
        return spec, spec, None

    def _target_trouble(self, key: ObjectKey, record: Record, target: TargetSpec) -> Trouble | None:
        if target.credentials.backup is None:
            text = (
                f"target {key} has no credentials.backup: add it"
                " (pgtend target init-sql --features backup prints the role)"
            )
            return _not_yet(R.CAPABILITY_MISSING, text, "credentials.backup")
        server = self._registry.find(key)
        standing = server.standing if server is not None else None
        if target.suspend:
            return _not_yet(R.TARGET_NOT_READY, f"target {key} is suspended", key.name)
        if standing is None or standing.identity is None:
            refusal: PgtendError | None = standing.refusal if standing is not None else None
            said = f"{refusal.reason}: {refusal.message}" if refusal is not None else "it was not probed yet: wait"
            status = "False" if refusal is not None else "Unknown"
            return Trouble(
                condition="Ready",
                reason=R.TARGET_NOT_READY,
                message=f"target {key}: {said}",
                object=key.name,
                status="False" if status == "False" else "Unknown",
            )
        if standing.refusal is not None:
            text = f"target {key}: {standing.refusal.reason}: {standing.refusal.message}"
            return _not_yet(R.TARGET_NOT_READY, text, key.name)
        return None

    def _identity(self, key: ObjectKey) -> tuple[str, int] | None:
        server = self._registry.find(key)
        if server is None or server.standing is None or server.standing.identity is None:
            return None
        return server.standing.identity.system_identifier, server.standing.identity.timeline


def _no(reason: R, message: str, object: str | None = None) -> Trouble:
    return Trouble(condition="Accepted", reason=reason, message=message, object=object)


def _not_yet(reason: R, message: str, object: str | None = None) -> Trouble:
    return Trouble(condition="Ready", reason=reason, message=message, object=object)
