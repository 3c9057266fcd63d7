"""The contract between controller and pods holds: what one writes the other reads, and a message fits its 4 KiB."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pgtend.backups.jobs.config import (
    MESSAGE_BYTES,
    DatabaseFigures,
    DumpConfig,
    Termination,
    VerifyConfig,
    parse_termination,
)
from pgtend.backups.jobs.dump import client_fits

STORE = {"bucket": "example-pg-backups", "prefix": "production"}
COMMON: dict[str, Any] = {
    "installationID": "prod-eu",
    "policy": {"namespace": "databases", "name": "orders"},
    "destination": {"store": STORE},
}
SERVER: dict[str, Any] = {
    "hosts": [{"host": "orders-a.db.example.com"}],
    "user": "pgtend_backup",
    "passwordFile": "/secrets/password",
    "caFile": "/secrets/ca.crt",
    "systemIdentifier": "7437812650013388821",
}
DUMP = COMMON | {"server": SERVER, "recipients": [{"name": "escrow", "publicKey": "age1x"}]}


def test_a_config_survives_the_way_through_json() -> None:
    dump = DumpConfig.model_validate(DUMP)
    assert DumpConfig.model_validate_json(dump.model_dump_json(by_alias=True)) == dump
    verify = VerifyConfig.model_validate(COMMON | {"manifest": "k", "identityFile": "/i"})
    assert VerifyConfig.model_validate_json(verify.model_dump_json(by_alias=True)) == verify


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"unknown": 1}, "unknown"),
        ({"kind": "Verify"}, "kind"),
        ({"recipients": []}, "recipients"),
        ({"databases": []}, "databases"),
        ({"compressionLevel": 20}, "compressionLevel"),
        ({"lockTimeout": "5 minutes"}, "lockTimeout"),
        ({"installationID": "X"}, "installationID"),
        ({"server": SERVER | {"passwordFile": None}}, "passwordFile"),
        ({"server": SERVER | {"certificateFile": "/c", "keyFile": "/k"}}, "passwordFile"),
        ({"server": SERVER | {"caFile": None}}, "caFile"),
        ({"server": SERVER | {"sslmode": "disable"}}, "sslmode"),
        ({"destination": {"store": STORE | {"prefix": ""}}}, "prefix"),
        ({"destination": {"store": STORE | {"prefix": "/x"}}}, "prefix"),
        ({"destination": {"store": STORE | {"endpoint": "https://user:secret@s3"}}}, "endpoint"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        DumpConfig.model_validate(DUMP | change)


def test_the_contract_needs_neither_psycopg_nor_boto() -> None:
    code = (
        "import sys, pgtend.backups.jobs.config, pgtend.backups.retention\n"
        "bad = {'psycopg', 'boto3', 'botocore', 'pyrage', 'zstandard', 'asyncio', 'kopf'} & set(sys.modules)\n"
        "sys.exit(f'imports {bad}' if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr


texts = st.text(max_size=6000)


@given(
    message=texts,
    warnings=st.lists(texts, max_size=5),
    names=st.lists(st.text(min_size=1, max_size=63), max_size=200),
    recipients=st.lists(st.text(max_size=60), max_size=40),
    phases=st.dictionaries(st.text(max_size=30), st.floats(0, 1e6), max_size=20),
)
def test_a_message_always_fits_and_always_parses(
    message: str, warnings: list[str], names: list[str], recipients: list[str], phases: dict[str, float]
) -> None:
    termination = Termination(
        kind="Dump",
        outcome="Failed",
        reason="DumpFailed",
        message=message,
        warnings=tuple(warnings),
        databases=tuple(DatabaseFigures(name=n, tables=1, rows=1) for n in names),
        databases_total=len(names),
        recipients=tuple(recipients),
        phases=phases,
        manifest="production/7437812650013388821/dump/20261122-020003-4f1c/manifest.json",
        started_at=datetime(2026, 11, 22, tzinfo=UTC),
    )
    raw = termination.to_message()
    assert len(raw) <= MESSAGE_BYTES
    again = parse_termination(raw.decode())
    assert again is not None
    assert (again.reason, again.manifest, again.databases_total) == ("DumpFailed", termination.manifest, len(names))
    assert termination.message.startswith(again.message)


def test_a_message_of_another_version_is_read_and_none_of_ours_is_none() -> None:
    later = '{"kind":"Dump","outcome":"Succeeded","reason":"Committed","message":"","brandNew":1}'
    assert parse_termination(later) is not None
    assert parse_termination("OOMKilled") is None
    assert parse_termination("") is None


@pytest.mark.parametrize(
    ("client", "server", "fits"),
    [
        ("15.18", 15, True),
        ("15.18", 14, True),
        ("18.6", 18, True),
        ("14.9", 14, True),
        ("16.2", 14, False),
        ("17.1", 16, False),
        ("17.1", 18, False),
        ("19beta1", 19, True),
        ("19devel", 18, False),
    ],
)
def test_which_client_may_dump_which_server(client: str, server: int, fits: bool) -> None:
    assert client_fits(client=client, server_major=server) is fits
