"""Replay against a real broker: what is in the log is what the report says."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.contracts.usage_event import (
    HOST_SAMPLE_FIELDS,
    UsageEvent,
    decode_event,
    reading_decoder,
    split_message,
)
from pipeline.domain.identity import home_partition
from pipeline.ingest.replay import ReplayOptions, ReplayReport, replay
from pipeline.ingest.trace_csv import Trace, read_trace
from pipeline.local.trace import generate
from pipeline.runtime.producer import LogProducer
from tests.integration.log_reader import read_topic

pytestmark = pytest.mark.real

ZONE = "Europe/Amsterdam"
PARTITIONS = 4
REAL_TRACE = Path(
    os.environ.get("RACKMETER_REAL_TRACE") or Path(__file__).parents[3] / "shared/data/bitbrains-2013-07-50vms.csv.gz"
)


def send(bootstrap_servers: str, topic: str, trace: Trace, options: ReplayOptions) -> ReplayReport:
    with LogProducer(bootstrap_servers) as producer:
        return replay(trace, producer, topic, zone_name=ZONE, options=options)


@pytest.mark.parametrize("events_per_message", [1, 20])
def test_log_holds_what_was_sent(
    bootstrap_servers: str,
    fresh_topics: Callable[[int], dict[str, str]],
    tmp_path: Path,
    events_per_message: int,
) -> None:
    """Every event sent is in the log, at its source's home; bad ones are as many as injected."""
    path = tmp_path / "trace.csv"
    generate(path, seed=5, month="2026-02", servers=2)
    topic = fresh_topics(PARTITIONS)["usage.events"]
    options = ReplayOptions(faults_seed=1, events_per_message=events_per_message)
    report = send(bootstrap_servers, topic, read_trace(path), options)
    messages = read_topic(bootstrap_servers, topic)
    assert len(messages) == report.messages_sent
    events: Counter[bytes] = Counter()
    for partition, key, value in messages:
        assert partition == home_partition(key.decode(), PARTITIONS)
        parts = split_message(value)
        assert isinstance(parts, list)
        events.update(parts)
    assert sum(events.values()) == report.events_sent
    assert sum(count - 1 for count in events.values()) == report.duplicate_count
    rejected = sum(not isinstance(decode_event(event), UsageEvent) for event in events)
    assert rejected == report.quarantined["json_invalid"] + report.quarantined["time_missing"]


@pytest.mark.skipif(not REAL_TRACE.exists(), reason=f"the real trace is not part of the repository: {REAL_TRACE}")
def test_real_trace_is_read_whole() -> None:
    """Every row of the recorded month is a valid sample, repeated rows and interleaved series included."""
    trace = read_trace(REAL_TRACE)
    assert (len(trace.rows), len(trace.vms)) == (382_236, 50)
    assert trace.period(ZONE).start.isoformat() == "2013-06-30T22:00:00+00:00"
    read = reading_decoder(HOST_SAMPLE_FIELDS)

    class Checked:
        def __init__(self) -> None:
            self.numbers: set[tuple[str, int]] = set()

        def send(self, topic: str, key: bytes, value: bytes) -> None:
            event = decode_event(value)
            assert isinstance(event, UsageEvent), event
            assert event.sequence is not None
            self.numbers.add((event.source, event.sequence.number))
            if not event.is_control:
                read(event.data)

        def flush(self, timeout_seconds: float) -> None:
            assert len(self.numbers) == 382_336

    assert replay(trace, Checked(), "usage.events", zone_name=ZONE).events_sent == 382_336
