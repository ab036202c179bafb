"""Events that did not count are decided about again, or let go: once and on record."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from pipeline.aggregate.settling import Place, Selection, decide_again, drop, queued_count
from pipeline.domain.errors import ConfigurationFault, Fenced
from pipeline.runtime.postgres import Connection, connect
from tests.integration.aggregate_world import (
    TOPIC,
    DyingConnection,
    Killed,
    LogInMemory,
    Reader,
    aggregate,
    drain,
    new_worker,
    owner_of,
    rows_of,
    set_up,
    tally,
)
from tests.unit.aggregate.sending import EPOCH, READINGS, SOURCE, event, second

pytestmark = pytest.mark.real

LATER = "later.sample.v1"
METER = """
INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds, gap_seconds_max,
    effective_from, known_number)
VALUES ('later', 1, %s, 'sum', 'calls', 'call', 300, NULL, '1970-01-01Z', 2),
    ('held', 1, %s, 'time_weighted', 'cpu', 'core-second', 300, 600, '1970-01-01Z', 2)
"""
CHANGES = (
    "SELECT log_offset, from_outcome, from_reason, to_outcome, said_by FROM decision_change ORDER BY change_number"
)

# What was used, without the numbers that rows happen to have.
USAGE = (
    (
        "SELECT m.meter, s.subject, s.source, b.slot_start, b.quantity FROM usage_bucket b"
        " JOIN series s USING (series_id)"
        " JOIN meter_version m USING (meter_version_id) ORDER BY 1, 2, 3, 4"
    ),
    (
        "SELECT m.meter, s.subject, s.source, d.day, d.quantity FROM usage_day d JOIN series s USING (series_id)"
        " JOIN meter_version m USING (meter_version_id) ORDER BY 1, 2, 3, 4"
    ),
    (
        "SELECT k.source, k.subject, k.event_type, s.occurred_at, s.epoch, s.number, s.readings::text"
        " FROM usage_sample s"
        " JOIN sample_stream k USING (sample_stream_id) ORDER BY 1, 2, 3, 4, 5, 6"
    ),
    "SELECT * FROM source_subject ORDER BY 1, 2, 3",
)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """The application's connection to a database that knows a log of one partition and four meters."""
    with owner_of(database_url) as owner:
        set_up(owner, 1)
    with closing(connect(database_url, application_name="tests")) as opened:
        yield opened


def parked_log() -> LogInMemory:
    """Three events of a type no meter reads, among others; the second one twice."""
    log = LogInMemory()
    log.append(SOURCE, event(1, at_us=second(0)))
    log.append(SOURCE, event(2, at_us=second(10), kind=LATER))
    log.append(SOURCE, event(3, at_us=second(400), kind=LATER))
    log.append(SOURCE, event(3, at_us=second(400), kind=LATER))
    log.append(SOURCE, event(4, at_us=second(20), data={**READINGS, "calls": "-1"}, kind=LATER))
    return log


def add_meters(connection: Connection) -> None:
    connection.execute(METER, (LATER, LATER))


def test_what_was_parked_counts_as_if_its_meter_had_been_there(connection: Connection, database_url: str) -> None:
    """Slots, samples and days are those of a run that knew the meter from the start; each decision is on record."""
    log = parked_log()
    worker = new_worker(connection)
    Reader(log, worker, [0])
    drain(worker)
    assert tally(connection) == {"received": 5, "counted": 1, "parked": 4}
    add_meters(connection)
    assert decide_again(connection, TOPIC, Selection(reason="unknown_meter"), "ann") == 4
    assert decide_again(connection, TOPIC, Selection(), "ann") == 0
    assert worker.decide_again() == 4
    assert worker.decide_again() == 0
    assert tally(connection) == {"received": 5, "counted": 3, "duplicate": 1, "quarantined": 1}
    assert rows_of(connection, CHANGES) == [
        (1, "parked", "unknown_meter", "counted", "ann"),
        (2, "parked", "unknown_meter", "counted", "ann"),
        (3, "parked", "unknown_meter", "duplicate", "ann"),
        (4, "parked", "unknown_meter", "quarantined", "ann"),
    ]
    assert rows_of(connection, "SELECT log_offset, outcome, settled, payload IS NULL FROM decision ORDER BY 1") == [
        (1, "counted", True, True),
        (2, "counted", True, True),
        (3, "duplicate", False, True),
        (4, "quarantined", False, False),
    ]
    assert rows_of(connection, "SELECT counted::text, quarantined::text, parked::text FROM identity_epoch") == [
        ("{[1,4)}", "{[4,5)}", "{}")
    ]
    found = [rows_of(connection, query) for query in USAGE]
    with owner_of(database_url) as owner:
        owner.execute(
            "TRUNCATE consumer_offset, partition_tally, identity_epoch, source_completeness, source_subject, decision,"
            " series, sample_stream, usage_sample, usage_bucket, usage_day, dirty_mark, decision_queue"
            " RESTART IDENTITY CASCADE"
        )
    aggregate(connection, log)
    assert [rows_of(connection, query) for query in USAGE] == found


def test_what_counted_meanwhile_is_left_alone(connection: Connection) -> None:
    """An event that was sent again and counted before its parked twin's turn came is not counted twice."""
    log = LogInMemory()
    log.append(SOURCE, event(2, at_us=second(10), kind=LATER))
    worker = new_worker(connection)
    reader = Reader(log, worker, [0])
    drain(worker)
    add_meters(connection)
    assert decide_again(connection, TOPIC, Selection(source=SOURCE), "ann") == 1
    log.append(SOURCE, event(2, at_us=second(10), kind=LATER))
    for message in reader.poll_batch(10, 0):
        worker._gather([message])
    worker.flush()
    assert worker.decide_again() == 0
    assert queued_count(connection, TOPIC) == 0
    assert tally(connection) == {"received": 2, "counted": 1, "parked": 1}
    assert rows_of(connection, CHANGES) == []


def test_a_bad_event_stays_bad(connection: Connection) -> None:
    """Its own bytes and log time decide, so asking again changes nothing but the record."""
    log = LogInMemory()
    log.append(SOURCE, event(1, at_us=second(0), data={**READINGS, "cpu": "-1"}))
    worker = new_worker(connection)
    Reader(log, worker, [0])
    drain(worker)
    before = tally(connection)
    assert decide_again(connection, TOPIC, Selection(), "ann") == 1
    assert worker.decide_again() == 1
    assert tally(connection) == before
    assert rows_of(connection, CHANGES) == [(0, "quarantined", "value_negative", "quarantined", "ann")]


def test_what_has_another_home_or_key_is_never_queued(connection: Connection) -> None:
    """Who owns a source is the one who decides about it: what came astray has to be sent again."""
    log = LogInMemory()
    log.append("urn:other", event(1, at_us=second(0)))
    log.append(SOURCE, b"[oops")
    aggregate(connection, log)
    assert tally(connection) == {"received": 2, "quarantined": 2}
    assert decide_again(connection, TOPIC, Selection(), "ann") == 0


@pytest.mark.parametrize("statements", range(0, 16, 3))
def test_killed_while_deciding_again(connection: Connection, database_url: str, statements: int) -> None:
    """Whatever statement the worker dies at, nothing is half done, and its successor does it once."""
    dying = DyingConnection(connect(database_url, application_name="tests"))
    worker = new_worker(dying)  # type: ignore[arg-type]  # it is the real connection but for its death
    Reader(parked_log(), worker, [0])
    drain(worker)
    add_meters(connection)
    decide_again(connection, TOPIC, Selection(), "ann")
    dying.arm(statements)
    with pytest.raises(Killed):
        worker.decide_again()
    assert tally(connection) == {"received": 5, "counted": 1, "parked": 4}
    successor = new_worker(connection)
    Reader(parked_log(), successor, [0])
    assert successor.decide_again() == 4
    assert tally(connection) == {"received": 5, "counted": 3, "duplicate": 1, "quarantined": 1}


def test_a_zombie_decides_about_nothing(connection: Connection, database_url: str) -> None:
    """A worker that lost its partition is refused in a flush without log records too."""
    worker = new_worker(connection)
    Reader(parked_log(), worker, [0])
    drain(worker)
    add_meters(connection)
    decide_again(connection, TOPIC, Selection(), "ann")
    with closing(connect(database_url, application_name="tests")) as other:
        successor = new_worker(other)
        Reader(parked_log(), successor, [0])
        assert successor.decide_again() == 4
        decided = tally(connection)
        other.execute(
            "INSERT INTO decision_queue (topic, partition, log_offset, index_in_message, said_by)"
            " VALUES (%s, 0, 4, 0, 'ann')",
            (TOPIC,),
        )
    with pytest.raises(Fenced):
        worker.decide_again()
    assert tally(connection) == decided


def test_what_is_dropped_holds_nobody_and_says_why(connection: Connection) -> None:
    """Dropped events are settled, keep their bytes, are on record with a reason, and are not queued any more."""
    aggregate(connection, parked_log())
    chosen = Selection(source=SOURCE)
    with pytest.raises(ConfigurationFault, match="say why"):
        drop(connection, TOPIC, chosen, said_by="ann", note=" ")
    with pytest.raises(ConfigurationFault, match="say which"):
        drop(connection, TOPIC, Selection(), said_by="ann", note="a test")
    assert drop(connection, TOPIC, Selection(), said_by="ann", note="one", place=Place(0, 1, 0)) == 1
    assert drop(connection, TOPIC, chosen, said_by="ann", note="a test") == 3
    assert drop(connection, TOPIC, chosen, said_by="ann", note="a test") == 0
    assert rows_of(connection, "SELECT DISTINCT outcome, settled, dropped, payload IS NULL FROM decision") == [
        ("parked", True, True, False)
    ]
    assert rows_of(connection, "SELECT DISTINCT to_outcome, note FROM decision_change ORDER BY 2") == [
        ("dropped", "a test"),
        ("dropped", "one"),
    ]
    assert decide_again(connection, TOPIC, Selection(), "ann") == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("UPDATE decision_change SET note = ''")


def test_a_good_event_counts_after_its_twin_was_dropped(connection: Connection) -> None:
    """Letting an event go does not use up its identity."""
    log = LogInMemory()
    log.append(SOURCE, event(1, at_us=second(0), data={**READINGS, "cpu": "-1"}))
    aggregate(connection, log)
    drop(connection, TOPIC, Selection(reason="value_negative"), said_by="ann", note="mended")
    log.append(SOURCE, event(1, at_us=second(0)))
    aggregate(connection, log)
    assert tally(connection) == {"received": 2, "counted": 1, "quarantined": 1}
    assert rows_of(connection, "SELECT epoch, counted::text FROM identity_epoch") == [(EPOCH, "{[1,2)}")]
