"""How far a consumer group says it is: hints for people and for pacing, never for money."""

from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipeline.domain.errors import TransientFault
from pipeline.runtime.client_errors import sentence
from pipeline.runtime.topics import REQUEST_TIMEOUT_SECONDS, watermarks


def committed_offsets(bootstrap_servers: str, group: str, topic: str) -> dict[int, int]:
    """Give the next offset a group committed, by partition; partitions it never committed are left out."""
    partitions = watermarks(bootstrap_servers, topic)
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "log_level": 2})
    try:
        positions = consumer.committed(
            [TopicPartition(topic, partition) for partition in partitions], timeout=REQUEST_TIMEOUT_SECONDS
        )
    except KafkaException as error:
        raise TransientFault(f"the broker does not tell how far {group} is: {sentence(error)}") from error
    finally:
        consumer.close()
    return {position.partition: position.offset for position in positions if position.offset >= 0}


def group_lag(bootstrap_servers: str, group: str, topic: str) -> int:
    """Count the messages of a topic that a group has not committed."""
    committed = committed_offsets(bootstrap_servers, group, topic)
    return sum(
        high - max(low, committed.get(partition, low))
        for partition, (low, high) in watermarks(bootstrap_servers, topic).items()
    )
