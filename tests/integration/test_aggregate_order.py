"""Law 7 on a real database: the same events leave the same rows, whatever order, batches, flushes and restarts."""

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.runtime.postgres import Connection, connect
from tests.integration.aggregate_world import WRITTEN, LogInMemory, Reader, new_worker, owner_of, rows_of, set_up
from tests.property.aggregate_history import (
    Delivery,
    History,
    Usage,
    days_by_hand,
    delivered_histories,
    identities_by_hand,
    usage_by_hand,
)
from tests.unit.aggregate.sending import batch

pytestmark = pytest.mark.real

USAGE = """
SELECT meter_version_id, subject, source, extract(epoch FROM b.slot_start)::bigint * 1000000, b.quantity::text
FROM usage_bucket b JOIN series USING (series_id) WHERE b.quantity <> 0
"""
DAYS = """
SELECT meter_version_id, subject, source, extract(epoch FROM d.day::timestamp)::bigint * 1000000, d.quantity::text
FROM usage_day d JOIN series USING (series_id) WHERE d.quantity <> 0
"""
IDENTITIES = """
SELECT source, epoch, state, number
FROM identity_epoch,
    LATERAL (VALUES ('counted', counted), ('quarantined', quarantined), ('parked', parked)) AS s (state, numbers),
    LATERAL unnest(numbers) AS part, LATERAL generate_series(lower(part), upper(part) - 1) AS number
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """The application's connection to a database that knows a log of one partition and four meters."""
    with owner_of(database_url) as owner:
        set_up(owner, 1)
    with closing(connect(database_url, application_name="tests")) as opened:
        yield opened


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(given_=delivered_histories(), data=st.data())
def test_usage_is_what_happened_however_it_came(
    connection: Connection, database_url: str, given_: tuple[History, Delivery], data: st.DataObject
) -> None:
    """Slots, days and identities in the database are what the slowest computation over all events says."""
    history, delivery = given_
    with owner_of(database_url) as owner:
        for table in reversed(WRITTEN):
            owner.execute(psycopg.sql.SQL("DELETE FROM {}").format(psycopg.sql.Identifier(table)))
    log = LogInMemory()
    worker = new_worker(connection)
    Reader(log, worker, [0])
    for (source, events), is_flushed in zip(delivery.messages, delivery.is_flushed_after, strict=True):
        log.append(source, batch(*events))
        worker.step()
        if is_flushed:
            worker.flush()
        if is_flushed and data.draw(st.booleans(), label="is another worker next"):
            worker = new_worker(connection)
            Reader(log, worker, [0])
    worker.flush()

    expected = usage_by_hand(history)
    assert usage_in(connection, USAGE) == expected
    assert usage_in(connection, DAYS) == days_by_hand(expected)
    identities: dict[tuple[str, str], dict[str, set[int]]] = {}
    for source, epoch, state, number in rows_of(connection, IDENTITIES):
        identities.setdefault((source, epoch), {}).setdefault(state, set()).add(number)
    assert identities == identities_by_hand(history)


def usage_in(connection: Connection, query: str) -> Usage:
    """As `usage_by_hand` gives it."""
    return {
        ((version, subject, source), at_us): Fraction(quantity)
        for version, subject, source, at_us, quantity in rows_of(connection, query)
    }
