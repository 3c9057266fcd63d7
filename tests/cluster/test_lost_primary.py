"""A failover is noticed by the first write that meets it, long before the next probe."""

from __future__ import annotations

import time

import pytest
from tests.cluster.conftest import StartOperator, Tenant
from tests.cluster.harness import Cluster
from tests.cluster.users_ground import open_target, ready, user
from tests.fixtures.plugin import Postgres
from tests.postgres.users_ground import Shop


@pytest.mark.covers("PostgresTarget.spec.probeInterval")
@pytest.mark.timeout(240)
def test_a_write_that_meets_a_lost_primary_has_it_looked_for(
    cluster: Cluster, tenant: Tenant, operator: StartOperator, postgres: Postgres
) -> None:
    standby = postgres(18, role="standby", fresh=True)
    primary = standby.primary
    assert primary is not None
    shop = Shop.open(primary)
    space = tenant.namespace()
    operator([space])
    open_target(cluster, space, primary, standby, probeInterval="5m")
    cluster.apply(user(space, "before", grants=shop.trio()))
    ready(cluster, space, ["before"])
    primary.wait_replayed(standby)
    primary.stop()
    standby.promote()
    lost = time.monotonic()
    cluster.apply(user(space, "after", grants=shop.trio()))
    ready(cluster, space, ["before", "after"], seconds=90)
    print(f"written to the new primary {time.monotonic() - lost:.1f} s after the failover; the next probe was in 300 s")
    assert standby.execute("SELECT 1 FROM pg_roles WHERE rolname = 'after'") == [(1,)]
