"""A log line is one JSON object, whatever is in it."""

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.runtime.logs import JsonFormatter, configure_logs


def _formatted(message: str, *arguments: object, **extra: object) -> dict[str, Any]:
    record = logging.getLogger("rackmeter.test").makeRecord(
        "rackmeter.test", logging.WARNING, "file.py", 1, message, arguments, None, extra=extra
    )
    line = JsonFormatter("aggregate").format(record)
    assert "\n" not in line
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_a_line_says_when_who_and_what() -> None:
    """Time in UTC, level, stage, logger and the message with its arguments."""
    line = _formatted("%d events", 3)

    assert line["time"].endswith("Z")
    assert (line["level"], line["stage"], line["logger"]) == ("warning", "aggregate", "rackmeter.test")
    assert line["message"] == "3 events"


def test_what_is_passed_as_extra_is_a_member() -> None:
    """Machines read `action` and numbers without parsing sentences."""
    line = _formatted("flushed", action="flush", partition=4)

    assert (line["action"], line["partition"]) == ("flush", 4)


def test_a_line_break_in_a_name_cannot_forge_a_line() -> None:
    """A source called 'a<newline>{...}' stays inside its line."""
    assert _formatted("source %s", 'a\n{"level": "info"}')["message"] == 'source a\n{"level": "info"}'


def test_an_exception_is_in_the_line() -> None:
    """The traceback is a member, not lines of its own."""
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
    line = JsonFormatter("aggregate").format(record)

    assert "\n" not in line
    assert "ValueError: broken" in json.loads(line)["exception"]


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_logs_go_to_stderr_at_the_wanted_level(root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """Data has stdout to itself."""
    configure_logs("WARNING", "totals")
    logging.getLogger("rackmeter.totals").info("quiet")
    logging.getLogger("rackmeter.totals").warning("loud", extra={"action": "sweep"})
    said = capsys.readouterr()

    assert said.out == ""
    assert [json.loads(line)["message"] for line in said.err.splitlines()] == ["loud"]
