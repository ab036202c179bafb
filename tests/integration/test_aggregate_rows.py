"""Rows reach the tables by COPY, or as arrays where a server takes no COPY: the same rows."""

import pytest
from psycopg import sql

from pipeline.aggregate.rows import COPY, InsertRows, RowWriter
from tests.integration.aggregate_world import (
    WRITTEN,
    LogInMemory,
    a_little_of_everything,
    aggregate,
    everything_written,
    owner_of,
    set_up,
)  # fmt: skip
from tests.unit.aggregate.sending import SAMPLE, SOURCE, event, second

pytestmark = pytest.mark.real

# JSON writes the last of a field's letters with a backslash; a server's name may have more.
FIELD = "a'b{},ü"
ODD = "a\"b\\c\\\\n'{},ü"
ODD_METER = """
INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds, effective_from,
    known_number)
VALUES ('odd', 1, 'odd', 'increase', %s, 'x', 300, '1970-01-01Z', 1)
"""


def odd_log() -> LogInMemory:
    """A little of everything, a value under a name that needs every escape, and bytes that are no text."""
    log = a_little_of_everything()
    for number in (20, 21):
        log.append(SOURCE, event(number, kind="odd", at_us=second(number), data={FIELD: number}, subject=ODD))
    log.append(SOURCE, b'\xff\x00"\\\t\n{')
    return log


def test_both_ways_write_the_same(database_url: str) -> None:
    """Names with quotes and backslashes, payloads of any bytes, nothing where there is nothing."""
    found = []
    writers: tuple[RowWriter, ...] = (COPY, InsertRows())
    with owner_of(database_url) as owner:
        set_up(owner, 1)
        owner.execute(ODD_METER, (FIELD,))
        for writer in writers:
            tables = sql.SQL(", ").join(map(sql.Identifier, WRITTEN))
            owner.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(tables))
            aggregate(owner, odd_log(), writer=writer)
            found.append(everything_written(owner))

    assert found[0] == found[1]
    assert ODD in {row[0]["subject"] for row in found[0]["series"]}
    readings = [row[0]["readings"] for row in found[0]["usage_sample"]]
    assert [reading for reading in readings if FIELD in reading] == [{FIELD: 20 * 10**9}, {FIELD: 21 * 10**9}]
    assert SAMPLE in {row[0]["event_type"] for row in found[0]["sample_stream"]}
