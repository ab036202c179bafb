"""Drop slots and samples that nobody needs any more, behind an edge that is recorded before."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pipeline.catalogue.apply import take_known_numbers
from pipeline.domain.errors import ConfigurationFault
from pipeline.maintenance.rules import Edge
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries
from pipeline.runtime.timescale import is_converted

QUERIES = load_queries(__package__)

#: Code of the refusal.
HELD = "retention_held"
UNASSIGNED = "unassigned"
#: Reason of a hold -> what it is and what to do.
REASONS = {
    "period_open": "months that began before the edge are not closed: `rackmeter close`",
    "total_unbooked": "totals are not booked: `rackmeter status`",
    "change_open": "changes that no total has taken up: is the totals stage running?",
    UNASSIGNED: "slots of a server that nobody ever had: assign it, or give --drop-unassigned",
}


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing may be dropped: the reason (a key of REASONS), account or server, and how many there are."""

    reason: str
    about: str
    count: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply would do. Samples that are pinned do not count."""

    edge: Edge
    holds: Sequence[Hold]
    buckets: int
    samples: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """What went: `unit` is rows, or chunks on TimescaleDB; rows in a chunk that reaches over the edge stay for now."""

    edge: Edge
    unit: str
    buckets: int
    samples: int


def plan(connection: Connection, wanted: Edge, *, drop_unassigned: bool = False) -> Plan:
    """Tell what an apply would drop, and what holds it; changes nothing."""
    edge = _higher(wanted, read_edge(connection))
    row = connection.execute(QUERIES["count_behind"], asdict(edge)).fetchone()
    buckets, samples = row if row else (0, 0)
    return Plan(edge, _holds(connection, edge, drop_unassigned=drop_unassigned), buckets, samples)


def apply(connection: Connection, wanted: Edge, *, drop_unassigned: bool = False) -> Dropped:
    """
    Record the edge and drop what lies behind it. An edge recorded before that is higher stays.

    Args:
        connection: With the owner's rights and without a statement timeout; not in a transaction.
        wanted: As `rules.edge_for` gives it.
        drop_unassigned: Slots of servers that nobody ever had may go.

    Raises:
        ConfigurationFault: Something holds it; then nothing was changed.
    """
    has_chunks = is_converted(connection)
    if has_chunks:
        _refresh(connection, read_edge(connection), wanted)
    with connection.transaction():
        connection.execute(QUERIES["lock_changes"])
        connection.execute(QUERIES["hold_flushes"])
        recorded = read_edge(connection)
        edge = _higher(wanted, recorded)
        if edge != recorded:
            if holds := _holds(connection, edge, drop_unassigned=drop_unassigned):
                said = [f"{hold.about}: {REASONS[hold.reason]} ({hold.count})" for hold in holds]
                raise ConfigurationFault("\n".join(said), HELD)
            connection.execute(
                QUERIES["record_edge"], {"known_number": take_known_numbers(connection, 1), **asdict(edge)}
            )
    return _drop_chunks(connection, edge) if has_chunks else _delete_rows(connection, edge)


def read_edge(connection: Connection) -> Edge | None:
    """Read the edge in force; None where nothing was ever dropped."""
    row = connection.execute(QUERIES["read_edge"]).fetchone()
    return Edge(*row) if row else None


def _higher(wanted: Edge, recorded: Edge | None) -> Edge:
    return wanted if recorded is None or wanted.dropped_before > recorded.dropped_before else recorded


def _holds(connection: Connection, edge: Edge, *, drop_unassigned: bool) -> list[Hold]:
    found = [Hold(*row) for row in connection.execute(QUERIES["holds"], asdict(edge))]
    return [hold for hold in found if hold.reason != UNASSIGNED or not drop_unassigned]


def _delete_rows(connection: Connection, edge: Edge) -> Dropped:
    # Nobody writes behind a recorded edge, so no lock keeps flushes waiting.
    with connection.transaction():
        samples = connection.execute(QUERIES["delete_samples"], asdict(edge)).rowcount
        buckets = connection.execute(QUERIES["delete_buckets"], asdict(edge)).rowcount
    return Dropped(edge, "rows", buckets, samples)


def _drop_chunks(connection: Connection, edge: Edge) -> Dropped:
    with connection.transaction():
        connection.execute(QUERIES["hold_flushes"])
        connection.execute(QUERIES["pin_samples"], asdict(edge))
        samples = connection.execute(QUERIES["drop_sample_chunks"], asdict(edge)).fetchall()
        connection.execute(QUERIES["put_samples_back"])
        buckets = connection.execute(QUERIES["drop_bucket_chunks"], asdict(edge)).fetchall()
    return Dropped(edge, "chunks", len(buckets), len(samples))


def _refresh(connection: Connection, recorded: Edge | None, wanted: Edge) -> None:
    """Bring what is looked at up to date before its slots go. Behind the recorded edge that would empty it."""
    start, end = (recorded.dropped_before if recorded else None), wanted.dropped_before
    if start is None or start < end:
        connection.execute(QUERIES["refresh_hours"], (start, end))
        connection.execute(QUERIES["refresh_days"], (end,))
        connection.execute(QUERIES["refresh_months"], (end,))
