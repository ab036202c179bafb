"""The last step for issued invoices: document, ledger transaction and payments say what the lines say."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pipeline.proof import prices, seals
from pipeline.proof.books import Books, shown
from pipeline.proof.facts import Invoice, Line
from pipeline.proof.lines import documented, month
from pipeline.proof.report import Findings

STEP = "invoices"
_NUMBERS = ("quantity", "amount", "amount_exact", "charged_before", "charged_now", "total", "total_exact", "rounding")


def check_issued(
    invoice: Invoice, lines: Sequence[Line], books: Books, units: Mapping[tuple[str, str], str], findings: Findings
) -> None:
    """
    Compare an issued invoice's document, ledger transaction, period and payments with its lines.

    Names, addresses and bank account are as they were on the day of issue; only the digest and the journal know them.
    """
    document = invoice.document or {}
    digest = seals.document_digest(document)
    if digest != invoice.document_digest:
        findings.add(
            STEP, f"{invoice.name}: its document was changed; digest {digest}, issued {invoice.document_digest}"
        )
    total = Fraction(invoice.total_minor, prices.minor_per_unit(invoice.currency))
    _check_lines(invoice, lines, document.get("lines", []), books, units, findings)
    for name, wanted in _members(invoice, lines, total).items():
        found = _number(name, _member(document, name))
        if found != wanted:
            findings.add(
                STEP, f"{invoice.name}: {name} of its document is {_text(found)}, the invoice's is {_text(wanted)}"
            )
    if invoice.period_state != "closed" or invoice.closed_to != invoice.period_end:
        state = "missing" if invoice.period_state is None else invoice.period_state
        if invoice.period_state == "closed":
            state = f"closed to {invoice.closed_to}"
        findings.add(STEP, f"{invoice.name}: its billing period is {state}, and it is issued")
    _check_receivable(invoice, lines, books, total, findings)
    _check_attempts(invoice, document, books, findings)


def _check_lines(
    invoice: Invoice,
    lines: Sequence[Line],
    said: Sequence[Mapping[str, Any]],
    books: Books,
    units: Mapping[tuple[str, str], str],
    findings: Findings,
) -> None:
    wanted = [
        documented(invoice, line, units.get((line.subscription_id, line.item), ""), books.charged_before(invoice, line))
        for line in lines
    ]
    found = [{name: _number(name, value) for name, value in line.items()} for line in said]
    if found == wanted:
        return
    differing = [
        f"line {mine['line']}: {', '.join(names)}"
        for its, mine in zip(found, wanted, strict=False)
        if (names := [name for name in mine | its if its.get(name) != mine.get(name)])
    ]
    if len(found) != len(wanted):
        differing.append(f"{len(found)} lines, {len(wanted)} in the database")
    findings.add(STEP, f"{invoice.name}: the lines of its document are not its lines: {'; '.join(differing[:5])}")


def _members(invoice: Invoice, lines: Sequence[Line], total: Fraction) -> dict[str, Any]:
    """What of the document follows from the invoice's row and its lines, by path."""
    exact = sum((Fraction(line.amount_exact) for line in lines), Fraction(0))
    sums: dict[str, int] = defaultdict(int)
    for line in lines:
        sums[line.product] += line.amount_minor
    proof = invoice.proof or {}
    members: dict[str, Any] = {
        "invoice_id": invoice.invoice_id,
        "number": invoice.number,
        "issued_on": None if invoice.issued_on is None else invoice.issued_on.isoformat(),
        "due_on": None if invoice.due_on is None else invoice.due_on.isoformat(),
        "currency": invoice.currency,
        "service_period": month(invoice.period_start, invoice.period_end, invoice.time_zone),
        "seller.id": invoice.seller,
        "buyer.account_id": invoice.account_id,
        "products": [
            {"product": product, "amount": _money(minor, invoice.currency)} for product, minor in sorted(sums.items())
        ],
        "total": total,
        "total_exact": exact,
        "rounding": total - exact,
        "proof": {name: proof[name] for name in ("events", "lines") if name in proof}
        | {name: invoice.cut.get(name) for name in ("catalogue_digest", "assignment_digest")},
    }
    if invoice.issued_on is not None and invoice.due_on is not None:
        members["payment.terms_days"] = (invoice.due_on - invoice.issued_on).days
    return members


def _member(document: Mapping[str, Any], path: str) -> Any:
    found: Any = document
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _number(name: str, value: Any) -> Any:
    if name not in _NUMBERS or not isinstance(value, str):
        return value
    try:
        return Fraction(value)
    except (ValueError, ZeroDivisionError):
        return value


def _text(value: Any) -> str:
    return shown(value) if isinstance(value, Fraction) else str(value)


def _money(minor: int, currency: str) -> str:
    digits = prices.MINOR_DIGITS[currency]
    return f"{Decimal(f'{minor}E-{digits}'):f}"


def _check_receivable(
    invoice: Invoice, lines: Sequence[Line], books: Books, total: Fraction, findings: Findings
) -> None:
    """Receivable and rounding are the invoice's; unbilled is credited by what was taken, by service period."""
    posted: dict[tuple[str, datetime | None], Fraction] = defaultdict(Fraction)
    for _, _, kind, owner_id, _, currency, amount, account_id, period_start in books.transactions.get(
        books.by_key.get(f"invoice:{invoice.invoice_id}", -1), ()
    ):
        is_ours = owner_id in (None, invoice.account_id) and currency == invoice.currency
        is_ours = is_ours and account_id == invoice.account_id
        posted[kind if is_ours else "foreign", period_start if kind == "unbilled" else None] += Fraction(amount)
    exact = sum((Fraction(line.amount_exact) for line in lines), Fraction(0))
    wanted: dict[tuple[str, datetime | None], Fraction] = defaultdict(Fraction)
    wanted["receivable", None], wanted["rounding", None] = total, exact - total
    for line in lines:
        wanted["unbilled", line.service_period_start] -= Fraction(line.amount_exact)
    for key in sorted(posted.keys() | wanted.keys(), key=str):
        found, should = posted.get(key, Fraction(0)), wanted.get(key, Fraction(0))
        if found != should:
            kind = f"{key[0]} of {key[1].isoformat()}" if key[1] else key[0]
            findings.add("ledger", f"{invoice.name}: {kind} is posted {shown(found)}, should be {shown(should)}")


def _check_attempts(invoice: Invoice, document: Mapping[str, Any], books: Books, findings: Findings) -> None:
    for number, gateway, key, amount_minor, currency, state, reference, posted in books.attempts.get(
        invoice.invoice_id, ()
    ):
        name = f"payment attempt {number} of {invoice.name}"
        if (amount_minor, currency) != (invoice.total_minor, invoice.currency):
            findings.add(
                STEP,
                f"{name} asks for {amount_minor} minor units of {currency}, the invoice for {invoice.total_minor} of"
                f" {invoice.currency}",
            )
        if key != f"{invoice.invoice_id}:{number}":
            findings.add(STEP, f"{name} has the key {key}")
        if gateway == "manual" and state == "requested" and reference != creditor_reference(invoice.number or ""):
            findings.add(STEP, f"{name} asks under {reference!r}, not {creditor_reference(invoice.number or '')}")
        came = Fraction(amount_minor, prices.minor_per_unit(currency)) if state == "succeeded" else Fraction(0)
        if Fraction(posted) != came:
            findings.add("ledger", f"{name} is {state}: {shown(Fraction(posted))} is posted, should be {shown(came)}")
    printed = _member(document, "payment.reference")
    if printed and _member(document, "payment.gateway") == "manual":
        wanted = creditor_reference(invoice.number or "")
        if printed != wanted:
            findings.add(STEP, f"{invoice.name}: payment.reference of its document is {printed}, not {wanted}")


def creditor_reference(number: str) -> str:
    """Give the ISO 11649 reference of a number: letters count from 10, and the whole is 1 modulo 97."""
    body = "".join(character for character in number.upper() if character.isascii() and character.isalnum())
    digits = "".join(str(int(character, 36)) for character in f"{body}RF00")
    return f"RF{98 - int(digits) % 97:02d}{body}"
