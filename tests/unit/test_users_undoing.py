"""What is decided about a user that is deleted together with its target: what is kept for it, where it is undone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from pgtend.api.databaseuser import DATABASE_USER
from pgtend.api.postgrestarget import POSTGRES_TARGET, TargetSpec
from pgtend.api.reasons import TargetReason
from pgtend.api.reasons import UserReason as R
from pgtend.cli.uninstall import remaining
from pgtend.core.clock import FakeClock
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.engine.loop import Outcome
from pgtend.kube.index import Index, Record, record_of
from pgtend.kube.secrets import SecretData
from pgtend.server.ledger import Abandoned
from pgtend.server.policy import WritePolicy
from pgtend.server.registry import Registry
from pgtend.server.server import Server
from pgtend.server.standing import ServerIdentity, Standing
from pgtend.users.departures import RETURN_SECONDS, Departures
from pgtend.users.door import Door, Target
from pgtend.users.drop import How
from pgtend.users.finalize import LOST_SECONDS, Finisher, Situation
from pgtend.users.pace import Pace
from pgtend.users.state import Problem
from pgtend.users.undoing import FINALIZER, Place, is_undoable, lacking, lacks_credential, place_for

ORDERS, OTHER = (ObjectKey("PostgresTarget", "databases", name) for name in ("orders", "other"))
SYSTEM, ANOTHER = "7000000000000000001", "7000000000000000002"
ENTRY = Abandoned(
    kind="DatabaseUser", namespace="shop", name="app", target="databases/orders", role="app", policy="Drop",
    remains="role app", sql="DROP ROLE app", reason="TimedOut: x", since="y", retry=True, system=SYSTEM,
)  # fmt: skip
CA = {"ca": {"secretRef": {"name": "ca"}}}
OLD = replace(ENTRY, system=None)
SOUND = Standing(
    primary="a", identity=ServerIdentity(system_identifier=SYSTEM, timeline=1, lsn=0), refusal=None, primary_started="t"
)


def record(kind: Any, name: str, spec: dict[str, Any], *, status: dict[str, Any] | None = None, **meta: Any) -> Record:
    metadata = {"name": name, "namespace": "databases", "uid": "1", "resourceVersion": "1"}
    metadata |= {"creationTimestamp": "2026-11-22T10:00:00Z", **meta}
    return record_of(kind, {"metadata": metadata, "spec": spec, "status": status or {}})


def target_spec(**rest: Any) -> dict[str, Any]:
    credentials = {name: {"password": {"secretRef": {"name": name}}} for name in ("monitor", "users")}
    return {"mode": "Enforce", "members": [{"name": "a", "host": "a"}], "credentials": credentials, "tls": CA, **rest}


def user(**meta: Any) -> Record:
    return record(DATABASE_USER, "app", {"targetRef": {"name": "orders"}}, **meta)


@pytest.mark.parametrize(
    ("places", "key"),
    [
        ([], None),
        ([Place(key=ORDERS, system=SYSTEM)], ORDERS),
        # the name alone says nothing: that is another server now
        ([Place(key=ORDERS, system=ANOTHER)], None),
        ([Place(key=ORDERS, system=ANOTHER), Place(key=OTHER, system=SYSTEM)], OTHER),
        ([Place(key=OTHER, system=SYSTEM), Place(key=ORDERS, system=SYSTEM)], ORDERS),
        ([Place(key=OTHER, system=SYSTEM, open=False)], None),
        # what is kept is for when nobody else can
        ([Place(key=ORDERS, system=SYSTEM, kept=True)], ORDERS),
        ([Place(key=ORDERS, system=SYSTEM, kept=True), Place(key=OTHER, system=SYSTEM)], OTHER),
        ([Place(key=ORDERS, system=SYSTEM, kept=True), Place(key=ORDERS, system=ANOTHER)], ORDERS),
    ],
)
def test_it_is_undone_on_the_server_where_it_was_made(places: list[Place], key: ObjectKey | None) -> None:
    found = place_for(ENTRY, places)
    assert (found.key if found else None) == key


def test_what_an_earlier_version_left_goes_by_the_name() -> None:
    assert place_for(OLD, [Place(key=OTHER, system=SYSTEM)]) is None
    found = place_for(OLD, [Place(key=ORDERS, system=ANOTHER)])
    assert found is not None and found.key == ORDERS


@pytest.mark.parametrize(
    ("entry", "places", "lacks"),
    [
        (ENTRY, [], True),
        (OLD, [], True),
        (replace(ENTRY, retry=False), [], False),
        (ENTRY, [Place(key=ORDERS, system=ANOTHER), Place(key=OTHER, system=None)], True),
        # it may be the one: it is still to be probed
        (ENTRY, [Place(key=ORDERS, system=None)], False),
        # it is the one, and says itself why nothing is done
        (ENTRY, [Place(key=OTHER, system=SYSTEM, open=False)], False),
        (ENTRY, [Place(key=ORDERS, system=SYSTEM, kept=True)], False),
    ],
)
def test_what_lacks_a_credential(entry: Abandoned, places: list[Place], lacks: bool) -> None:
    assert lacks_credential(entry, places) is lacks


def test_an_entry_says_that_it_lacks_a_credential_and_of_which_server() -> None:
    told = lacking(ENTRY)
    assert told.reason.startswith("NeedsCredential: ") and SYSTEM in told.reason and told.sql == ENTRY.sql
    assert lacking(told) == told


def test_who_has_something_to_undo() -> None:
    assert is_undoable(user(finalizers=[FINALIZER]), None)
    assert not is_undoable(user(finalizers=["else.example/x"]), ENTRY)
    assert is_undoable(None, ENTRY)
    assert not is_undoable(None, replace(ENTRY, retry=False)) and not is_undoable(None, None)


class Secrets:
    def __init__(self) -> None:
        self.there = {"monitor", "users", "ca"}
        self.read: list[str] = []

    async def get(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None:
        self.read.append(name)
        values = {"password": Sensitive(f"of {name}")}
        there = name in self.there
        return SecretData(name=name, resource_version="1", values=values, annotations={}) if there else None


class Ground:
    """One target, probed, and its Secrets."""

    def __init__(self) -> None:
        self.secrets, self.undoable, self.index, clock = Secrets(), True, Index(), FakeClock()
        policy = WritePolicy(leading=lambda: True, braked=lambda: False)
        self.registry = Registry(
            secrets=cast(Any, self.secrets),
            policy=policy,
            installation="tests",
            clock=clock,
            undoable=lambda key: self.undoable,
        )
        self.door = Door(index=self.index, registry=self.registry, labels_of=cast(Any, None), watched=frozenset())

    async def opened(self, *read: str, keep: bool = True) -> Server:
        """The target exists and has been probed; these Secrets were read for it, and perhaps all that it takes."""
        self.index.put(record(POSTGRES_TARGET, "orders", target_spec()))
        server = await self.registry.server(ORDERS, TargetSpec.model_validate(target_spec()))
        server.standing = SOUND
        for name in read:
            await self.read(server, name)
        if keep:
            await self.registry.keep(ORDERS)
        return server

    async def read(self, server: Server, name: str) -> str:
        login = await server._login(name, cast(Any, getattr(server.spec.credentials, name)), fresh=False)
        return cast(Sensitive, login.password).reveal()

    async def deleted(self) -> None:
        """The target and its Secrets are gone."""
        self.index.drop(ORDERS)
        self.secrets.there.clear()
        await self.registry.retire(ORDERS)


async def test_the_credentials_of_a_target_that_is_gone_are_kept_while_they_are_needed() -> None:
    ground = Ground()
    live = await ground.opened("monitor", "users")
    await ground.deleted()
    assert ground.registry.find(ORDERS) is None
    kept = ground.registry.retired(ORDERS)
    assert kept is not None and kept is not live and kept.standing is SOUND and kept.spec == live.spec
    assert await ground.read(kept, "users") == "of users"
    await ground.registry.settle()
    assert ground.registry.retired(ORDERS) is kept
    ground.undoable = False
    await ground.registry.settle()
    assert ground.registry.retired(ORDERS) is None
    with pytest.raises(PgtendError, match="has changed or gone"):
        kept.writable()


async def test_what_was_read_before_anybody_needed_it_is_read_again() -> None:
    ground = Ground()
    ground.undoable = False
    await ground.opened("monitor", "users")
    await ground.registry.keep(ORDERS)
    ground.undoable = True
    assert ground.secrets.read == ["monitor", "users"]
    for _ in range(2):
        await ground.registry.keep(ORDERS)
    assert sorted(ground.secrets.read[2:]) == ["ca", "monitor", "users"], "each once"
    await ground.deleted()
    kept = ground.registry.retired(ORDERS)
    assert kept is not None and await ground.read(kept, "users") == "of users"


async def test_nothing_is_kept_where_nothing_is_to_be_undone() -> None:
    ground = Ground()
    ground.undoable = False
    await ground.opened("monitor", "users")
    ground.undoable = True  # too late: what was read before was not kept
    await ground.deleted()
    assert ground.registry.retired(ORDERS) is None


async def test_half_of_what_it_takes_is_not_kept() -> None:
    ground = Ground()
    await ground.opened("monitor", "users", keep=False)
    await ground.deleted()
    assert ground.registry.retired(ORDERS) is None, "the certificate authority is missing"


async def test_a_target_that_lives_does_not_do_with_a_secret_that_is_gone() -> None:
    ground = Ground()
    live = await ground.opened("users")
    ground.secrets.there.clear()
    with pytest.raises(PgtendError, match="Secret users does not exist"):
        await ground.read(live, "users")


async def test_one_that_is_held_by_its_users_does_with_what_was_kept() -> None:
    ground = Ground()
    live = await ground.opened("users", keep=False)
    ground.secrets.there.clear()
    ground.registry.going(ORDERS)
    assert await ground.read(live, "users") == "of users"
    with pytest.raises(PgtendError, match="Secret monitor does not exist"):
        await ground.read(live, "monitor")
    ground.undoable = False
    with pytest.raises(PgtendError, match="Secret users does not exist"):
        await ground.read(live, "users")


@pytest.mark.parametrize(
    ("reason", "kept"), [(TargetReason.SECRET_MISSING, True), (TargetReason.IDENTITY_CHANGED, False)]
)
async def test_a_target_in_doubt_is_not_kept_but_for_a_secret_that_went_first(reason: TargetReason, kept: bool) -> None:
    ground = Ground()
    live = await ground.opened("users")
    live.standing = replace(SOUND, primary=None, refusal=PgtendError(reason, "x"))
    await ground.deleted()
    found = ground.registry.retired(ORDERS)
    assert (found.standing if found else None) == (SOUND if kept else None)


async def test_what_is_kept_outlives_a_time_in_which_nobody_looks() -> None:
    """Suspended, or with a spec that is not valid: then the target goes as it is, its Secrets first."""
    ground = Ground()
    live = await ground.opened("monitor", "users")
    await ground.registry.rest(ORDERS)
    assert ground.registry.find(ORDERS) is None and ground.registry.retired(ORDERS) is None
    with pytest.raises(PgtendError, match="has changed or gone"):
        live.writable()
    await ground.registry.settle()
    await ground.deleted()
    kept = ground.registry.retired(ORDERS)
    assert kept is not None and kept.standing is SOUND and await ground.read(kept, "users") == "of users"


async def test_it_is_looked_at_again_without_its_secret_and_goes() -> None:
    ground = Ground()
    await ground.opened("monitor", "users")
    await ground.registry.rest(ORDERS)
    ground.secrets.there.clear()
    again = await ground.registry.server(ORDERS, TargetSpec.model_validate(target_spec(probeInterval="30s")))
    assert again.standing is None, "what was found before is no leave to write"
    again.standing = Standing(primary=None, identity=None, refusal=PgtendError(TargetReason.SECRET_MISSING, "x"))
    # and changed once more
    again = await ground.registry.server(ORDERS, TargetSpec.model_validate(target_spec(probeInterval="20s")))
    await ground.deleted()
    kept = ground.registry.retired(ORDERS)
    assert kept is not None and kept.standing is SOUND and await ground.read(kept, "users") == "of users"


async def test_of_other_members_nothing_is_known() -> None:
    ground = Ground()
    await ground.opened("monitor", "users")
    await ground.registry.rest(ORDERS)
    await ground.registry.server(ORDERS, TargetSpec.model_validate(target_spec(members=[{"name": "b", "host": "b"}])))
    await ground.deleted()
    assert ground.registry.retired(ORDERS) is None


async def test_what_rests_is_let_go_with_who_needed_it() -> None:
    ground = Ground()
    await ground.opened("monitor", "users")
    await ground.registry.rest(ORDERS)
    ground.undoable = False
    await ground.registry.settle()
    ground.undoable = True  # another, later: of him nothing was kept
    await ground.deleted()
    assert ground.registry.retired(ORDERS) is None


def test_an_uninstallation_remembers_who_has_something_to_undo() -> None:
    """Also who has not been deleted: that he is later, nobody sees."""
    held: dict[str, Any] = {"finalizers": [FINALIZER]}
    drop: dict[str, Any] = {"deletionPolicy": "Drop", "drop": {"reassignOwnedTo": "owner", "sessions": "Wait"}}

    def one(name: str, spec: dict[str, Any], *, status: dict[str, Any] | None = None, **meta: Any) -> Record:
        return record(DATABASE_USER, name, {"targetRef": {"name": "orders"}, **spec}, status=status, **meta)

    refused = {"conditions": [{"type": "Accepted", "status": "False", "reason": "NotPermitted", "message": "no"}]}
    users = [
        one("lives", drop, **held),
        one("goes", {"deletionPolicy": "Disable"}, **held, deletionTimestamp="2026-11-22T11:00:00Z"),
        one("stays", {}),
        one("retains", {"deletionPolicy": "Retain"}, **held),
        one("spoilt", {"deletionPolicy": 7}, **held),
        one("observes", {**drop, "mode": "Observe"}, **held),
        one("refused", drop, status=refused, **held),
        one("elsewhere", {**drop, "targetRef": {"name": "other"}}, **held),
    ]
    identity = {"identity": {"systemIdentifier": SYSTEM, "timeline": "1", "lsn": "0/1"}}
    orders = record(POSTGRES_TARGET, "orders", target_spec(), status=identity)
    found = {entry.name: entry for entry in remaining(users, [orders], now="2026-11-22T12:00:00Z")}
    assert found.keys() == {"lives", "goes", "observes", "refused", "elsewhere"}
    lives, goes = found["lives"], found["goes"]
    assert (lives.lived, lives.retry, lives.system, lives.sql) == (True, True, SYSTEM, "DROP ROLE lives")
    assert (lives.policy, lives.heir, lives.sessions, lives.target) == ("Drop", "owner", "Wait", "databases/orders")
    assert lives.reason == "BrakeOn: pgtend was uninstalled"
    assert (goes.lived, goes.retry, goes.sql) == (False, True, "ALTER ROLE goes NOLOGIN")
    assert {name for name, entry in found.items() if not entry.retry} == {"observes", "refused"}
    assert found["elsewhere"].system is None
    observed = record(POSTGRES_TARGET, "orders", target_spec(mode="Observe"), status=identity)
    assert not any(entry.retry for entry in remaining(users[:2], [observed], now="x"))


class Book:
    """A ledger of one entry."""

    def __init__(self, entry: Abandoned) -> None:
        self.entry: Abandoned | None = entry

    async def load(self) -> None:
        pass

    def entries(self) -> tuple[Abandoned, ...]:
        return (self.entry,) if self.entry is not None else ()

    def get(self, key: ObjectKey) -> Abandoned | None:
        return self.entry if self.entry is not None and self.entry.key == key else None

    async def remove(self, *keys: ObjectKey) -> None:
        if self.entry is not None and self.entry.key in keys:
            self.entry = None

    async def add(self, *entries: Abandoned) -> None:
        pass


@pytest.mark.parametrize("lived", [True, False])
async def test_who_lived_at_the_uninstallation_is_waited_for(lived: bool) -> None:
    """A reinstallation may start before its objects are back, and a role that is needed is dropped by nobody."""
    clock, book, tried = FakeClock(), Book(replace(ENTRY, lived=lived)), []
    braked = True

    class Undone:
        async def retry(self, entry: Abandoned, situation: Situation) -> Outcome:
            tried.append(entry.role)
            return Outcome()

    class Somewhere:
        def where(self, entry: Abandoned) -> tuple[Target | None, bool]:
            return Target(key=ORDERS), False

    departures = Departures(
        door=cast(Any, Somewhere()),
        finisher=cast(Any, Undone()),
        ledger=cast(Any, book),
        clock=clock,
        braked=lambda: braked,
        depend=lambda key, on: None,
        wake=lambda key: None,
    )
    await departures.start()
    clock.advance(RETURN_SECONDS - 1)
    outcome = await departures.gone(ENTRY.key, [])
    assert tried == ([] if lived else ["app"]) and outcome.again == (1.0 if lived else None)
    clock.advance(1)
    await departures.gone(ENTRY.key, [])
    assert tried[-1] == "app"
    # back again: what was written for after the uninstallation is not taken out while it goes on
    await departures.settled(lives=[ENTRY.key], lacks=[])
    assert book.entry is not None
    braked = False
    await departures.settled(lives=[ENTRY.key], lacks=[])
    assert book.entry is None


async def test_only_who_is_deleted_gets_at_what_is_kept() -> None:
    ground = Ground()
    live = await ground.opened("users")
    assert ground.door.last(ground.door.target(ORDERS)).server is live
    ground.index.drop(ORDERS)
    # the deletion is not worked off yet: neither gone for good nor to be used
    waiting = ground.door.last(ground.door.target(ORDERS))
    assert waiting.server is None and waiting.refusal is None and waiting.problem is not None
    await ground.deleted()
    target = ground.door.target(ORDERS)
    assert target.server is None and target.refusal is not None and target.refusal.reason is R.TARGET_NOT_FOUND
    last = ground.door.last(target)
    assert last.refusal is None and last.server is ground.registry.retired(ORDERS)
    assert ground.door.system(last) == SYSTEM
    # what was left there is undone by the same way
    where, lacks = ground.door.where(ENTRY)
    assert where is not None and where.server is last.server and not lacks
    ground.undoable = False
    await ground.registry.settle()
    assert ground.door.where(ENTRY) == (None, True)
    assert ground.door.last(ground.door.target(ORDERS)).refusal is not None
    assert ground.door.system(ground.door.target(ORDERS)) == SYSTEM, "it is still known which server that was"


async def test_another_target_of_that_server_must_admit_the_role() -> None:
    ground = Ground()

    def put(**spec: Any) -> None:
        identity = {"systemIdentifier": SYSTEM, "timeline": "1", "lsn": "0/0"}
        ground.index.put(record(POSTGRES_TARGET, "other", target_spec(**spec), status={"identity": identity}))

    put()
    assert ground.door.where(ENTRY)[0] is None, "shop is not the target's namespace"
    assert ground.door.where(replace(ENTRY, namespace="databases"))[0] is not None
    entry = {"name": "shop", "namespaces": {"names": ["shop"]}, "kinds": ["DatabaseUser"]}
    limits = {"databases": ["x"], "maxPrivileges": ["Connect"]}
    put(access=[{**entry, "users": {**limits, "rolePattern": "shop_*"}}])
    assert ground.door.where(ENTRY)[0] is None
    put(access=[{**entry, "users": {**limits, "rolePattern": "app"}}])
    where, lacks = ground.door.where(ENTRY)
    assert where is not None and where.key == OTHER and not lacks
    put(access=[{**entry, "users": {**limits, "rolePattern": "app"}}], mode="Observe")
    assert ground.door.where(ENTRY) == (None, False)


async def test_a_server_that_is_not_reached_is_not_tried_by_each_of_many() -> None:
    clock, none = FakeClock(), cast(Any, None)
    finisher = Finisher(
        client=none, keeper=none, ledger=none, status=none, looker=none, installation="tests", clock=clock, pace=none
    )
    ground = Ground()
    server, tries = await ground.opened(), 0

    async def work(server: Server) -> Problem | None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise PgtendError(TargetReason.TIMED_OUT, "a does not answer")
        return None

    for _ in range(50):
        problem = await finisher._try(work, server)
        assert problem is not None and problem.transient and problem.reason is TargetReason.TIMED_OUT
    assert tries == 1
    clock.advance(LOST_SECONDS)
    assert await finisher._try(work, server) is None and tries == 2


async def test_who_waits_for_its_turn_does_not_look() -> None:
    """Fifty that are deleted at once share a batch of bounded time, and five of them may go."""
    clock, none, looked = FakeClock(), cast(Any, None), []
    pace = Pace(clock)

    def looker(server: Server) -> Any:
        looked.append(server.key)
        raise PgtendError(TargetReason.TIMED_OUT, "looked")

    finisher = Finisher(
        client=none, keeper=none, ledger=none, status=none, looker=looker, installation="tests", clock=clock, pace=pace
    )
    server = await Ground().opened()
    for _ in range(server.spec.max_destructive_per_pass):
        assert pace.take(ORDERS, server.spec.max_destructive_per_pass) is None
    for _ in range(50):
        problem = await finisher.undo(server, ENTRY.key, "app", "Drop", How())
        assert problem is not None and problem.reason is R.TOO_MANY_AT_ONCE
    assert looked == []
    clock.advance(pace.wait(ORDERS))
    with pytest.raises(PgtendError, match="looked"):
        await finisher.undo(server, ENTRY.key, "app", "Drop", How())
