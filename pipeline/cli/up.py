"""`rackmeter up`: broker, database and every stage on this machine, until it is stopped."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import examples
from pipeline.cli.output import say

app = typer.Typer()

DEFAULT_FOLDER = Path(".rackmeter") / "up"
PARTITIONS_DEFAULT = 8


@app.command(
    epilog=examples(
        "rackmeter up",
        "rackmeter up --folder /var/lib/rackmeter --workers 2",
        "KAFKA_BOOTSTRAP_SERVERS=kafka:9092 DATABASE_URL=postgresql://... rackmeter up",
    )
)
def up(
    folder: Annotated[Path, typer.Option(help="Where everything is kept; used again, it goes on.")] = DEFAULT_FOLDER,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Aggregate workers.")] = 1,
    partitions: Annotated[
        int, typer.Option(min=1, max=1000, help="Of usage.events, where it is made now; for life.")
    ] = PARTITIONS_DEFAULT,
) -> None:
    """
    Run every stage under one supervisor; crashed ones are started again, Ctrl-C stops all.

    Broker and database are those of KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL, else our own in the folder. Exit codes:
    0 stopped; 70 a stage halted, 78 one is misconfigured, and its log says why; 75 broker or database died.
    """
    from pipeline.local.metrics_urls import MetricsUrls
    from pipeline.local.processes import exit_code_of, stopping_on_signals
    from pipeline.local.stack import failed_children, local_settings, running_services, stage_supervisor
    from pipeline.runtime.settings import variable_name

    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with stopping_on_signals() as stop, running_services(folder, os.environ, say, partitions) as services:
        settings = local_settings(folder, services)
        say("running; logs are in the folder's logs/. For other commands, in another terminal:")
        for name in (
            "kafka_bootstrap_servers",
            "database_url",
            "archive_dir",
            "documents_dir",
            "journal_dir",
            "state_dir",
        ):
            typer.echo(f"export {variable_name(name)}='{getattr(settings, name)}'")
        supervisor = stage_supervisor(folder, settings, workers)
        metrics = MetricsUrls(supervisor.report())

        def watch() -> None:
            services.check()
            for name, url in metrics.found():
                say(f"{name}: {url}")

        reports = supervisor.run(stop, watch)
        for child in reports:
            say(f"{child.name}: {child.state}")
    say("stopped; nothing is left running")
    if code := exit_code_of(reports):
        for line in failed_children(supervisor):
            say(f"PROBLEM: {line}")
        raise typer.Exit(code)
