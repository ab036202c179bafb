"""The pipeline's topics, made anew on a broker of our own: every run begins with empty logs."""

import time

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.bootstrap import CHARGES_TOPIC, EVENTS_TOPIC, TOTALS_TOPIC
from pipeline.runtime.topics import ensure_topics, load_topics

PARTITIONS = 4
WAIT_SECONDS = 20.0


def make_fresh_logs(bootstrap_servers: str) -> None:
    """Delete the pipeline's topics where they are there, and make them again."""
    delete_topics(bootstrap_servers, [EVENTS_TOPIC, TOTALS_TOPIC, CHARGES_TOPIC])
    ensure_topics(bootstrap_servers, load_topics(), {EVENTS_TOPIC: PARTITIONS})


def delete_topics(bootstrap_servers: str, topics: list[str]) -> None:
    """Delete topics and wait until the broker shows them no more."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    there = [topic for topic in topics if topic in admin.list_topics(timeout=WAIT_SECONDS).topics]
    if not there:
        return
    for future in admin.delete_topics(there, operation_timeout=WAIT_SECONDS).values():
        future.result(WAIT_SECONDS)
    deadline = time.monotonic() + WAIT_SECONDS
    while any(topic in admin.list_topics(timeout=WAIT_SECONDS).topics for topic in there):
        assert time.monotonic() < deadline, f"the broker still shows {there}"
        time.sleep(0.05)


def delete_records(bootstrap_servers: str, topic: str, below: dict[int, int]) -> None:
    """Delete the records of partitions below an offset, as retention would."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    wanted = [TopicPartition(topic, partition, offset) for partition, offset in below.items()]
    for future in admin.delete_records(wanted).values():
        future.result(WAIT_SECONDS)


def record_count(bootstrap_servers: str, topic: str) -> int:
    """Count the records ever written to a topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "acceptance"})
    try:
        partitions = consumer.list_topics(topic, timeout=WAIT_SECONDS).topics[topic].partitions
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, one), timeout=5.0)[1] for one in partitions)
    except KafkaException:
        return 0
    finally:
        consumer.close()
