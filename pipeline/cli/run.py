"""`rackmeter run` and `watch`: one stage in this process, or the watch over what the stages leave behind."""

from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli.environment import settings_for
from pipeline.cli.options import examples

app = typer.Typer()


class StageName(StrEnum):
    """The stages that run for ever; a test holds them equal to the ones that can be wired."""

    AGGREGATE = "aggregate"
    ARCHIVE = "archive"
    TOTALS = "totals"
    RATE = "rate"
    LEDGER_SINK = "ledger_sink"
    SEALER = "sealer"


@app.command(
    epilog=examples(
        "rackmeter run aggregate", "RACKMETER_WORKER_SLOT=1 RACKMETER_METRICS_PORT=9101 rackmeter run aggregate"
    )
)
def run(stage: Annotated[StageName, typer.Argument(help="Which stage.")]) -> None:
    """
    Run one stage until SIGTERM or Ctrl-C.

    Logs are JSON on stderr; /metrics and /healthz are served on RACKMETER_METRICS_PORT. Settings come from the
    environment: see `rackmeter check-config`. Exit codes: 0 stopped, 70 a law does not hold (a person must look),
    75 try again, 78 a setting is wrong.
    """
    from pipeline.bootstrap import run_stage

    raise typer.Exit(run_stage(stage.value, settings_for()))


@app.command(epilog=examples("rackmeter watch", "RACKMETER_METRICS_PORT=9105 rackmeter watch"))
def watch() -> None:
    """
    Serve what the books, the logs and the disks say as metrics, until SIGTERM or Ctrl-C; changes nothing.

    What alerts need and no stage knows: open quarantine, unproven months, a changed log, free disk. It speaks for the
    stages also while they are down. One process an installation; settings and exit codes are those of `rackmeter run`.
    """
    from pipeline.bootstrap import run_stage

    raise typer.Exit(run_stage("watch", settings_for()))
