"""What is doubtful is refused before the first byte, with a reason that names the object and the next step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.gateway import Gateway
from tests.fixtures.plugin import Poolers, Postgres, Proxies
from tests.fixtures.postgres import Login, PostgresServer
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_kit import PREFIX, Kit, fill, make_kit

from pgtend.backups.jobs import verify
from pgtend.backups.jobs.__main__ import main
from pgtend.backups.jobs.config import VerifyConfig


@pytest.fixture
def kit(postgres: Postgres, s3: S3Server, tmp_path: Path) -> Kit:
    """On one major, where no version can make a difference; else `server`."""
    return make_kit(postgres(18), s3, tmp_path)


def ungranted(server: PostgresServer, s3: S3Server, folder: Path, options: str = "") -> Kit:
    """A role that may connect and nothing else, and a filled database."""
    role = server.fresh_role("backup", options)
    database = server.fresh_database("dump")
    fill(server, database)
    return Kit(server=server, s3=s3, folder=folder, role=role, databases=[database])


def refused(kit: Kit, reason: str, **changes: Any) -> Any:
    started = time.monotonic()
    status, result = kit.dump(**changes)
    assert (status, result.outcome, result.reason) == (1, "Failed", reason), result
    assert time.monotonic() - started < 30
    kit.nothing_left()
    return result


@pytest.mark.covers(
    "PostgresBackup.reason.PermissionDenied",
    "PostgresBackupPolicy.reason.PermissionDenied",
    "PostgresBackup.reason.LargeObjectDenied",
    "PostgresBackupPolicy.reason.LargeObjectDenied",
)
def test_tables_that_may_not_be_read_are_named_with_the_grant(
    server: PostgresServer, s3: S3Server, tmp_path: Path
) -> None:
    kit = ungranted(server, s3, tmp_path, "BYPASSRLS")
    user, database = kit.role.user, kit.databases[0]
    kit.sql(f"GRANT USAGE ON SCHEMA shop TO {user}; GRANT SELECT ON ALL TABLES IN SCHEMA shop, public TO {user}")
    kit.sql(f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA shop TO {user}")
    kit.sql(f"REVOKE SELECT ON shop.orders FROM {user}")  # noqa: S608
    result = refused(kit, "PermissionDenied")
    assert f"{user} may not read shop.orders in {database}" in result.message
    assert f"GRANT SELECT ON shop.orders TO {user}" in result.message
    assert result.object == f"{database}.shop.orders" and not result.transient
    kit.sql(f"GRANT SELECT ON shop.orders TO {user}; REVOKE SELECT ON SEQUENCE shop.orders_id_seq FROM {user}")  # noqa: S608
    assert f"GRANT SELECT ON SEQUENCE shop.orders_id_seq TO {user}" in refused(kit, "PermissionDenied").message
    # What the messages say helps: the last refusal is about the large object, its GRANT ends it.
    kit.sql(f"GRANT SELECT ON SEQUENCE shop.orders_id_seq TO {user}")
    result = refused(kit, "LargeObjectDenied")
    (oid,) = kit.sql("SELECT oid FROM pg_largeobject_metadata")[0]
    assert str(oid) in result.message
    kit.sql(f"GRANT SELECT ON LARGE OBJECT {oid} TO {user}")
    kit.good_dump()


def test_pg_read_all_data_does_not_cover_large_objects_unless_the_server_says_so(
    server: PostgresServer, s3: S3Server, tmp_path: Path
) -> None:
    kit = ungranted(server, s3, tmp_path, "BYPASSRLS")
    kit.sql(f"GRANT pg_read_all_data TO {kit.role.user}")
    status, result = kit.dump()
    if status != 0:
        assert result.reason == "LargeObjectDenied"
        kit.nothing_left()
    kit.server.execute(f"ALTER DATABASE {kit.databases[0]} SET lo_compat_privileges = on")
    kit.good_dump()


def test_a_schema_without_usage_is_named(server: PostgresServer, s3: S3Server, tmp_path: Path) -> None:
    kit = ungranted(server, s3, tmp_path)
    assert f"GRANT USAGE ON SCHEMA shop TO {kit.role.user}" in refused(kit, "PermissionDenied").message


def test_a_database_that_may_not_be_entered_is_named(kit: Kit) -> None:
    database = kit.databases[0]
    kit.server.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")
    result = refused(kit, "PermissionDenied")
    assert f"GRANT CONNECT ON DATABASE {database} TO {kit.role.user}" in result.message


@pytest.mark.covers("PostgresBackup.reason.DatabaseMissing", "PostgresBackupPolicy.reason.DatabaseMissing")
def test_a_database_that_does_not_exist_is_named(kit: Kit) -> None:
    assert "no database nowhere" in refused(kit, "DatabaseMissing", databases=["nowhere"]).message


@pytest.mark.covers("PostgresBackup.reason.RowSecurity", "PostgresBackupPolicy.reason.RowSecurity")
def test_row_security_that_would_filter_is_refused(server: PostgresServer, s3: S3Server, tmp_path: Path) -> None:
    kit = make_kit(server, s3, tmp_path)
    kit.sql(
        "CREATE TABLE shop.secret AS SELECT g FROM generate_series(1, 10) g;"
        "ALTER TABLE shop.secret ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON shop.secret USING (false)"
    )
    kit.good_dump()  # the role bypasses it
    for key in kit.s3.keys(kit.bucket):
        kit.s3.client().delete_object(Bucket=kit.bucket, Key=key)
    kit.server.execute(f"ALTER ROLE {kit.role.user} NOBYPASSRLS")
    result = refused(kit, "RowSecurity")
    assert "shop.secret" in result.message and f"ALTER ROLE {kit.role.user} BYPASSRLS" in result.message
    assert result.object == f"{kit.databases[0]}.shop.secret"


@pytest.mark.covers("PostgresBackup.reason.AuthenticationFailed", "PostgresBackupPolicy.reason.AuthenticationFailed")
def test_a_wrong_password_is_named_as_such(kit: Kit) -> None:
    kit.write("password", "wrong-" + kit.role.password)
    result = refused(kit, "AuthenticationFailed")
    assert kit.role.password not in result.model_dump_json()


@pytest.mark.covers(
    "PostgresBackup.reason.AuthenticationMethodRefused", "PostgresBackupPolicy.reason.AuthenticationMethodRefused"
)
def test_a_server_that_asks_for_a_clear_password_gets_none(postgres: Postgres, s3: S3Server, tmp_path: Path) -> None:
    server = postgres(18, fresh=True, hba=["hostssl all all all password"])
    role = server.fresh_role("backup")
    kit = Kit(server=server, s3=s3, folder=tmp_path, role=role, databases=["postgres"])
    refused(kit, "AuthenticationMethodRefused")


@pytest.mark.covers("PostgresBackup.reason.CertificateNotTrusted", "PostgresBackupPolicy.reason.CertificateNotTrusted")
def test_a_certificate_of_somebody_else_is_not_trusted(kit: Kit, tmp_path: Path) -> None:
    from tests.fixtures.tls import CertificateAuthority

    (tmp_path / "other").mkdir()
    other = CertificateAuthority(tmp_path / "other", name="somebody else")
    refused(kit, "CertificateNotTrusted", server={"caFile": str(other.path)})


@pytest.mark.covers(
    "PostgresBackup.reason.IdentityChanged",
    "PostgresBackupPolicy.reason.IdentityChanged",
    "PostgresBackup.reason.StaleMember",
    "PostgresBackupPolicy.reason.StaleMember",
)
def test_another_server_than_the_recorded_one_is_not_dumped(kit: Kit) -> None:
    result = refused(kit, "IdentityChanged", server={"systemIdentifier": "7000000000000000001"})
    assert str(kit.server.system_identifier) in result.message
    refused(kit, "StaleMember", server={"minimumTimeline": 2})


@pytest.mark.covers("PostgresBackup.reason.NoPrimary", "PostgresBackupPolicy.reason.NoPrimary")
def test_the_primary_is_chosen_and_a_standby_alone_is_refused(postgres: Postgres, s3: S3Server, tmp_path: Path) -> None:
    standby = postgres(18, role="standby")
    assert standby.primary is not None
    kit = make_kit(standby.primary, s3, tmp_path)
    hosts = [{"host": standby.host, "port": standby.port}, {"host": standby.host, "port": standby.primary.port}]
    refused(kit, "NoPrimary", server={"hosts": hosts[:1]})
    kit.good_dump(server={"hosts": hosts})


@pytest.mark.covers("PostgresBackup.reason.PoolerNotAllowed", "PostgresBackupPolicy.reason.PoolerNotAllowed")
def test_a_pooler_is_refused(postgres: Postgres, pgbouncer: Poolers, s3: S3Server, tmp_path: Path) -> None:
    kit = make_kit(postgres(18), s3, tmp_path)
    pooler = pgbouncer(kit.server)
    result = refused(kit, "PoolerNotAllowed", server={"hosts": [{"host": pooler.host, "port": pooler.port}]})
    assert "connection pooler" in result.message
    # Nothing of ours stays behind in the pooled backend.
    with pooler.connect(kit.role, "postgres") as connection:
        assert connection.execute("SHOW default_transaction_read_only").fetchone() == ("off",)


@pytest.mark.covers("PostgresBackup.reason.TimedOut", "PostgresBackupPolicy.reason.TimedOut")
def test_a_server_that_does_not_answer_ends_the_run_soon(kit: Kit, proxy: Proxies) -> None:
    hole = proxy(kit.server)
    hole.black_hole()
    result = refused(kit, "TimedOut", server={"hosts": [{"host": hole.host, "port": hole.port}]})
    assert result.transient


@pytest.mark.covers(
    "PostgresBackup.reason.NameNotResolved",
    "PostgresBackupPolicy.reason.NameNotResolved",
    "PostgresBackup.reason.ConnectionRefused",
    "PostgresBackupPolicy.reason.ConnectionRefused",
    "PostgresBackup.reason.TooManyConnections",
    "PostgresBackupPolicy.reason.TooManyConnections",
)
def test_a_server_that_lets_nobody_in_is_tried_again_later(kit: Kit) -> None:
    refused(kit, "NameNotResolved", server={"hosts": [{"host": "no-such-host.invalid", "port": 5432}]})
    result = refused(kit, "ConnectionRefused", server={"hosts": [{"host": kit.server.host, "port": 9}]})
    assert result.transient
    kit.server.execute(f"ALTER ROLE {kit.role.user} CONNECTION LIMIT 0")
    assert refused(kit, "TooManyConnections").transient


@pytest.mark.covers(
    "PostgresBackup.reason.ServerStarting",
    "PostgresBackupPolicy.reason.ServerStarting",
    "PostgresBackup.reason.ConnectionFailed",
    "PostgresBackupPolicy.reason.ConnectionFailed",
)
def test_a_server_that_is_not_ready_and_one_with_words_of_its_own(
    postgres: Postgres, s3: S3Server, tmp_path: Path
) -> None:
    standby = postgres(18, role="standby", fresh=True)
    primary = standby.primary
    assert primary is not None
    kit = make_kit(primary, s3, tmp_path)
    standby.configure(hot_standby="off")
    standby.restart()
    result = refused(kit, "ServerStarting", server={"hosts": [{"host": standby.host, "port": standby.port}]})
    assert result.transient
    closed = primary.fresh_database()
    primary.execute(f"REVOKE CONNECT ON DATABASE {closed} FROM PUBLIC")
    result = refused(kit, "ConnectionFailed", server={"maintenanceDatabase": closed})
    assert f'permission denied for database "{closed}"' in result.message


@pytest.mark.covers("PostgresBackup.reason.TLSRefused", "PostgresBackupPolicy.reason.TLSRefused")
def test_a_server_without_tls_gets_no_password(postgres: Postgres, s3: S3Server, tmp_path: Path) -> None:
    server = postgres(18, fresh=True, settings={"ssl": "off"})
    kit = Kit(server=server, s3=s3, folder=tmp_path, role=server.fresh_role("backup"), databases=["postgres"])
    refused(kit, "TLSRefused")


@pytest.mark.covers("PostgresBackup.reason.VersionMismatch", "PostgresBackupPolicy.reason.VersionMismatch")
def test_a_client_of_another_major_is_refused(postgres: Postgres, s3: S3Server, tmp_path: Path) -> None:
    from tests.postgres.backup_kit import client_programs

    kit = make_kit(postgres(14), s3, tmp_path)
    newer = client_programs(postgres(18), tmp_path)
    result = refused(kit, "VersionMismatch", programsFolder=str(newer))
    assert "tools image of 14" in result.message


@pytest.mark.covers("PostgresBackup.reason.ClientTooOld", "PostgresBackupPolicy.reason.ClientTooOld")
def test_programs_with_an_old_libpq_are_refused_before_they_send_anything(
    postgres: Postgres, s3: S3Server, tmp_path: Path
) -> None:
    kit = make_kit(postgres(14), s3, tmp_path)  # the test tree of its client, 15, has libpq 15
    mark = kit.server.log_mark()
    result = refused(kit, "ClientTooOld", programsFolder=str(kit.server.programs.client))
    assert "require_auth" in result.message
    assert "password authentication failed" not in kit.server.log_since(mark)


@pytest.mark.covers("PostgresBackup.reason.GlobalsDenied", "PostgresBackupPolicy.reason.GlobalsDenied")
def test_roles_with_passwords_are_only_dumped_by_who_may_read_them(
    server: PostgresServer, s3: S3Server, tmp_path: Path
) -> None:
    role = server.fresh_role("backup")
    database = server.fresh_database("dump", owner=role.user)
    kit = Kit(server=server, s3=s3, folder=tmp_path, role=role, databases=[database])
    refused(kit, "GlobalsDenied", globals="WithPasswords")
    result = kit.good_dump()
    assert result.globals == "WithoutPasswords"
    assert result.manifest is not None
    kit.restore_globals(result.manifest, contains=f"CREATE ROLE {role.user}", lacks="SCRAM-SHA-256")
    superuser = Kit(
        server=server, s3=s3, folder=_folder(tmp_path / "super"), role=server.superuser, databases=[database]
    )
    result = superuser.good_dump()
    assert result.globals == "WithPasswords" and result.manifest is not None
    superuser.restore_globals(result.manifest, contains="SCRAM-SHA-256", lacks="\0")


@pytest.mark.covers(
    "PostgresBackup.reason.BucketDenied",
    "PostgresBackupPolicy.reason.BucketDenied",
    "PostgresBackup.reason.BucketMissing",
    "PostgresBackupPolicy.reason.BucketMissing",
)
def test_a_bucket_that_does_not_exist_is_named(kit: Kit) -> None:
    # This store tells it only to those who may list; to a writer it denies. It is refused at once either way.
    result = refused(kit, "BucketDenied", store={"bucket": "is-nowhere"})
    assert "does the bucket exist?" in result.message
    config = kit.common("reader") | {"manifest": f"{PREFIX}/x/manifest.json", "identityFile": f"{kit.folder}/identity"}
    config["destination"]["store"]["bucket"] = "is-nowhere"
    assert verify.run(VerifyConfig.model_validate(config)) == 1
    result = kit.result()
    assert result.reason == "BucketMissing"
    assert "is-nowhere" in result.message and kit.s3.endpoint in result.message


@pytest.mark.covers("PostgresBackup.reason.SecretMissing", "PostgresBackupPolicy.reason.SecretMissing")
def test_credentials_of_the_store_that_are_wrong_are_named(kit: Kit) -> None:
    kit.write("writer-secret", "wrong")
    result = refused(kit, "BucketDenied")
    assert kit.s3.writer.secret_key not in result.model_dump_json()
    kit.write("writer-secret", "")
    refused(kit, "SecretMissing")
    (kit.folder / "writer-secret").unlink()
    refused(kit, "SecretMissing")


def test_a_credential_that_may_only_read_is_named(kit: Kit) -> None:
    refused(kit, "BucketDenied", login="reader")


def test_a_store_that_does_not_answer_or_is_not_trusted_is_named(kit: Kit, tmp_path: Path) -> None:
    from tests.fixtures.tls import CertificateAuthority

    refused(kit, "BucketUnreachable", store={"endpoint": "https://127.0.0.1:9"})
    (tmp_path / "other").mkdir()
    other = CertificateAuthority(tmp_path / "other", name="somebody else")
    refused(kit, "BucketUnreachable", store={"caFile": str(other.path)})


@pytest.mark.covers("PostgresBackup.reason.InvalidRecipient", "PostgresBackupPolicy.reason.InvalidRecipient")
def test_a_recipient_that_is_no_key_is_refused(kit: Kit) -> None:
    refused(kit, "InvalidRecipient", recipients=[{"name": "verify", "publicKey": "age1nonsense"}])


@pytest.mark.covers(
    "PostgresBackup.reason.ConditionalWritesNotHonored",
    "PostgresBackupPolicy.reason.ConditionalWritesNotHonored",
    "PostgresBackup.reason.UploadFailed",
    "PostgresBackupPolicy.reason.UploadFailed",
    "PostgresBackup.reason.ReadFailed",
    "PostgresBackupPolicy.reason.ReadFailed",
)
def test_a_store_that_forgets_or_fails_is_named(kit: Kit, gateway: Gateway) -> None:
    through = {"endpoint": gateway.endpoint}
    gateway.forgets = True
    result = refused(kit, "ConditionalWritesNotHonored", store=through)
    assert "overwrites" in result.message and not result.transient
    gateway.forgets = False
    gateway.fails = lambda method, path: method in ("PUT", "POST") and "/.pgtend/" not in path
    result = refused(kit, "UploadFailed", store=through)
    assert "InternalError (500)" in result.message and "the disk is full" in result.message and result.transient
    gateway.fails = lambda method, path: False
    good = kit.good_dump(store=through)
    assert good.manifest is not None
    config = kit.verify_config(good.manifest)
    config["destination"]["store"] |= through
    gateway.fails = lambda method, path: method == "GET"
    assert verify.run(VerifyConfig.model_validate(config)) == 1
    result = kit.result()
    assert result.reason == "ReadFailed" and "the disk is full" in result.message and result.transient
    gateway.fails = lambda method, path: False
    assert verify.run(VerifyConfig.model_validate(config)) == 0


@pytest.mark.covers("PostgresBackup.reason.InvalidConfig", "PostgresBackupPolicy.reason.InvalidConfig")
def test_a_config_that_does_not_parse_ends_with_status_2(kit: Kit, capsys: pytest.CaptureFixture[str]) -> None:
    """As an older image would see it that does not know a field."""
    kit.termination.touch()
    newer = kit.config_file(kit.dump_config(parallelism=4))
    assert main(["dump", "--config", str(newer)]) == 2
    result = kit.result()
    assert (result.outcome, result.reason, result.transient) == ("Failed", "InvalidConfig", False)
    assert "parallelism" in result.message and kit.role.password not in result.message
    kit.nothing_left()
    broken = kit.write("broken.json", '{"kind": "Dump",')
    assert main(["dump", "--config", str(broken)]) == 2
    assert main(["dump", "--config", str(kit.folder / "absent")]) == 2
    assert main(["rewrite", "--config", str(broken)]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.covers("PostgresBackup.reason.ObjectTooLarge", "PostgresBackupPolicy.reason.ObjectTooLarge")
def test_an_upload_that_breaks_leaves_nothing_and_says_so(kit: Kit) -> None:
    kit.noise(12)
    limits = {"parts": 2, "objectSize": 9 << 20}
    result = refused(kit, "ObjectTooLarge", store={"limits": limits})
    assert "limit" in result.message


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_client_certificate_serves_in_place_of_a_password(postgres: Postgres, s3: S3Server, tmp_path: Path) -> None:
    server = postgres(18, fresh=True, hba=["hostssl all all all cert"])
    kit = make_kit(server, s3, tmp_path)
    certificate = server.ca.issue(kit.role.user, folder=tmp_path)
    result = kit.good_dump(
        server={
            "passwordFile": None,
            "certificateFile": str(certificate.certificate),
            "keyFile": str(certificate.key),
        }
    )
    assert result.databases[0].name == kit.databases[0]


def test_a_role_may_have_a_password_that_a_file_must_escape(kit: Kit) -> None:
    odd = Login(user=kit.role.user, password="co:lon\\back slash'\"ü")
    with kit.server.superuser_connect() as connection:
        connection.pgconn.change_password(odd.user.encode(), odd.password.encode())
    kit.write("password", odd.password + "\n")
    kit.good_dump()
