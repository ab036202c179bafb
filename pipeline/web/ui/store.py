"""The pages' own reads: each function is one statement, its rows as mappings with the columns the page shows."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.money import format_minor
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)

Row = dict[str, Any]

#: Of a list that can be longer than one reads.
ROWS_MAX = 500


def open_outcomes(connection: Connection) -> dict[str, int]:
    """How many events nobody has settled, by outcome: quarantined, parked, conflict."""
    found = {row["outcome"]: row["count"] for row in _rows(connection, "open_outcomes")}
    return {outcome: found.get(outcome, 0) for outcome in ("quarantined", "parked", "conflict")}


def open_reasons(connection: Connection) -> list[Row]:
    """Events nobody has settled: outcome, reason, count, sources, first_at, last_at (of the log's time)."""
    return _rows(connection, "open_reasons")


def month_states(connection: Connection) -> list[Row]:
    """How many accounts have which state in which month, newest first: month, state, count."""
    return _rows(connection, "month_states")


def months(connection: Connection) -> list[str]:
    """Months with usage that is billed, as YYYY-MM, newest first."""
    return [row["month"] for row in _rows(connection, "months")]


def accounts(connection: Connection) -> list[Row]:
    """Who is billed: account, name, currency, zone, subscriptions, servers (counts)."""
    return _rows(connection, "accounts")


def servers(connection: Connection, account: str | None = None) -> list[Row]:
    """Every known server, or those an account ever had: server, accounts (a list or None), first_at, last_at."""
    return _rows(connection, "servers", {"account": account})


def slots(connection: Connection, server: str, meter: str, start: datetime, end: datetime) -> list[Row]:
    """Slots that begin in [start, end): slot_start, quantity (Decimal), unit, version, source, slot_seconds."""
    return _rows(connection, "slots", {"server": server, "meter": meter, "start": start, "end": end})


def meter_at(connection: Connection, meter: str, at: datetime) -> Row:
    """The meter's version in force then; ConfigurationFault where there is none."""
    found = _rows(connection, "meter_at", {"meter": meter, "at": at})
    if not found:
        raise ConfigurationFault(f"there is no meter {meter!r} at {at.isoformat()}", "meter_unknown")
    return found[0]


def homes(connection: Connection, server: str, event_type: str) -> list[tuple[str, int]]:
    """Who speaks for a server in events of a type: (source, its home partition)."""
    rows = _rows(connection, "homes", {"server": server, "event_type": event_type})
    return [(row["source"], row["partition"]) for row in rows]


def archive_bytes(connection: Connection, topic: str, partition: int) -> int:
    """How much is archived of a partition."""
    found: int = _rows(connection, "archive_bytes", {"topic": topic, "partition": partition})[0]["bytes"]
    return found


def log_names(connection: Connection, topic: str, partition: int) -> dict[int, tuple[str, int]]:
    """Each log of a topic by its number: its name, and the offset below which the partition was decided about."""
    rows = _rows(connection, "log_names", {"topic": topic, "partition": partition})
    return {row["number"]: (row["name"], row["offset_next"]) for row in rows}


def outcomes_at(
    connection: Connection, partition: int, places: Sequence[tuple[str, int]]
) -> dict[tuple[str, int, int], tuple[str, str]]:
    """What was decided about messages at (name of a log, offset): (name, offset, index) -> (outcome, reason)."""
    names, offsets = [name for name, _ in places], [offset for _, offset in places]
    rows = _rows(connection, "outcomes_at", {"partition": partition, "names": names, "offsets": offsets})
    return {(row["name"], row["offset"], row["index"]): (row["outcome"], row["reason"]) for row in rows}


def line(connection: Connection, invoice_id: str, number: int) -> Row:
    """One line with its breakdown (segments with steps, decimals as text); ConfigurationFault where there is none."""
    found = _rows(connection, "line", {"invoice_id": invoice_id, "line": number})
    if not found:
        raise ConfigurationFault(f"invoice {invoice_id} has no line {number}", "line_unknown")
    return {**found[0], "amount": format_minor(found[0]["amount_minor"], found[0]["currency"])}


def line_days(connection: Connection, about: Mapping[str, Any]) -> list[Row]:
    """
    What a line's subscription used, from the buckets of now: server, day, slots, unit, quantity (Decimal).

    Args:
        connection: Is read only.
        about: A row of `line`. A row without a day sums a server, one without a server sums all.
    """
    parameters = {name: about[name] for name in ("subscription", "server", "zone", "meter")}
    return _rows(connection, "line_days", {**parameters, "start": about["service_from"], "end": about["service_to"]})


def ledger_entries(connection: Connection, name: str) -> list[Row]:
    """The newest entries of a ledger account, with the balance after each (debit positive)."""
    return _rows(connection, "ledger_entries", {"name": name, "limit": ROWS_MAX})


def proofs(connection: Connection) -> list[Row]:
    """Every invoice with what its proof compared: number, account, period, state, proven_at, proof (JSON or None)."""
    return _rows(connection, "proofs")


def proof_failures(connection: Connection) -> list[Row]:
    """Drafts that were withdrawn, newest first: account, period, failed_at, differences (sentences)."""
    return _rows(connection, "proof_failures", {"limit": ROWS_MAX})


def _rows(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES[name], parameters).fetchall()
