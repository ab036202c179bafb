"""The emitter against a real broker: killed in mid-run it uses no number twice and owns up to its hole."""

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from pipeline.contracts.usage_event import UsageEvent, decode_event
from pipeline.domain.errors import TransientFault
from pipeline.domain.identity import IntervalSet, home_partition
from pipeline.ingest.emitter import UsageEmitter
from pipeline.ingest.outlet import DirectOutlet
from pipeline.runtime.producer import LogProducer
from tests.integration.log_reader import read_topic

pytestmark = pytest.mark.real

SOURCE = "urn:rackmeter:host:web-01"
PARTITIONS = 4
REPO = Path(__file__).parents[2]

EMIT_FOR_EVER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from pipeline.ingest.emitter import UsageEmitter
from pipeline.ingest.outlet import DirectOutlet
from pipeline.runtime.producer import LogProducer

bootstrap_servers, topic, source, state_dir = sys.argv[1:]
outlet = DirectOutlet(LogProducer(bootstrap_servers), topic, source)
emitter = UsageEmitter(source, Path(state_dir), "m1", outlet, block_size=200)
while True:
    emitter.emit("web-01", "rackmeter.host.sample.v1", datetime.now(UTC), {"cpu_cores": 4})
    print(emitter._number_next, flush=True)
"""


def test_killed_emitter_uses_no_number_twice(
    bootstrap_servers: str, fresh_topics: Callable[[int], dict[str, str]], tmp_path: Path
) -> None:
    """Three times killed in mid-run, the log holds each number once, in one partition, and every hole is declared."""
    topic = fresh_topics(PARTITIONS)["usage.events"]
    for turn in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", EMIT_FOR_EVER, bootstrap_servers, topic, SOURCE, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=REPO,
        ) as process:
            assert process.stdout is not None
            for _ in range(450 + 130 * turn):
                assert process.stdout.readline(), "the emitter ended by itself"
            process.kill()
    # A broker may still be taking in what a killed client had sent.
    time.sleep(1)
    with (
        LogProducer(bootstrap_servers) as producer,
        UsageEmitter(SOURCE, tmp_path, "m1", DirectOutlet(producer, topic, SOURCE)) as emitter,
    ):
        emitter.emit("web-01", "rackmeter.host.sample.v1", datetime.now(UTC), {"cpu_cores": 4})
        emitter.retired()
    numbers: list[int] = []
    settled = IntervalSet()
    for partition, key, value in read_topic(bootstrap_servers, topic):
        event = decode_event(value)
        assert isinstance(event, UsageEvent)
        assert event.sequence is not None
        assert key == event.source.encode()
        assert partition == home_partition(SOURCE, PARTITIONS)
        numbers.append(event.sequence.number)
        settled.add(event.sequence.number)
        if event.type == "rackmeter.control.dropped.v1":
            data: dict[str, int] = msgspec.json.decode(event.data)
            settled.add_range(data["first"], data["last"] + 1)
    assert numbers == sorted(set(numbers))
    assert settled.covers(1, numbers[-1])
    assert len(numbers) > 1000


def test_emitter_says_when_the_broker_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a broker nothing is acknowledged: flush raises, and the next start declares the hole."""
    monkeypatch.setattr("pipeline.ingest.outlet.FLUSH_TIMEOUT_SECONDS", 0.5)
    with LogProducer("127.0.0.1:1") as producer:
        emitter = UsageEmitter(SOURCE, tmp_path, "m1", DirectOutlet(producer, "usage.events", SOURCE))
        emitter.heartbeat()
        with pytest.raises(TransientFault):
            emitter.flush()
        emitter.close()
        with pytest.raises(TransientFault):
            UsageEmitter(SOURCE, tmp_path, "m1", DirectOutlet(producer, "usage.events", SOURCE))
