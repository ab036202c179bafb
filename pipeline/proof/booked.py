"""What is booked and posted for items: compared with what they cost, at the cut and as everything stands now."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from pipeline.proof import facts
from pipeline.proof.books import BookedItem, Books, shown
from pipeline.proof.charges import Cost, ItemKey, Recomputed
from pipeline.proof.facts import Invoice, to_us
from pipeline.proof.report import Findings
from pipeline.runtime.postgres import Connection

STEP = "invoices"


def check_booked(invoice: Invoice, recomputed: Recomputed, books: Books, findings: Findings) -> None:
    """Compare what is booked for the items of an invoice's cut, where it still stands at the cut's revision."""
    cut_at = {
        int(item_id): (int(invoice.cut.get("generation", 0)), int(revision))
        for item_id, revision in invoice.cut["revisions"].items()
    }
    items = {item.billed_item_id: item for item in books.booked if item.account_id == invoice.account_id}
    for item_id in sorted(cut_at.keys() - items.keys()):
        findings.add(STEP, f"{invoice.name}: item {item_id} of its cut is gone")
    for item_id, item in items.items():
        _check_revisions(item, cut_at.get(item_id), findings)
        _check_posted(item, books.posted.get(item_id, {}), findings)
        if item_id not in cut_at:
            continue
        cost = recomputed.costs.get(_key(item), Cost())
        if item.booked_at == cut_at[item_id]:
            findings.compared["charges"] += 1
            _check_charge(item, cost, invoice.currency, findings)
        if item.total_at == cut_at[item_id]:
            _check_total(item, cost, findings)
        if item.period_start == invoice.period_start and item.period_end != invoice.period_end:
            findings.add(STEP, f"item {_item(item)} ends at {item.period_end}, its period at {invoice.period_end}")


def check_booked_now(
    invoice: Invoice, recomputed: Recomputed, books: Books, period_starts: Iterable[int], findings: Findings
) -> None:
    """
    Compare what is booked with what items cost as everything stands now.

    Args:
        invoice: Whose account is meant.
        recomputed: By the present catalogue, up to where aggregate stands.
        books: What is booked.
        period_starts: Of the periods that were recomputed, in microseconds.
        findings: Takes what differs.
    """
    starts, said = set(period_starts), {difference.text for difference in findings.differences}
    fresh = Findings()
    for item in books.booked:
        if item.account_id != invoice.account_id or to_us(item.period_start) not in starts:
            continue
        # What is on its way, the next booking puts right.
        if item.is_dirty or item.booked_at != item.total_at or item.revision is None:
            findings.compared["charges_on_their_way"] += 1
            continue
        cost = recomputed.costs.get(_key(item), Cost())
        _check_charge(item, cost, invoice.currency, fresh)
        _check_total(item, cost, fresh)
    findings.differences += [difference for difference in fresh.differences if difference.text not in said]


def check_natures(connection: Connection, findings: Findings) -> None:
    """See that every transaction of the ledger is for something, and that usage is posted where it belongs."""
    for transaction_id, currency, rest in facts.rows(connection, "imbalances"):
        findings.add("ledger", f"transaction {transaction_id} is out of balance by {rest:f} {currency}")
    for transaction_id, key in facts.rows(connection, "for_nothing"):
        findings.add("ledger", f"transaction {transaction_id} ({key}) is for nothing there is")
    for entry_id, key in facts.rows(connection, "misplaced"):
        findings.add("ledger", f"posting {entry_id} ({key}) is posted to another account or period than its item's")


def _check_revisions(item: BookedItem, cut_at: tuple[int, int] | None, findings: Findings) -> None:
    name = _item(item)
    if item.revision is None:
        if cut_at is not None:
            findings.add(STEP, f"nothing is booked for {name}, the cut took revision {cut_at[1]}")
        return
    if cut_at is not None and item.booked_at < cut_at:
        findings.add(STEP, f"{name} is booked at revision {item.revision}, the cut took {cut_at[1]}")
    if item.total_revision is None:
        findings.add(STEP, f"{name} is booked at revision {item.revision}, and it has no total")
    elif item.total_at < item.booked_at:
        findings.add(STEP, f"{name} is booked at revision {item.revision}, its total is at {item.total_revision}")


def _check_posted(item: BookedItem, posted: Mapping[tuple[str, str, str], Any], findings: Findings) -> None:
    """What is posted for an item is what is booked for it, whichever invoice took it or will."""
    wanted: dict[tuple[str, str, str], Fraction] = {}
    for amount in item.amounts or ():
        value = Fraction(amount["amount"])
        for key, sign in (
            (("revenue", amount["product"], amount["currency"]), -1),
            (("unbilled", "", amount["currency"]), 1),
        ):
            wanted[key] = wanted.get(key, Fraction(0)) + sign * value
    for key in sorted(wanted.keys() | posted.keys()):
        found, should = Fraction(posted.get(key, 0)), wanted.get(key, Fraction(0))
        if found != should:
            kind = " of ".join(part for part in key[:2] if part)
            findings.add(
                "ledger", f"{_item(item)}: {kind} is posted {shown(found)} {key[2]}, booked is {shown(should)}"
            )


def _check_charge(item: BookedItem, cost: Cost, currency: str, findings: Findings) -> None:
    name = f"booked charge of {_item(item)}"
    amounts = item.amounts or ()
    said = {amount["product"]: Fraction(amount["amount"]) for amount in amounts if Fraction(amount["amount"])}
    wanted = {product: Fraction(amount) for product, amount in cost.amounts.items() if amount}
    if item.outcome != "rated":
        findings.add(STEP, f"{name} is {item.outcome}")
    elif said != wanted or any(amount["currency"] != currency for amount in amounts):
        findings.add(STEP, f"{name}: {_amounts(said)}, recomputed {_amounts(wanted)}")
    elif Fraction(item.quantity or 0) != cost.quantity:
        findings.add(STEP, f"{name}: quantity {item.quantity:f}, recomputed {shown(cost.quantity)}")
    elif not same_steps(item.breakdown or (), [part.breakdown for part in cost.parts]):
        findings.add(STEP, f"{name}: the steps of the price are not those recomputed")


def _check_total(item: BookedItem, cost: Cost, findings: Findings) -> None:
    if not same_steps(item.segments or (), [part.segment for part in cost.parts]):
        said = "; ".join(str(segment.get("quantity")) for segment in item.segments or ())
        wanted = "; ".join(str(part.segment["quantity"]) for part in cost.parts)
        findings.add(STEP, f"total of {_item(item)}: quantity {said or 'nothing'}, recomputed {wanted or 'nothing'}")


def same_steps(said: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether parts by price are as recomputed; where nothing was used, whatever stands there is nothing."""
    if wanted:
        return list(said) == list(wanted)
    return all(
        part.get("quantity") == "0" and all(step.get("amount") == "0" for step in part.get("steps", ()))
        for part in said
    )


def _key(item: BookedItem) -> ItemKey:
    return ItemKey(item.subscription_id, item.item, to_us(item.period_start), item.subject)


def item_name(key: ItemKey) -> str:
    """How differences name an item."""
    server = f", server {key.subject}" if key.subject else ""
    return f"{key.item} of {key.subscription_id}{server}, {facts.to_time(key.period_from_us).date()}"


def _item(item: BookedItem) -> str:
    return item_name(_key(item))


def _amounts(amounts: Mapping[str, Fraction]) -> str:
    return ", ".join(f"{product} {shown(amount)}" for product, amount in sorted(amounts.items())) or "nothing"
