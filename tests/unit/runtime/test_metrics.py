"""Every stage answers /metrics and /healthz, and says when it is stuck."""

import urllib.error
import urllib.request

import pytest

from pipeline.runtime import metrics
from pipeline.runtime.metrics import STUCK_AFTER_SECONDS, Health


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        """Begin anywhere."""
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Give the time."""
        return self.seconds


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_loop_that_turns_is_well() -> None:
    """Each step starts the time anew."""
    clock = Clock()
    health = Health("aggregate", clock)
    clock.seconds += STUCK_AFTER_SECONDS
    health.step()
    clock.seconds += STUCK_AFTER_SECONDS

    assert health.problem() is None


def test_a_loop_that_stands_is_stuck() -> None:
    """A stage that hangs in a call is found out by its silence."""
    clock = Clock()
    health = Health("aggregate", clock)
    clock.seconds += STUCK_AFTER_SECONDS + 1

    assert health.problem() == "no step for 121 s"


def test_a_halted_stage_says_why_whatever_the_clock_says() -> None:
    """What a person must look at is not covered up by a later step."""
    health = Health("aggregate", Clock())
    health.halt("the log was truncated")
    health.step()

    assert health.problem() == "the log was truncated"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the server lives as long as its process, so does its socket
def test_the_server_answers_on_a_free_port() -> None:
    """/metrics gives every metric, /healthz 200 or 503 with the reason, anything else 404."""
    health = Health("aggregate", Clock())
    port = metrics.serve(0, health)

    assert port > 0
    assert _get(port, "/healthz") == (200, "ok\n")
    status, text = _get(port, "/metrics")
    assert status == 200
    assert "rackmeter_dirty_marks" in text
    assert _get(port, "/elsewhere")[0] == 404
    health.halt("fenced by nobody we know")
    assert _get(port, "/healthz") == (503, "fenced by nobody we know\n")
