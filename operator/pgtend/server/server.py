"""One target's server as the domains use it: sessions that stay warm, opened with the right credential, never too many.

A session is keyed by member, purpose, user and database, and is given up when the Secret has changed. An idle one is
closed after half a minute, the probe's stay open. After a rejected login the Secret is read anew, once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import psycopg
from psycopg import sql

from pgtend.api.postgrestarget import Credential, Member, Pooler, TargetSpec
from pgtend.api.reasons import TargetReason
from pgtend.core.clock import Clock
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.core.names import application_name
from pgtend.kube.client import Unavailable
from pgtend.kube.secrets import Secrets
from pgtend.postgres.connect import connect
from pgtend.postgres.errors import connect_error
from pgtend.postgres.login import Address, Login
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.session import Session
from pgtend.server import credentials
from pgtend.server.policy import WritePolicy
from pgtend.server.standing import Standing
from pgtend.server.takeover import Takeover
from pgtend.server.write import WriteSession, primary_lost

IDLE_SECONDS = 30.0
_HERE = sql.SQL("SELECT 1")
_WITHOUT_SECRET = frozenset({TargetReason.SECRET_MISSING, TargetReason.SECRET_KEY_MISSING})


@dataclass(frozen=True, slots=True)
class _Slot:
    member: str
    purpose: Purpose
    user: str
    database: str


class Server:
    """Made and closed by the registry. Not shared between event loops. `since` is when this process began to lead
    (monotonic), or any moment after that and before its first connect. `doubtful` is called when a write has found the
    primary lost: the target is to be probed at once."""

    def __init__(
        self,
        *,
        key: ObjectKey,
        spec: TargetSpec,
        secrets: Secrets,
        policy: WritePolicy,
        installation: str,
        clock: Clock,
        since: float | None = None,
        doubtful: Callable[[], object] = lambda: None,
    ) -> None:
        self.key, self.spec = key, spec
        self._policy = policy
        self._standing: Standing | None = None
        self._sound: Standing | None = None
        self._secrets, self._installation, self._clock = secrets, installation, clock
        self._idle: OrderedDict[_Slot, tuple[Session, float]] = OrderedDict()
        self._out: dict[str, int] = {}
        self._closed = False
        self._since = clock.monotonic() if since is None else since
        self._doubtful = doubtful
        # of every session: for how long we had led when we began to open it
        self._ages: WeakKeyDictionary[Session, float] = WeakKeyDictionary()
        self._takeover = Takeover(
            installation=installation,
            age=lambda session: self._ages.get(session, 0.0),
            own=lambda: [s.connection.info.backend_pid for s in self._ages if not s.connection.closed],
        )

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def braked(self) -> bool:
        """Whether the installation's brake is on."""
        return self._policy.braked()

    @property
    def standing(self) -> Standing | None:
        return self._standing

    @standing.setter
    def standing(self, standing: Standing | None) -> None:
        self._standing = standing
        if standing is not None and standing.refusal is None:
            self._sound = standing

    @property
    def last_standing(self) -> Standing | None:
        """As what it can be used on without a further probe: as it stands or, where only a Secret is missing or nobody
        has looked again yet, stood."""
        standing = self._standing
        if standing is None or (standing.refusal is not None and standing.refusal.reason in _WITHOUT_SECRET):
            return self._sound
        return standing if standing.refusal is None else None

    def recall(self, standing: Standing | None) -> None:
        """How it stood under an earlier spec: no leave to write, that takes a probe."""
        self._sound = standing

    def member(self, name: str) -> Member:
        """Raises KeyError."""
        for member in self.spec.members:
            if member.name == name:
                return member
        raise KeyError(name)

    @asynccontextmanager
    async def session(
        self,
        member: Member,
        *,
        purpose: Purpose,
        role: str,
        credential: Credential,
        database: str | None = None,
    ) -> AsyncIterator[Session]:
        """A session on one member, warm if there is one. It is kept afterwards unless it broke.

        `role` is the credential's name in the spec. Raises PgtendError where connecting fails; errors of statements
        pass through.
        """
        database = database or self.spec.maintenance_database
        slot = _Slot(member.name, purpose, credential.username or f"pgtend_{role}", database)
        session = await self._take(member, slot, role, credential)
        keep = False
        try:
            yield session
            keep = True
        except psycopg.Error:
            keep = True
            raise
        finally:
            self._out[member.name] -= 1
            clean = session.usable and session.connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            if keep and clean and not self._closed and slot not in self._idle:
                self._idle[slot] = (session, self._clock.monotonic())
            else:
                await session.close()
            await self._trim()

    @asynccontextmanager
    async def write(
        self, *, role: str, credential: Credential | None, purpose: Purpose = Purpose.DDL, database: str | None = None
    ) -> AsyncIterator[WriteSession]:
        """A session on the primary that may change things.

        Raises PgtendError Observing, BrakeOn, NotLeading, NotProbed, CapabilityMissing, or why the target's identity is
        in doubt; then nothing has been sent.
        """
        standing = self.writable()
        if credential is None:
            raise PgtendError(
                TargetReason.CAPABILITY_MISSING,
                f"target {self.key} has no credentials.{role}: add it (pgtend target init-sql prints the role)",
                object=f"credentials.{role}",
            )
        member, identity = self.member(str(standing.primary)), standing.identity
        assert identity is not None  # noqa: S101 - a standing without a refusal has one

        def check() -> None:
            now = self.writable().primary
            if now != member.name:
                text = f"the primary of {self.key} has moved from {member.name} to {now}: look again"
                raise PgtendError(TargetReason.NOT_PROBED, text)

        try:
            async with self.session(
                member, purpose=purpose, role=role, credential=credential, database=database
            ) as session:
                check()
                await self.take_over(session, role=role, credential=credential, system=identity.system_identifier)
                check()
                yield WriteSession(session, identity=identity, check=check)
        except (psycopg.Error, TimeoutError, PgtendError) as error:
            if primary_lost(error) and not self._closed:
                self._doubtful()
            raise

    async def take_over(
        self, session: Session, *, role: str, credential: Credential, system: str, alone: bool = False
    ) -> None:
        """Before the first write or act on a member: what an earlier leader left there has ended. `alone` asks no other
        login for help. Raises PgtendError TakingOver, psycopg.Error or TimeoutError."""
        spec = self.spec.credentials
        given = {"users": spec.users, "maintenance": spec.maintenance, role: credential}
        logins = {c.username or f"pgtend_{name}": (name, c) for name, c in given.items() if c is not None}
        me = credential.username or f"pgtend_{role}"
        member = self.member(session.address.name)
        others = [
            (user, partial(self.session, member, purpose=Purpose.SIGNAL, role=name, credential=other))
            for user, (name, other) in logins.items()
            if user != me and not alone
        ]
        await self._takeover.ensure(session, user=me, system=system, users=logins.keys(), others=others)

    @property
    def installation(self) -> str:
        return self._installation

    def writable(self) -> Standing:
        """The standing, where a write is allowed at this moment. Raises PgtendError."""
        if self._closed:
            raise PgtendError(TargetReason.NOT_PROBED, f"target {self.key} has changed or gone: look again")
        if self.spec.mode == "Observe":
            raise PgtendError(TargetReason.OBSERVING, f"target {self.key} is observed: nothing is written")
        if self._policy.braked():
            raise PgtendError(TargetReason.BRAKE_ON, "the brake is on: no write by this installation")
        if not self._policy.leading():
            raise PgtendError(TargetReason.NOT_LEADING, "this process does not lead any more")
        if self.standing is None:
            raise PgtendError(TargetReason.NOT_PROBED, f"target {self.key} has not been probed yet")
        if self.standing.refusal is not None:
            # one exception that is raised many times: the frames of all of them would pile up in it
            raise self.standing.refusal.with_traceback(None)
        return self.standing

    async def vouched(self, session: Session, *, role: str, credential: Credential) -> bool:
        """Whether the Secret still says what the session logged in with; True while that cannot be read. Raises
        PgtendError where it has been taken away."""
        try:
            login = await self._login(role, credential, fresh=False)
        except Unavailable:
            return True
        return login.fingerprint == session.login

    async def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        self._closed = True
        sessions = [session for session, _ in self._idle.values()]
        self._idle.clear()
        await asyncio.gather(*(session.close() for session in sessions), return_exceptions=True)

    async def _take(self, member: Member, slot: _Slot, role: str, credential: Credential) -> Session:
        """A warm session or a new one, counted as out from here on: what opens at the same time counts too."""
        cached = self._idle.pop(slot, None)
        old = cached[0] if cached is not None else None
        self._out[member.name] = self._out.get(member.name, 0) + 1
        session: Session | None = None
        try:
            session = await self._warm_or_new(old, member, slot, role, credential)
            return session
        finally:
            if session is None:
                self._out[member.name] -= 1
            if old is not None and old is not session:
                await old.close()

    async def _warm_or_new(
        self, old: Session | None, member: Member, slot: _Slot, role: str, credential: Credential
    ) -> Session:
        warm = old if old is not None and old.usable else None
        try:
            login = await self._login(role, credential, fresh=False)
        except Unavailable:
            if warm is not None:
                return warm  # the API server is away: the session has proved itself before
            raise
        if warm is not None and warm.login == login.fingerprint:
            return warm
        if old is not None:
            await old.close()
        await self._make_room(member.name)
        try:
            return await self._open(member, slot, login)
        except PgtendError as error:
            if error.reason is not TargetReason.AUTHENTICATION_FAILED:
                raise
            renewed = await self._login(role, credential, fresh=True)
            if renewed.fingerprint == login.fingerprint:
                raise
            return await self._open(member, slot, renewed)

    async def _login(self, role: str, credential: Credential, *, fresh: bool) -> Login:
        return await credentials.login(
            self._secrets, namespace=self.key.namespace, purpose=role, credential=credential, fresh=fresh
        )

    async def try_login(self, place: Member | Pooler, *, login: Login, database: str) -> None:
        """Whether somebody who is not us gets in there: a session that ends at once. Raises PgtendError."""
        direct = isinstance(place, Member)
        address = await self._address(place)
        if direct:
            self._out[address.name] = self._out.get(address.name, 0) + 1
        try:
            if direct:
                await self._make_room(address.name)
            session = await connect(
                address=address,
                login=login,
                database=database,
                purpose=Purpose.PROBE,
                application_name=self._application(Purpose.PROBE),
                direct=direct,
            )
            try:
                await session.fetch(_HERE)  # a pooler asks its server only now
            finally:
                await session.close()
        except (OSError, psycopg.Error, TimeoutError) as error:
            raise connect_error(error, where=address.where, secrets=login.secrets) from None
        finally:
            if direct:
                self._out[address.name] -= 1

    async def _address(self, place: Member | Pooler) -> Address:
        tls, name = (self.spec.tls, place.name) if isinstance(place, Member) else (place.tls or self.spec.tls, "pooler")
        ca = await credentials.certificate_authority(self._secrets, namespace=self.key.namespace, tls=tls)
        return Address(name=name, host=place.host, port=place.port, sslmode=tls.sslmode, ca=ca)

    def _application(self, purpose: Purpose) -> str:
        return application_name(
            installation=self._installation,
            purpose=purpose.value,
            namespace=self.key.namespace,
            name=self.key.name,
        )

    async def _open(self, member: Member, slot: _Slot, login: Login) -> Session:
        address = await self._address(member)
        age = 0.0

        def begin() -> None:
            nonlocal age
            age = self._clock.monotonic() - self._since

        try:
            session = await connect(
                address=address,
                login=login,
                database=slot.database,
                purpose=slot.purpose,
                application_name=self._application(slot.purpose),
                begin=begin,
            )
        except (OSError, psycopg.Error) as error:
            raise connect_error(error, where=address.where, secrets=login.secrets) from None
        self._ages[session] = age
        return session

    async def _make_room(self, member: str) -> None:
        """Stay within maxConnections per member: the longest idle one that is no probe makes room."""
        mine = [slot for slot in self._idle if slot.member == member]
        open_now = len(mine) + self._out.get(member, 0)  # with the one that is about to be opened
        while open_now > self.spec.max_connections:
            victim = next((slot for slot in mine if slot.purpose is not Purpose.PROBE), None)
            if victim is None:
                raise PgtendError(
                    TargetReason.TOO_MANY_CONNECTIONS,
                    f"spec.maxConnections {self.spec.max_connections} of {self.key} is used up: raise it",
                )
            mine.remove(victim)
            session, _ = self._idle.pop(victim)
            open_now -= 1
            await session.close()

    async def _trim(self) -> None:
        old = self._clock.monotonic() - IDLE_SECONDS
        for slot, (session, since) in list(self._idle.items()):
            if slot.purpose is not Purpose.PROBE and since < old and self._idle.pop(slot, None) is not None:
                await session.close()
