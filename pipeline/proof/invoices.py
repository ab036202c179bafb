"""Step six: compare invoices, line by line and entry by entry, with what they should say."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from pipeline.proof import facts, prices, seals
from pipeline.proof.books import Books, Entry, shown
from pipeline.proof.charges import Cost, ItemKey, Recomputed
from pipeline.proof.facts import Catalogue, Invoice, Line, LogFacts, to_us
from pipeline.proof.issued import check_issued
from pipeline.proof.ownership import month_around
from pipeline.proof.report import Findings
from pipeline.runtime.postgres import Connection

STEP = "invoices"


def check_seals(invoice: Invoice, known: Catalogue, log: LogFacts, findings: Findings) -> None:
    """Compare what the cut sealed with the same facts now."""
    manifest_digest = seals.manifest_digest(log.manifest, log.offsets_of(invoice))
    found = {
        "catalogue_digest": (seals.catalogue_digest(known), "a meter, price, binding or subscription was changed"),
        "assignment_digest": (seals.assignment_digest(known), "an assignment was changed"),
        "manifest_digest": (manifest_digest, "the archive's manifest was changed"),
    }
    for name, (digest, meaning) in found.items():
        findings.compared["seals"] += 1
        if invoice.cut.get(name) != digest:
            findings.add(
                "evidence",
                f"invoice {invoice.invoice_id}: {meaning} since the cut; {name} is {digest},"
                f" sealed {invoice.cut.get(name)}",
            )
    if invoice.cut.get("topic") != log.topic or log.number_of(str(invoice.cut.get("log_id"))) is None:
        findings.add("evidence", f"invoice {invoice.invoice_id} was cut from another log: {invoice.cut.get('log_id')}")


def check_invoice(
    invoice: Invoice, lines: Sequence[Line], recomputed: Recomputed, books: Books, findings: Findings
) -> None:
    """Compare one invoice with the costs recomputed under its cut."""
    name = f"invoice {invoice.invoice_id}"
    if (invoice.period_start, invoice.period_end) != month_around(invoice.period_start, invoice.time_zone):
        findings.add(STEP, f"{name}: its period is not a calendar month of {invoice.time_zone}")
    seen: set[tuple[ItemKey, str]] = set()
    for line in lines:
        key = ItemKey(line.subscription_id, line.item, to_us(line.service_period_start), line.subject)
        if (key, line.product) in seen:
            findings.add(STEP, f"{name}: line {line.line_number} repeats an earlier line")
        seen.add((key, line.product))
        _check_line(invoice, line, recomputed.costs.get(key, Cost()), books, findings)
    for key, cost in recomputed.costs.items():
        if key.period_from_us != to_us(invoice.period_start):
            continue
        for product, amount in cost.amounts.items():
            if amount and (key, product) not in seen:
                findings.add(STEP, f"{name}: {_item(key)}, {product}: {amount} {invoice.currency} is on no line")
    total = sum(prices.minor_units(line.amount_exact, invoice.currency) for line in lines)
    if invoice.total_minor != total:
        findings.add(STEP, f"{name}: total {invoice.total_minor}, recomputed {total} minor units of {invoice.currency}")
    _check_entries(invoice, lines, books, findings)
    _check_booked(invoice, recomputed, books, findings)
    if invoice.state == "issued":
        check_issued(invoice, lines, books, findings)
    findings.compared["invoices"] += 1


def check_numbers(connection: Connection, findings: Findings) -> None:
    """Numbers of each seller and series run from 1 without a gap up to the next one to be given."""
    given: dict[tuple[str, str], set[int]] = defaultdict(set)
    for seller, prefix, number, year in facts.rows(connection, "numbers"):
        match = re.fullmatch(rf"{re.escape(prefix)}-?{year}-([0-9]{{4,}})", number)
        if match is None:
            findings.add(STEP, f"number {number} of {seller} does not belong to series {year}")
        else:
            given[seller, year].add(int(match[1]))
    after = {(seller, series): number for seller, series, number in facts.rows(connection, "number_series")}
    for seller, series in sorted(given.keys() | after.keys()):
        wanted = set(range(1, after.get((seller, series), 1)))
        findings.compared["numbers"] += len(wanted)
        for number in sorted(wanted - given[seller, series]):
            findings.add(STEP, f"number {number} of series {series} of {seller} is missing: the series has a gap")
        for number in sorted(given[seller, series] - wanted):
            findings.add(STEP, f"number {number} of series {series} of {seller} was never given")


def _check_line(invoice: Invoice, line: Line, cost: Cost, books: Books, findings: Findings) -> None:
    name = f"line {line.line_number} of invoice {invoice.invoice_id}"
    before = sum(
        (
            Fraction(amount)
            for account_id, period_start, subscription_id, item, subject, service_start, product, amount in (
                books.taken_before
            )
            if (account_id, subscription_id, item, subject, service_start, product)
            == (
                invoice.account_id,
                line.subscription_id,
                line.item,
                line.subject,
                line.service_period_start,
                line.product,
            )
            and period_start < invoice.period_start
        ),
        Fraction(0),
    )
    quantity = cost.quantities.get(line.product, Fraction(0))
    exact = Fraction(cost.amounts.get(line.product, Decimal(0))) - before
    if Fraction(line.quantity) != quantity:
        findings.add(STEP, f"{name}: quantity {line.quantity:f} recomputed {shown(quantity)}")
    if Fraction(line.amount_exact) != exact:
        findings.add(STEP, f"{name}: amount {line.amount_exact:f} {invoice.currency} recomputed {shown(exact)}")
    minor = prices.minor_units(line.amount_exact, invoice.currency)
    if line.amount_minor != minor:
        findings.add(STEP, f"{name}: {line.amount_minor} minor units, rounded again {minor}")
    if line.service_period_start > invoice.period_start:
        findings.add(STEP, f"{name} is for a later period than its invoice")
    findings.compared["lines"] += 1


def _check_entries(invoice: Invoice, lines: Sequence[Line], books: Books, findings: Findings) -> None:
    name = f"invoice {invoice.invoice_id}"
    by_line: dict[int, list[Entry]] = defaultdict(list)
    for entry in books.entries.get(invoice.invoice_id, ()):
        by_line[entry.line_number].append(entry)
        findings.compared["entries"] += 1
    for line in lines:
        taken = by_line[line.line_number]
        sum_taken = sum((Fraction(entry.amount) for entry in taken), Fraction(0))
        if sum_taken != Fraction(line.amount_exact):
            findings.add(
                STEP,
                f"line {line.line_number} of {name}: its postings sum to {shown(sum_taken)},"
                f" the line says {line.amount_exact:f}",
            )
        for entry in taken:
            said = (entry.subscription_id, entry.item, entry.subject, entry.item_period_start)
            wanted = (line.subscription_id, line.item, line.subject, line.service_period_start)
            at_home = (entry.kind, entry.owner_account_id, entry.account_id, entry.period_start, entry.currency)
            right = ("unbilled", invoice.account_id, invoice.account_id, line.service_period_start, invoice.currency)
            if said != wanted or at_home != right:
                findings.add(
                    STEP, f"posting {entry.ledger_entry_id} on line {line.line_number} of {name} is for {said}"
                )
    touched = {entry.ledger_transaction_id for listed in by_line.values() for entry in listed}
    revenue: dict[str, Fraction] = defaultdict(Fraction)
    for transaction_id in sorted(touched):
        balance: dict[str, Fraction] = defaultdict(Fraction)
        for _, _, kind, _, product, currency, amount in books.transactions.get(transaction_id, ()):
            balance[currency] += Fraction(amount)
            if kind == "revenue":
                revenue[product] -= Fraction(amount)
        for currency, rest in balance.items():
            if rest:
                findings.add("ledger", f"transaction {transaction_id} is out of balance by {shown(rest)} {currency}")
    for product in sorted(revenue.keys() | {line.product for line in lines}):
        exact = sum((Fraction(line.amount_exact) for line in lines if line.product == product), Fraction(0))
        if revenue[product] != exact:
            findings.add(
                STEP, f"{name}: revenue of {product} is posted {shown(revenue[product])}, lines say {shown(exact)}"
            )


def _check_booked(invoice: Invoice, recomputed: Recomputed, books: Books, findings: Findings) -> None:
    """Compare booked charges, where they still stand at the cut's revision."""
    start = to_us(invoice.period_start)
    revisions = {int(item_id): int(revision) for item_id, revision in invoice.cut["revisions"].items()}
    for (
        item_id,
        account_id,
        subscription_id,
        item,
        subject,
        period_start,
        _,
        revision,
        outcome,
        quantity,
        amounts,
    ) in books.booked:
        if account_id != invoice.account_id or to_us(period_start) != start or revisions.get(item_id) != revision:
            continue
        key = ItemKey(subscription_id, item, start, subject)
        cost = recomputed.costs.get(key, Cost())
        said = {amount["product"]: Fraction(amount["amount"]) for amount in amounts if Fraction(amount["amount"])}
        wanted = {product: Fraction(amount) for product, amount in cost.amounts.items() if amount}
        findings.compared["charges"] += 1
        if outcome != "rated":
            findings.add(STEP, f"booked charge of {_item(key)} is {outcome}")
        elif said != wanted or any(amount["currency"] != invoice.currency for amount in amounts):
            findings.add(STEP, f"booked charge of {_item(key)}: {_amounts(said)}, recomputed {_amounts(wanted)}")
        elif Fraction(quantity) != cost.quantity:
            findings.add(
                STEP, f"booked charge of {_item(key)}: quantity {quantity:f}, recomputed {shown(cost.quantity)}"
            )


def _item(key: ItemKey) -> str:
    server = f", server {key.subject}" if key.subject else ""
    return f"{key.item} of {key.subscription_id}{server}, {facts.to_time(key.period_from_us).date()}"


def _amounts(amounts: Mapping[str, Fraction]) -> str:
    return ", ".join(f"{product} {shown(amount)}" for product, amount in sorted(amounts.items())) or "nothing"
