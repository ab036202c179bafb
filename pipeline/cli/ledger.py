"""`rackmeter ledger`: the books."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, examples, moment_of, month_of
from pipeline.cli.output import Format, numbers, say, show, show_record, texts
from pipeline.domain.decimals import plain
from pipeline.domain.errors import InvariantViolation
from pipeline.reports.plain_text import Dialect

app = typer.Typer(
    no_args_is_help=True,
    help="The books: accounts, statements, postings, their chain, and export.",
    epilog=examples(
        "rackmeter ledger trial-balance",
        "rackmeter ledger statement receivable:acme:EUR",
        "rackmeter ledger verify",
        "rackmeter ledger export --format hledger > books.journal",
    ),
)


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


@app.command(
    epilog=examples(
        "rackmeter ledger accounts",
        "rackmeter ledger accounts --account acme",
        "rackmeter ledger accounts --kind revenue --format json",
    )
)
def accounts(
    account: Annotated[str | None, typer.Option(help="Only of this billing account.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, e.g. unbilled, receivable, revenue.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """List ledger accounts with how many entries they have and their balance (debit positive)."""
    from pipeline.reports import books

    with reading(settings_for("database_url")) as connection:
        rows = books.accounts(connection, account=account, kind=kind)
    columns = (*texts("name", "kind", "account", "product", "currency"), *numbers("entries", "balance"))
    show(columns, rows, form)


@app.command(
    epilog=examples(
        "rackmeter ledger statement receivable:acme:EUR",
        "rackmeter ledger statement unbilled:acme:EUR --period 2013-07",
        "rackmeter ledger statement revenue:compute:EUR --from 2026-07-01 --to 2026-08-01 --format csv",
    )
)
def statement(
    name: Annotated[str, typer.Argument(metavar="LEDGER-ACCOUNT", help="As `ledger accounts` names it.")],
    period: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="Only service of this month; balances count from nothing.")
    ] = None,
    start: Annotated[str, typer.Option("--from", help="Booked from this day (UTC), or time with zone, on.")] = "",
    end: Annotated[str, typer.Option("--to", help="Booked before this day (UTC), or time with zone.")] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Print the entries of a ledger account in the order they were booked, each with the balance behind it."""
    from pipeline.reports import books

    if period is not None:
        month_of(period)
    with reading(settings_for("database_url")) as connection:
        rows = books.statement(
            connection,
            name,
            period=period,
            start=moment_of(start, "UTC") if start else None,
            end=moment_of(end, "UTC") if end else None,
        )
    columns = (
        *texts("booked_at"),
        *numbers("posting"),
        *texts("kind", "period", "account", "subscription", "item", "server", "invoice"),
        *numbers("debit", "credit", "balance"),
        *texts("currency"),
    )
    if rows:
        say(f"before: {plain(rows[0]['before'])} {rows[0]['currency']}")
    show(columns, rows, form)
    say(f"behind: {plain(rows[-1]['balance'])} {rows[-1]['currency']}" if rows else "no entry is asked for")


@app.command(
    "show",
    epilog=examples("rackmeter ledger show 12", "rackmeter ledger show usage:5:1:3 --format json"),
)
def show_posting(
    name: Annotated[str, typer.Argument(metavar="POSTING", help="Its number, or its key.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Show a posting's entries, the invoice line that took each, and its place in the chain."""
    from pipeline.reports import books

    with reading(settings_for("database_url")) as connection:
        found = books.posting(connection, name)
        entries = books.posting_entries(connection, found["posting"])
    if form is Format.TABLE:
        shown = texts(
            "posting", "key", "kind", "booked_at", "account", "subscription", "item", "server", "invoice", "position",
            "hash", "sealed_at",
        )  # fmt: skip
        show_record(shown, found, form)
    columns = (
        *numbers("posting", "entry"),
        *texts("ledger_account"),
        *numbers("debit", "credit"),
        *texts("currency", "account", "period", "invoice"),
        *numbers("line"),
        *texts("key", "booked_at"),
        *numbers("position"),
        *texts("hash"),
    )
    if form is Format.TABLE:
        columns = tuple(one for one in columns if one.name not in ("posting", "key", "booked_at", "position", "hash"))
    show(columns, [{**found, **entry} for entry in entries], form)


@app.command(
    epilog=examples(
        "rackmeter ledger verify",
        "rackmeter ledger verify --head 120:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    )
)
def verify(
    head: Annotated[
        str, typer.Option(metavar="POSITION:HASH", help="A head you kept elsewhere, to be compared too.")
    ] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Recompute the chain of the books and compare it with the journal outside the database.

    Names the first position whose content, hash, order or presence differs, and what the journal has and the database
    has not. Keep the head it prints somewhere else, and give it to a later run. Exit code 1: something differs.
    """
    from pipeline import bootstrap

    report = bootstrap.verify_books(settings_for("database_url", "journal_dir"), _head_of(head) if head else None)
    record = {
        "sealed": report.sealed,
        "unsealed": report.unsealed,
        "head": f"{report.sealed}:{report.head}",
        "differences": report.differences,
    }
    show_record((*numbers("sealed", "unsealed"), *texts("head", "differences")), record, form)
    for difference in report.differences:
        say(f"differs: {difference}")
    compared = ", ".join(f"{count} {name}" for name, count in report.compared.items())
    say(f"compared: {compared}")
    if report.unsealed:
        say(f"{report.unsealed} postings are not sealed yet: `rackmeter run sealer` does, and so does `rackmeter up`")
    if report.differences:
        raise typer.Exit(1)


@app.command(
    epilog=examples(
        "rackmeter ledger export --format hledger > books.journal && hledger -f books.journal check --strict",
        "rackmeter ledger export --format beancount --output books.beancount && bean-check books.beancount",
    )
)
def export(
    dialect: Annotated[Dialect, typer.Option("--format", help="Whose plain-text accounting syntax.")],
    output: Annotated[Path | None, typer.Option(help="The file to write; default: stdout.")] = None,
) -> None:
    """
    Write every posting as a plain-text accounting file, ending with the balance of every account as an assertion.

    One snapshot of the books, exact, in the order of booking. What else there is in a name than letters and digits is
    escaped so that it can be told back: docs/books.md.
    """
    from pipeline.reports import books
    from pipeline.reports.plain_text import export_lines

    with reading(settings_for("database_url")) as connection, books.snapshot(connection):
        summary = books.summary(connection)
        lines = export_lines(dialect, summary, books.transactions(connection))
        if output is None:
            for line in lines:
                typer.echo(line)
            return
        with output.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    say(f"wrote {output}")


def _head_of(text: str) -> tuple[int, str]:
    position, _, digest = text.partition(":")
    if not re.fullmatch(r"[0-9]{1,18}", position) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise typer.BadParameter(f"{text!r} is no head; write it as `ledger verify` does: POSITION:HASH")
    return int(position), digest
