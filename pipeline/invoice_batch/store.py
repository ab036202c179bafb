"""What the close reads and writes in the database; each function runs inside the caller's transaction."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from psycopg.rows import dict_row, tuple_row
from psycopg.types.json import Jsonb

from pipeline.domain.errors import ConfigurationFault, InvariantViolation
from pipeline.domain.keys import invoice_id as make_invoice_id
from pipeline.domain.money import Money
from pipeline.domain.period import Period
from pipeline.invoice_batch.model import Account, Draft, DraftLine, ItemCharge, Posting, ProofResult, Segment
from pipeline.invoice_batch.seals import canonical_parameters, rows_digest
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)

PeriodState = Literal["open", "closing", "cut", "closed"]


def rows(connection: Connection, name: str, **parameters: Any) -> list[dict[str, Any]]:
    """Run a named query, rows as dictionaries."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES[name], parameters).fetchall()


def execute(connection: Connection, name: str, **parameters: Any) -> int:
    """Run a named statement; how many rows it touched."""
    return connection.execute(QUERIES[name], parameters).rowcount


def accounts(connection: Connection, account_ids: Sequence[str] | None) -> list[Account]:
    """The accounts asked for, or all, by id; an unknown id is a ConfigurationFault."""
    wanted = None if account_ids is None else list(account_ids)
    found = [Account(**row) for row in rows(connection, "accounts", account_ids=wanted)]
    unknown = sorted(set(wanted or ()) - {account.account_id for account in found})
    if unknown:
        raise ConfigurationFault(f"no such billing account: {', '.join(unknown)}", "account_unknown")
    return found


@contextmanager
def account_lock(connection: Connection, account_id: str) -> Iterator[None]:
    """Hold the account alone: no posting of it commits meanwhile. Waits for those under way."""
    connection.execute(QUERIES["lock_account"], {"account_id": account_id})
    try:
        yield
    finally:
        # A broken connection has let go by itself.
        if not connection.closed and not connection.broken:
            connection.execute(QUERIES["unlock_account"], {"account_id": account_id})


def period_state(connection: Connection, account_id: str, period: Period) -> PeriodState:
    """The state of an account's period; one never touched is open."""
    found = rows(connection, "period_state", account_id=account_id, period_start=period.start)
    state: PeriodState = found[0]["state"] if found else "open"
    return state


def set_period_state(connection: Connection, account_id: str, period: Period, state: PeriodState) -> None:
    """Move an account's period to a state."""
    execute(
        connection,
        "set_period_state",
        account_id=account_id,
        period_start=period.start,
        period_end=period.end,
        state=state,
    )


def read_cut(connection: Connection, topic: str, revisions: Mapping[int, int]) -> dict[str, Any]:
    """The cut's position and seals, as invoice.cut stores them; `revisions` by billed item."""
    position = rows(connection, "cut_position", topic=topic)[0]
    known_number = position["known_number"]
    with connection.cursor(row_factory=tuple_row) as cursor:
        catalogue = [
            row
            for kind in ("meter", "price", "binding", "subscription")
            for row in cursor.execute(QUERIES[f"catalogue_{kind}_rows"], {"known_number": known_number}).fetchall()
        ]
        assignments = cursor.execute(QUERIES["assignment_rows"], {"known_number": known_number}).fetchall()
        manifest = cursor.execute(
            QUERIES["manifest_rows"],
            {"topic": topic, "offsets": Jsonb(position["offsets"])},
        ).fetchall()
    return {
        "topic": topic,
        "log_id": position["log_id"],
        "offsets": position["offsets"],
        "known_number": known_number,
        "generation": position["generation"],
        "catalogue_digest": rows_digest(
            [canonical_parameters(column) if isinstance(column, dict) else column for column in row]
            for row in catalogue
        ),
        "assignment_digest": rows_digest(assignments),
        "manifest_digest": rows_digest(manifest),
        "revisions": {str(item): revision for item, revision in sorted(revisions.items())},
    }


def untaken_postings(connection: Connection, account_id: str, period: Period) -> list[Posting]:
    """Usage postings of the account for this period and older that no invoice took, by entry id."""
    found = rows(connection, "untaken_postings", account_id=account_id, period_start=period.start)
    for row in found:
        if row["product"] is None:
            raise InvariantViolation(
                f"unbilled entry {row['ledger_entry_id']} has no revenue entry of the same amount", "posting_unpaired"
            )
    return [Posting(**row) for row in found]


def item_charges(
    connection: Connection, account_id: str, period: Period, billed_item_ids: Sequence[int]
) -> list[ItemCharge]:
    """The period's items and the older ones named, with their charges, by id."""
    found = rows(
        connection,
        "item_charges",
        account_id=account_id,
        period_start=period.start,
        billed_item_ids=list(billed_item_ids),
    )
    return [
        ItemCharge(
            billed_item_id=row["billed_item_id"],
            subscription_id=row["subscription_id"],
            item=row["item"],
            subject=row["subject"],
            period=Period(row["period_start"], row["period_end"]),
            revision=row["revision"],
            segments=tuple(
                Segment(segment["price_version_id"], segment["product"], Decimal(segment["quantity"]))
                for segment in row["segments"]
            ),
            breakdown=tuple(row["breakdown"]),
        )
        for row in found
    ]


def insert_draft(
    connection: Connection,
    invoice_id: str,
    account: Account,
    period: Period,
    cut: Mapping[str, Any],
    lines: Sequence[DraftLine],
    total_minor: int,
) -> None:
    """Write a draft with its lines and what they take."""
    execute(
        connection,
        "insert_invoice",
        invoice_id=invoice_id,
        account_id=account.account_id,
        period_start=period.start,
        period_end=period.end,
        currency=account.currency,
        cut=Jsonb(cut),
        total_minor=total_minor,
        seller=account.seller,
    )
    numbered = list(enumerate(lines, start=1))
    with connection.cursor() as cursor:
        cursor.executemany(
            QUERIES["insert_line"], [_line_parameters(invoice_id, number, line) for number, line in numbered]
        )
        cursor.executemany(
            QUERIES["insert_entry"],
            [
                {"ledger_entry_id": entry_id, "invoice_id": invoice_id, "line_number": number}
                for number, line in numbered
                for entry_id in line.ledger_entry_ids
            ],
        )


def _line_parameters(invoice_id: str, number: int, line: DraftLine) -> dict[str, Any]:
    return {
        "invoice_id": invoice_id,
        "line_number": number,
        "subscription_id": line.subscription_id,
        "item": line.item,
        "product": line.product,
        "service_period_start": line.service_period.start,
        "service_period_end": line.service_period.end,
        "subject": line.subject,
        "description": line.description,
        "quantity": line.quantity,
        "amount_exact": line.amount_exact,
        "amount_minor": line.amount_minor,
        "breakdown": Jsonb(list(line.breakdown)),
    }


def drafts(connection: Connection, invoice_ids: Sequence[str]) -> list[Draft]:
    """Those of the invoices that wait for their proof, in the order they get their numbers."""
    return [
        Draft(
            row["invoice_id"],
            row["account_id"],
            Period(row["period_start"], row["period_end"]),
            row["created_at"],
            Money(row["total_minor"], row["currency"]),
        )
        for row in rows(connection, "drafts", invoice_ids=list(invoice_ids))
    ]


def record_proof(connection: Connection, draft: Draft, result: ProofResult) -> bool:
    """Make the draft proven, with the proof's report; False where it is no draft any more, or another one."""
    report = {**result.report, "differences": list(result.differences)}
    about = {"invoice_id": draft.invoice_id, "created_at": draft.created_at}
    return execute(connection, "record_proof", **about, report=Jsonb(report)) == 1


def withdraw(connection: Connection, draft: Draft, differences: Sequence[str]) -> bool:
    """Undo the draft's cut and open its period again; False where it is no draft any more, or another one."""
    locked = rows(connection, "lock_draft", invoice_id=draft.invoice_id, created_at=draft.created_at)
    if not locked:
        return False
    for statement in ("delete_entries", "delete_lines", "delete_invoice"):
        execute(connection, statement, invoice_id=draft.invoice_id)
    set_period_state(connection, draft.account_id, draft.period, "open")
    record_failure(connection, draft.account_id, draft.period, differences, locked[0]["cut"])
    return True


def record_failure(
    connection: Connection,
    account_id: str,
    period: Period,
    differences: Sequence[str],
    cut: Mapping[str, Any] | None,
) -> None:
    """Write down for people what a proof found; `cut` is None where there was nothing to cut."""
    execute(
        connection,
        "insert_proof_failure",
        invoice_id=make_invoice_id(account_id, period.start),
        account_id=account_id,
        period_start=period.start,
        differences=list(differences),
        cut=None if cut is None else Jsonb(cut),
    )


def lock_number(connection: Connection, seller: str, series: str) -> int:
    """The series' next number, locked to the end of the transaction."""
    execute(connection, "begin_series", seller=seller, series=series)
    return int(rows(connection, "lock_series", seller=seller, series=series)[0]["number_next"])


def post_invoice(
    connection: Connection,
    header: Mapping[str, Any],
    receivable: Decimal,
    credited: Sequence[tuple[int, datetime, Decimal]],
    rounding: Decimal,
) -> None:
    """Book an invoice: receivable (debit), unbilled (credited), the difference to rounding. Zeros are left out."""
    owner = {"account_id": header["account_id"], "currency": header["currency"]}
    own = rows(connection, "invoice_ledger_accounts", **owner)[0]
    entries = [
        (own["receivable"], header["period_start"], receivable),
        *credited,
        (own["rounding"], header["period_start"], rounding),
    ]
    posted = [entry for entry in entries if entry[2]]
    transaction = rows(connection, "insert_ledger_transaction", key=f"invoice:{header['invoice_id']}")[0]
    execute(
        connection,
        "insert_ledger_entries",
        **transaction,
        **owner,
        ledger_account_ids=[account for account, _, _ in posted],
        period_starts=[start for _, start, _ in posted],
        amounts=[amount for _, _, amount in posted],
    )


def issue(
    connection: Connection,
    invoice_id: str,
    number: str,
    issued_on: date,
    due_on: date,
    document: Mapping[str, Any],
    digest: str,
) -> None:
    """Make a proven invoice an issued one; anything else is an InvariantViolation."""
    touched = execute(
        connection,
        "issue_invoice",
        invoice_id=invoice_id,
        number=number,
        issued_on=issued_on,
        due_on=due_on,
        document=Jsonb(document),
        digest=digest,
    )
    if touched != 1:
        raise InvariantViolation(f"invoice {invoice_id} is not proven and cannot be issued", "issue_unproven")


def documents(connection: Connection, months: Sequence[str]) -> list[dict[str, Any]]:
    """The documents of every invoice issued for these months (YYYY-MM), by period and account."""
    return [row["document"] for row in rows(connection, "issued_documents", months=list(months))]


def months_to_finish(connection: Connection, invoice_ids: Sequence[str]) -> list[str]:
    """Months (YYYY-MM) of these issued invoices, and of all whose payment was not asked for with a definite answer."""
    return [row["month"] for row in rows(connection, "months_to_finish", invoice_ids=list(invoice_ids))]


def issued_without_payment(connection: Connection) -> list[tuple[str, str]]:
    """(month, number) of every issued invoice that asks for no money."""
    return [(row["month"], row["number"]) for row in rows(connection, "issued_without_payment")]


def find_document(connection: Connection, number_or_id: str) -> dict[str, Any] | None:
    """An issued invoice's document by its number or id, or None."""
    found = rows(connection, "find_document", number_or_id=number_or_id)
    return found[0]["document"] if found else None


def list_invoices(connection: Connection, invoice_ids: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Invoices of any state, by period and account: id, account, period, currency, state, total, number, dates."""
    wanted = None if invoice_ids is None else list(invoice_ids)
    return rows(connection, "invoices", invoice_ids=wanted)
