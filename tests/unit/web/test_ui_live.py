"""Rates and lags come from what the stages say of themselves, and from nothing else."""

from decimal import Decimal

import pytest

from pipeline.web.ui import live
from pipeline.web.ui.live import Figures, Live, StageLive, read_figures

TEXT = """
# HELP rackmeter_records_total Records a stage decided about.
rackmeter_records_total{outcome="counted",stage="aggregate"} 1.00002e+06
rackmeter_records_total{outcome="duplicate",stage="aggregate"} 7.0
rackmeter_records_created{outcome="counted",stage="aggregate"} 1.7e+09
rackmeter_lag_records{partition="0",stage="aggregate"} 3.0
rackmeter_lag_records{partition="1",stage="aggregate"} 4.0
rackmeter_records_total{outcome="odd",stage="aggregate"} NaN
rackmeter_faults_total{kind="fenced",stage="aggregate"} 9.0
"""


def answering(records: int) -> str:
    return f'rackmeter_records_total{{outcome="booked",stage="ledger_sink"}} {records}.0\n'


class Stages:
    """Processes whose answers and clock a test sets."""

    def __init__(self, **answers: str | None) -> None:
        self.answers = answers
        self.seconds = 0.0
        self.live = Live(lambda: {name: name for name in self.answers}, self.answers.get, lambda: self.seconds)

    def look(self, after_seconds: float, **answers: str | None) -> dict[str, StageLive]:
        self.seconds += after_seconds
        self.answers.update(answers)
        return self.live.look()


def test_figures_are_summed_by_stage() -> None:
    """Outcomes and partitions add up; other metrics and what is no number are passed over."""
    assert read_figures(TEXT) == Figures(records={"aggregate": 1_000_027}, lag={"aggregate": 7})


def test_a_rate_needs_two_looks() -> None:
    """The first look has no rate; later ones divide what came by the time between."""
    stages = Stages(sink=answering(100))
    assert stages.look(0)["ledger_sink"] == StageLive(None, None, 1)
    assert stages.look(2, sink=answering(151))["ledger_sink"].per_second == Decimal("25.5")


def test_two_pages_at_once_do_not_spoil_the_rate() -> None:
    """A look right after another gives the rate of before."""
    stages = Stages(sink=answering(0))
    stages.look(0)
    stages.look(2, sink=answering(100))
    assert stages.look(0.1, sink=answering(101))["ledger_sink"].per_second == Decimal("50.0")


def test_a_restarted_process_has_no_rate_at_first() -> None:
    """A counter that fell is another process's, and no negative rate."""
    stages = Stages(sink=answering(1000))
    stages.look(0)
    assert stages.look(2, sink=answering(5))["ledger_sink"].per_second is None


def test_who_does_not_answer_is_not_running() -> None:
    """Its log still names a port; nobody is there."""
    stages = Stages(sink=None, totals="")
    assert stages.look(0) == {"totals": StageLive(None, None, 1)}


def test_workers_of_a_stage_are_shown_as_one() -> None:
    """Rates and lags of two processes add up."""
    lag = 'rackmeter_lag_records{partition="0",stage="ledger_sink"} 4.0\n'
    stages = Stages(**{"sink": answering(0), "sink-1": answering(0)})
    stages.look(0)
    found = stages.look(2, **{"sink": answering(10) + lag, "sink-1": answering(20)})
    assert found == {"ledger_sink": StageLive(Decimal("15.0"), 4, 2)}


@pytest.mark.parametrize("url", ["http://10.0.0.1:80/metrics", "file:///etc/passwd", "http://127.0.0.1:1/metrics"])
def test_only_loopback_is_asked_and_a_silent_port_is_no_error(url: str) -> None:
    """A log file cannot have us open what is not a stage of this machine."""
    assert live.fetch(url) is None
