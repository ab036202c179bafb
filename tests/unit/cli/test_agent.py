"""`rackmeter agent`: what it prints and how it ends."""

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.agent.status import AgentStatus, spool_folder, status_path, store_status
from pipeline.cli.main import app
from pipeline.contracts.usage_event import UsageEvent, decode_event
from pipeline.domain.errors import ConfigurationFault
from pipeline.ingest.spool import Spool

SOURCE = "urn:rackmeter:agent:web-01"


def write_status(state_dir: Path, *, age_seconds: int = 0, fault: str | None = None) -> None:
    now_us = (int(time.time()) - age_seconds) * 1_000_000
    status = AgentStatus(
        source=SOURCE, subject="web-01", pid=os.getpid(), interval_seconds=10, started_us=now_us - 100_000_000,
        beat_us=now_us, beat_count=11, failed_beat_count=0, cpu_us=150_000, rss_bytes=48 * 1_048_576, skew_ms=-3,
        fault=fault, beat_fault=None,
    )  # fmt: skip
    store_status(status_path(state_dir, SOURCE), status)
    Spool(spool_folder(state_dir, SOURCE), SOURCE).close()


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RACKMETER_STATE_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc here")
def test_a_dry_run_prints_events_and_keeps_nothing(state_dir: Path) -> None:
    """Stdout is one event a line, as it would be sent; no broker is asked and no state made."""
    result = CliRunner().invoke(app, ["agent", "--dry-run", "--subject", "web-01"])
    assert result.exit_code == 0
    assert all(isinstance(decode_event(line.encode()), UsageEvent) for line in result.stdout.splitlines())
    assert list(state_dir.iterdir()) == []


def test_status_is_exact(state_dir: Path) -> None:
    """Shares and sizes are decimals as text, counts are numbers, and a good agent is exit code 0."""
    write_status(state_dir)
    result = CliRunner().invoke(app, ["agent", "status", "--source", SOURCE, "--format", "json"])
    (row,) = json.loads(result.stdout)
    assert (row["cpu_percent"], row["rss_mib"], row["clock_ahead_ms"], row["beats"]) == ("0.15", "48", -3, 11)
    assert (row["state"], row["fault"], row["holes"]) == ("running", None, [])
    assert result.exit_code == 0


@pytest.mark.parametrize(("age_seconds", "fault"), [(60, None), (0, "the broker does not answer")])
def test_an_agent_that_is_not_well_is_exit_code_one(state_dir: Path, age_seconds: int, fault: str | None) -> None:
    """A beat that is overdue, and a delivery that fails, are seen by whoever only looks at the exit code."""
    write_status(state_dir, age_seconds=age_seconds, fault=fault)
    result = CliRunner().invoke(app, ["agent", "status", "--source", SOURCE])
    assert result.exit_code == 1


def test_status_of_no_agent_says_what_to_do(state_dir: Path) -> None:
    """Where no agent has run, the folder and the source are named."""
    result = CliRunner().invoke(app, ["agent", "status", "--source", SOURCE])
    assert isinstance(result.exception, ConfigurationFault)
    assert str(state_dir) in result.exception.detail
