"""`rackmeter close` and `rackmeter verify`: months into proven invoices, and the proof again."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, date_of, examples, month_of
from pipeline.cli.output import Column, Format, numbers, say, show, texts

if TYPE_CHECKING:
    from pipeline.invoice_batch.model import RunReport

app = typer.Typer()

CLOSE_COLUMNS: tuple[Column, ...] = (
    *texts("account", "period", "outcome", "number"),
    *numbers("total"),
    *texts("currency", "invoice_id", "reasons"),
)


@app.command(
    epilog=examples(
        "rackmeter close --period 2013-07",
        "rackmeter close --period 2013-07 --account acme --account globex --issue-on 2013-08-01",
        "rackmeter close --period 2013-07 --catch-up --format json",
    )
)
def close(
    period: Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, in each account's own zone.")],
    account: Annotated[list[str] | None, typer.Option(help="Only this account; may be given again.")] = None,
    issue_on: Annotated[
        str, typer.Option(metavar="YYYY-MM-DD", help="Date on the invoices; default: today at the seller.")
    ] = "",
    catch_up: Annotated[bool, typer.Option("--catch-up", help="Earlier open months too, oldest first.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Close a month: gate, cut, proof, number, documents, payment requests.

    What is not complete is held, with its reasons, and nothing of it is billed; run it again when they are gone.
    Stopped at any point, the next run goes on. Exit code 1: an account is held or an invoice is not proven.
    """
    from pipeline.bootstrap import close_periods
    from pipeline.invoice_batch.model import CloseRequest
    from pipeline.runtime.topics import await_broker

    year, month = month_of(period)
    request = CloseRequest(
        month=f"{year:04d}-{month:02d}",
        now=datetime.now(UTC),
        catch_up=catch_up,
        issued_on=date_of(issue_on) if issue_on else None,
        account_ids=tuple(account) if account else None,
    )
    settings = settings_for("kafka_bootstrap_servers", "database_url", "archive_dir", "documents_dir", "journal_dir")
    await_broker(settings.kafka_bootstrap_servers)
    report = close_periods(settings, request)
    show_run(report, form)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def show_run(report: "RunReport", form: Format) -> None:
    """Write what a close did: an invoice or a held account a row."""
    show(CLOSE_COLUMNS, run_rows(report), form)
    stopped = [result for result in report.results if result.reasons or result.differences]
    for result in stopped:
        for sentence in (*(reason.sentence for reason in result.reasons), *result.differences):
            say(f"{result.account_id} {result.month}: {sentence}")
    if not report.results:
        say("nobody had a subscription then, so there is nothing to close")
    say(f"{len(report.results) - len(stopped)} in order, {len(stopped)} held or not proven, {len(report.files)} files")


def run_rows(report: "RunReport") -> list[dict[str, Any]]:
    """The rows of CLOSE_COLUMNS; `reasons` are the distinct codes of what holds the account."""
    return [
        {
            "account": result.account_id,
            "period": result.month,
            "outcome": str(result.outcome),
            "number": result.number or None,
            "total": None if result.total is None else str(result.total).partition(" ")[0],
            "currency": None if result.total is None else result.total.currency,
            "invoice_id": result.invoice_id or None,
            "reasons": (*sorted({reason.code for reason in result.reasons}), *result.differences),
        }
        for result in report.results
    ]


@app.command(
    epilog=examples(
        "rackmeter verify",
        "rackmeter verify --invoice RM-2013-0001",
        "rackmeter verify --period 2013-07 --format json",
    )
)
def verify(
    invoice: Annotated[str | None, typer.Option(metavar="NUMBER|ID", help="Only this invoice.")] = None,
    period: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="Only invoices of this month.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Recompute invoices from the archived events by the second implementation, and compare to the last digit.

    Where RACKMETER_JOURNAL_DIR is set, documents are compared with the journal too. Prints each invoice's verdict;
    every difference, one a line, and what was compared go to stderr. JSON and CSV have the differences too.
    Without options: all invoices. Exit code 1: something differs, or the month has no invoice.
    """
    from pipeline import bootstrap
    from pipeline.reports import store

    if invoice is not None and period is not None:
        raise typer.BadParameter("give --invoice or --period, not both")
    settings = settings_for("database_url", "archive_dir")
    report = bootstrap.verify(settings, invoice=invoice, month=None if period is None else month_of(period))
    with reading(settings) as connection:
        known = {row["invoice_id"]: row for row in store.invoices(connection)}
    is_table = form is Format.TABLE
    rows = [
        {
            "number": known[proof.invoice_id]["number"],
            "account": known[proof.invoice_id]["account"],
            "period": known[proof.invoice_id]["period"],
            "invoice_id": proof.invoice_id,
            "proven": proof.ok,
            # A program takes the sentences, a person reads them below, one a line.
            "differences": len(proof.differences) if is_table else tuple(proof.differences),
        }
        for proof in report.invoices.values()
    ]
    differences = Column("differences", is_number=is_table)
    show((*texts("number", "account", "period", "proven", "invoice_id"), differences), rows, form)
    for difference in report.differences:
        say(f"differs: {difference}")
    compared = ", ".join(f"{count} {name}" for name, count in report.compared.items()) or "nothing"
    say(f"compared: {compared}")
    if not report.ok:
        say(f"{len(report.differences)} differences")
        raise typer.Exit(1)
    if not rows and period is not None:
        say(f"nothing is proven: {period} has no invoice; `rackmeter invoices list` shows those there are")
        raise typer.Exit(1)
    say(f"{len(rows)} invoices proven" if rows else "there is no invoice to prove")
