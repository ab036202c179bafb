"""Where a stage serves its metrics is read from its log."""

from pathlib import Path

from pipeline.local.metrics_urls import MetricsUrls, last_said
from pipeline.local.processes import ChildReport, ChildState


def test_each_start_is_found_once(tmp_path: Path) -> None:
    """Lines of earlier runs and half lines do not count; a start again gives its new port."""
    log_file = tmp_path / "rate.log"
    log_file.write_text('{"action": "start", "metrics_port": 1}\n')
    urls = MetricsUrls([ChildReport("rate", ChildState.STOPPED, None, 0, None, log_file)])
    assert urls.found() == []
    with log_file.open("a") as log:
        log.write('not JSON "metrics_port"\n{"action": "start", "metrics_port": 4')
        log.flush()
        assert urls.found() == []
        log.write('2}\n{"action": "idle"}\n')
        log.flush()
        assert urls.found() == [("rate", "http://127.0.0.1:42/metrics")]
        assert urls.found() == []
        log.write('{"action": "start", "metrics_port": 43}\n')
    assert urls.found() == [("rate", "http://127.0.0.1:43/metrics")]


def test_the_last_start_of_each_stage_is_said(tmp_path: Path) -> None:
    """Who comes later finds the newest port in the logs, and nothing of stages that never started."""
    (tmp_path / "rate.log").write_text('{"metrics_port": 1}\n{"action": "idle"}\n{"metrics_port": 2}\n{"metrics_po')
    (tmp_path / "totals.log").write_text("nothing of use\n")
    assert last_said(tmp_path) == {"rate": "http://127.0.0.1:2/metrics"}
    assert last_said(tmp_path / "missing") == {}
