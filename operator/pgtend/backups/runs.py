"""What became of a policy's Jobs: read from the Jobs and, where one has ended, from what its pod left as its last
words. Logs are never read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from pgtend.api.reasons import BackupReason
from pgtend.backups.jobs.config import Termination, parse_termination
from pgtend.backups.pods import BACKUP, POLICY, RUN
from pgtend.core.clock import parse_rfc3339
from pgtend.kube.client import JOBS, PODS, KubeClient

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run failed, as a condition tells it."""

    reason: BackupReason
    message: str
    object: str | None = None
    transient: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One Job. `backup` is the record that it belongs to, None for a run of the CronJob. `ending`: Kubernetes has
    decided and clears its pods away."""

    job: str
    uid: str
    kind: Literal["dump", "verify", "restore"]
    backup: str | None
    created: datetime
    ended: datetime | None
    succeeded: bool
    said: str = ""
    ending: bool = False
    termination: Termination | None = None
    failure: Failure | None = None

    @property
    def active(self) -> bool:
        return self.ended is None

    @property
    def name(self) -> str:
        """The backup's name where the pod told it, else the Job's."""
        told = self.termination.backup_name if self.termination is not None else None
        return told or self.backup or self.job


async def read_runs(client: KubeClient, *, namespace: str, policy: str) -> list[Run]:
    """All Jobs of a policy, oldest first, without what their pods said."""
    found = [
        run_of(body)
        async for body in client.list(JOBS, namespace, labels=f"{POLICY}={policy}")
        if body["metadata"].get("labels", {}).get(RUN) in ("dump", "verify")
        and "deletionTimestamp" not in body["metadata"]
    ]
    return sorted(found, key=lambda run: (run.created, run.job))


async def with_report(client: KubeClient, *, namespace: str, run: Run) -> Run:
    """The run with its last pod's words, and with the reason where it failed."""
    pods = [body async for body in client.list(PODS, namespace, labels=f"batch.kubernetes.io/job-name={run.job}")]
    pods.sort(key=lambda body: str(body["metadata"].get("creationTimestamp")))
    pod = pods[-1] if pods else None
    termination = parse_termination(str(_ended(pod).get("message") or "")) if pod is not None else None
    told = replace(run, termination=termination)
    return told if run.succeeded or run.active else replace(told, failure=failure_of(told, pod))


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """What a pod waits for; `reason` where it will not begin by itself."""

    text: str
    reason: BackupReason | None = None


async def waits_for(client: KubeClient, *, namespace: str, run: Run) -> Waits | None:
    """What an active run's pod waits for, None where it runs."""
    async for pod in client.list(PODS, namespace, labels=f"batch.kubernetes.io/job-name={run.job}"):
        name = pod["metadata"]["name"]
        for status in pod.get("status", {}).get("containerStatuses") or ():
            waiting = status.get("state", {}).get("waiting")
            if waiting and waiting.get("reason") in _IMAGE:
                text = (
                    f"pod {name} waits: {waiting['reason']}: image {status.get('image', '?')} cannot be pulled"
                    f" ({str(waiting.get('message', ''))[:300]}): correct the chart's tools.image or"
                    " spec.pod.imagePullSecrets"
                )
                return Waits(text=text, reason=BackupReason.IMAGE_MISSING)
            if waiting:
                return Waits(text=f"pod {name} waits: {waiting.get('reason', 'Pending')}")
        if pod.get("status", {}).get("phase") == "Pending":
            return Waits(text=f"pod {name} is not scheduled yet")
    return None


def run_of(body: Mapping[str, Any]) -> Run:
    """A Job as a run."""
    meta, status = body["metadata"], body.get("status") or {}
    ended: datetime | None = None
    succeeded, ending, said = False, False, ""
    for condition in status.get("conditions") or ():
        ending = ending or (condition["type"] == "FailureTarget" and condition.get("status") == "True")
        if condition.get("status") == "True" and condition["type"] in ("Complete", "Failed"):
            ended = parse_rfc3339(condition["lastTransitionTime"])
            succeeded, said = condition["type"] == "Complete", str(condition.get("reason") or "")
    return Run(
        job=meta["name"],
        uid=meta["uid"],
        kind=meta["labels"][RUN],
        backup=meta["labels"].get(BACKUP),
        created=parse_rfc3339(meta["creationTimestamp"]),
        ended=ended,
        succeeded=succeeded,
        said=said,
        ending=ending,
    )


def _ended(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    for status in pod.get("status", {}).get("containerStatuses") or ():
        terminated = status.get("state", {}).get("terminated")
        if terminated:
            return dict(terminated)
    return {}


def failure_of(run: Run, pod: Mapping[str, Any] | None) -> Failure:
    """Why it failed. What the node did to the pod comes before the pod's own words: those say no more than that it was
    told to stop."""
    told = run.termination
    if run.said == "DeadlineExceeded":
        text = f"Job {run.job} took longer than its deadline: raise spec.timeout, or look for what made it slow"
        return Failure(reason=BackupReason.DEADLINE_EXCEEDED, message=text, object=run.job)
    if pod is None:
        text = f"Job {run.job} failed and its pod is gone: its node went, or somebody deleted it; see the events"
        return Failure(reason=BackupReason.WORKER_LOST, message=text, object=run.job, transient=True)
    name, ended, status = pod["metadata"]["name"], _ended(pod), pod.get("status", {})
    if status.get("reason") == "Evicted":
        text = f"pod {name} was evicted: {status.get('message', '')[:300]}: raise spec.pod.resources.requests"
        return Failure(reason=BackupReason.EVICTED, message=text, object=name, transient=True)
    if ended.get("reason") == "OOMKilled":
        limit = pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("memory", "?")
        text = (
            f"pod {name} was killed at its memory limit {limit}: raise spec.pod.resources.limits.memory of the"
            f" {'operation' if run.kind == 'restore' else 'policy'}"
        )
        return Failure(reason=BackupReason.OUT_OF_MEMORY, message=text, object=name)
    if told is not None and told.outcome == "Failed":
        try:
            reason = BackupReason(told.reason)
        except ValueError:
            reason = BackupReason.POD_FAILED
        return Failure(reason=reason, message=told.message, object=told.object, transient=told.transient)
    if ended.get("exitCode") == 137 or not ended:
        text = f"pod {name} was killed from outside: look at its node and at the events of the namespace"
        return Failure(reason=BackupReason.WORKER_LOST, message=text, object=name, transient=True)
    text = f"pod {name} ended with status {ended.get('exitCode', '?')} and told nothing: look at its log"
    return Failure(reason=BackupReason.POD_FAILED, message=text, object=name, transient=True)
