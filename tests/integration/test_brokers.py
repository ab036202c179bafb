"""Both brokers keep what the pipeline relies on, or the loss is noticed."""

import dataclasses
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.domain.errors import ConfigurationFault, InvariantViolation
from pipeline.domain.identity import home_partition
from pipeline.local.broker import Broker, choose_broker
from pipeline.local.kafka_jars import JAVA_VERSION_MIN, java_version
from pipeline.local.server_process import is_running
from pipeline.runtime.consumer import LogConsumer
from pipeline.runtime.producer import LogProducer
from pipeline.runtime.topics import (
    TopicSpec,
    begin_log,
    ensure_topics,
    load_topics,
    read_log_identity,
    verify_log,
    watermarks,
)

pytestmark = pytest.mark.real

BROKERS = ["apache", "embedded"] if (java_version() or 0) >= JAVA_VERSION_MIN else ["embedded"]
PARTITIONS = 8


@pytest.fixture(scope="module", params=BROKERS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = choose_broker(tmp_path_factory.mktemp(request.param), request.param).broker
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(params=BROKERS)
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    broker = choose_broker(tmp_path, request.param).broker
    broker.start()
    yield broker
    broker.stop()


def spec(name: str, partitions: int = PARTITIONS) -> TopicSpec:
    usage_events = next(one for one in load_topics() if one.name == "usage.events")
    return dataclasses.replace(usage_events, name=name, partitions=partitions)


def fresh_topic(broker: Broker, partitions: int = PARTITIONS) -> str:
    name = f"events-{uuid.uuid4().hex[:8]}"
    ensure_topics(broker.bootstrap_servers, [spec(name, partitions)])
    return name


def produce(broker: Broker, topic: str, keys: Sequence[str]) -> None:
    with LogProducer(broker.bootstrap_servers) as producer:
        for key in keys:
            producer.send(topic, key.encode(), b'{"source":"%s"}' % key.encode())
        producer.flush()


def ends(broker: Broker, topic: str) -> dict[int, int]:
    return {partition: high for partition, (_, high) in watermarks(broker.bootstrap_servers, topic).items()}


class Reader:
    """A worker in small: reads from the offsets it is given, keeps what it got."""

    def __init__(
        self, broker: Broker, topic: str, offsets: Mapping[int, int], slot: int = 0, rest_seconds: float | None = None
    ) -> None:
        self.offsets = offsets
        self.revoked: list[int] = []
        self.consumer = LogConsumer(
            broker.bootstrap_servers,
            f"read-{topic}",
            topic,
            slot,
            on_assign=lambda partitions: {partition: self.offsets.get(partition, 0) for partition in partitions},
            on_revoke=self.revoked.extend,
            rest_seconds=broker.fetch_rest_seconds if rest_seconds is None else rest_seconds,
        )

    def read(self, count: int, polls_max: int = 100) -> list[Message]:
        got: list[Message] = []
        for _ in range(polls_max):
            got += self.consumer.poll_batch(1000, 0.2)
            if len(got) >= count:
                break
        return got


def test_a_source_lands_on_its_home_partition(running: Broker) -> None:
    """The producer's partition of a key is the home that identity computes."""
    topic = fresh_topic(running)
    sources = [f"urn:rackmeter:replay:vm-{number}" for number in range(50)] + ["ü", "a", "abcd"]
    produce(running, topic, sources)
    reader = Reader(running, topic, {})
    with reader.consumer:
        messages = reader.read(len(sources))
    found = {(message.key() or b"").decode(): message.partition() for message in messages}
    assert found == {source: home_partition(source, PARTITIONS) for source in sources}
    assert all(message.timestamp()[0] == 2 for message in messages), "LogAppendTime"


def test_a_clean_restart_keeps_records_port_and_log(own: Broker) -> None:
    """After stop and start everything is as it was, at the same address."""
    topic = fresh_topic(own)
    produce(own, topic, [f"s{number}" for number in range(1000)])
    address, before, identity = own.bootstrap_servers, ends(own, topic), read_log_identity(own.bootstrap_servers, topic)
    own.stop()
    own.start()
    assert own.bootstrap_servers == address
    assert ends(own, topic) == before
    verify_log(read_log_identity(address, topic), identity, before, watermarks(address, topic))


def test_after_a_crash_records_are_there_or_the_loss_is_noticed(own: Broker) -> None:
    """kill -9: Apache keeps what it acknowledged; the embedded broker's topics become other logs."""
    topic = fresh_topic(own)
    produce(own, topic, [f"s{number}" for number in range(1000)])
    before, identity, pid = ends(own, topic), read_log_identity(own.bootstrap_servers, topic), own.pid
    own.kill()
    assert pid is not None
    assert not is_running(pid)
    own.start()
    if own.name == "apache":
        now = read_log_identity(own.bootstrap_servers, topic)
        assert ends(own, topic) == before
        verify_log(now, identity, before, watermarks(own.bootstrap_servers, topic))
        return
    with pytest.raises(InvariantViolation):
        # The topic itself may be gone with the last second.
        verify_log(read_log_identity(own.bootstrap_servers, topic), identity, {}, {})


def test_a_topic_made_again_is_noticed(running: Broker) -> None:
    """Deleted and made again under its name, a topic is another log."""
    topic = fresh_topic(running)
    stored = read_log_identity(running.bootstrap_servers, topic)
    admin = AdminClient({"bootstrap.servers": running.bootstrap_servers})
    admin.delete_topics([topic])[topic].result()
    ensure_topics(running.bootstrap_servers, [spec(topic)])
    with pytest.raises(InvariantViolation, match="another log"):
        verify_log(read_log_identity(running.bootstrap_servers, topic), stored, {}, {})


def test_a_truncated_topic_is_noticed(running: Broker) -> None:
    """Records deleted before they were read, and a log that ends before the stored offset, both halt."""
    topic = fresh_topic(running, 1)
    produce(running, topic, ["s"] * 10)
    stored = read_log_identity(running.bootstrap_servers, topic)
    admin = AdminClient({"bootstrap.servers": running.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(topic, 0, 5)]).values():
        future.result()
    available = watermarks(running.bootstrap_servers, topic)
    verify_log(stored, stored, {0: 5}, available)
    with pytest.raises(InvariantViolation, match="unread records were deleted"):
        verify_log(stored, stored, {0: 4}, available)
    with pytest.raises(InvariantViolation, match="records were lost"):
        verify_log(stored, stored, {0: 11}, available)


@pytest.mark.parametrize("offset", [2, 50])
def test_a_consumer_never_skips_to_another_offset(running: Broker, offset: int) -> None:
    """Told to begin where the log has nothing, below or beyond, the consumer halts instead of going elsewhere."""
    topic = fresh_topic(running, 1)
    produce(running, topic, ["s"] * 10)
    admin = AdminClient({"bootstrap.servers": running.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(topic, 0, 5)]).values():
        future.result()
    reader = Reader(running, topic, {0: offset})
    with reader.consumer, pytest.raises(InvariantViolation, match="does not hold the offset"):
        reader.read(1)


def test_another_number_of_partitions_is_refused(running: Broker) -> None:
    """A source's home is a hash modulo the number of partitions, so another number is refused."""
    topic = fresh_topic(running)
    with pytest.raises(InvariantViolation, match="for life"):
        ensure_topics(running.bootstrap_servers, [spec(topic)], {topic: PARTITIONS + 1})


def test_a_new_log_id_is_what_is_read_next(running: Broker) -> None:
    """The newest log id counts."""
    topic = fresh_topic(running)
    first = read_log_identity(running.bootstrap_servers, topic)
    second = begin_log(running.bootstrap_servers, topic, "unclean_stop")
    now = read_log_identity(running.bootstrap_servers, topic)
    assert (now.log_id, now.kafka_topic_id) == (second, first.kafka_topic_id)
    assert second != first.log_id


def test_a_consumer_starts_where_it_is_told_not_where_the_group_stood(running: Broker) -> None:
    """Offsets committed to the broker are a hint: the next worker goes on where the database says."""
    topic = fresh_topic(running, 1)
    produce(running, topic, ["s"] * 10)
    first = Reader(running, topic, {0: 3})
    with first.consumer:
        assert [message.offset() for message in first.read(7)] == list(range(3, 10))
        first.consumer.commit_hint({0: 10})
    assert first.revoked == [0]
    second = Reader(running, topic, {0: 5})
    with second.consumer:
        assert [message.offset() for message in second.read(5)] == list(range(5, 10))


def test_a_worker_that_forgot_its_memory_reads_again(running: Broker) -> None:
    """After a seek the records from the given offset on come again, and nothing that was fetched ahead of it."""
    topic = fresh_topic(running, 1)
    produce(running, topic, ["s"] * 10)
    reader = Reader(running, topic, {})
    with reader.consumer:
        assert len(reader.read(10)) == 10
        reader.consumer.seek({0: 4})
        assert [message.offset() for message in reader.read(6)] == list(range(4, 10))
    assert reader.revoked == [0]


def test_a_rested_reader_reads_everything_in_order(running: Broker) -> None:
    """Whatever comes while a reader rests at the log's end is read next, once and in order."""
    topic = fresh_topic(running)
    reader = Reader(running, topic, {}, rest_seconds=0.05)
    found: list[tuple[int, int]] = []
    with reader.consumer:
        for _ in range(4):
            produce(running, topic, [f"source-{number}" for number in range(40)])
            found += [(message.partition() or 0, message.offset() or 0) for message in reader.read(40)]
            assert reader.consumer.poll_batch(10, 0.2) == []
    for partition, end in ends(running, topic).items():
        assert [offset for where, offset in found if where == partition] == list(range(end))


def test_a_rested_reader_gives_up_and_takes_over_partitions(running: Broker) -> None:
    """Rebalances happen while readers rest, and what comes afterwards reaches whoever has the partition."""
    topic = fresh_topic(running)
    produce(running, topic, ["s"])
    first = Reader(running, topic, {}, slot=0, rest_seconds=0.05)
    with first.consumer:
        first.read(1)
        first.consumer.poll_batch(10, 0.2)
        second = Reader(running, topic, ends(running, topic), slot=1, rest_seconds=0.05)
        first.offsets = ends(running, topic)
        with second.consumer:
            for _ in range(150):
                first.consumer.poll_batch(10, 0.1)
                second.consumer.poll_batch(10, 0.1)
                if first.consumer.assigned and second.consumer.assigned:
                    break
            produce(running, topic, [f"source-{number}" for number in range(40)])
            got = 0
            for _ in range(50):
                got += len(first.consumer.poll_batch(100, 0.1)) + len(second.consumer.poll_batch(100, 0.1))
                if got >= 40:
                    break
            assert got == 40


def test_a_rested_reader_notices_a_truncated_log(running: Broker) -> None:
    """What was deleted while a reader rested, and never read, halts it."""
    topic = fresh_topic(running, 1)
    produce(running, topic, ["s"] * 10)
    reader = Reader(running, topic, {}, rest_seconds=0.05)
    with reader.consumer:
        assert len(reader.read(10)) == 10
        assert reader.consumer.poll_batch(10, 0.2) == []
        produce(running, topic, ["s"] * 10)
        admin = AdminClient({"bootstrap.servers": running.bootstrap_servers})
        for future in admin.delete_records([TopicPartition(topic, 0, 15)]).values():
            future.result()
        with pytest.raises(InvariantViolation, match="does not hold the offset"):
            reader.read(10)


def test_a_reader_at_the_end_of_the_log_costs_little(running: Broker) -> None:
    """With the rest its broker needs, a reader that waits takes less than a tenth of a processor."""
    topic = fresh_topic(running)
    produce(running, topic, ["s"])
    reader = Reader(running, topic, {})
    with reader.consumer:
        reader.read(1)
        reader.consumer.poll_batch(10, 0.5)
        before = time.process_time()
        reader.consumer.poll_batch(10, 3.0)
        assert time.process_time() - before < 0.3


def test_a_failing_assignment_comes_out_and_reads_nothing(running: Broker) -> None:
    """Without a stored offset nothing is read: the error of the callback leaves poll_batch."""
    topic = fresh_topic(running, 1)
    produce(running, topic, ["s"])

    def refuse(partitions: Sequence[int]) -> Mapping[int, int]:
        raise InvariantViolation("no offset row")

    consumer = LogConsumer(
        running.bootstrap_servers, f"read-{topic}", topic, 0, on_assign=refuse, on_revoke=lambda _: None
    )

    def poll_often() -> None:
        for _ in range(50):
            assert consumer.poll_batch(10, 0.2) == []

    with consumer, pytest.raises(InvariantViolation, match="no offset row"):
        poll_often()
    assert consumer.assigned == ()


def test_two_workers_share_the_partitions(running: Broker) -> None:
    """Two slots of one group own all partitions, none twice."""
    topic = fresh_topic(running)
    first, second = Reader(running, topic, {}, slot=0), Reader(running, topic, {}, slot=1)
    with first.consumer, second.consumer:
        for _ in range(150):
            first.consumer.poll_batch(10, 0.1)
            second.consumer.poll_batch(10, 0.1)
            if first.consumer.assigned and second.consumer.assigned:
                break
        assert sorted(first.consumer.assigned + second.consumer.assigned) == list(range(PARTITIONS))
        assert len(first.consumer.assigned) == PARTITIONS // 2


def test_a_slot_taken_over_fences_the_worker_that_had_it(running: Broker) -> None:
    """A second worker with the same slot gets the partitions at once; the first ends with a setting's fault."""
    topic = fresh_topic(running, 1)
    produce(running, topic, ["s"])
    first = Reader(running, topic, {}, slot=0)
    assert len(first.read(1)) == 1
    second = Reader(running, topic, {}, slot=0)
    assert len(second.read(1)) == 1
    with pytest.raises(ConfigurationFault, match="RACKMETER_WORKER_SLOT"):
        first.read(1)
    second.consumer.close()
    first.consumer.close()
