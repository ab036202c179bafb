"""`rackmeter demo`: a month of usage through the whole pipeline to proven invoices, on this machine."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import examples
from pipeline.cli.output import Column, Format, numbers, say, show, texts

if TYPE_CHECKING:
    from rich.progress import TaskID

    from pipeline.invoice_batch.model import AccountResult
    from pipeline.local.demo_result import DemoResult

app = typer.Typer()

DEFAULT_ROOT = Path(".rackmeter") / "demo"

#: Without a terminal a long step says how far it is this often.
LINE_EVERY_SECONDS = 5.0

INVOICE_COLUMNS: tuple[Column, ...] = (
    *texts("number", "account", "period", "outcome"),
    *numbers("total"),
    *texts("currency"),
)


@app.command(
    epilog=examples(
        "rackmeter demo",
        "rackmeter demo --trace month.csv.gz",
        "rackmeter demo --again",
        "RACKMETER_BROKER=embedded rackmeter demo",
    )
)
def demo(
    trace: Annotated[
        Path | None, typer.Option(help="A recorded trace, CSV or CSV.gz; default: one made up, with faults.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Replay the newest finished run's trace into its folder.")
    ] = False,
    root: Annotated[Path, typer.Option(help="Folder of the demo's runs.")] = DEFAULT_ROOT,
    workers: Annotated[int, typer.Option(min=1, max=8, help="Aggregate workers.")] = 1,
) -> None:
    """
    Replay a month of usage, bill it and prove every line.

    Starts a broker and a database in a folder of its own (or uses KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL), and stops
    whatever it started. With --again every event that counted is a duplicate, and no document may change.
    Exit code 1: something is not as it must be, and is said.
    """
    from pipeline.local.demo import Demo, DemoRequest

    request = DemoRequest(root.resolve(), trace, again, workers)
    with _Progress() as progress:
        try:
            result = Demo(request, os.environ, progress.say, progress.show).run()
        except KeyboardInterrupt:
            progress.say("stopped; nothing is left running")
            raise
    _print(result)
    if result.problems:
        for problem in result.problems:
            say(f"PROBLEM: {problem}")
        raise typer.Exit(1)
    folder = shlex.quote(str(result.folder))
    typer.echo(f"look at it: rackmeter ui --folder {folder}")
    typer.echo(f"go on with it: rackmeter up --folder {folder}")
    sys.stdout.flush()


class _Progress:
    """A bar for each long step on a terminal, a line now and then elsewhere; on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, highlight=False, markup=False)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said_at: dict[str, float] = {}

    def __enter__(self) -> "_Progress":
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def say(self, sentence: str) -> None:
        self._console.print(sentence)

    def show(self, step: str, done: int, total: int) -> None:
        if self._console.is_terminal:
            if step not in self._tasks:
                self._tasks[step] = self._bars.add_task(step, total=total)
            self._bars.update(self._tasks[step], completed=done, total=total)
        elif done >= total or time.monotonic() - self._said_at.get(step, 0.0) >= LINE_EVERY_SECONDS:
            self._said_at[step] = time.monotonic()
            self.say(f"{step}: {done:,} of {total:,}")


def _print(result: "DemoResult") -> None:
    counts = [{"events": name, "count": count} for name, count in result.counts]
    typer.echo("")
    show((*texts("events"), *numbers("count")), counts, Format.TABLE)
    show(INVOICE_COLUMNS, [_row(one) for one in result.run.results], Format.TABLE)
    for result_row in result.run.results:
        for reason in result_row.reasons:
            say(f"{result_row.account_id} is held: {reason.sentence}")
    for currency, balance in result.balance_by_currency():
        typer.echo(
            f"trial balance: {balance.normalize():f} {currency} over {len(result.trial_balance)} ledger accounts"
        )
    proof = "every one proven" if not result.proof_differences else f"{len(result.proof_differences)} DIFFERENCES"
    typer.echo(f"proof: {result.proof_lines} invoice lines recomputed from the archive, {proof}")
    typer.echo(f"documents: {result.documents}")
    typer.echo(f"summary page: {result.summary}")
    typer.echo(f"took {result.seconds:.0f} s with {result.broker} Kafka; the run's folder is {result.folder}")
    sys.stdout.flush()


def _row(one: "AccountResult") -> dict[str, object]:
    from pipeline.domain.money import format_minor

    total = one.total
    return {
        "number": one.number,
        "account": one.account_id,
        "period": one.month,
        "outcome": str(one.outcome),
        "total": format_minor(total.minor, total.currency) if total else "",
        "currency": total.currency if total else "",
    }
