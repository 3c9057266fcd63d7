"""All servers by target: one Server per PostgresTarget, made anew when what it connects with changes. And what is kept
of targets that are gone, while something is to be undone there."""

from __future__ import annotations

from collections.abc import Callable

from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.clock import Clock
from pgtend.core.findings import ObjectKey
from pgtend.kube.secrets import SecretReader, Secrets
from pgtend.server.policy import WritePolicy
from pgtend.server.retained import Keeping
from pgtend.server.server import Server


def needed_to_undo(spec: TargetSpec) -> frozenset[str]:
    """The Secrets that it takes to look at a target's server and to change roles there."""
    names = {spec.tls.ca.secret_ref.name} if spec.tls.ca is not None else set()
    for credential in (spec.credentials.monitor, spec.credentials.users):
        source = (credential.password or credential.client_certificate) if credential is not None else None
        if source is not None:
            names.add(source.secret_ref.name)
    return frozenset(names)


class Registry:
    """Made once this process leads: what it finds of its own on a server from before is an earlier leader's.
    `doubtful` is called with a target whose primary a write has found lost. `undoable` says whether somebody has
    something to undo on that target's server: as long as that is so, what it takes is kept in memory."""

    def __init__(
        self,
        *,
        secrets: SecretReader,
        policy: WritePolicy,
        installation: str,
        clock: Clock,
        doubtful: Callable[[ObjectKey], object] = lambda key: None,
        undoable: Callable[[ObjectKey], bool] = lambda key: False,
    ) -> None:
        self._policy, self._doubtful, self._undoable = policy, doubtful, undoable
        self._secrets, self._installation, self._clock = secrets, installation, clock
        self._servers: dict[ObjectKey, Server] = {}
        self._keeping: dict[ObjectKey, Keeping] = {}
        self._retired: dict[ObjectKey, Server] = {}
        # closed, and known for what they were: their target may be deleted before it is looked at again
        self._resting: dict[ObjectKey, Server] = {}
        self._since = clock.monotonic()

    async def server(self, key: ObjectKey, spec: TargetSpec) -> Server:
        """The server of this target with this spec; sessions of an earlier spec are closed, its standing is kept."""
        known = self._servers.get(key)
        if known is not None and known.spec == spec:
            return known
        keeping = self._keeping.get(key)
        if keeping is None:
            keeping = self._keeping[key] = Keeping(self._secrets, wanted=lambda: self._undoable(key))
        made = self._made(key, spec, keeping, doubtful=lambda: self._doubtful(key))
        # known to everybody before anything is awaited: two who ask at the same time must get the same one
        self._servers[key] = made
        before = known or self._resting.pop(key, None)
        if before is not None and before.spec.members == spec.members:
            made.recall(before.last_standing)
        if known is not None:
            if known.spec.members == spec.members:
                made.standing = known.standing
            await known.close()
        return made

    def find(self, key: ObjectKey) -> Server | None:
        return self._servers.get(key)

    def retired(self, key: ObjectKey) -> Server | None:
        """What is kept of a target that is gone; nobody probes it."""
        return self._retired.get(key)

    def all_retired(self) -> tuple[Server, ...]:
        return tuple(self._retired.values())

    async def drop(self, key: ObjectKey) -> None:
        self._keeping.pop(key, None)
        self._resting.pop(key, None)
        gone = self._servers.pop(key, None)
        if gone is not None:
            await gone.close()

    async def rest(self, key: ObjectKey) -> None:
        """The target is suspended, or its spec is not valid: nobody looks at it. What is kept for those who have
        something to undo there stays, since it may be deleted as it is now, and its Secret with it."""
        gone = self._servers.pop(key, None)
        if gone is None:
            return
        if self._undoable(key):
            self._resting[key] = gone
        else:
            self._keeping.pop(key, None)
        await gone.close()

    async def retire(self, key: ObjectKey) -> None:
        """The target is gone. Where something is to be undone there, it can still be, with the Secrets as they were."""
        gone, keeping = self._servers.get(key) or self._resting.get(key), self._keeping.get(key)
        kept = None
        if gone is not None and keeping is not None and gone.last_standing is not None:
            kept = keeping.kept(key.namespace, needed_to_undo(gone.spec))
        if gone is not None and kept is not None:
            made = self._made(key, gone.spec, kept, doubtful=lambda: None)
            made.standing = gone.last_standing
            before = self._retired.pop(key, None)
            self._retired[key] = made
            if before is not None:
                await before.close()
        await self.drop(key)

    async def keep(self, key: ObjectKey) -> None:
        """Where somebody has something to undo: have all that it takes, also what was read before he came."""
        server, keeping = self._servers.get(key), self._keeping.get(key)
        if server is not None and keeping is not None and self._undoable(key):
            await keeping.complete(key.namespace, needed_to_undo(server.spec))

    def going(self, key: ObjectKey) -> None:
        """The target is being deleted, and stays for those who have something to undo there: its Secret need not."""
        if (keeping := self._keeping.get(key)) is not None:
            keeping.stand_in()

    async def settle(self) -> None:
        """Let go what was kept for somebody who needs it no more."""
        for key in [key for key in self._resting if not self._undoable(key)]:
            await self.drop(key)
        for key in [key for key in self._retired if not self._undoable(key)]:
            await self._retired.pop(key).close()

    async def close(self) -> None:
        for key in list(self._servers):
            await self.drop(key)
        for key in list(self._retired):
            await self._retired.pop(key).close()

    def _made(self, key: ObjectKey, spec: TargetSpec, secrets: Secrets, *, doubtful: Callable[[], object]) -> Server:
        return Server(
            key=key,
            spec=spec,
            secrets=secrets,
            policy=self._policy,
            installation=self._installation,
            clock=self._clock,
            since=self._since,
            doubtful=doubtful,
        )
