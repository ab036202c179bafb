"""Topics at the broker: made as wanted, and told apart from a topic of the same name that is not the same log."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it is public, see its manual

from pipeline.domain.errors import ConfigurationFault, InvariantViolation, TransientFault
from pipeline.runtime.client_errors import sentence
from pipeline.runtime.producer import LogProducer
from pipeline.runtime.topic_specs import TopicSpec, load_topics

__all__ = [
    "IDENTITY_TOPIC",
    "BeginReason",
    "LogIdentity",
    "TopicSpec",
    "await_broker",
    "begin_log",
    "begin_logs_again",
    "ensure_topics",
    "load_topics",
    "read_log_identity",
    "record_time",
    "verify_log",
    "watermarks",
]

# The topic that holds our own log ids.
IDENTITY_TOPIC = "rackmeter.log"
REQUEST_TIMEOUT_SECONDS = 15.0
#: How long a broker may take to answer at all, e.g. because it is just starting.
BROKER_WAIT_SECONDS = 10.0
_LEADERLESS = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
)

#: Why a log began: it was made, made again, or its broker may have lost its last records.
BeginReason = Literal["created", "recreated", "unclean_stop"]


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Which log a topic is: our id, the broker's (all A where the broker keeps none), and its number of partitions."""

    topic: str
    log_id: uuid.UUID
    kafka_topic_id: str
    partition_count: int


def await_broker(bootstrap_servers: str, seconds: float = BROKER_WAIT_SECONDS) -> None:
    """Wait until a broker answers; TransientFault with the next step where none does in time."""
    _admin(bootstrap_servers, seconds)


def ensure_topics(
    bootstrap_servers: str, specs: Sequence[TopicSpec], partitions: Mapping[str, int] | None = None
) -> dict[str, LogIdentity]:
    """
    Make the topics that are missing, begin a log for each that has none, and check those that are there.

    Args:
        bootstrap_servers: The broker, host:port.
        specs: What is wanted; `rackmeter.log` is made first whether or not it is among them.
        partitions: Numbers of partitions by topic that differ from the specs'.

    Returns:
        The identity of each topic of `specs` but `rackmeter.log`.

    Raises:
        InvariantViolation: A topic has another number of partitions than is wanted, or than it was made with.
        TransientFault: The broker does not answer.
    """
    overrides = partitions or {}
    wanted = [replace(spec, partitions=overrides.get(spec.name, spec.partitions)) for spec in specs]
    admin = _admin(bootstrap_servers)
    identity_spec = next((spec for spec in wanted if spec.name == IDENTITY_TOPIC), None) or _identity_spec()
    _ensure_topic(admin, identity_spec)
    recorded = _recorded_identities(bootstrap_servers)
    begin: dict[str, BeginReason] = {}
    identities: dict[str, LogIdentity] = {}
    for spec in wanted:
        if spec.name == IDENTITY_TOPIC:
            continue
        made_now = _ensure_topic(admin, spec)
        known = recorded.get(spec.name)
        topic_id, partition_count = _topic_facts(admin, spec.name)
        if known is None or made_now or known.kafka_topic_id != topic_id:
            begin[spec.name] = "created" if known is None else "recreated"
        elif known.partition_count != partition_count:
            raise InvariantViolation(
                f"topic {spec.name} was made with {known.partition_count} partitions and now has {partition_count}: "
                "a source's home is a hash modulo that number, so it is for life. Make a new log instead.",
                "partition_count_changed",
            )
        else:
            identities[spec.name] = known
    return identities | _begin_logs(bootstrap_servers, begin)


def begin_log(bootstrap_servers: str, topic: str, reason: BeginReason) -> uuid.UUID:
    """
    Give the topic a new log id, written durably to `rackmeter.log`.

    Readers that stored the old id halt at their next check, so this is for a topic that was just made and for one
    that may have lost records.
    """
    return _begin_logs(bootstrap_servers, {topic: reason})[topic].log_id


def begin_logs_again(bootstrap_servers: str, reason: BeginReason = "unclean_stop") -> list[str]:
    """Give every topic that has a log id and still exists a new one; return their names. Nothing to do is fine."""
    admin = _admin(bootstrap_servers)
    if _describe(admin, IDENTITY_TOPIC) is None:
        return []
    again = [topic for topic in _recorded_identities(bootstrap_servers) if _describe(admin, topic) is not None]
    _begin_logs(bootstrap_servers, dict.fromkeys(again, reason))
    return again


def _begin_logs(bootstrap_servers: str, reasons: Mapping[str, BeginReason]) -> dict[str, LogIdentity]:
    if not reasons:
        return {}
    admin = _admin(bootstrap_servers)
    begun = {topic: LogIdentity(topic, uuid.uuid4(), *_topic_facts(admin, topic)) for topic in reasons}
    with LogProducer(bootstrap_servers, linger_ms=0) as producer:
        for topic, identity in begun.items():
            record = {
                "topic": topic,
                "log_id": str(identity.log_id),
                "kafka_topic_id": identity.kafka_topic_id,
                "partition_count": identity.partition_count,
                "reason": reasons[topic],
            }
            producer.send(IDENTITY_TOPIC, topic.encode(), json.dumps(record, sort_keys=True).encode())
        producer.flush(REQUEST_TIMEOUT_SECONDS)
    return begun


def read_log_identity(bootstrap_servers: str, topic: str) -> LogIdentity:
    """
    Tell which log a topic is now: our newest id for it, and the broker's own facts of this moment.

    Raises:
        InvariantViolation: The topic does not exist, or no log was begun for it.
        TransientFault: The broker does not answer.
    """
    admin = _admin(bootstrap_servers)
    topic_id, partition_count = _topic_facts(admin, topic)
    recorded = _recorded_identities(bootstrap_servers) if _describe(admin, IDENTITY_TOPIC) is not None else {}
    if topic not in recorded:
        raise InvariantViolation(
            f"topic {topic} has no log id in {IDENTITY_TOPIC}: "
            f"it was not made by rackmeter, or {IDENTITY_TOPIC} was lost",
            "log_id_missing",
        )
    return LogIdentity(topic, recorded[topic].log_id, topic_id, partition_count)


def watermarks(bootstrap_servers: str, topic: str) -> dict[int, tuple[int, int]]:
    """Give per partition the first offset that is there and the next one to be written."""
    _, partition_count = _topic_facts(_admin(bootstrap_servers), topic)
    consumer = _reader(bootstrap_servers)
    try:
        return {partition: _available(consumer, topic, partition) for partition in range(partition_count)}
    except KafkaException as error:
        raise TransientFault(f"the broker does not tell the offsets of {topic}: {sentence(error)}") from error
    finally:
        consumer.close()


def record_time(bootstrap_servers: str, topic: str, partition: int, offset: int) -> datetime | None:
    """
    Tell when the log took the record at an offset; None where there is none, or its time is the sender's.

    Raises:
        TransientFault: The broker does not answer.
    """
    consumer = _reader(bootstrap_servers)
    try:
        consumer.assign([TopicPartition(topic, partition, offset)])
        deadline = time.monotonic() + REQUEST_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is None:
                kind, at_ms = message.timestamp()
                is_there = message.offset() == offset and kind == TIMESTAMP_LOG_APPEND_TIME
                return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms) if is_there else None
            if error.code() in (
                KafkaError._PARTITION_EOF,
                KafkaError._AUTO_OFFSET_RESET,
                KafkaError.OFFSET_OUT_OF_RANGE,
            ):
                return None
    except KafkaException as error:
        where = f"offset {offset} of {topic}, partition {partition}"
        raise TransientFault(f"{where} cannot be read: {sentence(error)}") from error
    finally:
        consumer.close()
    raise TransientFault(f"the broker does not give offset {offset} of {topic}, partition {partition}")


def verify_log(
    now: LogIdentity,
    stored: LogIdentity,
    offsets_next: Mapping[int, int],
    offsets_available: Mapping[int, tuple[int, int]],
) -> None:
    """
    Check that the log at the broker is the one the database has been reading.

    Args:
        now: From `read_log_identity`.
        stored: The same facts as the database keeps them.
        offsets_next: Stored next offset by partition, of one stage.
        offsets_available: From `watermarks`.

    Raises:
        InvariantViolation: Names everything that differs; reading on would skip or repeat records unseen.
    """
    found: list[str] = []
    if now.partition_count != stored.partition_count:
        found.append(f"it has {now.partition_count} partitions, it was adopted with {stored.partition_count}")
    if now.kafka_topic_id != stored.kafka_topic_id:
        found.append(f"it was made again: topic id {now.kafka_topic_id}, adopted {stored.kafka_topic_id}")
    if now.log_id != stored.log_id:
        found.append(f"it is another log: log id {now.log_id}, adopted {stored.log_id}")
    for partition, offset in sorted(offsets_next.items()):
        low, high = offsets_available.get(partition, (0, 0))
        if offset > high:
            found.append(f"partition {partition} ends at {high}, before the stored offset {offset}: records were lost")
        elif offset < low:
            found.append(
                f"partition {partition} begins at {low}, after the stored offset {offset}: unread records were deleted"
            )
    if found:
        raise InvariantViolation(
            f"topic {now.topic} is not the log that was read before: {'; '.join(found)}. "
            "`rackmeter doctor` says how to go on.",
            "log_changed",
        )


def _admin(bootstrap_servers: str, seconds: float = BROKER_WAIT_SECONDS) -> AdminClient:
    try:
        admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 2})
        admin.list_topics(timeout=seconds)
    except KafkaException as error:
        raise TransientFault(
            f"no broker answers at {bootstrap_servers}; start it or correct KAFKA_BOOTSTRAP_SERVERS; "
            "`rackmeter doctor` tells more",
            "broker_unreachable",
        ) from error
    return admin


def _reader(bootstrap_servers: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "rackmeter-topics",  # the client wants one; nothing is committed under it
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "receive.message.max.bytes": 1_000_000_000,
            "log_level": 2,
        }
    )


def _available(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """Ask for a partition's first and next offset; asks again while it is without a leader, as after a restart."""
    deadline = time.monotonic() + REQUEST_TIMEOUT_SECONDS
    while True:
        try:
            return consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=REQUEST_TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() not in _LEADERLESS or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _identity_spec() -> TopicSpec:
    for spec in load_topics():
        if spec.name == IDENTITY_TOPIC:
            return spec
    raise ConfigurationFault(f"schemas/topics.yaml has no topic {IDENTITY_TOPIC}")


def _describe(admin: AdminClient, topic: str) -> Any | None:
    """Ask about one topic, or None where it is not there; a metadata request would make it on some brokers."""
    future = admin.describe_topics(TopicCollection([topic]), request_timeout=REQUEST_TIMEOUT_SECONDS)[topic]
    try:
        return future.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise TransientFault(f"the broker does not describe topic {topic}: {sentence(error)}") from error


def _topic_facts(admin: AdminClient, topic: str) -> tuple[str, int]:
    described = _describe(admin, topic)
    if described is None:
        raise InvariantViolation(f"topic {topic} does not exist at the broker", "topic_missing")
    return str(described.topic_id), len(described.partitions)


def _ensure_topic(admin: AdminClient, spec: TopicSpec) -> bool:
    """Make the topic unless it is there with the right number of partitions; tell whether it was made now."""
    described = _describe(admin, spec.name)
    if described is None and _create(admin, spec):
        return True
    described = _await_topic(admin, spec.name) if described is None else described
    if len(described.partitions) != spec.partitions:
        raise InvariantViolation(
            f"topic {spec.name} has {len(described.partitions)} partitions, {spec.partitions} are wanted: "
            "the number is for life. Ask for what it has, or make a new log.",
            "partition_count_changed",
        )
    return False


def _create(admin: AdminClient, spec: TopicSpec) -> bool:
    """Make a topic and wait until the broker shows it; False where somebody else made it meanwhile."""
    new = NewTopic(spec.name, spec.partitions, -1, config=spec.broker_config())
    future = admin.create_topics([new], request_timeout=REQUEST_TIMEOUT_SECONDS)[spec.name]
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise TransientFault(f"the broker does not make topic {spec.name}: {sentence(error)}") from error
    _await_topic(admin, spec.name)
    return True


def _await_topic(admin: AdminClient, topic: str) -> Any:
    deadline = time.monotonic() + REQUEST_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        described = _describe(admin, topic)
        if described is not None and all(partition.leader is not None for partition in described.partitions):
            return described
        time.sleep(0.02)
    raise TransientFault(f"topic {topic} was made but the broker does not show it")


def _recorded_identities(bootstrap_servers: str) -> dict[str, LogIdentity]:
    """Read `rackmeter.log` from its beginning to its end: the newest record of each topic."""
    consumer = _reader(bootstrap_servers)
    recorded: dict[str, LogIdentity] = {}
    try:
        low, high = _available(consumer, IDENTITY_TOPIC, 0)
        consumer.assign([TopicPartition(IDENTITY_TOPIC, 0, low)])
        deadline = time.monotonic() + REQUEST_TIMEOUT_SECONDS
        while low < high:
            message = consumer.poll(0.2)
            error = None if message is None else message.error()
            if message is not None and error is None:
                record = json.loads(message.value() or b"")
                recorded[record["topic"]] = LogIdentity(
                    record["topic"], uuid.UUID(record["log_id"]), record["kafka_topic_id"], record["partition_count"]
                )
                low = (message.offset() or 0) + 1
            elif error is not None and error.code() == KafkaError._PARTITION_EOF:
                break
            elif time.monotonic() > deadline:
                raise TransientFault(f"{IDENTITY_TOPIC} cannot be read to its end: stopped at {low} of {high}")
    except KafkaException as error:
        raise TransientFault(f"{IDENTITY_TOPIC} cannot be read: {sentence(error)}") from error
    finally:
        consumer.close()
    return recorded
