"""Figures are medians, and ratios are to the better raw consumer of the same run."""

import pytest

from bench import __main__ as command
from bench import pipeline
from bench.measure import Reading
from bench.pipeline import WrongResult
from bench.report import figures


def _reading(seconds: float, passes: int = 1) -> Reading:
    return Reading(seconds, passes, {"python": seconds}, {"python": 1.0}, flushes=2, flush_seconds=seconds / 2)


def test_a_ratio_is_to_the_better_raw_consumer_of_its_own_run() -> None:
    """A run on a machine that was slow for a moment has a slow R too."""
    readings = {
        "raw_default": [_reading(1.0), _reading(4.0), _reading(1.0)],
        "raw_tuned": [_reading(2.0), _reading(2.0), _reading(0.5)],
        "samples": [_reading(10.0), _reading(20.0), _reading(10.0)],
    }

    by_name = {figure.name: figure for figure in figures(readings, 1_000)}

    assert by_name["samples"].ratio == pytest.approx(0.1)
    assert by_name["raw_default"].ratio == pytest.approx(0.5)
    assert by_name["raw_tuned"].ratio == pytest.approx(1.0)


def test_a_figure_is_the_median_an_event() -> None:
    """Several passes over the topic are several times its events."""
    readings = {name: [_reading(2.0, passes=4)] * 3 for name in ("raw_default", "raw_tuned")}

    figure = figures(readings, 1_000)[0]

    assert figure.events_per_second == pytest.approx(2_000)
    assert figure.cpu_us["python"] == pytest.approx(500)
    assert figure.flush_share == pytest.approx(0.5)


def test_a_wrong_run_prints_no_figure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output stays empty and the exit code is 1."""

    def wrong(_options: pipeline.Options) -> None:
        raise WrongResult("slots of cpu, vm-1: 6 in the database, 5 in truth")

    monkeypatch.setattr(pipeline, "run", wrong)

    assert pipeline.main(["--quick"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "6 in the database, 5 in truth" in told.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--runs", "2"],
        ["--events-per-message", "101"],
        ["--events", "5", "--servers", "6"],
        ["--events", "1000000", "--servers", "1"],
        ["--flush-events", "0"],
    ],
)
def test_a_senseless_load_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be measured is refused before anything is started."""
    with pytest.raises(SystemExit) as ended:
        pipeline.main(arguments)

    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_an_unknown_benchmark_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m bench` alone tells what can be run."""
    assert command.main([]) == 2
    assert "pipeline" in capsys.readouterr().err
