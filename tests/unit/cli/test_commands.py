"""The commands as a whole: help, exit codes, what they may import."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from pipeline.bootstrap import STAGES
from pipeline.cli import main as entry
from pipeline.cli.main import app
from pipeline.cli.run import StageName
from pipeline.domain import errors
from pipeline.reports.store import Stretch


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    """--help says what the command does and shows at least one line to copy."""
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    help_text = COMMANDS[path].help
    assert help_text
    assert help_text.strip().endswith(".")
    assert "Examples:" in result.output
    assert f"rackmeter {' '.join(path)}" in result.output


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_explained(path: tuple[str, ...]) -> None:
    """No option or argument without a sentence about it."""
    for parameter in COMMANDS[path].params:
        assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name}"


def test_a_command_that_prints_data_takes_the_three_formats() -> None:
    """Only commands that print nothing but talk go without --format."""
    without = {path for path, command in COMMANDS.items() if not any("--format" in p.opts for p in command.params)}
    talkers = {("run",), ("watch",), ("up",), ("ui",), ("demo",), ("quarantine", "replay"), ("quarantine", "drop")}
    assert without <= talkers


def test_names_on_the_command_line_are_those_inside() -> None:
    """The stages that can be asked for are the stages that can be wired; so are the stretches of usage."""
    from pipeline.cli.usage import By

    assert tuple(name.value for name in StageName) == STAGES
    assert tuple(by.value for by in By) == get_args(Stretch)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvariantViolation("broken"), 70),
        (errors.TransientFault("broken"), 75),
        (errors.ConfigurationFault("broken"), 78),
        (errors.Problems([errors.Problem("a.yaml", 3, "x", "broken")]), 78),
        (errors.RejectedRecord("json_invalid", "broken"), 1),
    ],
)
def test_an_error_is_a_sentence_and_an_exit_code(
    error: errors.PipelineError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every error of ours ends the process with its code and its sentence on stderr, without a traceback."""

    def fail(prog_name: str) -> None:
        raise error

    monkeypatch.setattr(entry, "app", fail)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    captured = capsys.readouterr()
    assert ended.value.code == code
    assert captured.out == ""
    assert captured.err.startswith("rackmeter: ")
    assert "broken" in captured.err
    assert "Traceback" not in captured.err


def test_missing_settings_are_named_all_at_once() -> None:
    """A command without its settings says each variable that is missing, and exits with 78."""
    result = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", "totals"], env={}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 78
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "RACKMETER_ARCHIVE_DIR", "RACKMETER_DOCUMENTS_DIR"):
        assert name in result.stderr
    assert "Traceback" not in result.stderr


def test_the_command_is_called_rackmeter_however_it_was_started() -> None:
    """Usage lines can be copied."""
    result = subprocess.run(
        [sys.executable, "-m", "pipeline", "close"], env={}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: rackmeter close")


def test_help_imports_nothing_heavy() -> None:
    """`rackmeter --help` starts fast because no client, frame or database library is loaded for it."""
    heavy = ("pandas", "duckdb", "faust", "pyarrow", "confluent_kafka", "psycopg", "rich", "yaml", "jinja2")
    program = f"import sys, pipeline.cli.main\nprint([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "nothing"],
        ["close"],
        ["close", "--period", "2013-13"],
        ["close", "--period", "2013-07", "--issue-on", "yesterday"],
        ["verify", "--invoice", "RM-1", "--period", "2013-07"],
        ["usage", "list", "--by", "week"],
        ["servers", "assign", "vm-1"],
        ["topics", "--partitions", "usage.events"],
        ["topics", "--partitions", "other=8"],
        ["log", "adopt"],
        ["invoices", "list", "--format", "xml"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_two(arguments: list[str]) -> None:
    """What cannot be meant is refused before any service is asked."""
    assert CliRunner().invoke(app, arguments, env={}).exit_code == 2
