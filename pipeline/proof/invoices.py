"""Step six: compare invoices, line by line and entry by entry, with what they should say."""

import re
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

from pipeline.proof import facts, prices, seals
from pipeline.proof.booked import check_booked, item_name
from pipeline.proof.books import Books, Entry, shown
from pipeline.proof.charges import Cost, ItemKey, Recomputed
from pipeline.proof.facts import Catalogue, Invoice, Line, LogFacts, to_us
from pipeline.proof.issued import check_issued
from pipeline.proof.lines import check_line, units_of
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
                f"{invoice.name}: {meaning} since the cut; {name} is {digest}, sealed {invoice.cut.get(name)}",
            )
    if invoice.cut.get("topic") != log.topic or log.number_of(str(invoice.cut.get("log_id"))) is None:
        findings.add("evidence", f"{invoice.name} was cut from another log: {invoice.cut.get('log_id')}")


def check_invoice(
    invoice: Invoice,
    lines: Sequence[Line],
    known: Catalogue,
    recomputed: Recomputed,
    books: Books,
    findings: Findings,
) -> None:
    """Compare one invoice with the costs recomputed under its cut; `known`: the catalogue of the cut."""
    name = invoice.name
    if (invoice.period_start, invoice.period_end) != month_around(invoice.period_start, invoice.time_zone):
        findings.add(STEP, f"{name}: its period is not a calendar month of {invoice.time_zone}")
    seen: set[tuple[ItemKey, str]] = set()
    for line in lines:
        key = ItemKey(line.subscription_id, line.item, to_us(line.service_period_start), line.subject)
        if (key, line.product) in seen:
            findings.add(STEP, f"{name}: line {line.line_number} repeats an earlier line")
        seen.add((key, line.product))
        check_line(invoice, line, recomputed.costs.get(key, Cost()), books, findings)
    for key, cost in recomputed.costs.items():
        if key.period_from_us != to_us(invoice.period_start):
            continue
        for product, amount in cost.amounts.items():
            if amount and (key, product) not in seen:
                findings.add(STEP, f"{name}: {item_name(key)}, {product}: {amount} {invoice.currency} is on no line")
    total = sum(prices.minor_units(line.amount_exact, invoice.currency) for line in lines)
    if invoice.total_minor != total:
        findings.add(STEP, f"{name}: total {invoice.total_minor}, recomputed {total} minor units of {invoice.currency}")
    _check_entries(invoice, lines, books, findings)
    check_booked(invoice, recomputed, books, findings)
    if invoice.state == "issued":
        check_issued(invoice, lines, books, units_of(known), findings)
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


def _check_entries(invoice: Invoice, lines: Sequence[Line], books: Books, findings: Findings) -> None:
    name = invoice.name
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
        for _, _, kind, _, product, currency, amount, _, _ in books.transactions.get(transaction_id, ()):
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
