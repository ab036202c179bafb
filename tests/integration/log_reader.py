"""Reads a whole topic, for tests that look at what really is in the log."""

from confluent_kafka import Consumer, TopicPartition

from pipeline.runtime.topics import watermarks


def read_topic(bootstrap_servers: str, topic: str) -> list[tuple[int, bytes, bytes]]:
    """(partition, key, value) of every message in a topic as it is now."""
    wanted = {partition: high for partition, (low, high) in watermarks(bootstrap_servers, topic).items() if high > low}
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "log-reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    found: list[tuple[int, bytes, bytes]] = []
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in wanted])
        while wanted:
            messages = consumer.consume(10_000, 1.0)
            for message in messages:
                assert message.error() is None, message.error()
                partition, offset, key, value = message.partition(), message.offset(), message.key(), message.value()
                assert partition is not None
                assert offset is not None
                found.append((partition, key or b"", value or b""))
                if offset + 1 >= wanted[partition]:
                    del wanted[partition]
    finally:
        consumer.close()
    return found
