"""What people read at night: `kubectl get` of each kind, one object that is well and one that is not, word for word as
in golden/<kind>.txt but for ages, moments, versions and sizes. PGTEND_GOLDEN=write writes the files anew: read the
difference before you commit it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.backup_ground import Ground
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster, wait
from tests.cluster.test_operations import PASSWORD, clients, operation
from tests.cluster.users_ground import user
from tests.cluster.windows_ground import maintainer, tables, wait_run, window
from tests.fixtures.plugin import Postgres
from tests.fixtures.roles import init_roles
from tests.fixtures.s3 import S3Server
from tests.postgres.users_ground import PASSWORDS, Shop

from pgtend.api.kinds import KINDS
from pgtend.postgres.init_sql import init_sql

GOLDEN = Path(__file__).parent / "golden"
# column -> (what its cells look like, what stands for them)
VARIABLE = {
    "SINCE": (r"\d+[smhdy]\S*", "<age>"),
    "AGE": (r"\d+[smhdy]\S*", "<age>"),
    "LAST": (r"\d+[smhdy]\S*", "<age>"),
    "NEXT": (r"\d{4}-\d\d-\d\dT\S+Z", "<moment>"),
    "EXPIRES": (r"\d{4}-\d\d-\d\dT\S+Z", "<moment>"),
    "SIZE": (r"\d+(\.\d+)?([KMG]i)?", "<size>"),
    "VERSION": (r"1\d\.\d+", "<version>"),
    "LOCATION": (r"s3://[a-z0-9-]+/production", "<location>"),
    "LAG": (r"<1s|\d+s", "<lag>"),
    "FINISHED": (r"\d+[smhdy]\S*", "<age>"),
    "NAME": (r"[a-z]+-[a-z2-7]{10}-\d{8}-\d{4}", "<window>-<h>-<start>"),
}


def table(text: str) -> str:
    """kubectl's table with what varies replaced, and the columns as wide as they need to be then."""
    header, *lines = text.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", header)]
    names = header.split()

    def cells(line: str) -> list[str]:
        ends = [*starts[1:], None]
        return [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]

    rows = [names]
    for line in lines:
        row = []
        for name, cell in zip(names, cells(line), strict=True):
            pattern, stand_in = VARIABLE.get(name, (None, ""))
            row.append(stand_in if pattern and re.fullmatch(pattern, cell) else cell)
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
    return "\n".join("   ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows) + "\n"


def test_a_table_keeps_empty_cells_and_what_does_not_vary() -> None:
    text = "NAME   READY   SINCE   NEXT\na      True            2026-01-01T02:00:00Z\nbb     False   3m2s    never\n"
    assert table(text).splitlines() == [
        "NAME   READY   SINCE   NEXT",
        "a      True            <moment>",
        "bb     False   <age>   never",
    ]


def healthy_and_broken(ground: Ground) -> dict[str, tuple[str, str]]:
    """Makes both objects of each kind; their names by kind, the healthy one first."""
    cluster, space, server = ground.cluster, ground.space, ground.server
    shop = Shop.open(server)
    init_roles(server, init_sql(["maintenance"]))
    with server.superuser_connect() as connection:
        connection.pgconn.change_password(b"pgtend_maintenance", PASSWORD.encode())
    assert ground.role is not None
    for name, password in (("users", PASSWORDS["pgtend_users"]), ("maintenance", PASSWORD), ("wrong", "not-it")):
        cluster.secret(space, name, {"password": password})

    def login(secret: str, **more: str) -> dict[str, Any]:
        return {"password": {"secretRef": {"name": secret}}, **more}

    access = {
        "name": "all",
        "namespaces": {"names": [space]},
        "kinds": ["*"],
        "operations": ["TerminateQueries"],
        "tasks": ["VacuumAnalyze"],
        "users": {"rolePattern": "golden_*", "databases": ["*"], "maxPrivileges": ["Connect", "Usage", "Select"]},
    }
    credentials = {
        "monitor": login("monitor"),
        "users": login("users"),
        "maintenance": login("maintenance"),
        "backup": login("backup", username=ground.role.user),
    }
    ground.target(access=[access], credentials=credentials)
    good = (cluster.get("postgrestarget", space, "orders") or {})["spec"]
    ground.apply("PostgresTarget", "locked-out", {**good, "credentials": {"monitor": login("wrong")}})
    ground.destination()
    ground.apply("BackupDestination", "mislaid", ground.destination_spec(bucket="there-is-no-such-bucket"))
    ground.policy()
    ground.apply("PostgresBackupPolicy", "aimless", ground.policy_spec(targetRef={"name": "nobody"}))
    cluster.wait_condition("pgbp", space, "orders", "Ready", "True", seconds=90)
    cluster.apply(
        user(space, "shop-app", roleName="golden_app", grants=shop.trio("Select")),
        user(space, "too-much", roleName="golden_too_much", grants=shop.trio("Select", "Delete")),
    )
    ground.apply("PostgresBackup", "now", {"policyRef": {"name": "orders"}})
    ground.apply("PostgresBackup", "orphan", {"policyRef": {"name": "nobody"}})
    cluster.wait_condition("pgb", space, "now", "Complete", "Unknown", "Running", seconds=60)
    ground.run_pod("now-dump")
    wait("the Job that verifies", lambda: "now-verify" in ground.jobs(), seconds=60)
    ground.run_pod("now-verify")
    report = server.fresh_role("golden")
    with clients(server, report, 2):
        cluster.apply(operation(space, "too-many", report, most=1))
        cluster.wait_condition("pgop", space, "too-many", "Accepted", "False", "TooManyVictims", seconds=60)
        cluster.apply(operation(space, "kill", report))
        cluster.wait_condition("pgop", space, "kill", "Ready", "True", "Succeeded", seconds=60)
    nightly, failing = windows(ground)
    return {
        "MaintenanceWindow": ("nightly", "astray"),
        "MaintenanceRun": (nightly, failing),
        "PostgresTarget": ("orders", "locked-out"),
        "DatabaseUser": ("shop-app", "too-much"),
        "BackupDestination": ("s3", "mislaid"),
        "PostgresBackupPolicy": ("orders", "aimless"),
        "PostgresBackup": ("now", "orphan"),
        "PostgresOperation": ("kill", "too-many"),
    }


def windows(ground: Ground) -> tuple[str, str]:
    """A window that did its work, one that could not, one that makes no sense; the names of the two runs."""
    cluster, space, server = ground.cluster, ground.space, ground.server
    maintainer(server)
    database = server.fresh_database()
    tables(server, database, ["orders"])
    tables(server, database, ["audit"], schema="hidden")
    server.execute("ALTER SCHEMA hidden OWNER TO postgres", dbname=database)

    def tasks(schema: str) -> list[dict[str, Any]]:
        select = {"databases": [database], "schemas": [schema]}
        return [{"type": "VacuumAnalyze", "vacuumAnalyze": {"select": select}}]

    cluster.apply(
        window(space, "nightly", tasks=tasks("public")),
        window(space, "failing", tasks=tasks("hidden")),
        window(space, "astray", tasks=tasks("public"), timeZone="Europe/Berlim"),
    )
    good = wait_run(cluster, space, "Ready", "Succeeded", name="nightly", seconds=90)
    bad = wait_run(cluster, space, "Ready", "Failed", name="failing", seconds=90)
    return good["metadata"]["name"], bad["metadata"]["name"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_each_kind_reads_as_it_should(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres, s3: S3Server, tmp_path: Path
) -> None:
    space = tenant.namespace()
    operator([space])
    ground = Ground(cluster=cluster, space=space, server=postgres(18), s3=s3, folder=tmp_path)
    names = healthy_and_broken(ground)
    assert names.keys() == {kind.name for kind in KINDS}

    def differences() -> dict[str, str]:
        found = {}
        for kind in KINDS:
            path = GOLDEN / f"{kind.plural}.txt"
            shown = table(cluster.kubectl("get", kind.plural, "-n", space, *names[kind.name]))
            if not path.exists() or path.read_text() != shown:
                found[kind.name] = shown
        return found

    if os.environ.get("PGTEND_GOLDEN") == "write":
        cluster.wait_condition("pgb", space, "now", "Verified", "True", seconds=60)
        cluster.wait_condition("pgbp", space, "orders", "Verified", "True", seconds=60)
        cluster.wait_condition("dbu", space, "shop-app", "Ready", "True", seconds=60)
        GOLDEN.mkdir(exist_ok=True)
        for kind in KINDS:
            shown = table(cluster.kubectl("get", kind.plural, "-n", space, *names[kind.name]))
            (GOLDEN / f"{kind.plural}.txt").write_text(shown)
    last: dict[str, str] = {}

    def alike() -> bool:
        last.clear()
        last.update(differences())
        return not last

    try:
        wait("every kind reads as in golden/", alike, seconds=90, every=1)
    finally:
        for kind_name, shown in last.items():
            print(f"{kind_name} reads now:\n{shown}")
