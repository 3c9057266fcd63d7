"""What belongs to a database is found in the archive's words, and nothing else is."""

from __future__ import annotations

from pgtend.backups.jobs.whole import parse

SCRIPT = rb"""
\restrict abc
SET client_encoding = 'LATIN1';
SELECT pg_catalog.set_config('search_path', '', false);
-- Name: it's; not a statement
CREATE DATABASE "a;b" WITH TEMPLATE = template0;
\connect -reuse-previous=on "dbname='a;b'"
COMMENT ON DATABASE "a;b" IS 'it''s;
ALTER DATABASE x SET y TO 1';
ALTER DATABASE "a;b" IS_TEMPLATE = true;
ALTER DATABASE "a;b" CONNECTION LIMIT = 17;
ALTER ROLE "r "" IN DATABASE z" IN DATABASE "a;b" SET my.password TO 'tiger';
SET SESSION AUTHORIZATION "the grantor";
GRANT CONNECT ON DATABASE "a;b" TO other;
RESET SESSION AUTHORIZATION;
REVOKE CONNECT,TEMPORARY ON DATABASE "a;b" FROM PUBLIC;
UPDATE pg_catalog.pg_database SET datistemplate = false;
"""


def test_statements_about_the_database_and_no_others() -> None:
    whole = parse(SCRIPT)
    assert whole.encoding == "LATIN1"
    assert [(s.before, s.after, s.grantor) for s in whole.statements] == [
        (b"COMMENT ON DATABASE ", b" IS 'it''s;\nALTER DATABASE x SET y TO 1'", None),
        (b"ALTER DATABASE ", b" CONNECTION LIMIT = 17", None),
        (b'ALTER ROLE "r "" IN DATABASE z" IN DATABASE ', b" SET my.password TO 'tiger'", None),
        (b"GRANT CONNECT ON DATABASE ", b" TO other", b'"the grantor"'),
        (b"REVOKE CONNECT,TEMPORARY ON DATABASE ", b" FROM PUBLIC", None),
    ]


def test_values_are_not_shown() -> None:
    assert [s.shown for s in parse(SCRIPT).statements] == [
        "COMMENT ON DATABASE ...",
        "ALTER DATABASE ... CONNECTION LIMIT = 17",
        'ALTER ROLE "r "" IN DATABASE z" IN DATABASE ... SET my.password',
        "GRANT CONNECT ON DATABASE ... TO other",
        "REVOKE CONNECT,TEMPORARY ON DATABASE ... FROM PUBLIC",
    ]
    escaped = parse(rb"ALTER DATABASE x SET a.b TO E'ti\'ger; \\';").statements
    assert [s.shown for s in escaped] == ["ALTER DATABASE ... SET a.b"]
