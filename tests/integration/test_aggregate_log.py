"""The log at a real broker must be the one the database has been reading, or the stage halts and says why."""

from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.aggregate import store
from pipeline.aggregate.worker import Pace, Worker
from pipeline.bootstrap import catalogue_view
from pipeline.domain.errors import InvariantViolation
from pipeline.runtime.consumer import LogConsumer
from pipeline.runtime.known_log import known_log, open_log, read_generation
from pipeline.runtime.postgres import Connection, connect
from pipeline.runtime.producer import LogProducer
from pipeline.runtime.topics import begin_log, read_log_identity
from tests.conftest import FreshTopics
from tests.integration.aggregate_world import METERS, owner_of, rows_of
from tests.unit.aggregate.sending import SAMPLE, event, second

pytestmark = pytest.mark.real


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """The application's connection to a database that has meters and never saw a log."""
    with owner_of(database_url) as owner:
        owner.execute(METERS, {"type": SAMPLE})
    with closing(connect(database_url, application_name="tests")) as opened:
        yield opened


def test_a_log_is_remembered_at_first_sight(
    connection: Connection, bootstrap_servers: str, fresh_topics: FreshTopics
) -> None:
    """The first look stores its identity, every later one compares itself with that."""
    topic = fresh_topics(3)["usage.events"]
    with pytest.raises(InvariantViolation, match="never read"):
        known_log(connection, topic)
    first = open_log(connection, bootstrap_servers, topic, "aggregate")
    assert first == read_log_identity(bootstrap_servers, topic)
    assert first == open_log(connection, bootstrap_servers, topic, "aggregate") == known_log(connection, topic)
    assert first.partition_count == 3


def test_a_topic_nobody_made_halts(connection: Connection, bootstrap_servers: str, topic_prefix: str) -> None:
    """A name without a topic, or a topic without a log id of ours, is never adopted silently."""
    with pytest.raises(InvariantViolation):
        open_log(connection, bootstrap_servers, f"{topic_prefix}nothing", "aggregate")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE log SET log_id = gen_random_uuid()", "another log"),
        ("UPDATE log SET partition_count = 4", "has 2 partitions, it was adopted with 4"),
        ("UPDATE log SET kafka_topic_id = 'other'", "made again"),
        ("UPDATE consumer_offset SET offset_next = 1 WHERE partition = 1", "records were lost"),
    ],
)
def test_another_log_than_the_one_read_halts(
    connection: Connection,
    database_url: str,
    bootstrap_servers: str,
    fresh_topics: FreshTopics,
    change: str,
    says: str,
) -> None:
    """Trap 41: re-created, rolled back, or made with other partitions: the stage stops and names the difference."""
    topic = fresh_topics(2)["usage.events"]
    log = open_log(connection, bootstrap_servers, topic, "aggregate")
    fence = store.Fence(topic, log.log_id, read_generation(connection))
    store.read_progress(connection, fence, [0, 1])
    open_log(connection, bootstrap_servers, topic, "aggregate")
    with owner_of(database_url) as owner:
        owner.execute(change.encode())
    with pytest.raises(InvariantViolation, match=says) as raised:
        open_log(connection, bootstrap_servers, topic, "aggregate")
    assert raised.value.code == "log_changed"


def test_a_log_begun_again_halts(connection: Connection, bootstrap_servers: str, fresh_topics: FreshTopics) -> None:
    """Trap 41: after an unclean stop the broker may have lost records, so the log has a new id."""
    topic = fresh_topics(1)["usage.events"]
    open_log(connection, bootstrap_servers, topic, "aggregate")
    assert begin_log(bootstrap_servers, topic, "unclean_stop") != uuid4()
    with pytest.raises(InvariantViolation, match="another log"):
        open_log(connection, bootstrap_servers, topic, "aggregate")


def test_unread_records_that_were_deleted_halt(
    connection: Connection, bootstrap_servers: str, fresh_topics: FreshTopics
) -> None:
    """Trap 41: a log cut above the stored offset would be skipped over; it halts instead."""
    topic = fresh_topics(1)["usage.events"]
    log = open_log(connection, bootstrap_servers, topic, "aggregate")
    store.read_progress(connection, store.Fence(topic, log.log_id, read_generation(connection)), [0])
    send(bootstrap_servers, topic, 3)
    # Named, because its answers stop with it.
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for future in admin.delete_records([TopicPartition(topic, 0, 2)]).values():
        future.result(30)
    with pytest.raises(InvariantViolation, match="unread records were deleted"):
        open_log(connection, bootstrap_servers, topic, "aggregate")


def test_a_worker_goes_on_from_the_database(
    connection: Connection, bootstrap_servers: str, fresh_topics: FreshTopics
) -> None:
    """Two workers one after the other over a real log: each message is taken once, whatever the group's offsets say."""
    topic = fresh_topics(1)["usage.events"]
    for sent, all_sent in ((4, 4), (7, 11)):
        send(bootstrap_servers, topic, sent)
        worker = Worker(
            connection,
            topic,
            open_log=lambda: opened(connection, bootstrap_servers, topic),
            load_catalogue=catalogue_view,
            pace=Pace(),
        )
        with LogConsumer(
            bootstrap_servers, topic, topic, 0, on_assign=worker.assign, on_revoke=worker.revoke
        ) as consumer:
            worker.attach(consumer)
            for _ in range(300):
                worker.step()
                if rows_of(connection, "SELECT received = %s FROM partition_tally", all_sent) == [(True,)]:
                    break
    assert rows_of(connection, "SELECT received, counted, duplicate FROM partition_tally") == [(11, 7, 4)]
    assert rows_of(connection, "SELECT count(*), min(number), max(number) FROM usage_sample") == [(7, 1, 7)]


def opened(connection: Connection, bootstrap_servers: str, topic: str) -> tuple[store.Fence, int]:
    log = open_log(connection, bootstrap_servers, topic, "aggregate")
    return store.Fence(topic, log.log_id, read_generation(connection)), log.partition_count


def send(bootstrap_servers: str, topic: str, count: int) -> None:
    """Put events 1 to `count` of one source on the topic."""
    with LogProducer(bootstrap_servers, linger_ms=0) as producer:
        for number in range(1, count + 1):
            producer.send(topic, b"urn:test:a", event(number, at_us=second(number)))
        producer.flush(30.0)
