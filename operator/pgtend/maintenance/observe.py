"""What a run reads from its target: the plans of its tasks, and the figures for which it pauses. Changes nothing but
what an earlier process has left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg import sql

from pgtend.api.maintenancewindow import PauseWhile, WindowSpec
from pgtend.api.reasons import TargetReason
from pgtend.api.types import format_duration
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.gate.asking import Refusal
from pgtend.gate.reasons import GateReason
from pgtend.kube.client import ApiError
from pgtend.maintenance.score import Key
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.session import Row
from pgtend.server.member import needed
from pgtend.server.server import Server
from pgtend.tasks.protocol import Ground, Item, ItemResult, Task, TaskPlan
from pgtend.tasks.registry import task as task_of
from pgtend.tasks.registry import type_of

# Two views of statistics, no relation. Without pg_monitor the transactions of others are not seen.
_PRESSURE = sql.SQL("""
SELECT (SELECT extract(epoch FROM max(replay_lag))::float8 FROM pg_catalog.pg_stat_replication
        WHERE state = 'streaming') AS lag,
       (SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::float8 FROM pg_catalog.pg_stat_activity
        WHERE backend_type = 'client backend' AND application_name NOT LIKE 'pgtend/%') AS age""")
# The primary's replay_lag says nothing of a standby that stands still: what is received and not replayed does.
_BEHIND = sql.SQL("""
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() AND pg_catalog.pg_last_wal_receive_lsn()
              > pg_catalog.pg_last_wal_replay_lsn()
       THEN extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8
       END AS lag""")


CONFIRM = 0.5
"""Seconds between two looks at a standby that seems late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The tasks of a slot in the order of the spec, with their plans; `swept` tells of leftovers that were removed,
    `found` of items that an earlier process had done without saying so: they may be due by the plan, and are not."""

    tasks: Mapping[str, Task]
    plans: tuple[TaskPlan, ...]
    swept: tuple[str, ...] = ()
    found: Mapping[Key, ItemResult] = field(default_factory=dict)

    @property
    def items(self) -> tuple[Item, ...]:
        return tuple(item for plan in self.plans for item in plan.items)


def tasks_for(spec: WindowSpec, types: Sequence[str]) -> dict[str, Task]:
    return {entry.type: task_of(type_of(entry.type), entry.options) for entry in spec.tasks if entry.type in types}


async def look(ground: Ground, tasks: Mapping[str, Task], *, sweep: Sequence[Item] | None = None) -> Looked:
    """Plan every task. With `sweep` an earlier process was killed in the middle: what it left of the planned items
    and of these is removed first, and of these the database is asked which are done. Raises PgtendError where no plan
    can be made."""
    plans = []
    swept: list[str] = []
    found: dict[Key, ItemResult] = {}
    objections = []
    for type_, task in tasks.items():
        # as they were written with the claim, and before a plan is made: by a newer look what the first try has left is
        # somebody else's
        claimed = [item for item in sweep or () if item.type == type_]
        if claimed:
            swept += await task.sweep(ground, claimed)
        plan = await task.plan(ground)
        if plan.objection is not None:
            # one task that may not be carried out keeps no other from its work
            objections.append(plan.objection)
            plan = replace(plan, items=(), notes=(*plan.notes, f"{type_} was not begun: {plan.objection.message}"))
        if sweep is not None:
            known = {item.object for item in claimed}
            if rest := [item for item in plan.items if item.object not in known]:
                swept += await task.sweep(ground, rest)
            if claimed:
                done = await task.find(ground, claimed)
                found.update({Key(type_, name): result for name, result in done.items()})
        plans.append(plan)
    if objections and len(objections) == len(tasks):
        raise PgtendError(TargetReason.MISSING_PRIVILEGE, objections[0].message, object=objections[0].object)
    return Looked(tasks=tasks, plans=tuple(plans), swept=tuple(swept), found=found)


def usable(server: Server | None, target: ObjectKey, spec: object, *, acting: bool = True) -> Server:
    """The server, where work can be planned on it, and done where it is `acting`. Raises PgtendError with what is in
    the way."""
    if server is None or server.spec != spec or server.standing is None:
        raise PgtendError(TargetReason.NOT_PROBED, f"target {target} has not been probed yet")
    if acting:
        needed(server)
    if server.standing.primary is None:
        refusal = server.standing.refusal
        raise PgtendError(
            refusal.reason if refusal is not None else TargetReason.NO_PRIMARY,
            refusal.message if refusal is not None else f"target {target} has no primary",
        )
    return server


async def pressure(server: Server, limits: PauseWhile) -> Refusal | None:
    """Why no item may start now, of what `pauseWhile` names. Raises PgtendError where the primary cannot be asked."""
    primary = str(server.writable().primary)
    row = await _ask(server, primary, _PRESSURE)
    lag, of_whom = row["lag"], "a standby"
    if lag is None or lag <= limits.replication_lag.seconds:
        lag, of_whom = await _most_behind(server, primary, limits.replication_lag.seconds)
    for name, seconds, limit, what in (
        ("replicationLag", lag, limits.replication_lag, f"{of_whom} is behind by"),
        ("transactionAge", row["age"], limits.transaction_age, "somebody's transaction is open since"),
    ):
        if seconds is not None and seconds > limit.seconds:
            return Refusal(
                reason=GateReason.PAUSED,
                message=f"{what} {format_duration(seconds)} on {server.key} (pauseWhile.{name} {limit})",
                object=str(server.key),
            )
    return None


async def _most_behind(server: Server, primary: str, limit: float) -> tuple[float | None, str]:
    """The lag of the first standby that is too late, at two looks: one in between may see WAL that has just come. One
    that cannot be asked is the health board's affair."""
    for member in server.spec.members:
        if member.name == primary:
            continue
        try:
            row = await _ask(server, member.name, _BEHIND)
            if row["lag"] is not None and row["lag"] > limit:
                await asyncio.sleep(CONFIRM)
                row = await _ask(server, member.name, _BEHIND)
        except PgtendError:
            continue
        if row["lag"] is not None and row["lag"] > limit:
            return row["lag"], f"standby {member.name}"
    return None, ""


async def _ask(server: Server, member: str, query: sql.SQL) -> Row:
    """One row, as monitor. Raises PgtendError where it cannot be had."""
    rest: dict[str, Any] = {"purpose": Purpose.PROBE, "role": "monitor", "credential": server.spec.credentials.monitor}
    try:
        async with server.session(server.member(member), **rest) as session:
            return (await session.fetch(query))[0]
    except (psycopg.Error, TimeoutError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise PgtendError(TargetReason.CONNECTION_FAILED, f"member {member} of {server.key}: {text[:256]}") from None


class Background:
    """Looks that may take longer than a reconcile: begun once per key, asked for until they are done. `wake` has the
    key reconciled when there is something to take."""

    def __init__(self, wake: Callable[[ObjectKey], None]) -> None:
        self._wake = wake
        self._tasks: dict[tuple[ObjectKey, str], asyncio.Task[Looked]] = {}

    def take(self, key: ObjectKey, name: str, make: Callable[[], Awaitable[Looked]]) -> Looked | None:
        """What was found, once; None while it is looked for. Raises PgtendError where it could not be found."""
        slot = (key, name)
        task = self._tasks.get(slot)
        if task is None:
            task = self._tasks[slot] = asyncio.ensure_future(_run(make))
            task.add_done_callback(lambda _: self._wake(key))
            return None
        if not task.done():
            return None
        del self._tasks[slot]
        try:
            return task.result()
        except (psycopg.Error, TimeoutError, OSError, ApiError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise PgtendError(TargetReason.CONNECTION_FAILED, text[:512]) from None

    def forget(self, key: ObjectKey) -> None:
        for slot in [slot for slot in self._tasks if slot[0] == key]:
            self._tasks.pop(slot).cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(make: Callable[[], Awaitable[Looked]]) -> Looked:
    return await make()
