"""Flushes, totals, rollups, compression, retention and the upgrade on TimescaleDB, against plain PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from pipeline.aggregate.rows import InsertRows
from pipeline.maintenance import retention
from pipeline.runtime.migrations import migrate
from pipeline.runtime.postgres import APPLICATION_ROLE, Connection, connect
from pipeline.runtime.timescale import convert, offer
from tests.integration import retention_world, totals_world
from tests.integration.aggregate_world import (
    a_little_of_everything,
    aggregate,
    everything_written,
    owner_of,
    rows_of,
    set_up,
)  # fmt: skip
from tests.integration.retention_world import DAY, Usage, buckets_from, day, edge_on
from tests.unit.aggregate.sending import SAMPLE

pytestmark = pytest.mark.timescale

INSERT = InsertRows()
VIEWS = ("usage_by_hour", "usage_by_day", "usage_by_month")


@contextmanager
def as_owner(connection: Connection) -> Iterator[Connection]:
    """The one connection with the owner's rights."""
    connection.execute("RESET ROLE")
    yield connection
    connection.execute(f"SET ROLE {APPLICATION_ROLE}".encode())


@pytest.fixture
def stage(timescale: Connection) -> Connection:
    """Hypertables, and meters that read events."""
    with as_owner(timescale):
        set_up(timescale, 1)
    return timescale


@pytest.fixture
def postgres(database_url: str) -> Iterator[Connection]:
    """The aggregate stage's connection to a plain database with the same meters."""
    with owner_of(database_url) as owner:
        set_up(owner, 1)
    connection = connect(database_url, application_name="tests")
    yield connection
    connection.close()


def looked_at(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Usage over time, as people see it; times as seconds, since each connection has zones of its own."""
    query = "SELECT series_id, extract(epoch FROM starts_at)::bigint, trim_scale(quantity), slots FROM {} ORDER BY 1, 2"
    return {view: rows_of(connection, query.format(view)) for view in VIEWS}


def both_months(usage: Usage) -> None:
    """Usage with a silence of two months in it."""
    retention_world.first_days(usage)
    retention_world.later_days(usage)


def run_jobs(connection: Connection, procedure: str) -> None:
    """Run the jobs of a policy, as the server's scheduler does."""
    with as_owner(connection):
        found = rows_of(connection, "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = %s", procedure)
        assert found
        for (job_id,) in found:
            connection.execute(f"CALL run_job({job_id})".encode())


def compressed_chunks(connection: Connection, table: str) -> int:
    """How many chunks are compressed."""
    query = "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = %s AND is_compressed"
    return int(rows_of(connection, query, table)[0][0])


def test_a_flush_writes_the_same(stage: Connection, postgres: Connection) -> None:
    """Every table, row by row, whichever way the rows came in."""
    log = a_little_of_everything()
    aggregate(stage, log, writer=INSERT)
    aggregate(postgres, log)

    assert everything_written(stage) == everything_written(postgres)


def test_late_samples_change_the_same_slots(stage: Connection, postgres: Connection) -> None:
    """A second flush reads neighbours out of chunks and merges into them."""
    usage = Usage()
    both_months(usage)
    aggregate(stage, usage.log, writer=INSERT)
    aggregate(postgres, usage.log)
    for at in (1800, 2 * DAY + 900, 40 * DAY):
        usage.late(at, heard=62 * DAY)
    aggregate(stage, usage.log, writer=INSERT)
    aggregate(postgres, usage.log)

    assert buckets_from(stage, day(0)) == buckets_from(postgres, day(0))


def test_totals_are_the_same(timescale: Connection, database_url: str) -> None:
    """Whole days from day sums, the rest from chunks; every meter."""

    def use(world: totals_world.World) -> dict[Any, Any]:
        world.bind("a", "reads", "reads", "cpu-b")
        world.bind("a", "hours", "hours", "hour")
        world.give("vm-1", "a", totals_world.JULY)
        world.give("vm-1", "b", totals_world.JULY + timedelta(days=20, hours=3))
        for meter in ("cpu", "reads", "hours"):
            slots = [("vm-1", totals_world.JULY + timedelta(hours=5 * n, minutes=15), n + 1) for n in range(150)]
            with world.connection.transaction():
                world.use_many(world.connection, slots, meter)
        world.settle()
        return world.totals()

    with totals_world.make_world(database_url) as plain_world:
        expected = use(plain_world)
    with as_owner(timescale) as connection:
        connection.execute(totals_world.CATALOGUE.format(zone="UTC", sample=SAMPLE).encode())
        world = totals_world.World("", connection, connection)
        for subscription in totals_world.SUBSCRIPTIONS:
            world.bind(subscription, "cpu", "cpu", "cpu-a")
        connection.execute("DELETE FROM dirty_mark")
        found = use(world)

    assert len(expected) > 4
    assert found == expected


def test_usage_over_time_is_the_same(stage: Connection, postgres: Connection) -> None:
    """Continuous aggregates, before and after their policies ran, and with what came late since."""
    usage = Usage()
    both_months(usage)
    aggregate(stage, usage.log, writer=INSERT)
    aggregate(postgres, usage.log)
    expected = looked_at(postgres)

    assert looked_at(stage) == expected
    with as_owner(stage):
        for view in VIEWS:
            stage.execute(f"CALL refresh_continuous_aggregate('{view}', NULL, NULL)".encode())
    run_jobs(stage, "policy_refresh_continuous_aggregate")
    assert looked_at(stage) == expected
    assert len(expected["usage_by_month"]) == 8


def test_a_late_event_counts_in_a_compressed_chunk(stage: Connection, postgres: Connection) -> None:
    """Chunks are compressed by their policy; what comes later is merged into them all the same."""
    usage = Usage()
    both_months(usage)
    aggregate(stage, usage.log, writer=INSERT)
    run_jobs(stage, "policy_compression")

    assert compressed_chunks(stage, "usage_bucket") > 1
    assert compressed_chunks(stage, "usage_sample") > 1
    usage.late(1800, heard=62 * DAY)
    usage.late(30 * DAY, heard=62 * DAY)
    aggregate(stage, usage.log, writer=INSERT)
    aggregate(postgres, usage.log)
    assert buckets_from(stage, day(0)) == buckets_from(postgres, day(0))


@pytest.mark.parametrize("is_compressed", [False, True])
def test_retention_drops_chunks_and_changes_no_slot_after_the_edge(
    stage: Connection, postgres: Connection, *, is_compressed: bool
) -> None:
    """The last sample of each stream is pinned, and what is looked at outlives its slots."""
    usage = Usage()
    retention_world.first_days(usage)
    aggregate(stage, usage.log, writer=INSERT)
    if is_compressed:
        run_jobs(stage, "policy_compression")
    before = looked_at(stage)
    dropped = apply(stage, 20)
    assert (dropped.unit, dropped.buckets > 0, dropped.samples > 0) == ("chunks", True, True)
    assert rows_of(stage, "SELECT count(*) FROM usage_sample") == [(1,)]
    assert rows_of(stage, "SELECT count(*) FROM usage_bucket") == [(0,)]
    assert looked_at(stage) == before

    assert apply(stage, 21).buckets == 0
    assert rows_of(stage, "SELECT count(*) FROM usage_sample") == [(1,)]
    retention_world.later_days(usage)
    aggregate(stage, usage.log, writer=INSERT)
    assert buckets_from(stage, day(20)) == retention_world.without_retention(postgres, day(20))
    run_jobs(stage, "policy_refresh_continuous_aggregate")
    after = looked_at(stage)
    assert set(before["usage_by_hour"]) < set(after["usage_by_hour"])
    assert set(before["usage_by_day"]) < set(after["usage_by_day"])


def apply(connection: Connection, number: int) -> retention.Dropped:
    """Drop what lies before a day, of a server nobody has, whatever totals say of it."""
    with as_owner(connection):
        connection.execute("DELETE FROM dirty_mark")
        return retention.apply(connection, edge_on(number), drop_unassigned=True)


def test_a_plain_database_is_upgraded_with_its_usage(plain: Connection, postgres: Connection) -> None:
    """Not by `migrate`, which only says so; rows move into chunks, and stages go on where they were."""
    migrate(plain)
    set_up(plain, 1)
    plain.execute(f"SET ROLE {APPLICATION_ROLE}".encode())
    usage = Usage()
    retention_world.first_days(usage)
    aggregate(plain, usage.log, writer=INSERT)
    before = everything_written(plain)
    with as_owner(plain):
        plain.execute("CREATE EXTENSION timescaledb")
        assert offer(plain).is_upgrade
        assert len(convert(plain)) == 3

    assert everything_written(plain) == before
    assert rows_of(plain, "SELECT count(*) > 0 FROM show_chunks('usage_sample')") == [(True,)]
    assert rows_of(plain, "SELECT count(*) FROM ONLY usage_sample") == [(0,)]
    retention_world.later_days(usage)
    aggregate(plain, usage.log, writer=INSERT)
    aggregate(postgres, usage.log)
    assert buckets_from(plain, day(0)) == buckets_from(postgres, day(0))
