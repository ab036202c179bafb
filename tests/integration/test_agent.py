"""The agent as a process against a real broker: through an outage, kill -9 and restarts everything arrives once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from pipeline.agent.resend import resend
from pipeline.contracts.usage_event import UsageEvent, decode_event, split_message
from pipeline.domain.errors import RejectedRecord
from pipeline.domain.identity import IntervalSet
from pipeline.runtime.settings import Settings
from tests.integration.log_reader import read_topic

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="the agent needs Linux's /proc"),
]

REPO = Path(__file__).parents[2]
SOURCE = "urn:rackmeter:agent:web-01"
NOWHERE = "127.0.0.1:1"

AGENT = """
import sys
from pathlib import Path
from pipeline.agent import options, service
from pipeline.runtime.settings import Settings

servers, topic, state_dir = sys.argv[1:]
service.EVENTS_TOPIC = topic
service.machine_id = lambda: "m1"
environment = {"KAFKA_BOOTSTRAP_SERVERS": servers, "RACKMETER_STATE_DIR": state_dir}
needless = ["database_url", "archive_dir", "documents_dir", "journal_dir"]
settings = Settings.from_environment(environment, not_needed=needless)
service.run_agent(settings, options.AgentOptions(interval_seconds=1, subject="web-01"))
"""


@contextmanager
def agent(servers: str, topic: str, state_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An agent that beats each second; stopped at the end, if it still runs."""
    command = [sys.executable, "-c", AGENT, servers, topic, str(state_dir)]
    with (state_dir / "log.txt").open("ab") as log, subprocess.Popen(command, cwd=REPO, stderr=log) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, -signal.SIGKILL), (state_dir / "log.txt").read_text()


def status(state_dir: Path) -> dict[str, object]:
    """What `rackmeter agent status` says; empty before the first beat."""
    told = subprocess.run(
        [sys.executable, "-m", "pipeline", "agent", "status", "--source", SOURCE, "--format", "json"],
        cwd=REPO,
        env={**os.environ, "RACKMETER_STATE_DIR": str(state_dir)},
        capture_output=True,
        check=False,
    )
    rows: list[dict[str, object]] = json.loads(told.stdout) if told.stdout else [{}]
    return rows[0]


def wait_for(state_dir: Path, is_so: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    """The first status of which it is so."""
    deadline = time.monotonic() + 60
    while not (found := status(state_dir)) or not is_so(found):
        assert time.monotonic() < deadline, (found, (state_dir / "log.txt").read_text())
        time.sleep(0.2)
    return found


def events_of(bootstrap_servers: str, topic: str) -> list[UsageEvent]:
    """Every event in a topic, in order: one source lies in one partition."""
    found: list[UsageEvent] = []
    for _, key, message in read_topic(bootstrap_servers, topic):
        assert key == SOURCE.encode()
        events = split_message(message)
        assert not isinstance(events, RejectedRecord)
        for raw in events:
            event = decode_event(raw)
            assert isinstance(event, UsageEvent)
            found.append(event)
    return found


def test_an_agent_through_outage_and_kills(
    bootstrap_servers: str, fresh_topics: Callable[[int], dict[str, str]], tmp_path: Path
) -> None:
    """Three times killed, first without a broker, an agent's every number arrives or is declared, and none differs."""
    topic = fresh_topics(4)["usage.events"]
    with agent(NOWHERE, topic, tmp_path) as process:
        wait_for(tmp_path, lambda found: found["waiting_events"] == 6)
        process.kill()
    for _ in range(2):
        with agent(bootstrap_servers, topic, tmp_path) as process:
            before = status(tmp_path)
            wait_for(tmp_path, lambda found, before=before: _is_on(found, before))  # type: ignore[misc]
            process.kill()
    before = status(tmp_path)
    with agent(bootstrap_servers, topic, tmp_path):
        # What the killed one left is not what this one says: it may not even listen to signals yet.
        wait_for(tmp_path, lambda found: _is_on(found, before) and int(str(found["beats"])) >= 2)
    last = status(tmp_path)
    assert last["waiting_events"] == 0
    assert last["acknowledged_number"] == last["last_number"]
    events = events_of(bootstrap_servers, topic)
    contents: dict[str, UsageEvent] = {}
    settled = IntervalSet()
    for event in events:
        assert contents.setdefault(event.id, event) == event
        assert event.sequence is not None
        settled.add(event.sequence.number)
        if event.type == "rackmeter.control.dropped.v1":
            data: dict[str, int] = msgspec.json.decode(event.data)
            settled.add_range(data["first"], data["last"] + 1)
    first_arrivals = list(dict.fromkeys(event.id for event in events))
    assert first_arrivals == sorted(first_arrivals)
    assert settled.covers(1, int(str(last["last_number"])))
    counters = [
        msgspec.json.decode(event.data) for event in contents.values() if event.type == "rackmeter.host.counters.v1"
    ]
    assert len(counters) >= 6
    for name in ("net_rx_bytes", "disk_write_bytes"):
        values = [counter[name] for counter in counters]
        assert values == sorted(values)


def test_what_a_broker_lost_can_be_sent_again(
    bootstrap_servers: str,
    fresh_topics: Callable[[int], dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was acknowledged goes out once more, under the same ids; the log's clock is this machine's."""
    topic = fresh_topics(4)["usage.events"]
    with agent(bootstrap_servers, topic, tmp_path):
        found = wait_for(
            tmp_path, lambda found: found["acknowledged_at"] is not None and found["clock_ahead_ms"] is not None
        )
    assert abs(int(str(found["clock_ahead_ms"]))) < 2000
    monkeypatch.setattr("pipeline.agent.resend.EVENTS_TOPIC", topic)
    environment = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "RACKMETER_STATE_DIR": str(tmp_path)}
    settings = Settings.from_environment(
        environment, not_needed=["database_url", "archive_dir", "documents_dir", "journal_dir"]
    )
    before = events_of(bootstrap_servers, topic)
    assert resend(settings, SOURCE, datetime(2026, 1, 1, tzinfo=UTC)) == len(before)
    assert events_of(bootstrap_servers, topic) == before * 2


def _is_on(found: dict[str, object], before: dict[str, object]) -> bool:
    return int(str(found["acknowledged_number"])) > int(str(before["last_number"])) and int(str(found["beats"])) >= 1
