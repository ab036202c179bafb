"""The `rackmeter` command: gathers the groups, and turns errors into a sentence and an exit code."""

import signal
from types import FrameType
from typing import Annotated, NoReturn

import typer

from pipeline import __version__
from pipeline.cli import (
    agent,
    catalogue,
    close,
    collector,
    demo,
    doctor,
    explain,
    invoices,
    ledger,
    log,
    payments,
    quarantine,
    replay,
    retention,
    run,
    servers,
    setup,
    status,
    ui,
    up,
    usage,
)
from pipeline.cli.options import examples
from pipeline.domain.errors import PipelineError

#: As a shell has it: 128 and the signal's number.
EXIT_INTERRUPTED = 130

# Plain help: rich's takes longer to import than the whole command takes to start.
app = typer.Typer(
    name="rackmeter",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=examples(
        "rackmeter check-config",
        "rackmeter doctor",
        "rackmeter close --period 2013-07",
        "rackmeter invoices list --format csv > invoices.csv",
    ),
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it so
    if wanted:
        typer.echo(f"rackmeter {__version__}")
        raise typer.Exit


@app.callback()
def rackmeter(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """
    Meter what rented servers use and turn it into money: exact, durable, provable.

    Settings come from the environment (`rackmeter check-config`). Data goes to stdout as table, JSON or CSV, talk to
    stderr. Exit codes: 0 done; 1 not so, e.g. an account is held or a proof differs; 2 usage; 70 a law does not hold;
    75 a service did not answer, try again; 78 a setting or file is wrong.
    """


for _part in (demo, up, ui, run, setup, doctor, status, replay, close, explain):
    app.add_typer(_part.app)
for _group, _name in (
    (agent, "agent"),
    (catalogue, "catalogue"),
    (servers, "servers"),
    (collector, "collector"),
    (usage, "usage"),
    (invoices, "invoices"),
    (payments, "payments"),
    (quarantine, "quarantine"),
    (ledger, "ledger"),
    (log, "log"),
    (retention, "retention"),
):
    app.add_typer(_group.app, name=_name)


def main() -> NoReturn:
    """Run the command and end the process; our errors become a sentence on stderr and an exit code, no traceback."""
    interrupts = _noted_interrupts()
    try:
        app(prog_name="rackmeter")  # also where it was started as `python -m pipeline`
    except PipelineError as error:
        from pipeline.bootstrap import exit_code_of

        _stop_if_any(interrupts)
        typer.echo(f"rackmeter: {error.detail}", err=True)
        raise SystemExit(exit_code_of(error)) from None
    except BaseException:
        # typer makes a silent exit of a Ctrl-C, DuckDB a RuntimeError.
        _stop_if_any(interrupts)
        raise
    raise SystemExit(0)


def _noted_interrupts() -> list[int]:
    """Have Ctrl-C raise KeyboardInterrupt as ever, and note it: not every library lets that through as it is."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> NoReturn:
        noted.append(number)
        signal.default_int_handler(number, frame)

    # Ignored is how a shell starts what it runs in the background.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, note)
    return noted


def _stop_if_any(interrupts: list[int]) -> None:
    if interrupts:
        typer.echo("rackmeter: stopped", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from None
