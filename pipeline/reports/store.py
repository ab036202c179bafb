"""The reports' reads: each function is one statement, its rows as mappings with the columns the command shows."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal

from psycopg.rows import dict_row

from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.money import format_minor
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)

Row = dict[str, Any]
Stretch = Literal["hour", "day", "month"]


def usage(
    connection: Connection,
    *,
    by: Stretch,
    zone_name: str | None = None,
    account: str | None = None,
    server: str | None = None,
    meter: str | None = None,
    start: datetime | date | None = None,
    end: datetime | date | None = None,
) -> list[Row]:
    """
    Sum usage over stretches of local time, of slots that begin in [start, end).

    Args:
        connection: Is read only.
        by: How long a stretch is.
        zone_name: Whose hours, days and months; None: those of each account, of UTC where nobody has the server.
        account: Only what it had at the time.
        server: Only this one.
        meter: Only this one.
        start: An aware time, or a day, whose first instant in the zone is meant; None: all.
        end: Like `start`.

    Returns:
        account (None: nobody has the server), server, meter, from, zone (its name), quantity (Decimal), unit.
    """
    parameters: Row = {"by": by, "zone_name": zone_name, "account": account, "server": server, "meter": meter}
    for name, edge in (("from", start), ("to", end)):
        is_time = isinstance(edge, datetime)
        parameters |= {f"{name}_at": edge if is_time else None, f"{name}_day": None if is_time else edge}
    return _rows(connection, "usage_list", parameters)


def usage_dropped_before(connection: Connection) -> datetime | None:
    """Before when slots may be gone; None where nothing was dropped."""
    (row,) = _rows(connection, "usage_dropped_before")
    found: datetime | None = row["dropped_before"]
    return found


def usage_series(connection: Connection, server: str) -> list[Row]:
    """What is kept of a server, by meter version and source: slots, first, last, quantity (Decimal), unit."""
    return _rows(connection, "usage_series", {"server": server})


def usage_sources(connection: Connection, server: str) -> list[Row]:
    """Who speaks for a server: source, event_type, first_at, last_at, complete_until, has_no_hole, declared_lost."""
    return _rows(connection, "usage_sources", {"server": server})


def invoices(
    connection: Connection, *, account: str | None = None, period: str | None = None, state: str | None = None
) -> list[Row]:
    """Invoices by number; `total` is text in major units of `currency`; `period` is YYYY-MM in the account's zone."""
    return _invoices(connection, {"account": account, "period": period, "state": state, "name": None})


def invoice(connection: Connection, name: str) -> Row:
    """The invoice with that number or id, as `invoices` has it; ConfigurationFault where there is none."""
    found = _invoices(connection, {"account": None, "period": None, "state": None, "name": name})
    if not found:
        raise ConfigurationFault(
            f"there is no invoice {name!r}; `rackmeter invoices list` shows what there is", "invoice_unknown"
        )
    return found[0]


def invoice_lines(connection: Connection, invoice_id: str) -> list[Row]:
    """Lines in order: quantity (Decimal, of `unit`), amount_exact (Decimal) and amount (text), both of `currency`."""
    rows = _rows(connection, "invoice_lines", {"invoice_id": invoice_id})
    return [{**row, "amount": format_minor(row["amount_minor"], row["currency"])} for row in rows]


def payments(
    connection: Connection,
    *,
    account: str | None = None,
    state: str | None = None,
    invoice: str | None = None,
    invoice_ids: Sequence[str] | None = None,
) -> list[Row]:
    """Payment attempts by invoice number, of an invoice (number or id) or several; `amount` as text in `currency`."""
    ids = None if invoice_ids is None else list(invoice_ids)
    rows = _rows(connection, "payment_list", {"account": account, "state": state, "name": invoice, "invoice_ids": ids})
    return [{**row, "amount": format_minor(row["amount_minor"], row["currency"])} for row in rows]


def decisions(
    connection: Connection,
    *,
    limit: int,
    settled: bool = False,
    reason: str | None = None,
    source: str | None = None,
    server: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Row]:
    """
    Quarantined, parked and conflicting events in the order of the log's time; with settled ones if asked.

    `since` and `until` are the log's time, half-open. `account` had the server then, if anybody; `holds` is true where
    an account's close waits for it to be settled.
    """
    parameters = {
        "settled": settled,
        "reason": reason,
        "source": source,
        "server": server,
        "since": since,
        "until": until,
        "limit": limit,
    }
    return _rows(connection, "decision_list", parameters)


def decision(connection: Connection, topic: str, partition: int, offset: int, index: int) -> Row:
    """One decision with its payload (bytes or None); ConfigurationFault where there is none at that position."""
    position = {"topic": topic, "partition": partition, "offset": offset, "index": index}
    found = _rows(connection, "decision_at", position)
    if not found:
        raise ConfigurationFault(
            f"nothing was recorded about {topic} partition {partition} offset {offset} index {index}: "
            "it was counted, or not read yet",
            "decision_unknown",
        )
    return found[0]


def decision_changes(connection: Connection, topic: str, partition: int, offset: int, index: int) -> list[Row]:
    """What became of a decision: changed_at, from_outcome, from_reason, to_outcome, to_reason, said_by, note."""
    position = {"topic": topic, "partition": partition, "offset": offset, "index": index}
    return _rows(connection, "decision_changes", position)


def trial_balance(connection: Connection) -> list[Row]:
    """
    Every ledger account: name, kind, account, product, currency; as Decimal debit, credit, balance, and
    currency_balance, the sum of all balances of its currency.
    """
    return _rows(connection, "trial_balance")


def known_logs(connection: Connection) -> list[Row]:
    """The logs as adopted: topic, log_id, kafka_topic_id, partition_count, adopted_at, is_read (not set aside)."""
    return _rows(connection, "known_logs")


def stage_offsets(connection: Connection) -> list[Row]:
    """Where each stage stands in the logs that are read: stage, topic, partition, offset_next, updated_at."""
    return _rows(connection, "stage_offsets")


def tallies(connection: Connection, topic: str) -> list[Row]:
    """What became of a topic's events, by partition: received and each outcome."""
    return _rows(connection, "tallies", {"topic": topic})


def work_left(connection: Connection) -> Row:
    """Counts of what is not yet in the books, by name."""
    return _rows(connection, "work_left")[0]


def last_invoices(connection: Connection, limit: int) -> list[Row]:
    """Invoices by month, state and currency, newest month first: count and total (text, major units)."""
    rows = _rows(connection, "last_invoices", {"limit": limit})
    return [{**row, "total": format_minor(row["total_minor"], row["currency"])} for row in rows]


def clock(connection: Connection) -> datetime:
    """The database's time, now."""
    now: datetime = _rows(connection, "clock")[0]["now"]
    return now


def application_role(connection: Connection) -> Row:
    """is_member: the login may act as the application; may_change_books: which it must not be able to."""
    return _rows(connection, "role")[0]


def _invoices(connection: Connection, parameters: Mapping[str, Any]) -> list[Row]:
    rows = _rows(connection, "invoice_list", parameters)
    return [{**row, "total": format_minor(row["total_minor"], row["currency"])} for row in rows]


def _rows(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES[name], parameters).fetchall()
