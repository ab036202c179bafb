"""`rackmeter payments`: what was asked for, what came of it, and asking again."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, examples
from pipeline.cli.output import Column, Format, numbers, say, show, texts

app = typer.Typer(
    no_args_is_help=True,
    help="Payments of issued invoices.",
    epilog=examples("rackmeter payments list --state declined", "rackmeter payments reconcile"),
)

COLUMNS: tuple[Column, ...] = (
    *texts("number", "account"),
    *numbers("attempt"),
    *texts("gateway", "state"),
    *numbers("amount"),
    *texts("currency", "reference", "detail", "created_at", "settled_at", "invoice_id"),
)


class PaymentState(StrEnum):
    """How far an attempt is."""

    INTENDED = "intended"
    REQUESTED = "requested"
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    UNKNOWN = "unknown"


@app.command(
    "list",
    epilog=examples(
        "rackmeter payments list --state declined",
        "rackmeter payments list --invoice RM-2013-0001",
        "rackmeter payments list --format csv > payments.csv",
    ),
)
def list_payments(
    account: Annotated[str | None, typer.Option(help="Only of this account.")] = None,
    state: Annotated[PaymentState | None, typer.Option(help="Only in this state.")] = None,
    invoice: Annotated[str | None, typer.Option(metavar="NUMBER|ID", help="Only of this invoice.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """
    List payment attempts by invoice number. `amount` is in major units of `currency`; `detail` says why not.

    intended: not sent yet. requested: the buyer was asked. unknown: the gateway did not say, reconcile looks it up.
    """
    from pipeline.reports import store

    with reading(settings_for("database_url")) as connection:
        wanted = None if state is None else state.value
        rows = store.payments(connection, account=account, state=wanted, invoice=invoice)
    show(COLUMNS, rows, form)


@app.command(
    "retry", epilog=examples("rackmeter payments retry RM-2013-0001", "rackmeter payments retry inv_… --format json")
)
def retry(
    invoice: Annotated[str, typer.Argument(metavar="NUMBER|ID", help="Its number, or its id (inv_…).")],
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Ask once more for the money of an invoice whose last attempt was declined, with the account's card of now.

    Every attempt of the invoice is shown. Exit code 1: this one was declined too, or its outcome is not known.
    """
    from pipeline.bootstrap import retry_payment
    from pipeline.reports import store

    settings = settings_for("database_url", "journal_dir")
    with reading(settings) as connection:
        invoice_id = retry_payment(settings, connection, invoice)
        rows = store.payments(connection, invoice=invoice_id)
    show(COLUMNS, rows, form)
    _say_states(rows)
    if rows[-1]["state"] not in (PaymentState.SUCCEEDED, PaymentState.REQUESTED):
        raise typer.Exit(1)


@app.command("reconcile", epilog=examples("rackmeter payments reconcile", "rackmeter payments reconcile --format json"))
def reconcile(form: FormatOption = Format.TABLE) -> None:
    """
    Finish what has no definite outcome: look it up at its gateway, and ask where the gateway never heard of it.

    Safe to repeat, and beside a close. Exit code 1: an outcome is still not known.
    """
    from pipeline.bootstrap import reconcile_payments
    from pipeline.reports import store

    settings = settings_for("database_url", "journal_dir")
    with reading(settings) as connection:
        invoice_ids = reconcile_payments(settings, connection)
        rows = store.payments(connection, invoice_ids=invoice_ids)
    show(COLUMNS, rows, form)
    _say_states(rows)
    if any(row["state"] in (PaymentState.INTENDED, PaymentState.UNKNOWN) for row in rows):
        raise typer.Exit(1)


def _say_states(rows: list[dict[str, Any]]) -> None:
    counts = {state.value: sum(row["state"] == state for row in rows) for state in PaymentState}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    say(said or "there is nothing to reconcile")
