"""Keeps a policy's CronJob as its spec says, and away from one that is somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.reasons import BackupReason as R
from pgtend.backups.judge import Trouble
from pgtend.backups.pods import HASH, cron_job, cron_job_name
from pgtend.backups.prepare import Prepared
from pgtend.core.clock import parse_rfc3339
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.kube.client import CRON_JOBS, Forbidden, Invalid, KubeClient, NotFound
from pgtend.kube.index import Record


class CronJobKeeper:
    """`may_write` is asked right before a write: leading, and no brake."""

    def __init__(self, *, client: KubeClient, may_write: Callable[[], bool]) -> None:
        self._client, self._may_write = client, may_write
        self._handled: dict[ObjectKey, datetime | None] = {}

    def handled_until(self, key: ObjectKey) -> datetime | None:
        """Starts up to then have had their Job, as of the last look; None where there is no CronJob that starts any."""
        return self._handled.get(key)

    def forget(self, key: ObjectKey) -> None:
        self._handled.pop(key, None)

    async def keep(self, record: Record, spec: PolicySpec, prepared: Prepared) -> Trouble | None:
        """Bring the CronJob to what the spec says. One that stands is left alone while the target or the bucket is
        away, but for being suspended where nobody consents any more. Raises ApiError."""
        key = record.key
        name = cron_job_name(key.name)
        try:
            found: dict[str, Any] | None = await self._client.get(CRON_JOBS, key.namespace, name)
        except NotFound:
            found = None
        self._handled[key] = _handled_until(found)
        if found is not None and all(o["uid"] != record.uid for o in found["metadata"].get("ownerReferences") or ()):
            text = f"CronJob {name} is not this policy's: delete it, or give the policy another name"
            return Trouble(condition="Ready", reason=R.OBJECT_NOT_OWNED, message=text, object=name)
        suspended = spec.suspend or prepared.observing or not prepared.permitted
        wanted: dict[str, Any] | None = None
        if prepared.setting is not None and prepared.timetable is not None:
            wanted = cron_job(prepared.setting, cron=prepared.timetable.cron, suspended=suspended)
            if _same(found, wanted):
                return None
        elif found is not None and suspended and not found["spec"].get("suspend"):
            wanted = {**found, "spec": {**found["spec"], "suspend": True}}
        if wanted is None or (found is None and prepared.observing):
            return None
        if not self._may_write():
            text = "the brake is on: the CronJob was not changed"
            return Trouble(condition="Ready", reason=R.BRAKE_ON, message=text)
        failpoint("backups.policy.before_cronjob")
        try:
            if found is None:
                made = await self._client.create(CRON_JOBS, key.namespace, wanted)
            else:
                version = found["metadata"]["resourceVersion"]
                wanted = {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": version}}
                made = await self._client.replace(CRON_JOBS, key.namespace, name, wanted)
        except (Invalid, Forbidden) as error:
            text = f"CronJob {name}: {error.message[:600]}"
            return Trouble(condition="Ready", reason=R.REFUSED_BY_API, message=text, object=name)
        self._handled[key] = _handled_until(made)
        failpoint("backups.policy.after_cronjob")
        return None


def _handled_until(found: Mapping[str, Any] | None) -> datetime | None:
    if found is None or found["spec"].get("suspend"):
        return None
    last = (found.get("status") or {}).get("lastScheduleTime")
    return parse_rfc3339(str(last or found["metadata"]["creationTimestamp"]))


def _same(found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    if found is None:
        return False
    annotations = found["metadata"].get("annotations") or {}
    same = annotations.get(HASH) == wanted["metadata"]["annotations"][HASH]
    return bool(
        same
        and found["spec"].get("suspend", False) == wanted["spec"]["suspend"]
        and found["spec"]["schedule"] == wanted["spec"]["schedule"]
    )
