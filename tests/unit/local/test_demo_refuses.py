"""The demo refuses what would bill nobody before it starts anything."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.domain.errors import ConfigurationFault, Problems
from pipeline.ingest.trace_csv import Trace, TraceRow
from pipeline.local.broker import keep_broker, kept_broker
from pipeline.local.demo import refuse_other_times

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def trace(*times: str) -> Trace:
    rows = [TraceRow(int(datetime.fromisoformat(time).timestamp()), 0, 1, "") for time in times]
    return Trace("digest", ("vm",), tuple(rows))


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (("2026-06-30T00:00Z", "2026-07-01T00:06Z"), "yet to come"),
        (("1970-01-02T00:00Z", "1970-01-01T22:59Z"), "since 1970"),
    ],
)
def test_a_trace_of_another_time_is_refused(times: tuple[str, ...], message: str) -> None:
    """What is yet to come the log does not take, and before 1970 nobody in the demo has a subscription."""
    with pytest.raises(Problems, match=f"t.csv: timestamp: .*{message}"):
        refuse_other_times(Path("t.csv"), trace(*times), NOW)


def test_any_other_month_is_taken() -> None:
    """From the second day of 1970 in Amsterdam to five minutes ahead."""
    refuse_other_times(Path("t.csv"), trace("1970-01-01T23:00Z", "1970-01-05T00:00Z"), NOW)
    refuse_other_times(Path("t.csv"), trace("2026-07-01T00:05Z"), NOW)


def test_a_folder_keeps_its_broker(tmp_path: Path) -> None:
    """A log is found by the broker that made it only, so the folder says which one that was."""
    assert kept_broker(tmp_path, None) is None
    assert kept_broker(tmp_path, "apache") == "apache"
    keep_broker(tmp_path, "embedded")
    assert kept_broker(tmp_path, None) == "embedded"
    assert kept_broker(tmp_path, "embedded") == "embedded"
    with pytest.raises(ConfigurationFault, match="made by the embedded broker"):
        kept_broker(tmp_path, "apache")
