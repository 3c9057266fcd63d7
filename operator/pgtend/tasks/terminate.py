"""TerminateQueries: end the sessions that a selector names, exactly those, on every member.

Nobody is ended by accident: only client backends, never our own sessions, no dump, backup or index build unless it is
named, and each victim is checked again in the very statement that ends it. What `pg_stat_activity` hides from a role
is not guessed: without pg_read_all_stats there is no plan.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from pgtend.api.postgrestarget import Member
from pgtend.api.types import format_duration
from pgtend.core.actions import Repeat
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.gate.classes import TaskType
from pgtend.gate.decide import Permit
from pgtend.postgres.errors import connect_error
from pgtend.postgres.quoting import identifier
from pgtend.postgres.session import Row, Session
from pgtend.server.member import MemberSession, may_act
from pgtend.tasks.protocol import (
    Breach,
    Ground,
    Item,
    ItemResult,
    Objection,
    Outcome,
    TaskPlan,
    plan_hash,
)
from pgtend.tasks.victims import STATES, Backend, Selector, chosen

NAMED = 50
"""Victims that are named at most."""
# seconds to wait for the end of what was signalled; a backend looks at signals between two steps
PATIENCE = 5.0
LOOK_EVERY = 0.05


# 14 to 18. One pass over shared memory; no relation is touched. Walsenders and workers are no client backends. Of
# sessions that the role may not see, backend_type is NULL: that is why pg_read_all_stats is asked for first.
_LOOK = sql.SQL("""
SELECT a.pid, coalesce(a.usename, '-')::text AS usename, coalesce(a.datname, '-')::text AS datname,
       coalesce(a.application_name, '') AS application, a.state, a.backend_start, a.query_start,
       extract(epoch FROM clock_timestamp()
         - CASE WHEN a.state LIKE 'idle%' THEN a.state_change ELSE a.query_start END)::float8 AS seconds,
       EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index AS p WHERE p.pid = a.pid) AS building
FROM pg_catalog.pg_stat_activity AS a
WHERE a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid() AND a.state IS NOT NULL""")
_SEES = sql.SQL("""
SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees,
       pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') AS signals,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system, current_user::text AS me""")
# the WHERE is evaluated before the select list: nobody is signalled who is not the one that was planned
_END = sql.SQL("""
SELECT pg_catalog.pg_terminate_backend(a.pid) AS sent FROM pg_catalog.pg_stat_activity AS a
WHERE a.pid = {pid} AND a.backend_start = {backend_start} AND a.backend_type = 'client backend'
  AND a.query_start IS NOT DISTINCT FROM {query_start} AND a.state = ANY({states})""")
_THERE = sql.SQL("""
SELECT a.pid, a.backend_start FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = ANY({pids})""")


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateQueries:
    """The task, see tasks.protocol.Task. `max_victims` (1 to 50) is what the asker is prepared for."""

    selector: Selector
    max_victims: int

    type = TaskType.TERMINATE_QUERIES
    repeat = Repeat.ONCE
    together = True

    async def plan(self, ground: Ground) -> TaskPlan:
        looked = await asyncio.gather(*(self._look(ground, member) for member in ground.server.spec.members))
        errors = [seen for seen in looked if isinstance(seen, PgtendError)]
        if len(errors) == len(looked):
            raise errors[0]
        readings = [seen for seen in looked if isinstance(seen, _Reading)]
        blind = next((seen.missing for seen in readings if seen.missing is not None), None)
        backends = [b for seen in readings for b in seen.backends]
        victims, spared = chosen(backends, self.selector, own=ground.server.spec.credentials.roles)
        notes = [f"{member.name} was not looked at: {seen.message}" for member, seen in _failed(ground, looked)]
        notes += [f"{count} {why} spared" for why, count in sorted(spared.items())]
        objection = None
        if blind is not None:
            objection = Objection(breach=Breach.MISSING_PRIVILEGE, message=blind)
            victims = []
        elif len(victims) > self.max_victims:
            objection = Objection(
                breach=Breach.TOO_MANY_VICTIMS,
                message=f"{len(victims)} sessions fit the selector, maxVictims is {self.max_victims}: nobody was"
                " touched. Narrow select, or make another operation with a larger maxVictims (50 at most)",
            )
        many = len(ground.server.spec.members) > 1
        return TaskPlan(
            type=self.type,
            items=tuple(_item(backend, named=many) for backend in victims[:NAMED]),
            plan_hash=plan_hash(type=self.type, system_identifier=readings[0].system, selector=self._hashed()),
            sql=(f"pg_terminate_backend for {len(victims)} pid{'' if len(victims) == 1 else 's'}",),
            notes=tuple(notes),
            objection=objection,
        )

    async def run(
        self, ground: Ground, permit: Permit, items: Sequence[Item]
    ) -> AsyncIterator[tuple[Item, ItemResult]]:
        if permit.type is not self.type or permit.target != ground.server.key:
            raise ValueError("this permit is for something else")
        by_member: dict[str, list[Item]] = {}
        for item in items:
            by_member.setdefault(item.facts["member"], []).append(item)
        for name, mine in by_member.items():
            open_ = list(mine)
            try:
                async with ground.members.acting(ground.server, ground.server.member(name)) as session:
                    async for item, result in self._end(session, mine):
                        open_.remove(item)
                        yield item, result
            except (PgtendError, psycopg.Error, TimeoutError) as error:
                may_act(ground.server)  # where nothing may be written any more, that is the run's end
                for item in open_:
                    yield item, _failure(error, 0.0)

    async def sweep(self, ground: Ground, items: Sequence[Item]) -> tuple[str, ...]:
        return ()

    async def find(self, ground: Ground, items: Sequence[Item]) -> Mapping[str, ItemResult]:
        """Whoever is gone has been ended (or went by themselves, which comes to the same); whoever is still there has
        not, and is left alone."""
        found: dict[str, ItemResult] = {}
        for member in ground.server.spec.members:
            mine = [item for item in items if item.facts["member"] == member.name]
            if not mine:
                continue
            try:
                async with ground.members.reading(ground.server, member) as session:
                    there = await _there(session, mine)
            except (psycopg.Error, TimeoutError) as error:
                raise connect_error(error, where=member.name) from None
            for item in mine:
                if item not in there:
                    found[item.object] = ItemResult(
                        outcome=Outcome.SUCCEEDED, message="gone when looked for after a restart of the operator"
                    )
        return found

    async def _end(self, session: MemberSession, items: Sequence[Item]) -> AsyncIterator[tuple[Item, ItemResult]]:
        started = time.monotonic()
        waiting: list[Item] = []
        words = [word for state in self.selector.states for word in STATES[state]]
        for item in items:
            failpoint("tasks.terminate.before_signal")
            query = _END.format(
                pid=sql.Literal(int(item.facts["pid"])),
                backend_start=sql.Literal(datetime.fromisoformat(item.facts["backendStart"])),
                query_start=sql.Literal(_moment(item.facts.get("queryStart"))),
                states=sql.Literal(words),
            )
            try:
                rows = await session.fetch(query)
            except psycopg.Error as error:
                yield item, _failure(error, time.monotonic() - started)
                if error.sqlstate is None or error.sqlstate.startswith(("08", "57P")):
                    raise
                continue
            failpoint("tasks.terminate.after_signal")
            if rows and rows[0]["sent"]:
                waiting.append(item)
            else:
                yield (
                    item,
                    ItemResult(
                        outcome=Outcome.CANCELLED,
                        actual=time.monotonic() - started,
                        message="it had ended or gone on to something else meanwhile: left alone",
                    ),
                )
        while waiting:
            there = await _there(session, waiting)
            spent = time.monotonic() - started
            for item in [item for item in waiting if item not in there]:
                waiting.remove(item)
                yield item, ItemResult(outcome=Outcome.SUCCEEDED, actual=spent)
            if waiting and spent > PATIENCE:
                for item in waiting:
                    text = f"signalled, but still there after {format_duration(spent)}: it ends when the server lets it"
                    yield item, ItemResult(outcome=Outcome.FAILED, actual=spent, message=text)
                return
            if waiting:
                await asyncio.sleep(LOOK_EVERY)

    async def _look(self, ground: Ground, member: Member) -> _Reading | PgtendError:
        try:
            async with ground.members.reading(ground.server, member) as session:
                return await _read(session, member.name)
        except PgtendError as error:
            return error
        except (psycopg.Error, TimeoutError) as error:
            return connect_error(error, where=member.name)

    def _hashed(self) -> dict[str, object]:
        return {
            "states": list(self.selector.states),
            "longerThan": self.selector.longer_than,
            "databases": list(self.selector.databases),
            "users": list(self.selector.users),
            "applications": list(self.selector.applications),
            "pids": list(self.selector.pids),
            "maxVictims": self.max_victims,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """One member. `missing` is the GRANT without which nothing can be said."""

    system: str
    backends: tuple[Backend, ...]
    missing: str | None


async def _read(session: Session, member: str) -> _Reading:
    may = (await session.fetch(_SEES))[0]
    missing = None
    if not may["sees"]:
        role = identifier(may["me"])
        missing = f"{may['me']} cannot see other roles' sessions on {member}: run GRANT pg_read_all_stats TO {role}"
    rows = await session.fetch(_LOOK)
    return _Reading(system=may["system"], missing=missing, backends=tuple(_backend(member, row) for row in rows))


def _backend(member: str, row: Row) -> Backend:
    return Backend(
        member=member,
        pid=row["pid"],
        user=row["usename"],
        database=row["datname"],
        application=row["application"],
        state=row["state"],
        seconds=row["seconds"] or 0.0,
        backend_start=row["backend_start"],
        query_start=row["query_start"],
        building_index=row["building"],
    )


def _item(backend: Backend, *, named: bool) -> Item:
    facts = {
        "member": backend.member,
        "pid": str(backend.pid),
        "backendStart": backend.backend_start.isoformat(),
    }
    if backend.query_start is not None:
        facts["queryStart"] = backend.query_start.isoformat()
    return Item(
        type=TaskType.TERMINATE_QUERIES,
        object=f"pid {backend.pid}" + (f" on {backend.member}" if named else ""),
        verb="terminate",
        sql="pg_terminate_backend",
        database=backend.database,
        estimate=1.0,
        facts=facts,
        shown={
            "user": backend.user,
            "database": backend.database,
            "running": format_duration(backend.seconds),
        },
    )


async def _there(session: Session | MemberSession, items: Sequence[Item]) -> list[Item]:
    """Those whose backend still exists."""
    rows = await session.fetch(_THERE.format(pids=sql.Literal([int(item.facts["pid"]) for item in items])))
    alive = {(row["pid"], row["backend_start"]) for row in rows}
    return [item for item in items if (int(item.facts["pid"]), _moment(item.facts["backendStart"])) in alive]


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _failure(error: BaseException, spent: float) -> ItemResult:
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state == "42501":
        text = "only a superuser may end a superuser's session; for others run GRANT pg_signal_backend TO the role of"
        text += " credentials.maintenance"
    else:
        text = error.message if isinstance(error, PgtendError) else str(error).strip() or "no answer in time"
    return ItemResult(outcome=Outcome.FAILED, actual=spent, sql_state=state, message=text[:256])


def _failed(ground: Ground, looked: Sequence[_Reading | PgtendError]) -> list[tuple[Member, PgtendError]]:
    pairs = zip(ground.server.spec.members, looked, strict=True)
    return [(member, seen) for member, seen in pairs if isinstance(seen, PgtendError)]
