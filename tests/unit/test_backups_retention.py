"""Whatever the bucket looks like, retention never takes what is needed, and ends what it began."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.backup_world import NOW, POLICY, PREFIX, World

from pgtend.backups.retention import (
    DeleteObject,
    Kept,
    Paused,
    PutTombstone,
    RetentionPlan,
    plan_retention,
)

DAY = timedelta(days=1)


def plan(world: World, *, keep: int = 30, floor: int = 3, failed: bool = False, **more: object) -> RetentionPlan:
    return plan_retention(
        catalog=world.catalog(),
        now=NOW,
        keep_for=keep * DAY,
        min_verified=floor,
        last_run_failed=failed,
        **more,  # type: ignore[arg-type]
    )


backups = st.lists(
    st.tuples(st.integers(0, 90), st.booleans(), st.sampled_from([POLICY, POLICY, POLICY, "other"])), max_size=12
)


def build(specs: list[tuple[int, bool, str]]) -> World:
    world = World()
    for age, verified, policy in specs:
        world.backup(age_days=age, verified=verified, policy=policy)
    world.add("notes.txt", b"somebody else's")
    return world


@given(backups, st.integers(1, 60), st.integers(1, 5), st.booleans())
def test_what_is_needed_stays(specs: list[tuple[int, bool, str]], keep: int, floor: int, failed: bool) -> None:
    world = build(specs)
    before = world.catalog()
    foreign = {k for k in world.sizes if "notes" in k} | {o.key for run in before.others for o in run.objects}
    result = plan(world, keep=keep, floor=floor, failed=failed)
    for deletion in result.deletions:
        world.carry_out(deletion)
    after = world.catalog()
    assert foreign <= set(world.sizes)
    assert not after.dying and not after.uncommitted and not after.unreadable
    verified_before = sum(b.verified for b in before.backups)
    verified_after = sum(b.verified for b in after.backups)
    assert verified_after >= min(floor, verified_before)
    if before.newest_verified is not None:
        assert after.newest_verified is not None
        assert after.newest_verified.run.location == before.newest_verified.run.location
    if before.newest is not None:
        assert after.newest is not None and after.newest.run.location == before.newest.run.location
    gone = {b.run.location for b in before.backups} - {b.run.location for b in after.backups}
    assert all(b.manifest.finished_at + keep * DAY <= NOW for b in before.backups if b.run.location in gone)
    if failed or verified_before < floor:
        assert not gone
    again = plan(world, keep=keep, floor=floor, failed=failed)
    assert len(again.deletions) == 0 or len(result.deletions) == 10


@given(backups, st.integers(0, 5))
def test_a_crash_at_any_step_is_resumed_and_nothing_half_deleted_counts(
    specs: list[tuple[int, bool, str]], steps: int
) -> None:
    world, whole = build(specs), build(specs)
    result = plan(world, floor=1)
    for deletion in result.deletions[:1]:
        world.carry_out(deletion, steps=steps)
        if steps > 0:
            assert all(b.run.location.manifest != deletion.manifest for b in world.catalog().backups)
    for _ in range(3):
        for deletion in plan(world, floor=1).deletions:
            world.carry_out(deletion)
        for deletion in plan(whole, floor=1).deletions:
            whole.carry_out(deletion)
    assert world.sizes == whole.sizes


@given(backups)
def test_a_tombstone_comes_first_and_goes_last(specs: list[tuple[int, bool, str]]) -> None:
    world = build(specs)
    for deletion in plan(world, floor=1).deletions:
        first, *middle, last = deletion.steps
        assert isinstance(first, PutTombstone) and first.key == deletion.manifest
        assert last == DeleteObject(key=deletion.manifest)
        assert all(isinstance(s, DeleteObject) and s.key != deletion.manifest for s in middle)
        assert deletion.orders[0] == (first.key, first.body) and deletion.orders[-1] == (last.key, None)


def test_expired_backups_go_oldest_first_and_the_rest_says_why_it_stays() -> None:
    world = World()
    ages = [50, 45, 40, 35, 31, 10, 1]
    where = {age: world.backup(age_days=age, verified=age != 45) for age in ages}
    result = plan(world, floor=4)
    assert [d.manifest for d in result.deletions] == [where[50].manifest, where[45].manifest, where[40].manifest]
    assert result.kept == {where[35].manifest: Kept.FLOOR, where[31].manifest: Kept.FLOOR}
    assert result.paused is None
    limited = plan(world, floor=1, max_per_pass=1)
    assert [d.manifest for d in limited.deletions] == [where[50].manifest]
    assert set(limited.kept.values()) == {Kept.LATER}


def test_reasons_to_pause() -> None:
    world = World()
    old = world.backup(age_days=40, verified=True)
    world.backup(age_days=1, verified=True)
    assert plan(world, floor=1, failed=True).paused is Paused.LAST_RUN_FAILED
    below = plan(world, floor=3)
    assert below.paused is Paused.BELOW_FLOOR and below.kept == {old.manifest: Kept.PAUSED}
    assert plan(world, floor=1).deletions


def test_what_somebody_holds_stays_by_record_and_by_manifest() -> None:
    world = World()
    held = world.backup(age_days=60, verified=True)
    promised = world.backup(age_days=50, verified=True, retain_until=NOW + DAY)
    for age in (3, 2, 1):
        world.backup(age_days=age, verified=True)
    result = plan(world, held={held.manifest})
    assert not result.deletions and result.kept == {held.manifest: Kept.HELD}
    assert promised.manifest not in result.kept  # it has not expired yet


def test_the_only_verified_backup_stays_however_old_it_is() -> None:
    world = World()
    old = world.backup(age_days=400, verified=True)
    world.backup(age_days=1)
    result = plan(world, floor=1)
    assert not result.deletions and result.kept == {old.manifest: Kept.NEWEST_VERIFIED}


def test_without_any_verified_backup_nothing_goes() -> None:
    world = World()
    for age in (50, 40, 1):
        world.backup(age_days=age)
    assert not plan(world, floor=1).deletions


def test_a_manifest_that_names_keys_elsewhere_reaches_only_its_own_folder() -> None:
    world = World()
    victim = world.backup(age_days=5, verified=True)
    attacker = world.backup(age_days=60)
    for age in (3, 2, 1):
        world.backup(age_days=age, verified=True)
    raw = world.contents[attacker.manifest]
    world.contents[attacker.manifest] = raw.replace(attacker.globals.encode(), victim.dump("orders").encode())
    world.sizes[attacker.folder + "sub/x"] = 1
    (deletion,) = plan(world).deletions
    assert all(key.startswith(attacker.folder) for key, _ in deletion.orders)
    assert f"{PREFIX}/notes.txt" not in dict(deletion.orders)


def test_a_tombstone_that_names_keys_elsewhere_reaches_only_its_own_folder() -> None:
    world = World()
    victim = world.backup(age_days=5, verified=True)
    dying = world.backup(age_days=60)
    world.bury(dying)
    raw = world.contents[dying.manifest]
    world.contents[dying.manifest] = raw.replace(dying.globals.encode(), victim.dump("orders").encode())
    (deletion,) = plan(world).deletions
    assert deletion.resumed
    assert all(key.startswith(dying.folder) for key, _ in deletion.orders)
