"""`rackmeter replay`: a recorded trace, sent as the events its servers would have sent."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.environment import settings_for
from pipeline.cli.options import FormatOption, examples, zoned
from pipeline.cli.output import Format, numbers, say, show, texts
from pipeline.domain.period import zone

app = typer.Typer()


@app.command(
    epilog=examples(
        "rackmeter replay --trace trace.csv.gz", "rackmeter replay --trace trace.csv --zone UTC --faults 7 --batch 50"
    )
)
def replay(
    trace: Annotated[Path, typer.Option(help="CSV or CSV.gz; docs/cli.md names the columns.")],
    zone_name: Annotated[str, typer.Option("--zone", help="IANA zone in which months begin.")] = "Europe/Amsterdam",
    faults: Annotated[int | None, typer.Option(metavar="SEED", help="Add duplicate, late and bad events.")] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Events of a source in one message.")] = 1,
    shuffle: Annotated[int | None, typer.Option(metavar="SEED", help="Send in a random order.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Send a recorded trace as events. Replaying it again counts nothing twice: ids follow from the trace's content.

    A trace with a problem is refused whole, each problem with its line; nothing is sent.
    """
    from pipeline.bootstrap import replay_trace
    from pipeline.ingest.replay import ReplayOptions
    from pipeline.ingest.trace_csv import read_trace
    from pipeline.runtime.topics import await_broker

    zone(zone_name)
    options = ReplayOptions(faults_seed=faults, events_per_message=batch, shuffle_seed=shuffle)
    settings = settings_for("kafka_bootstrap_servers")
    rows_of_trace = read_trace(trace)
    await_broker(settings.kafka_bootstrap_servers)
    with progress_bar("sending events") as advance:
        report = replay_trace(settings, rows_of_trace, zone_name=zone_name, options=options, progress=advance)
    counts = {
        "sources": report.source_count,
        "messages": report.messages_sent,
        "events": report.events_sent,
        "samples": report.sample_count,
        "control": report.control_count,
        "duplicates": report.duplicate_count,
        "late": report.late_count,
        **{f"bad: {reason}": count for reason, count in sorted((report.quarantined | report.parked).items())},
    }
    say(f"{trace}: most of it lies in {zoned(report.period.start, zone_name):%Y-%m}, {zone_name}")
    rows = [{"sent": name, "count": count} for name, count in counts.items()]
    show((*texts("sent"), *numbers("count")), rows, form)


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give a function of (done, total) that draws a bar on stderr; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield advance
