"""Ctrl-C on any command."""

import contextlib
import signal
from collections.abc import Iterator

import pytest

from pipeline.cli import main as entry
from pipeline.domain.errors import TransientFault


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), SystemExit(130), RuntimeError("Query interrupted"), TransientFault("the connection is lost")],
    ids=["as it is", "by typer", "by DuckDB", "by the database"],
)
def test_it_ends_with_130_and_a_word(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a library makes of the interrupt, a person sees that the command stopped, and no traceback."""

    def interrupted(prog_name: str) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise error

    monkeypatch.setattr(entry, "app", interrupted)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "rackmeter: stopped\n"


def test_without_it_an_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the program's own keeps its traceback."""

    def fail(prog_name: str) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(entry, "app", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        entry.main()
