"""`rackmeter ledger`: the books."""

from decimal import Decimal

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, examples
from pipeline.cli.output import Format, numbers, say, show, texts
from pipeline.domain.decimals import plain
from pipeline.domain.errors import InvariantViolation

app = typer.Typer(no_args_is_help=True, help="The books.", epilog=examples("rackmeter ledger trial-balance"))


@app.callback()
def ledger() -> None:
    """The books."""


@app.command(
    "trial-balance", epilog=examples("rackmeter ledger trial-balance", "rackmeter ledger trial-balance --format csv")
)
def trial_balance(form: FormatOption = Format.TABLE) -> None:
    """Print every ledger account with debits, credits and balance (debit positive). Per currency they sum to zero."""
    from pipeline.reports import store

    with reading(settings_for("database_url")) as connection:
        rows = store.trial_balance(connection)
    columns = (*texts("name", "kind", "account", "product", "currency"), *numbers("debit", "credit", "balance"))
    show(columns, rows, form)
    # Summed by the database: Python's decimals round at 28 digits.
    sums: dict[str, Decimal] = {row["currency"]: row["currency_balance"] for row in rows}
    for currency, balance in sorted(sums.items()):
        say(f"sum of all balances: {plain(balance)} {currency}")
    if any(sums.values()):
        raise InvariantViolation("the books do not balance: a currency's balances do not sum to zero", "out_of_balance")
    if not rows:
        say("nothing is posted yet")
