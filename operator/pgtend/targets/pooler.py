"""Reads a PgBouncer's own figures by its admin console. Its sessions never prepare statements and take no locks."""

from __future__ import annotations

import psycopg
from psycopg import sql

from pgtend.api.postgrestarget import Pooler, TargetSpec
from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.kube.secrets import SecretReader
from pgtend.postgres.connect import connect
from pgtend.postgres.login import Address, Login
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.session import Session
from pgtend.server import credentials
from pgtend.targets.reading import Pool, PoolerReading

ADMIN = "pgbouncer"


async def read_pooler(
    *, spec: TargetSpec, pooler: Pooler, secrets: SecretReader, namespace: str, application_name: str
) -> PoolerReading:
    """All pools of the pooler; what goes wrong becomes the reading's error."""
    try:
        login = await _login(spec, pooler, secrets, namespace)
        tls = pooler.tls or spec.tls
        address = Address(
            name="pooler",
            host=pooler.host,
            port=pooler.port,
            sslmode=tls.sslmode,
            ca=await credentials.certificate_authority(secrets, namespace=namespace, tls=tls),
        )
        session = await connect(
            address=address,
            login=login,
            database=ADMIN,
            purpose=Purpose.PROBE,
            application_name=application_name,
            direct=False,
        )
        try:
            return PoolerReading(pools=await _pools(session))
        finally:
            await session.close()
    except PgtendError as error:
        return PoolerReading(error=error)
    except (psycopg.Error, TimeoutError) as error:
        text = " ".join(str(error).split())[:200] or "no answer within the deadline"
        return PoolerReading(error=PgtendError(TargetReason.POOLER_UNREACHABLE, f"pooler: {text}"))


async def _login(spec: TargetSpec, pooler: Pooler, secrets: SecretReader, namespace: str) -> Login:
    if pooler.credential is None:
        return await credentials.login(
            secrets, namespace=namespace, purpose="monitor", credential=spec.credentials.monitor
        )
    ref = pooler.credential.password.secret_ref
    password = await credentials.value(secrets, namespace=namespace, name=ref.name, key=ref.key or "password")
    return Login(user=pooler.credential.username, password=password)


async def _pools(session: Session) -> tuple[Pool, ...]:
    """SHOW POOLS and SHOW DATABASES, joined. Columns are read by name: they grow with PgBouncer's versions."""
    databases = {row["name"]: int(row["pool_size"]) for row in await session.fetch(sql.SQL("SHOW DATABASES"))}
    pools = []
    for row in await session.fetch(sql.SQL("SHOW POOLS")):
        if row["database"] == ADMIN:
            continue
        pools.append(
            Pool(
                database=row["database"],
                user=row["user"],
                servers=sum(int(row[name]) for name in ("sv_active", "sv_used", "sv_tested", "sv_login")),
                size=databases.get(row["database"], 0),
                waiting=int(row["cl_waiting"]),
                wait=int(row["maxwait"]) + int(row.get("maxwait_us", 0)) / 1e6,
            )
        )
    return tuple(pools)
