"""Going on after a log was lost: nothing counts twice, nothing is hidden, and doctor says how."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from pipeline.cli import diagnosis
from pipeline.domain.errors import InvariantViolation
from pipeline.runtime.known_log import known_log
from pipeline.runtime.log_adoption import LogAtBroker, LostNumbers, adopt
from pipeline.runtime.postgres import Connection, connect
from pipeline.runtime.topics import LogIdentity, verify_log

pytestmark = pytest.mark.real

TOPIC = "usage.events"
OLD = LogIdentity(TOPIC, UUID(int=1), "kafka-1", 2)
NEW = dataclasses.replace(OLD, log_id=UUID(int=2))
READ_UNTIL = datetime(2013, 7, 2, tzinfo=UTC)

STATE = """
INSERT INTO log (topic, log_id, kafka_topic_id, partition_count) VALUES ('usage.events', %(log_id)s, 'kafka-1', 2);
INSERT INTO consumer_offset (stage, topic, partition, log_id, offset_next, generation, log_time_max)
SELECT stage, topic, partition, log_id, 10 + partition, 1, '2013-07-02Z'
FROM log, unnest('{aggregate,archive}'::text[]) AS stage, unnest('{0,1}'::int[]) AS partition;
INSERT INTO identity_epoch (source, epoch, partition, first_seen_at)
VALUES ('agent-a', '00000000000000aa', 1, '2013-07-01Z');
INSERT INTO partition_tally (topic, partition, received, duplicate) VALUES ('usage.events', 0, 1, 1);
INSERT INTO decision (topic, partition, log_offset, index_in_message, outcome, reason, log_time)
VALUES ('usage.events', 0, 5, 0, 'duplicate', 'identity_seen', '2013-07-02Z');
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with closing(connect(database_url, application_name="test-adoption")) as connection:
        for statement in STATE.split(";\n"):
            if statement.strip():
                connection.execute(statement, {"log_id": OLD.log_id})
        yield connection


def at_broker(
    identity: LogIdentity, available: Mapping[int, tuple[int, int]], time: datetime | None = READ_UNTIL
) -> LogAtBroker:
    """A broker whose records were all taken at one time."""
    return LogAtBroker(
        identity, available, lambda _partition, _offset: time, lambda: dataclasses.replace(identity, log_id=UUID(int=9))
    )


def nothing_lost(_connection: Connection) -> list[LostNumbers]:
    return []


def offsets(connection: Connection) -> dict[tuple[str, int], tuple[int, int, UUID]]:
    rows = connection.execute(
        "SELECT stage, partition, offset_next, flush_number, log_id FROM consumer_offset WHERE topic = %s", (TOPIC,)
    )
    return {(stage, partition): (offset, flush, log_id) for stage, partition, offset, flush, log_id in rows}


def test_a_log_with_all_its_records_is_read_on(connection: Connection) -> None:
    """A new log id alone moves no position, but fences who still has the old one in memory."""
    adoption = adopt(connection, at_broker(NEW, {0: (0, 10), 1: (0, 99)}), nothing_lost)
    assert not adoption.is_from_start
    assert offsets(connection) == {
        (stage, partition): (10 + partition, 1, NEW.log_id)
        for stage in ("aggregate", "archive")
        for partition in (0, 1)
    }
    assert connection.execute("SELECT count(*) FROM decision WHERE topic = 'usage.events'").fetchone() == (1,)
    verify_log(NEW, known_log(connection, TOPIC), {0: 10, 1: 11}, {0: (0, 10), 1: (0, 99)})


@pytest.mark.parametrize("reason", ["made again", "lost records", "lost and took others", "asked for"])
def test_a_log_that_lost_records_is_read_from_its_beginning(connection: Connection, reason: str) -> None:
    """Old positions mean other records: all partitions begin anew, old decisions and tallies are kept aside."""
    now = dataclasses.replace(NEW, kafka_topic_id="kafka-2") if reason == "made again" else NEW
    available = {0: (0, 9 if reason == "lost records" else 10), 1: (3, 99)}
    time = READ_UNTIL + timedelta(milliseconds=reason == "lost and took others")
    adoption = adopt(connection, at_broker(now, available, time), nothing_lost, from_start=reason == "asked for")
    assert adoption.is_from_start
    assert {key: value[0] for key, value in offsets(connection).items()} == {
        ("aggregate", 0): 0, ("aggregate", 1): 3, ("archive", 0): 0, ("archive", 1): 3,
    }  # fmt: skip
    aside = f"usage.events@{OLD.log_id}"
    for table in ("decision", "partition_tally"):
        assert connection.execute(f"SELECT DISTINCT topic FROM {table}").fetchall() == [(aside,)]
    history = connection.execute("SELECT name, number, log_ids FROM log_history ORDER BY number").fetchall()
    assert history == [(aside, 0, [OLD.log_id]), (TOPIC, 1, [NEW.log_id])]
    kept = "SELECT DISTINCT stage, partition, offset_next FROM consumer_offset WHERE topic = %s ORDER BY 1, 2"
    assert connection.execute(kept, (aside,)).fetchall() == [
        ("aggregate", 0, 10), ("aggregate", 1, 11), ("archive", 0, 10), ("archive", 1, 11),
    ]  # fmt: skip
    ((source, until),) = adoption.sources
    assert source == "agent-a"
    assert until is not None
    assert until.isoformat() == "2013-07-02T00:00:00+00:00"


def test_two_logs_never_have_one_id(connection: Connection) -> None:
    """A log that lost records under the id it had gets a new one first: its files are told apart by it."""
    adoption = adopt(connection, at_broker(OLD, {0: (0, 9), 1: (0, 99)}), nothing_lost)
    assert adoption.log.log_id == UUID(int=9)
    assert known_log(connection, TOPIC).log_id == UUID(int=9)


def test_another_number_of_partitions_is_never_adopted(connection: Connection) -> None:
    """A source's home is a hash modulo that number; nothing is changed."""
    before = offsets(connection)
    changed = dataclasses.replace(NEW, partition_count=3)
    with pytest.raises(InvariantViolation, match="for life"):
        adopt(connection, at_broker(changed, {0: (0, 10), 1: (0, 99), 2: (0, 0)}), nothing_lost)
    assert offsets(connection) == before
    assert known_log(connection, TOPIC) == OLD


def test_doctor_names_the_command_that_goes_on(connection: Connection, database_url: str) -> None:
    """A changed log is a problem of each stage that reads it, with what to do."""
    found, stored = diagnosis.database_findings(database_url)
    assert [one.check for one in found if not one.is_ok] == []
    assert stored is not None
    changed = list(diagnosis.log_findings(NEW, {0: (0, 10), 1: (0, 99)}, stored))
    assert [one.check for one in changed] == ["log usage.events (aggregate)", "log usage.events (archive)"]
    assert all("rackmeter log adopt --topic usage.events --yes" in one.what_to_do for one in changed)
    adopt(connection, at_broker(NEW, {0: (0, 10), 1: (0, 99)}), nothing_lost)
    _, stored = diagnosis.database_findings(database_url)
    assert stored is not None
    assert all(one.is_ok for one in diagnosis.log_findings(NEW, {0: (0, 10), 1: (0, 99)}, stored))


def test_doctor_says_to_migrate(empty_database_url: str) -> None:
    """A database without tables is a finding with a next step, not a crash."""
    found, stored = diagnosis.database_findings(empty_database_url)
    assert stored is None
    assert [one.what_to_do for one in found if not one.is_ok] == ["run `rackmeter migrate`"]


def test_doctor_finds_a_folder_it_cannot_make(tmp_path: Path) -> None:
    """A folder below a file cannot be written to; one that is not there yet is fine."""
    (tmp_path / "file").write_text("")
    assert not diagnosis.folder("RACKMETER_ARCHIVE_DIR", tmp_path / "file" / "archive").is_ok
    assert diagnosis.folder("RACKMETER_ARCHIVE_DIR", tmp_path / "a" / "b").is_ok
