"""How an amount came about: from a posting, a line or an invoice down to total, price steps, days, slots and events."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from psycopg.rows import dict_row

from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.money import format_minor
from pipeline.domain.period import zone
from pipeline.reports import books, store
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "explain.sql")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """
    A row of the tree: `level` 0 is the root. Quantities and amounts are exact, Decimal or decimal text.

    `quantity` is of `unit`, `amount` of `currency`; times are instants, [start, end).
    """

    level: int
    what: str
    name: str
    start: datetime | None = None
    end: datetime | None = None
    quantity: Decimal | str | None = None
    unit: str | None = None
    unit_price: str | None = None
    amount: Decimal | str | None = None
    currency: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """How far down: `server` only this one; `day` its slots; `events` what is given for them (None: not asked for)."""

    server: str | None = None
    day: date | None = None
    events: "FindEvents | None" = None


#: (server, event type, from, to) -> nodes of level 0, in order.
FindEvents = Callable[[str, str, datetime, datetime], Sequence[Node]]


def explain(connection: Connection, name: str, line: int | None, depth: Depth) -> Iterator[Node]:
    """
    Give the tree of what a name stands for.

    Args:
        connection: Is read only, in one snapshot if the caller opened one.
        name: The number or id of an invoice, with `:N` for one of its lines; or the number or key of a posting.
        line: Another way to name a line.
        depth: How far down. The lines of a whole invoice are not followed below their prices.

    Raises:
        ConfigurationFault: There is nothing of that name.
    """
    name, line = _split(connection, name, line)
    if _is_invoice(connection, name):
        invoice = store.invoice(connection, name)
        yield from _invoice(connection, invoice, line, depth)
        return
    posting = books.posting(connection, name)
    yield from _posting(connection, posting, depth)


def _split(connection: Connection, name: str, line: int | None) -> tuple[str, int | None]:
    head, colon, tail = name.rpartition(":")
    if line is None and colon and tail.isascii() and tail.isdigit() and _is_invoice(connection, head):
        return head, int(tail)
    return name, line


def _is_invoice(connection: Connection, name: str) -> bool:
    try:
        store.invoice(connection, name)
    except ConfigurationFault:
        return False
    return True


def _invoice(connection: Connection, invoice: Row, line: int | None, depth: Depth) -> Iterator[Node]:
    yield Node(
        level=0, what="invoice", name=invoice["number"] or invoice["invoice_id"], amount=invoice["total"],
        currency=invoice["currency"], detail=f"{invoice['account']}, {invoice['period']}, {invoice['state']}",
    )  # fmt: skip
    lines = rows(connection, "explained_lines", invoice_id=invoice["invoice_id"], line=line)
    if not lines:
        raise ConfigurationFault(f"invoice {invoice['number']} has no line {line}", "line_unknown")
    for one in lines:
        yield Node(
            level=1, what="line", name=str(one["line_number"]), start=one["service_period_start"],
            end=one["service_period_end"], quantity=one["quantity"], currency=one["currency"],
            amount=format_minor(one["amount_minor"], one["currency"]),
            detail=f"{one['description']}; exact {one['amount_exact']:f}",
        )  # fmt: skip
        for posted in rows(connection, "taken_postings", invoice_id=invoice["invoice_id"], line=one["line_number"]):
            yield _posted(2, posted)
        yield from _prices(2, one["breakdown"], one["currency"])
        if one["billed_item_id"] is not None:
            yield from _total(connection, 2, one["billed_item_id"], depth, is_followed=line is not None)


def _posting(connection: Connection, posting: Row, depth: Depth) -> Iterator[Node]:
    yield Node(
        level=0, what="posting", name=posting["key"], start=posting["booked_at"],
        detail=f"posting {posting['posting']}, position {posting['position'] or 'not sealed'}",
    )  # fmt: skip
    for entry in books.posting_entries(connection, posting["posting"]):
        taken = f"; taken by {entry['invoice']} line {entry['line']}" if entry["line"] else ""
        yield Node(
            level=1, what="entry", name=entry["ledger_account"], amount=entry["debit"] or entry["credit"],
            currency=entry["currency"], detail=("debit" if entry["debit"] else "credit") + taken,
        )  # fmt: skip
    if posting["billed_item_id"] is not None:
        (item,) = rows(connection, "item_total", billed_item_id=posting["billed_item_id"])
        if posting["revision"] == item["booked_revision"]:
            yield from _prices(1, item["breakdown"] or [], None)
        yield from _total(connection, 1, posting["billed_item_id"], depth, is_followed=True)
    elif posting["invoice_id"] is not None:
        for node in _invoice(connection, store.invoice(connection, posting["invoice_id"]), None, depth):
            yield _deeper(node, 1)


def _posted(level: int, posted: Row) -> Node:
    return Node(
        level=level, what="posting", name=posted["key"], start=posted["booked_at"], amount=posted["amount"],
        currency=posted["currency"], detail=f"posting {posted['ledger_transaction_id']}",
    )  # fmt: skip


def _prices(level: int, breakdown: Sequence[Row], currency: str | None) -> Iterator[Node]:
    for part in breakdown:
        yield Node(
            level=level, what="price", name=part["price"], start=datetime.fromisoformat(part["from"]),
            end=datetime.fromisoformat(part["to"]), quantity=part["quantity"], unit=part["unit"],
        )  # fmt: skip
        for step in part["steps"]:
            yield Node(
                level=level + 1, what="step", name=step["label"], quantity=step["quantity"], unit=part["unit"],
                unit_price=step["unit_price"], amount=step["amount"], currency=currency,
            )  # fmt: skip


def _total(
    connection: Connection, level: int, billed_item_id: int, depth: Depth, *, is_followed: bool
) -> Iterator[Node]:
    (item,) = rows(connection, "item_total", billed_item_id=billed_item_id)
    booked = f"revision {item['booked_revision']} is booked" if item["booked_revision"] else "nothing is booked"
    if item["outcome"] not in (None, "rated"):
        booked += f" ({item['outcome']}: {item['reason']})"
    yield Node(
        level=level, what="total", name=f"{item['subscription_id']} {item['item']}", start=item["period_start"],
        end=item["period_end"], detail=f"generation {item['generation']}, revision {item['revision']}; {booked}",
    )  # fmt: skip
    usage = rows(
        connection, "item_usage", billed_item_id=billed_item_id, server=depth.server, day=depth.day
    ) if is_followed else []  # fmt: skip
    for place, segment in enumerate(item["segments"] or []):
        here = [row for row in usage if row["segment"] == place]
        found = sum((Fraction(row["quantity"]) for row in here), Fraction(0))
        is_whole = is_followed and depth.server is None and depth.day is None
        differs = is_whole and found != Fraction(segment["quantity"])
        yield Node(
            level=level + 1, what="segment", name=str(place + 1), start=datetime.fromisoformat(segment["from"]),
            end=datetime.fromisoformat(segment["to"]), quantity=segment["quantity"],
            unit=here[0]["unit"] if here else None, detail="usage has changed since" if differs else None,
        )  # fmt: skip
        yield from _servers(level + 2, here, depth)


def _servers(level: int, usage: Sequence[Row], depth: Depth) -> Iterator[Node]:
    what = "day" if depth.day is None else "slot"
    for key in dict.fromkeys((row["server"], row["meter"]) for row in usage):
        here = [row for row in usage if (row["server"], row["meter"]) == key]
        yield Node(level=level, what="server", name=key[0], unit=here[0]["unit"], detail=f"meter {key[1]}")
        for row in here:
            name = f"{row['at'].astimezone(zone(row['time_zone'])):{'%Y-%m-%d' if what == 'day' else '%H:%M'}}"
            yield Node(
                level=level + 1, what=what, name=name, start=row["at"], quantity=row["quantity"], unit=row["unit"]
            )
        if depth.events is not None and depth.day is not None:
            # What holds on into the first slot was sent before it.
            start = here[0]["at"] - timedelta(seconds=here[0]["gap_seconds"])
            end = here[-1]["at"] + timedelta(seconds=here[-1]["slot_seconds"])
            for node in depth.events(key[0], here[0]["event_type"], start, end):
                yield _deeper(node, level + 1)


def _deeper(node: Node, by: int) -> Node:
    values = {name: getattr(node, name) for name in Node.__dataclass_fields__}
    return Node(**(values | {"level": node.level + by}))


def rows(connection: Connection, query: str, **parameters: Any) -> list[Row]:
    """Run a query of explain.sql."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES[query], parameters).fetchall()
