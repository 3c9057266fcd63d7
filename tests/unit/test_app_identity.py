"""Two processes of one name are two to the Lease."""

from __future__ import annotations

from unittest.mock import sentinel

import pytest

from pgtend.app import Settings


def test_a_restarted_container_is_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTNAME", "pgtend-0")
    first, second = (Settings(cluster=sentinel.cluster, installation="tests", namespace="pgtend") for _ in range(2))
    assert first.identity.startswith("pgtend-0-") and first.identity != second.identity
    given = Settings(cluster=sentinel.cluster, installation="tests", namespace="pgtend", identity="mine")
    assert given.identity == "mine"
