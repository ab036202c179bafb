"""The last step for issued invoices: the document and the ledger transaction say what the lines say."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pipeline.proof import prices, seals
from pipeline.proof.books import Books, shown
from pipeline.proof.facts import Invoice, Line
from pipeline.proof.report import Findings

STEP = "invoices"


def check_issued(invoice: Invoice, lines: Sequence[Line], books: Books, findings: Findings) -> None:
    """Compare an issued invoice's document and ledger transaction with its lines."""
    name = f"invoice {invoice.invoice_id}"
    document = invoice.document or {}
    digest = seals.document_digest(document)
    if digest != invoice.document_digest:
        findings.add(STEP, f"{name}: its document was changed; digest {digest}, issued {invoice.document_digest}")
    said = [_documented(line) for line in document.get("lines", [])]
    if said != [_expected(line, invoice.currency) for line in lines]:
        findings.add(STEP, f"{name}: the lines of its document are not its lines")
    total = Fraction(invoice.total_minor, _units(invoice.currency))
    if Fraction(document.get("total", "0")) != total or document.get("number") != invoice.number:
        findings.add(STEP, f"{name}: the total or number of its document is not the invoice's")
    _check_receivable(invoice, lines, books, total, findings)


def _documented(line: Mapping[str, Any]) -> tuple[Any, ...]:
    names = tuple(line.get(name) for name in ("line", "subscription", "item", "product", "subject"))
    return (*names, *(Fraction(line.get(name, "0")) for name in ("quantity", "amount_exact", "amount")))


def _expected(line: Line, currency: str) -> tuple[Any, ...]:
    names = (line.line_number, line.subscription_id, line.item, line.product, line.subject)
    amount = Fraction(line.amount_minor, _units(currency))
    return (*names, Fraction(line.quantity), Fraction(line.amount_exact), amount)


def _check_receivable(
    invoice: Invoice, lines: Sequence[Line], books: Books, total: Fraction, findings: Findings
) -> None:
    posted: dict[str, Fraction] = defaultdict(Fraction)
    for _, _, kind, account_id, _, currency, amount in books.transactions.get(
        books.by_key.get(f"invoice:{invoice.invoice_id}", -1), ()
    ):
        is_ours = account_id in (None, invoice.account_id) and currency == invoice.currency
        posted[kind if is_ours else "foreign"] += Fraction(amount)
    exact = sum((Fraction(line.amount_exact) for line in lines), Fraction(0))
    wanted = {"receivable": total, "unbilled": -exact, "rounding": exact - total}
    for kind in sorted(posted.keys() | wanted.keys()):
        if posted.get(kind, Fraction(0)) != wanted.get(kind, Fraction(0)):
            findings.add(
                "ledger",
                f"invoice {invoice.invoice_id}: {kind} is posted {shown(posted.get(kind, Fraction(0)))},"
                f" should be {shown(wanted.get(kind, Fraction(0)))}",
            )


def _units(currency: str) -> int:
    if currency not in prices.MINOR_DIGITS:
        prices.minor_units(Decimal(0), currency)
    return int(10 ** prices.MINOR_DIGITS[currency])
