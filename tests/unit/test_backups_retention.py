"""Whatever the bucket looks like, retention never takes what is needed, and ends what it began."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.backup_world import NOW, POLICY, PREFIX, World

from pgtend.api.postgresbackuppolicy import Keep, Retention
from pgtend.backups.catalog import Catalog
from pgtend.backups.generations import longest, standing
from pgtend.backups.judge import summarize
from pgtend.backups.retention import (
    KEEP_NONE,
    DeleteObject,
    Kept,
    Paused,
    PutTombstone,
    RetentionPlan,
    plan_retention,
)

DAY = timedelta(days=1)


def plan(
    world: World,
    *,
    keep: int = 30,
    floor: int = 3,
    failed: bool = False,
    generations: Keep = KEEP_NONE,
    catalog: Catalog | None = None,
    **more: object,
) -> RetentionPlan:
    return plan_retention(
        catalog=catalog or world.catalog(),
        now=NOW,
        keep_for=keep * DAY,
        min_verified=floor,
        last_run_failed=failed,
        keep=generations,
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


keeps = st.builds(Keep, **{name: st.integers(0, 4) for name in ("daily", "weekly", "monthly", "yearly")})


@given(backups, st.integers(1, 60), st.integers(1, 5), st.booleans(), keeps, st.data())
def test_what_is_needed_stays(
    specs: list[tuple[int, bool, str]], keep: int, floor: int, failed: bool, generations: Keep, data: st.DataObject
) -> None:
    world = build(specs)
    before = world.catalog()
    keys = [b.run.location.manifest for b in before.backups]
    in_use = set(data.draw(st.lists(st.sampled_from(keys), max_size=3))) if keys else set()
    stays = in_use | standing(before.backups, keep=generations, zone=UTC)
    foreign = {k for k in world.sizes if "notes" in k} | {o.key for run in before.others for o in run.objects}
    result = plan(world, keep=keep, floor=floor, failed=failed, generations=generations, in_use=in_use)
    for deletion in result.deletions:
        world.carry_out(deletion)
    after = world.catalog()
    assert stays <= {b.run.location.manifest for b in after.backups}
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
    again = plan(world, keep=keep, floor=floor, failed=failed, generations=generations, in_use=in_use)
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


def test_what_is_restored_or_read_back_stays_and_goes_when_that_has_ended() -> None:
    world = World()
    read = world.backup(age_days=60, verified=True)
    for age in (3, 2, 1):
        world.backup(age_days=age, verified=True)
    result = plan(world, in_use={read.manifest})
    assert not result.deletions and result.kept == {read.manifest: Kept.IN_USE}
    assert [d.manifest for d in plan(world).deletions] == [read.manifest]


def test_a_restore_does_not_bring_back_what_is_half_deleted() -> None:
    world = World()
    dying = world.backup(age_days=60)
    world.bury(dying)
    (deletion,) = plan(world, in_use={dying.manifest}).deletions
    assert deletion.resumed


def test_the_newest_of_each_period_stays_beyond_keep_for() -> None:
    world = World()  # it is Sunday, 22 November 2026
    where = {age: world.backup(age_days=age, verified=True) for age in range(100, -1, -1)}
    result = plan(world, keep=2, generations=Keep(daily=4, weekly=3, monthly=2), max_per_pass=1000)
    left = set(where.values()) - {w for w in where.values() if w.manifest in {d.manifest for d in result.deletions}}
    # four days, the Sundays of three weeks, the last days of November so far and of October
    assert left == {where[age] for age in (0, 1, 2, 3, 7, 14, 22)}
    assert result.kept == {where[age].manifest: Kept.GENERATION for age in (2, 3, 7, 14, 22)}


def test_a_pause_in_the_backups_ages_no_generation_away() -> None:
    world = World()
    old = [world.backup(age_days=age, verified=True) for age in (400, 370, 340)]
    world.backup(age_days=0.1, verified=True)
    result = plan(world, keep=1, floor=1, generations=Keep(monthly=4))
    assert not result.deletions and set(result.kept) == {w.manifest for w in old}


def test_a_period_is_stood_for_by_what_was_read_back() -> None:
    world = World()
    good = world.backup(age_days=45.4, verified=True)
    unread = world.backup(age_days=45.3)
    world.backup(age_days=1, verified=True)
    result = plan(world, floor=1, generations=Keep(daily=2))
    assert [d.manifest for d in result.deletions] == [unread.manifest]
    assert result.kept == {good.manifest: Kept.GENERATION}


@pytest.mark.parametrize(("zone", "left"), [("Etc/UTC", 1), ("Asia/Tokyo", 2), ("America/Los_Angeles", 1)])
def test_days_are_those_of_the_policy(zone: str, left: int) -> None:
    world = World()
    # 14:30 and 15:30 in UTC: midnight in Tokyo is between
    for hour in (14, 15):
        moment = datetime(2026, 11, 20, hour, 40, tzinfo=UTC)  # it began ten minutes earlier
        world.backup(age_days=(NOW - moment) / DAY, verified=True)
    found = standing(world.catalog().backups, keep=Keep(daily=5), zone=ZoneInfo(zone))
    assert len(found) == left


def test_how_old_a_backup_becomes() -> None:
    assert longest(Retention()) == 30 * DAY
    assert longest(Retention(keep=Keep(daily=7, weekly=4))) == 30 * DAY
    assert longest(Retention(keep=Keep(weekly=8, monthly=12, yearly=2))) == 732 * DAY


def test_what_the_store_locks_stays_until_its_lock_ends() -> None:
    world = World()
    locked = world.backup(age_days=60, verified=True, locked_until=NOW + DAY)
    free = world.backup(age_days=50, verified=True, locked_until=NOW)
    for age in (3, 2, 1):
        world.backup(age_days=age, verified=True, locked_until=NOW + 9 * DAY)
    result = plan(world)
    assert [d.manifest for d in result.deletions] == [free.manifest]
    assert result.kept == {locked.manifest: Kept.LOCKED}
    assert summarize(world.catalog(), now=NOW).locked == 4


def test_what_another_installation_has_left_goes_only_when_it_was_adopted() -> None:
    world = World()
    lost = world.backup(age_days=60, verified=True, installation="lost-cluster")
    stranger = world.backup(age_days=60, verified=True, installation="lost-cluster", policy="other")
    for age in (3, 2, 1):
        world.backup(age_days=age, verified=True)
    assert not plan(world).deletions
    adopted = world.catalog(adopt=True)
    (deletion,) = plan(world, catalog=adopted).deletions
    assert deletion.manifest == lost.manifest != stranger.manifest
    world.carry_out(deletion)
    assert stranger.manifest in world.contents


def test_while_another_installation_goes_on_nothing_goes() -> None:
    world = World()
    dying = world.backup(age_days=70)
    world.bury(dying)
    world.backup(age_days=60, verified=True, installation="lost-cluster")
    for age in (3, 2, 1):
        world.backup(age_days=age, verified=True)
    result = plan(world, catalog=world.catalog(adopt=True), contested=True)
    assert not result.deletions and result.paused is Paused.CONTESTED and len(result.kept) == 1
