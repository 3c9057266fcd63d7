"""Every kind has its controller, made when its first object comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock

import pytest

from pgtend.api.kinds import KINDS
from pgtend.app.domains import Domains
from pgtend.core.findings import ObjectKey

ALWAYS = {"PostgresTarget", "DatabaseUser"}
PROPERTY = {
    "BackupDestination": "destinations",
    "PostgresBackupPolicy": "policies",
    "PostgresBackup": "records",
    "MaintenanceWindow": "windows",
    "MaintenanceRun": "runs",
    "PostgresOperation": "operations",
}


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
async def test_a_controller_is_made_for_the_first_key_and_once(kind: str) -> None:
    domains = Domains(cast(Any, MagicMock()))
    if kind in ALWAYS:
        return
    name = PROPERTY[kind]
    assert name not in vars(domains)
    getattr(domains, name)
    made = vars(domains)[name]
    made.reconcile = AsyncMock(return_value={"done": True})
    keys = [ObjectKey(kind, "shop", "one")]
    assert await domains.controllers[kind](keys) == {"done": True}
    made.reconcile.assert_awaited_once_with(keys)
    assert vars(domains)[name] is made


async def test_what_was_never_made_is_not_closed() -> None:
    domains = Domains(cast(Any, MagicMock()))
    await domains.close()
    assert not vars(domains).keys() & {"runner", "windows", "runs", "stores"}


def test_rooms_of_kinds_that_nobody_uses_are_not_loaded() -> None:
    """In a process of its own: this one has them all."""
    rooms = "('pgtend.backups', 'pgtend.maintenance', 'pgtend.operations', 'pgtend.tasks', 'pgtend.objectstore')"
    code = f"import sys, pgtend.app; print([m for m in sys.modules if m.startswith({rooms})])"
    source = Path(__file__).parents[2] / "operator"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=source)
    assert done.stdout.strip() == "[]"
