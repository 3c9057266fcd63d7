"""Keeps the Secret of a user: decides which password holds, and writes it down before anybody sets it on a server.

A Secret is ours by its annotation and nothing else; a foreign one is never read from and never written to. The moment
at which a password was decided upon stands beside it: the status repeats that moment once the role has the password,
so that neither a crash in between nor a restart publishes something false or sets a password twice.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from pgtend.api.databaseuser import SECRET_KEYS, UserSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import UserReason as R
from pgtend.api.types import Timestamp
from pgtend.core.clock import Clock, parse_rfc3339, rfc3339
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.kube.client import SECRETS, AlreadyExists, ApiError, Conflict, Forbidden, Invalid, KubeClient, NotFound
from pgtend.kube.secrets import SecretData, SecretReader
from pgtend.users.password import agrees, endpoints, generate, secret_values
from pgtend.users.rotation import Candidate, Kept, due_at, grace_ends, logins, next_login
from pgtend.users.state import Problem
from pgtend.users.wanted import derived, role_name, secret_name

OWNER = "pgtend.dev/owner"
CHANGED = "pgtend.dev/password-changed-at"
SOURCE = "pgtend.dev/password-source"
TEMPLATES = "pgtend.dev/templates"
LOGIN = "pgtend.dev/login"


class Keeper:
    """Reads and writes the Secrets of DatabaseUsers, at most one write each."""

    def __init__(self, *, client: KubeClient, secrets: SecretReader, installation: str, clock: Clock) -> None:
        self._client, self._secrets, self._installation, self._clock = client, secrets, installation, clock
        # what a crash loses is made anew: nobody but the server knows it, and nobody was told
        self._candidates: dict[ObjectKey, Candidate] = {}

    def owner(self, key: ObjectKey) -> str:
        return f"{self._installation}/{key}"

    async def look(self, key: ObjectKey, spec: UserSpec, *, status: Mapping[str, Any]) -> Kept:
        """What there is, without a write: for Observe. Raises kube.client.ApiError."""
        name = secret_name(key, spec)
        source = spec.source
        found = await self._secrets.get(key.namespace, name, fresh=True)
        mine = found is not None and found.annotations.get(OWNER) == self.owner(key)
        login = _login(key, spec, found if mine else None, status)
        if found is None or not mine:
            return Kept(name=name, source=source, login=login)
        return Kept(
            name=name,
            source=source,
            login=login,
            password=found.values.get("password"),
            changed_at=_changed_at(found),
            written=True,
        )

    async def keep(
        self,
        key: ObjectKey,
        spec: UserSpec,
        target: TargetSpec,
        *,
        role_exists: bool,
        status: Mapping[str, Any],
        alterable: bool = True,
        write: bool = True,
    ) -> Kept:
        """Bring the Secret to what the spec says; afterwards it stands, or there is a problem and nothing was written.
        With `write=False` it is only told whether it stands.

        A generated password is made anew only while there is no role, or where the role is `alterable` and has it and
        it is due, or the spec says so of one that is lost: else the only copy of what lets somebody in would be lost.
        Raises kube.client.ApiError where the API server is away or the Secret changes under us.
        """
        name = secret_name(key, spec)
        # a new user of a new role: creating tells as well as asking whether there is a Secret already
        fresh = write and not role_exists and not status.get("secretName")
        found = None if fresh else await self._secrets.get(key.namespace, name, fresh=True)
        if not endpoints(spec, target):
            text = "spec.secret.endpoint is Pooler, and the target has no spec.pooler: add it there, or use Members"
            problem = Problem(reason=R.POOLER_MISSING, object="pooler", message=text)
            login = _login(key, spec, None, status)
            return Kept(name=name, source=spec.source, login=login, problem=problem)
        anew = write and alterable and spec.makes_lost_anew
        kept = await self._decide(key, spec, found, role_exists=role_exists, status=status, anew=anew)
        if not kept.ready:
            return kept
        if write and role_exists:
            kept = self._turned(key, spec, kept, found, status, alterable=alterable)
        if not write:
            return replace(kept, written=self._stands(key, spec, target, kept, found))
        try:
            return await self._write(key, spec, target, kept, found)
        except AlreadyExists:
            found = await self._secrets.get(key.namespace, name, fresh=True)
            kept = await self._decide(key, spec, found, role_exists=role_exists, status=status, anew=anew)
            return await self._write(key, spec, target, kept, found) if kept.ready else kept

    def applied(self, key: ObjectKey, *, done: bool) -> None:
        """The server has the candidate's password; where it refused the statement, that password may be in its log."""
        candidate = self._candidates.pop(key, None)
        if candidate is not None and done:
            self._candidates[key] = replace(candidate, applied=True)

    async def publish(self, key: ObjectKey, spec: UserSpec, target: TargetSpec, kept: Kept) -> Kept:
        """The candidate logs in: from here on it is what the Secret says. Raises kube.client.ApiError."""
        candidate = kept.candidate
        assert candidate is not None  # noqa: S101 - that is why we are here
        found = await self._secrets.get(key.namespace, kept.name, fresh=True)
        if found is None or found.annotations.get(OWNER) != self.owner(key):
            raise Conflict(409, "Gone", f"Secret {kept.name} is not what it was")
        turned = replace(
            kept,
            login=candidate.login,
            password=candidate.password,
            changed_at=self._moment(found),
            candidate=None,
            rotated=True,
        )
        written = await self._write(key, spec, target, turned, found)
        if written.problem is not None:
            return replace(kept, problem=written.problem)
        self._candidates.pop(key, None)
        return written

    def forget(self, key: ObjectKey) -> None:
        self._candidates.pop(key, None)

    def _turned(
        self,
        key: ObjectKey,
        spec: UserSpec,
        kept: Kept,
        found: SecretData | None,
        status: Mapping[str, Any],
        *,
        alterable: bool,
    ) -> Kept:
        """What holds, and what is to follow where it is time. A password that the role has not got yet comes first."""
        role = role_name(key, spec)
        password = status.get("password") or {}
        if kept.source != "Generate" or not spec.login or kept.changed_at is None:
            return kept
        if password.get("changedAt") != kept.changed_at:
            return kept
        due, now = due_at(role, spec, active=kept.login, changed_at=kept.changed_at), self._clock.now()
        if due is None or due > now or spec.generate is None:
            self.forget(key)
            return kept
        login = next_login(role, spec, kept.login)
        if login is None and not alterable:
            return replace(kept, stuck=True)
        if login is None:
            return replace(kept, password=generate(spec.generate), changed_at=self._moment(found), rotated=True)
        candidate = self._candidates.get(key)
        if candidate is None or candidate.login != login:
            if login == password.get("retiringLogin") and now < (ends := grace_ends(spec, kept.changed_at)):
                return replace(kept, waits=ends)
            candidate = Candidate(login=login, password=generate(spec.generate))
            self._candidates[key] = candidate
        return replace(kept, candidate=candidate)

    async def remove(self, key: ObjectKey, name: str) -> None:
        """Delete the Secret where it is ours."""
        try:
            body = await self._client.get(SECRETS, key.namespace, name)
        except NotFound:
            return
        metadata = body["metadata"]
        if (metadata.get("annotations") or {}).get(OWNER) == self.owner(key):
            await self._client.delete(SECRETS, key.namespace, name, uid=metadata["uid"])
        self._secrets.forget(key.namespace, name)

    async def _decide(
        self,
        key: ObjectKey,
        spec: UserSpec,
        found: SecretData | None,
        *,
        role_exists: bool,
        status: Mapping[str, Any],
        anew: bool,
    ) -> Kept:
        mine = found is not None and found.annotations.get(OWNER) == self.owner(key)
        login = _login(key, spec, found if mine else None, status)
        kept = Kept(name=secret_name(key, spec), source=spec.source, login=login)
        if found is not None and found.annotations.get(OWNER) != self.owner(key):
            text = (
                f"Secret {kept.name} exists and is not of this DatabaseUser: choose another secret.name, or delete it"
            )
            return replace(kept, problem=Problem(reason=R.SECRET_NOT_OWNED, object=kept.name, message=text))
        if spec.source == "None":
            before = found.annotations.get(SOURCE) if found is not None else None
            return replace(kept, changed_at=(_changed_at(found) if before == "None" else None) or self._moment(found))
        if spec.generate is None:
            return await self._given(key, spec, kept, found)
        given_before = found is not None and found.annotations.get(SOURCE) in ("SecretRef", "None")
        standing = None if given_before else _standing(found)
        if standing is None and role_exists and not given_before:
            found = found or await self._renamed(key, kept.name, status)
            standing = _standing(found)
            if standing is None and anew:
                told = (status.get("password") or {}).get("changedAt")
                return replace(kept, password=generate(spec.generate), changed_at=self._moment(found, told=told))
            if standing is None:
                text = (
                    f"role {role_name(key, spec)} exists, but Secret {kept.name} with its password is gone: restore it"
                    " from a backup, give a password in password.secretRef, or set password.onLostSecret: Rotate"
                )
                return replace(kept, problem=Problem(reason=R.SECRET_LOST, object=kept.name, message=text))
        if standing is None or found is None:
            return replace(kept, password=generate(spec.generate), changed_at=self._moment(found))
        changed_at = _changed_at(found) if agrees(found.values) else None
        return replace(kept, password=standing, changed_at=changed_at or self._moment(found))

    async def _given(self, key: ObjectKey, spec: UserSpec, kept: Kept, found: SecretData | None) -> Kept:
        """The password of password.secretRef."""
        assert spec.password is not None and spec.password.secret_ref is not None  # noqa: S101 - a union of three
        ref = spec.password.secret_ref
        wanted_key = ref.key or "password"
        theirs = await self._secrets.get(key.namespace, ref.name, fresh=True)
        if theirs is None:
            text = f"Secret {ref.name} of password.secretRef does not exist in namespace {key.namespace}: create it"
            return replace(kept, problem=Problem(reason=R.SECRET_MISSING, object=ref.name, message=text))
        given = theirs.values.get(wanted_key)
        plain = given.reveal().rstrip("\n") if given is not None else ""
        if not plain or "\0" in plain:
            text = f"Secret {ref.name} has no password in key {wanted_key}: add it, or name another key"
            return replace(kept, problem=Problem(reason=R.SECRET_KEY_MISSING, object=ref.name, message=text))
        password = Sensitive(plain)
        changed_at = None
        if found is not None and found.values.get("password") == password and agrees(found.values):
            changed_at = _changed_at(found)
        return replace(kept, password=password, changed_at=changed_at or self._moment(found))

    async def _renamed(self, key: ObjectKey, name: str, status: Mapping[str, Any]) -> SecretData | None:
        """The Secret under its former name, where spec.secret.name has changed. It is left in its place: pods that
        still name it must be able to start."""
        former = status.get("secretName")
        if not former or former == name:
            return None
        found = await self._secrets.get(key.namespace, former, fresh=True)
        return found if found is not None and found.annotations.get(OWNER) == self.owner(key) else None

    async def _write(
        self, key: ObjectKey, spec: UserSpec, target: TargetSpec, kept: Kept, found: SecretData | None
    ) -> Kept:
        if self._stands(key, spec, target, kept, found):
            return replace(kept, written=True)
        values, annotations = self._values(key, spec, target, kept), self._annotations(key, spec, kept)
        data: dict[str, str | None] = {
            name: base64.b64encode(value.reveal().encode()).decode() for name, value in values.items()
        }
        labels = {"app.kubernetes.io/managed-by": "pgtend"}
        failpoint("users.apply.before_secret")
        try:
            if found is None or found.name != kept.name:
                body = {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {
                        "name": kept.name,
                        "annotations": {n: text for n, text in annotations.items() if text is not None},
                        "labels": labels,
                    },
                    "type": "Opaque",
                    "data": data,
                }
                await self._client.create(SECRETS, key.namespace, body)
            else:
                data |= dict.fromkeys(_stale(found, values), None)
                patch = {"metadata": {"annotations": annotations, "labels": labels}, "data": data}
                await self._client.merge_patch(
                    SECRETS, key.namespace, kept.name, patch, resource_version=found.resource_version
                )
        except (Forbidden, Invalid) as error:
            return replace(kept, password=None, problem=_refused(kept.name, error))
        except NotFound as error:
            # deleted between reading and writing: look again from the start
            raise Conflict(409, "Gone", f"Secret {kept.name} is gone") from error
        failpoint("users.apply.after_secret")
        self._secrets.forget(key.namespace, kept.name)
        return replace(kept, written=True)

    def _stands(self, key: ObjectKey, spec: UserSpec, target: TargetSpec, kept: Kept, found: SecretData | None) -> bool:
        if found is None or found.name != kept.name:
            return False
        values = self._values(key, spec, target, kept)
        return (
            all(found.annotations.get(n) == text for n, text in self._annotations(key, spec, kept).items())
            and all(found.values.get(n) == value for n, value in values.items())
            and not _stale(found, values)
        )

    def _values(self, key: ObjectKey, spec: UserSpec, target: TargetSpec, kept: Kept) -> dict[str, Sensitive]:
        return secret_values(role=kept.login, password=kept.password, spec=spec, target=target)

    def _annotations(self, key: ObjectKey, spec: UserSpec, kept: Kept) -> dict[str, str | None]:
        """None where there is to be none."""
        return {
            OWNER: self.owner(key),
            CHANGED: str(kept.changed_at),
            SOURCE: kept.source,
            TEMPLATES: ",".join(sorted(spec.secret.templates)) or None,
            LOGIN: kept.login if kept.login != role_name(key, spec) else None,
        }

    def _moment(self, found: SecretData | None, *, told: str | None = None) -> str:
        """Now, and another moment than the one before (or that the status has `told`): it tells two passwords apart."""
        now = rfc3339(self._clock.now())
        before = _changed_at(found) or told
        return now if before is None or now > before else rfc3339(parse_rfc3339(before) + timedelta(seconds=1))


def _login(key: ObjectKey, spec: UserSpec, found: SecretData | None, status: Mapping[str, Any]) -> str:
    """Who logs in with what the Secret of ours holds; where there is none, as the status has it or the spec wants."""
    role = role_name(key, spec)
    if spec.source != "Generate":
        return role
    known = found.annotations.get(LOGIN, role) if found is not None else None
    told = known or (status.get("password") or {}).get("activeLogin")
    return told if told in (role, *derived(role)) else logins(role, spec)[0]


def _stale(found: SecretData, values: Mapping[str, Sensitive]) -> set[str]:
    """Keys of ours that hold what holds no more; what others added is left alone."""
    ours = {*SECRET_KEYS, *(found.annotations.get(TEMPLATES) or "").split(",")}
    return {name for name in found.values if name in ours and name not in values}


def _standing(found: SecretData | None) -> Sensitive | None:
    """The password that a Secret of ours holds, or None where somebody emptied it."""
    password = found.values.get("password") if found is not None else None
    return password if password is not None and password.reveal() else None


def _changed_at(found: SecretData | None) -> str | None:
    """When its password was decided upon; None where somebody has spoilt the annotation."""
    try:
        return str(Timestamp((found.annotations if found is not None else {}).get(CHANGED, "")))
    except ValueError:
        return None


def _refused(name: str, error: ApiError) -> Problem:
    text = f"the API server refuses Secret {name}: {error.message[:300]}"
    return Problem(reason=R.SECRET_REFUSED, object=name, message=text, transient=True)
