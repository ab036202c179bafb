"""`rackmeter invoices`: what was billed."""

from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, examples, month_of
from pipeline.cli.output import Format, numbers, say, show, texts

app = typer.Typer(
    no_args_is_help=True, help="Invoices and their lines.", epilog=examples("rackmeter invoices list --period 2013-07")
)


class InvoiceState(StrEnum):
    """How far an invoice is."""

    DRAFT = "draft"
    PROVEN = "proven"
    ISSUED = "issued"


@app.command(
    "list",
    epilog=examples("rackmeter invoices list --period 2013-07", "rackmeter invoices list --account acme --format json"),
)
def list_invoices(
    account: Annotated[str | None, typer.Option(help="Only of this account.")] = None,
    period: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="Only of this month.")] = None,
    state: Annotated[InvoiceState | None, typer.Option(help="Only in this state.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """List invoices by number. `total` is in major units of `currency`; dates are days, periods local months."""
    from pipeline.reports import store

    if period is not None:
        month_of(period)
    with reading(settings_for("database_url")) as connection:
        wanted_state = None if state is None else state.value
        rows = store.invoices(connection, account=account, period=period, state=wanted_state)
    columns = (
        *texts("number", "account", "period", "state"),
        *numbers("total"),
        *texts("currency", "issued_on", "due_on", "payment", "reference", "invoice_id"),
    )
    show(columns, rows, form)


@app.command(
    "show", epilog=examples("rackmeter invoices show RM-2013-0001", "rackmeter invoices show inv_… --format csv")
)
def show_invoice(
    name: Annotated[str, typer.Argument(metavar="NUMBER|ID", help="Its number, or its id (inv_…).")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Show an invoice's lines: exact amounts as posted, and as rounded once to the currency."""
    from pipeline.reports import store

    with reading(settings_for("database_url")) as connection:
        found = store.invoice(connection, name)
        lines = store.invoice_lines(connection, found["invoice_id"])
    said = f"{found['number'] or found['invoice_id']}: {found['account']}, {found['period']}, {found['state']}"
    due = f", due {found['due_on']}" if found["due_on"] else ""
    say(f"{said}, total {found['total']} {found['currency']}{due}")
    columns = (
        *numbers("line"),
        *texts("subscription", "item", "product", "server", "service_from", "service_to", "description"),
        *numbers("quantity"),
        *texts("unit"),
        *numbers("amount_exact", "amount"),
        *texts("currency"),
    )
    show(columns, lines, form)
