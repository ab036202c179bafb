"""What was issued stays proven after its slots were dropped."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.domain.identity import home_partition
from pipeline.maintenance import retention
from pipeline.maintenance.rules import SETTLED, Edge
from pipeline.proof.verify import select_invoices, verify_invoices
from tests.integration import proof_world

pytestmark = pytest.mark.real

SERVER = "vm-1"
DROPPED_BEFORE = datetime(2013, 7, 20, tzinfo=UTC)


def test_an_issued_invoice_outlives_its_slots(database_url: str, tmp_path: Path) -> None:
    """Lines are recomputed from the archive, kept slots are compared, and what came too late is proven too."""
    world = proof_world.build(database_url, tmp_path)
    with world.admin() as admin:
        dropped = retention.apply(admin, Edge(DROPPED_BEFORE, DROPPED_BEFORE + SETTLED), drop_unassigned=True)
    source = proof_world.source_of(SERVER)
    for number, at in ((900, DROPPED_BEFORE), (901, DROPPED_BEFORE + SETTLED)):
        late = proof_world.event(SERVER, number, at + timedelta(minutes=1), cpu=1, mem=1, sent=1, requests=1)
        world.log.append(
            home_partition(source, proof_world.PARTITIONS), json.dumps(late).encode(),
            key=source.encode(), at_ms=proof_world.LOG_TIME_MS,
        )  # fmt: skip
    with world.connect() as connection:
        proof_world.read(world, connection)
        report = verify_invoices(connection, world.archive_dir, select_invoices(connection))
        reasons = connection.execute(
            "SELECT reason FROM decision WHERE source = %s AND outcome = 'parked'", (source,)
        ).fetchall()

    assert dropped.buckets > 1000
    assert report.differences == ()
    assert report.compared["lines"] > 6
    assert report.compared["slots_not_compared_behind_retention"] >= dropped.buckets
    assert report.compared["buckets"] > 100
    assert reasons == [("behind_retention",)]


def test_a_bucket_that_was_kept_is_still_compared(database_url: str, tmp_path: Path) -> None:
    """The edge excuses what lies behind it and nothing else."""
    world = proof_world.build(database_url, tmp_path)
    with world.admin() as admin:
        retention.apply(admin, Edge(DROPPED_BEFORE, DROPPED_BEFORE + SETTLED), drop_unassigned=True)
        kept = admin.execute(
            "DELETE FROM usage_bucket WHERE ctid = (SELECT ctid FROM usage_bucket WHERE quantity > 0"
            " AND slot_start < '2013-07-31Z' LIMIT 1)"
        )
        assert kept.rowcount == 1
    with world.connect() as connection:
        report = verify_invoices(connection, world.archive_dir, select_invoices(connection))

    assert [difference for difference in report.differences if "quantity missing" in str(difference)]
