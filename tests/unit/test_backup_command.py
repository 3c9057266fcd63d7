"""What `pgtend backup` makes of a bucket and of records, and what it refuses before it reaches anything."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.unit.backup_world import INSTALLATION, NOW, PREFIX, World

from pgtend.__main__ import main
from pgtend.backups.catalog import Listed, read_catalog, sort_listing
from pgtend.cli.backup_fetch import fresh_file
from pgtend.cli.backup_list import Found, of_catalog, of_records, render
from pgtend.cli.backup_now import Outcome, follow, judge, wish
from pgtend.core.errors import PgtendError
from pgtend.kube.client import NotFound, Unavailable
from pgtend.objectstore.errors import StoreReason


def everything(world: World) -> Found:
    listing = sort_listing(prefix=PREFIX, listed=[Listed(key=k, size=s) for k, s in sorted(world.sizes.items())])
    catalog = read_catalog(listing=listing, contents=world.contents, installation=None, policy=None)
    return of_catalog(catalog, location="s3://bucket/production", policy=None, now=NOW)


def document(found: Found) -> dict[str, Any]:
    (text,) = render(found, "json", now=NOW)
    return dict(json.loads(text))


def test_backups_of_every_policy_and_installation_are_listed_oldest_first() -> None:
    world = World()
    world.backup(age_days=1, verified=True)
    world.backup(age_days=3, policy="shop")
    world.backup(age_days=2, installation="another")
    told = document(everything(world))
    assert [one["ageSeconds"] // 86_400 for one in told["backups"]] == [3, 2, 1]
    assert [one["policy"]["name"] for one in told["backups"]] == ["shop", "orders", "orders"]
    assert [one["verified"] is not None for one in told["backups"]] == [False, False, True]
    # a policy's own catalog is not made wider by that
    assert len(world.catalog().backups) == 1 and len(world.catalog().others) == 2
    assert INSTALLATION != "another"


def test_what_is_no_backup_is_told_apart() -> None:
    world = World()
    good = world.backup(age_days=1, verified=True)
    died, buried, torn = (world.backup(age_days=days) for days in (2, 3, 4))
    world.drop(died.manifest)
    world.bury(buried)
    world.add("odd.txt", b"x")
    world.contents[torn.manifest] = b"{"
    found = everything(world)
    assert [row.manifest for row in found.rows] == [good.manifest]
    assert {(one.what, one.where) for one in found.others} == {
        ("Uncommitted", died.folder),
        ("Dying", buried.folder),
        ("Unreadable", torn.folder),
        ("Foreign", f"{PREFIX}/odd.txt"),
    }
    assert found.harmed
    world.drop(torn.manifest)
    assert not everything(world).harmed
    world.drop(good.dump("orders"))
    assert everything(world).harmed
    (row,) = everything(world).rows
    assert row.broken == f"{good.dump('orders')} is missing" and row.verified is None


def test_a_name_that_would_steer_the_terminal_does_not() -> None:
    world = World()
    world.add("\x1b[2Jgone", b"x")
    text = "\n".join(render(everything(world), "text", now=NOW))
    assert "\x1b" not in text and "\\x1b[2Jgone" in text


def record(name: str, *, available: str, complete: str = "True", **status: Any) -> dict[str, Any]:
    conditions = [
        {"type": "Complete", "status": complete, "reason": "DumpFailed", "message": "pg_dump said no"},
        {"type": "Available", "status": available, "reason": "Missing", "message": "gone"},
    ]
    return {
        "metadata": {"namespace": "databases", "name": name},
        "spec": {"policyRef": {"name": "orders"}},
        "status": {"conditions": conditions, **status},
    }


def test_records_that_are_no_backup_are_none() -> None:
    whole = {
        "policy": "orders",
        "manifest": "production/7/dump/20261121-020003-4f1c/manifest.json",
        "origin": {"systemIdentifier": "7", "timeline": "1", "serverVersion": "17.7"},
        "snapshot": {"takenAt": "2026-11-21T03:00:00Z", "lsn": "0/1"},
        "finishedAt": "2026-11-21T03:05:00Z",
        "size": {"raw": "9Gi", "stored": "2Gi"},
        "databases": [{"name": "orders", "tables": 3}],
        "recipients": ["verify"],
    }
    bodies = [
        record("good", available="True", **whole, verified={"level": "Read", "verifiedAt": "2026-11-21T03:20:00Z"}),
        record("failed", available="False", complete="False"),
        record("lost", available="False", **whole),
        {"metadata": {"namespace": "databases", "name": "fresh"}, "spec": {"policyRef": {"name": "orders"}}},
    ]
    told = document(of_records(bodies, source="namespace databases", policy="databases/orders"))
    (good,) = told["backups"]
    assert good["name"] == "good" and good["ageSeconds"] == timedelta(days=1).total_seconds()
    assert good["verified"] == {"level": "Read", "at": "2026-11-21T03:20:00Z"} and good["bytes"] is None
    messages = {one["where"].split("/")[1]: one["message"] for one in told["notBackups"]}
    assert messages == {
        "failed": "Complete=False/DumpFailed: pg_dump said no",
        "lost": "Available=False/Missing: gone",
        "fresh": "the operator has not looked at it yet",
    }
    assert of_records(bodies, source="", policy="shop").rows == ()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["list"], "exactly one of a bucket"),
        (["list", "--bucket", "b-1"], "--bucket and --prefix"),
        (["list", "-A", "--bucket", "b-1", "--prefix", "p"], "exactly one of a bucket"),
        (["list", "--destination-file", "d.yaml", "--prefix", "p"], "leave the flags"),
        (["list", "--bucket", "b-1", "--prefix", "p", "--key-id-file", "id"], "need each other"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], text: str) -> None:
    done = CliRunner().invoke(main, ["backup", *words])
    assert done.exit_code == 2 and text in done.stderr


def test_a_destination_file_must_hold_one(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text("kind: ConfigMap\n")
    done = CliRunner().invoke(main, ["backup", "list", "--destination-file", str(path)])
    assert done.exit_code == 1 and "holds 0 BackupDestinations" in done.stderr
    path.write_text("apiVersion: pgtend.dev/v1alpha1\nkind: BackupDestination\nmetadata: {name: s3}\nspec: {}\n")
    done = CliRunner().invoke(main, ["backup", "list", "--destination-file", str(path)])
    assert done.exit_code == 1 and "spec.s3: Field required" in done.stderr


def test_a_file_has_its_name_only_at_a_good_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with fresh_file(path) as file:
        file.write(b"all of it")
        assert not path.exists()
    assert path.read_bytes() == b"all of it" and path.stat().st_mode & 0o777 == 0o600
    other = tmp_path / "other"
    for error in (PgtendError(StoreReason.READ_FAILED, "x"), KeyboardInterrupt(), SystemExit(143), OSError("full")):
        with pytest.raises(type(error)), fresh_file(other) as file:
            file.write(b"some")
            raise error
        assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("links", [True, False])
def test_who_takes_the_name_meanwhile_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:

        def refuse(self: Path, target: Path) -> None:
            raise PermissionError("no links here")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "file"
    with pytest.raises(FileExistsError), fresh_file(path) as file:
        file.write(b"late")
        path.write_text("first")
    assert path.read_text() == "first" and [one.name for one in tmp_path.iterdir()] == ["file"]
    with pytest.raises(FileExistsError), fresh_file(path):
        pass
    with fresh_file(tmp_path / "fresh") as file:
        file.write(b"whole")
    assert (tmp_path / "fresh").read_bytes() == b"whole"


def test_being_told_to_stop_leaves_no_file(tmp_path: Path) -> None:
    program = """
import os, signal, sys, time
from pathlib import Path
from pgtend.cli.backup_fetch import fresh_file
with fresh_file(Path(sys.argv[1])) as file:
    file.write(b"some")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    environment = {"PYTHONPATH": ":".join(part for part in sys.path if part.endswith("operator"))}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "file")],
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 143 and list(tmp_path.iterdir()) == []


def conditions(**told: str) -> dict[str, Any]:
    """`Complete="True/Committed"` and so on, as a status has them."""
    found = []
    for kind, text in told.items():
        status, _, reason = text.partition("/")
        found.append({"type": kind, "status": status, "reason": reason, "message": f"of {kind}"})
    return {"conditions": found, "manifest": "p/7/dump/x/manifest.json", "size": {"stored": "2Gi", "raw": "9Gi"}}


COMMITTED = {"Complete": "True/Committed", "Available": "True/AsExpected"}
JUDGED: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({}, None, None),
    (conditions(Complete="Unknown/Running", Ready="Unknown/Running"), None, None),
    (conditions(Complete="False/Waiting", Ready="False/Waiting"), None, None),
    (conditions(Complete="False/DumpFailed", Ready="False/DumpFailed", Stalled="True/DumpFailed"), "Failed", "Failed"),
    (conditions(Complete="Unknown/Expired", Ready="True/Expired"), "NotTaken", "NotTaken"),
    (conditions(Complete="Unknown/Observing", Ready="True/Observing"), "NotTaken", "NotTaken"),
    (conditions(**COMMITTED, Verified="Unknown/VerifyPending"), "Complete", None),
    (conditions(**COMMITTED, Verified="False/ChecksumMismatch"), "Complete", "Failed"),
    (conditions(**COMMITTED, Verified="True/AsExpected"), "Complete", "Verified"),
    (conditions(Complete="True/Committed", Verified="Unknown/Missing", Available="False/Missing"), "Failed", "Failed"),
]


@pytest.mark.parametrize(("status", "complete", "verified"), JUDGED)
def test_what_came_of_a_wish(status: dict[str, Any], complete: str | None, verified: str | None) -> None:
    def result(outcome: Outcome | None) -> str | None:
        return outcome.result if outcome is not None else None

    assert result(judge("now", "databases", status, until="Complete")) == complete
    assert result(judge("now", "databases", status, until="Verified")) == verified


def test_a_wish_has_a_name_that_fits_and_a_spec_with_a_meaning() -> None:
    body = wish("orders", "databases", name=None, spec={"reason": "release", "notAfter": None})
    assert body["metadata"] == {"generateName": "orders-", "namespace": "databases"}
    assert body["spec"] == {"policyRef": {"name": "orders"}, "reason": "release"}
    long = wish("x" * 49 + "-" + "y" * 40, "databases", name=None, spec={})["metadata"]["generateName"]
    assert long == "x" * 49 + "-" and len(long) + 5 <= 56
    assert wish("orders", "databases", name="mine", spec={})["metadata"]["name"] == "mine"
    with pytest.raises(ValueError, match="notAfter"):
        wish("orders", "databases", name=None, spec={"notAfter": "tomorrow"})


class Api:
    """Answers `get` with one after the other, the last again and again."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def get(self, *_: Any) -> dict[str, Any]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"status": answer}


async def test_waiting_outlives_an_api_server_that_is_away_and_ends() -> None:
    asked = Outcome(name="now", namespace="databases", result="Created")
    api: Any = Api(
        Unavailable(0, "Unreachable", "x"), {}, conditions(Complete="Unknown/Running"), conditions(**COMMITTED)
    )
    ended = await follow(api, asked, until="Complete", seconds=60, every=0)
    assert ended.good
    assert ended.text == "databases/now: Complete: Committed: of Complete, 2Gi at p/7/dump/x/manifest.json"
    api = Api(conditions(Complete="False/Waiting"))
    ended = await follow(api, asked, until="Complete", seconds=0, every=0)
    assert ended.result == "TimedOut" and "Complete=False/Waiting: of Complete" in ended.message
    api = Api(NotFound(404, "NotFound", "x"))
    ended = await follow(api, asked, until="Complete", seconds=60)
    assert (ended.result, ended.message) == ("Failed", "it was deleted meanwhile")


@pytest.mark.parametrize(
    ("words", "text"),
    [(["orders", "--until", "Verified"], "--until is for --wait"), (["orders", "--timeout", "soon"], "--timeout")],
)
def test_what_makes_no_sense_of_a_backup_now_is_refused(words: list[str], text: str) -> None:
    done = CliRunner().invoke(main, ["backup", "now", *words])
    assert done.exit_code == 2 and text in done.stderr
