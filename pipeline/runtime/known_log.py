"""The log the database has been reading: remembered at first sight, compared at every later one."""

from uuid import UUID

from pipeline.domain.errors import InvariantViolation
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries
from pipeline.runtime.topics import LogIdentity, read_log_identity, verify_log, watermarks

QUERIES = load_queries("pipeline.runtime", "known_log.sql")


def open_log(connection: Connection, bootstrap_servers: str, topic: str, stage: str) -> LogIdentity:
    """
    Make sure that the topic at the broker is the log this database has been reading, and give its identity.

    Raises:
        InvariantViolation: The topic was truncated, re-created or rolled back, or has another number of partitions.
        TransientFault: The broker does not answer.
    """
    now = read_log_identity(bootstrap_servers, topic)
    connection.execute(
        QUERIES["remember_log"],
        {
            "topic": topic,
            "log_id": now.log_id,
            "kafka_topic_id": now.kafka_topic_id,
            "partition_count": now.partition_count,
        },
    )
    stored = known_log(connection, topic)
    offsets: dict[int, int] = dict(
        connection.execute(QUERIES["read_stage_offsets"], {"topic": topic, "stage": stage}).fetchall()
    )
    verify_log(now, stored, offsets, watermarks(bootstrap_servers, topic))
    return stored


def known_log(connection: Connection, topic: str) -> LogIdentity:
    """Give the log as the database remembers it; InvariantViolation where it never saw one."""
    row = connection.execute(QUERIES["read_known_log"], {"topic": topic}).fetchone()
    if row is None:
        raise InvariantViolation(f"the database has never read topic {topic}", "log_unknown")
    log_id, kafka_topic_id, partition_count = row
    return LogIdentity(topic, UUID(str(log_id)), kafka_topic_id, partition_count)


def read_generation(connection: Connection) -> int:
    """Read which generation of the database this is."""
    row = connection.execute(QUERIES["read_generation"]).fetchone()
    if row is None:
        raise InvariantViolation("the database has no installation row: run `rackmeter migrate`")
    return int(row[0])
