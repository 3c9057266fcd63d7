"""What people copy is right: every example parses, and the schedules of production mean what their comments say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pgtend.api.base import GROUP
from pgtend.api.kinds import BY_NAME
from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.backups.plan import timetable

EXAMPLES = Path(__file__).parents[2] / "examples"
# in the place where demo.py puts the one that it has just made
RECIPIENT = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"


def objects(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """(where, object) of every object of ours below a folder."""
    return [
        (f"{path.relative_to(EXAMPLES)}:{body['kind']}", body)
        for path in sorted(folder.rglob("*.yaml"))
        for body in yaml.safe_load_all(path.read_text().replace("AGE_RECIPIENT", RECIPIENT))
        if body and str(body.get("apiVersion", "")).startswith(f"{GROUP}/")
    ]


@pytest.mark.parametrize(
    ("where", "body"), objects(EXAMPLES), ids=lambda value: value if isinstance(value, str) else ""
)
def test_it_parses(where: str, body: dict[str, Any]) -> None:
    assert body["metadata"].get("name") or body["metadata"].get("generateName"), where
    BY_NAME[body["kind"]].spec.model_validate(body["spec"])


def test_production_has_what_is_tended_day_by_day() -> None:
    kinds = {body["kind"] for _, body in objects(EXAMPLES / "production")}
    assert kinds >= {"PostgresTarget", "DatabaseUser", "BackupDestination", "PostgresBackupPolicy"}
    assert not kinds & {"PostgresBackup", "PostgresOperation"}, "what is done once does not belong into Git"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def backups(body: dict[str, Any]) -> Callable[[datetime], datetime | None]:
    table = timetable(PolicySpec.model_validate(body["spec"]))
    return table.next_after


@pytest.mark.parametrize(
    ("now", "following"),
    [
        ("2026-11-22T01:59:59", "2026-11-22T02:00:00"),
        ("2026-11-22T02:00:00", "2026-11-23T02:00:00"),
        ("2026-12-31T12:00:00", "2027-01-01T02:00:00"),
        # where Berlin's clock moves, in either direction: UTC does not
        ("2026-03-28T12:00:00", "2026-03-29T02:00:00"),
        ("2026-10-25T01:30:00", "2026-10-25T02:00:00"),
    ],
)
def test_production_is_backed_up_at_two_at_night(now: str, following: str) -> None:
    bodies = [body for _, body in objects(EXAMPLES / "production") if body["kind"] == "PostgresBackupPolicy"]
    assert len(bodies) == 1
    assert backups(bodies[0])(at(now)) == at(following)


def test_the_hook_of_argo_cd_gets_a_new_backup_each_time() -> None:
    [(_, body)] = objects(EXAMPLES / "argocd")
    schema = yaml.safe_load((EXAMPLES.parent / "crds" / "pgtend.dev_postgresbackups.yaml").read_text())
    (version,) = schema["spec"]["versions"]
    jsonschema.validate(body, version["schema"]["openAPIV3Schema"])
    meta = body["metadata"]
    assert body["kind"] == "PostgresBackup" and "name" not in meta, "a name would be the same backup each time"
    assert meta["annotations"]["argocd.argoproj.io/hook"] == "PreSync"
    # Argo CD makes the name of it, and a name of ours has 56 characters at most
    made = f"{meta['generateName']}a1b2c3d-presync-1795000000"
    assert len(made) <= (BY_NAME["PostgresBackup"].name_max_length or 0)
