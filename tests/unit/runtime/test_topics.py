"""Topics come from one file; a log that is not the one read before is named as such."""

import uuid
from pathlib import Path

import pytest

from pipeline.domain.errors import InvariantViolation, Problems
from pipeline.runtime.topics import IDENTITY_TOPIC, LogIdentity, load_topics, verify_log

IDENTITY = LogIdentity("usage.events", uuid.UUID(int=1), "TbuO9tQ2RDCqlbBv_QNKiA", 2)
ENTRY = """
  - name: {name}
    meaning: What it holds.
    partitions: {partitions}
    key: none
    timestamp_type: CreateTime
    cleanup_policy: delete
    retention_ms: -1
    retention_bytes: -1
    compression: lz4
    message_bytes_max: 1000
    written_by: [ingest]
    read_by: [aggregate]
"""


def test_the_shipped_topics_never_lose_usage_by_time() -> None:
    """usage.events is stamped by the broker, kept for ever, and has 48 partitions unless said."""
    topics = {spec.name: spec for spec in load_topics()}
    assert set(topics) == {"usage.events", "usage.totals", "billing.charges", IDENTITY_TOPIC}
    events = topics["usage.events"]
    assert events.partitions == 48
    assert events.broker_config() == {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "compression.type": "lz4",
        "max.message.bytes": "1048588",
    }
    identity = topics[IDENTITY_TOPIC]
    assert (identity.partitions, identity.retention_ms, identity.cleanup_policy) == (1, -1, "delete")


def test_every_problem_of_the_file_is_named_at_once(tmp_path: Path) -> None:
    """File, line and field of each."""
    path = tmp_path / "topics.yaml"
    good = ENTRY.format(name="one", partitions=1)
    bad = (
        ENTRY.format(name="two", partitions="many").replace("lz4", "rar").replace("    key: none\n", "    kye: none\n")
    )
    path.write_text(f"topics:{good}{bad}")
    with pytest.raises(Problems) as caught:
        load_topics(path)
    found = [(problem.file, problem.line, problem.field) for problem in caught.value.problems]
    assert found == [(str(path), 15, field) for field in ("compression", "key", "kye", "partitions")]


@pytest.mark.parametrize("text", ["", "[]", "topics: 3", "topics: [", "other: []"])
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    """What is no list of topics is a problem, not an empty list."""
    path = tmp_path / "topics.yaml"
    path.write_text(text)
    with pytest.raises(Problems):
        load_topics(path)


def test_a_topic_twice_is_refused(tmp_path: Path) -> None:
    """Names are unique."""
    path = tmp_path / "topics.yaml"
    path.write_text("topics:" + ENTRY.format(name="one", partitions=1) * 2)
    with pytest.raises(Problems, match="twice"):
        load_topics(path)


def test_the_same_log_passes() -> None:
    """Offsets from the log's beginning to its end are fine, both included."""
    verify_log(IDENTITY, IDENTITY, {0: 5, 1: 9}, {0: (5, 9), 1: (5, 9)})


@pytest.mark.parametrize(
    ("now", "offsets", "message"),
    [
        (LogIdentity("usage.events", uuid.UUID(int=2), IDENTITY.kafka_topic_id, 2), {}, "another log"),
        (LogIdentity("usage.events", IDENTITY.log_id, "AAAAAAAAAAAAAAAAAAAAAA", 2), {}, "made again"),
        (LogIdentity("usage.events", IDENTITY.log_id, IDENTITY.kafka_topic_id, 3), {}, "3 partitions"),
        (IDENTITY, {0: 10}, "partition 0 ends at 9, before the stored offset 10"),
        (IDENTITY, {1: 4}, "partition 1 begins at 5, after the stored offset 4"),
        (IDENTITY, {7: 1}, "partition 7 ends at 0"),
    ],
)
def test_another_log_is_refused(now: LogIdentity, offsets: dict[int, int], message: str) -> None:
    """Each difference is named: reading on would skip or repeat records unseen."""
    with pytest.raises(InvariantViolation, match=message):
        verify_log(now, IDENTITY, offsets, {0: (5, 9), 1: (5, 9)})
