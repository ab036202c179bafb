"""The aggregate stage's one commit point: whole or not at all, once, and by the owner of the partition only."""

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import psycopg
import pytest

from pipeline.domain.errors import Fenced, InvariantViolation, TransientFault
from pipeline.runtime.postgres import Connection, connect
from tests.integration.aggregate_world import (
    TOPIC,
    Killed,
    LogInMemory,
    LogMessage,
    Reader,
    Scripted,
    a_little_of_everything,
    aggregate,
    drain,
    dying,
    everything_written,
    new_worker,
    owner_of,
    rows_of,
    set_up,
    tally,
)
from tests.unit.aggregate.sending import LOG_US, SOURCE, event, source_at

pytestmark = pytest.mark.real

JULY = datetime(2013, 7, 1, tzinfo=UTC)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """The application's connection to a database that knows a log of one partition and four meters."""
    with owner_of(database_url) as owner:
        set_up(owner, 1)
    with closing(connect(database_url, application_name="tests")) as opened:
        yield opened


def test_a_zombie_writes_nothing(connection: Connection, database_url: str) -> None:
    """Traps 42 and 43: a worker that slept through losing its partition is refused as a whole."""
    log = a_little_of_everything()
    with closing(connect(database_url, application_name="zombie")) as other:
        zombie = new_worker(other)
        Reader(log, zombie, [0])
        zombie.step()
        aggregate(connection, log)
        before = everything_written(connection)
        with pytest.raises(Fenced):
            zombie.flush()
    assert everything_written(connection) == before


def test_a_stale_flush_number_is_enough(connection: Connection, database_url: str) -> None:
    """Trap 43: another flush that left the offset where it was fences all the same."""
    log = a_little_of_everything()
    worker = new_worker(connection)
    Reader(log, worker, [0])
    worker.step()
    with owner_of(database_url) as owner:
        owner.execute("UPDATE consumer_offset SET flush_number = flush_number + 1")
    before = everything_written(connection)
    with pytest.raises(Fenced):
        worker.flush()
    assert everything_written(connection) == before


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE installation SET generation = 2",
        "UPDATE consumer_offset SET generation = 2",
        "UPDATE consumer_offset SET log_id = gen_random_uuid()",
        "UPDATE consumer_offset SET offset_next = 5",
    ],
)
def test_another_generation_or_log_fences(connection: Connection, database_url: str, change: str) -> None:
    """Trap 44: under a running worker the database was restored or the log adopted: nothing more is committed."""
    log = a_little_of_everything()
    worker = new_worker(connection)
    Reader(log, worker, [0])
    worker.step()
    with owner_of(database_url) as owner:
        owner.execute(change.encode())
    before = everything_written(connection)
    with pytest.raises(Fenced):
        worker.flush()
    assert everything_written(connection) == before


def test_meters_that_changed_under_a_fold_fence(connection: Connection, database_url: str) -> None:
    """Trap 58: a meter applied between fold and commit; what was folded without it is thrown away, and then counts."""
    log = LogInMemory()
    log.append(SOURCE, event(1, kind="test.other.v1"))
    worker = new_worker(connection)
    Reader(log, worker, [0])
    worker.step()
    with owner_of(database_url) as owner:
        owner.execute(
            "INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds,"
            " effective_from, known_number) VALUES ('other', 1, 'test.other.v1', 'sum', 'calls', 'x', 300,"
            " '1970-01-01Z', 2)"
        )
    with pytest.raises(Fenced, match="meters changed"):
        worker.flush()
    assert tally(connection) == {}
    aggregate(connection, log)
    assert tally(connection) == {"received": 1, "counted": 1}


def test_offsets_of_another_generation_are_not_read_on(connection: Connection, database_url: str) -> None:
    """Trap 44: at the start too; adopting gives the rows the new generation, nothing else may."""
    aggregate(connection, a_little_of_everything())
    with owner_of(database_url) as owner:
        owner.execute("UPDATE installation SET generation = 2")
    with pytest.raises(Fenced, match="generation 1"):
        new_worker(connection).assign([0])


def test_one_lost_partition_fences_the_whole_flush(database_url: str) -> None:
    """Trap 42: of two partitions in one flush one was lost; the other's share is not written without it."""
    with owner_of(database_url) as owner:
        set_up(owner, 2)
        log = LogInMemory(2)
        for partition in (0, 1):
            source = source_at(partition, 2)
            log.append(source, event(1, source=source))
        with closing(connect(database_url, application_name="tests")) as connection:
            worker = new_worker(connection)
            Reader(log, worker, [0, 1])
            worker.step()
            owner.execute("UPDATE consumer_offset SET flush_number = 9 WHERE partition = 1")
            with pytest.raises(Fenced, match=r"\[1\]"):
                worker.flush()
        assert rows_of(owner, "SELECT offset_next FROM consumer_offset") == [(0,), (0,)]
        assert rows_of(owner, "SELECT * FROM identity_epoch") == []


def test_a_lost_commit_answer_counts_once(connection: Connection, database_url: str) -> None:
    """Trap 43: the flush was committed but nobody heard; the next worker goes on behind it."""
    log = a_little_of_everything()
    with dying(database_url) as (mortal, taken_for):
        worker = new_worker(taken_for)
        Reader(log, worker, [0])
        worker.step()
        mortal.lose_answer()
        with pytest.raises(TransientFault, match="stopped answering"):
            worker.run(threading.Event())
        assert worker.flush() == 0
    before = everything_written(connection)
    assert tally(connection)["received"] == 10
    aggregate(connection, log)
    assert everything_written(connection) == before


def test_any_error_forgets_what_was_in_memory(connection: Connection) -> None:
    """What was folded but not committed is not remembered: the same events, read again, count."""
    log = a_little_of_everything()
    worker = new_worker(connection)
    Reader(log, worker, [0])
    worker.step()
    connection.execute("UPDATE consumer_offset SET flush_number = 9")
    with pytest.raises(Fenced):
        worker.run(threading.Event())
    assert worker.flush() == 0
    Reader(log, worker, [0])
    drain(worker)
    assert tally(connection)["counted"] == 5
    assert rows_of(connection, "SELECT counted::text FROM identity_epoch") == [("{[1,8)}",)]


@pytest.mark.parametrize("how", ["assign", "revoke"])
def test_a_rebalance_forgets_what_was_in_memory(connection: Connection, how: str) -> None:
    """Trap 42: what was gathered of a partition that went away is left to its next owner, and read afresh."""
    log = a_little_of_everything()
    worker = new_worker(connection)
    Reader(log, worker, [0])
    worker.step()
    if how == "revoke":
        worker.revoke([0])
        assert worker.flush() == 0
    Reader(log, worker, [0])
    drain(worker)
    assert tally(connection)["counted"] == 5


def test_killed_at_any_statement_leaves_nothing_behind(connection: Connection, database_url: str) -> None:
    """Law 3: whichever statement of a flush is the last one, nothing of it is there; then it is done once."""
    log = a_little_of_everything()
    new_worker(connection).assign([0])
    nothing = everything_written(connection)
    deaths = 0
    while True:
        with dying(database_url) as (mortal, taken_for):
            worker = new_worker(taken_for)
            Reader(log, worker, [0])
            worker.step()
            mortal.arm(deaths)
            try:
                worker.flush()
                break
            except Killed:
                deaths += 1
        assert everything_written(connection) == nothing
    assert deaths > 20
    died_often = everything_written(connection)
    assert tally(connection)["received"] == 10
    with owner_of(database_url) as owner:
        for table in nothing:
            owner.execute(psycopg.sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(psycopg.sql.Identifier(table)))
    aggregate(connection, log)
    undisturbed = everything_written(connection)
    for table in ("decision", "identity_epoch", "partition_tally", "consumer_offset", "source_completeness"):
        assert died_often[table] == undisturbed[table]


def test_a_tally_that_does_not_add_up_is_refused(connection: Connection) -> None:
    """Law 1 as a constraint: whatever the code believes, the database takes no count that is not the sum."""
    log = a_little_of_everything()
    worker = new_worker(connection)
    Reader(log, worker, [0])
    worker.step()
    worker._progress[0].tally["received"] += 1
    before = everything_written(connection)
    with pytest.raises(psycopg.errors.CheckViolation, match="partition_tally_adds_up_ck"):
        worker.flush()
    assert everything_written(connection) == before
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO partition_tally (topic, partition, received) VALUES (%s, 5, 1)", (TOPIC,))


def message(offset: int, number: int, kind: int = 2) -> LogMessage:
    return LogMessage(0, offset, SOURCE.encode(), event(number), LOG_US, kind)


@pytest.mark.parametrize(
    "polls",
    [
        [[message(0, 1), message(1, 2)], [message(1, 2)]],
        [[message(0, 1), message(1, 2), message(1, 2)]],
        [[message(0, 1), message(1, 2), message(0, 1)]],
    ],
)
def test_an_offset_that_went_back_halts(connection: Connection, polls: list[list[LogMessage]]) -> None:
    """Law 9: a log that gives a position twice is not the log we read, in one fetch as over two; nothing is written."""
    worker = new_worker(connection)
    Scripted(worker, [0], polls)
    with pytest.raises(InvariantViolation, match="went back") as raised:
        drain(worker)
    assert raised.value.code == "offset_went_back"
    assert tally(connection) == {}


def test_a_message_below_the_stored_offset_halts(connection: Connection) -> None:
    """Law 9: what was committed is not read again; a consumer that began elsewhere than it was told is noticed."""
    aggregate(connection, a_little_of_everything())
    worker = new_worker(connection)
    Scripted(worker, [0], [[message(5, 9)]])
    with pytest.raises(InvariantViolation, match="went back"):
        drain(worker)


def test_a_topic_that_takes_the_producers_clock_halts(connection: Connection) -> None:
    """Trap 6: without LogAppendTime "future" would be what the sender says it is."""
    worker = new_worker(connection)
    Scripted(worker, [0], [[message(0, 1, kind=1)]])
    with pytest.raises(InvariantViolation, match="LogAppendTime"):
        drain(worker)


def test_messages_of_partitions_not_ours_are_left_alone(connection: Connection) -> None:
    """Trap 42: what was fetched before a partition was lost is another's by now."""
    worker = new_worker(connection)
    stray = LogMessage(7, 0, SOURCE.encode(), event(1), LOG_US, 2)
    Scripted(worker, [0], [[stray, message(0, 2)]])
    drain(worker)
    assert tally(connection) == {"received": 1, "counted": 1}


def test_a_stop_flushes_what_is_gathered(connection: Connection) -> None:
    """A worker told to stop leaves nothing to do again."""
    log = a_little_of_everything()
    worker = new_worker(connection)
    Reader(log, worker, [0])
    worker.step()
    stop = threading.Event()
    stop.set()
    worker.run(stop)
    assert tally(connection)["received"] == 10
