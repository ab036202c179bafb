"""Reads the facts the pipeline left in PostgreSQL, as plain values; times become microseconds since 1970 UTC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "facts.sql")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(at: datetime) -> int:
    """Microseconds since 1970 UTC, exact."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def to_time(at_us: int) -> datetime:
    """The instant of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=at_us)


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A row of the manifest."""

    partition: int
    offset_first: int
    offset_next: int
    row_count: int
    digest: str
    path: str


@dataclass(frozen=True, slots=True)
class Meter:
    """A meter version; in force for event times in [from_us, to_us), which is worked out from all versions."""

    meter_version_id: int
    meter: str
    version: int
    event_type: str
    aggregation: str
    value_field: str | None
    unit: str
    slot_seconds: int
    gap_seconds_max: int | None
    effective_from: datetime
    known_number: int


@dataclass(frozen=True, slots=True)
class Price:
    """A price version; `base_units` as PostgreSQL writes it."""

    price_version_id: int
    price: str
    version: int
    model: str
    product: str
    currency: str
    unit: str
    base_units: str
    parameters: Mapping[str, Any]
    known_number: int


@dataclass(frozen=True, slots=True)
class Binding:
    """What a subscription's item is charged by, from a time on."""

    known_number: int
    subscription_id: str
    item: str
    meter: str
    price_version_id: int
    effective_from: datetime


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription with its account's zone and currency."""

    subscription_id: str
    account_id: str
    starts_at: datetime
    ends_at: datetime | None
    known_number: int
    time_zone: str
    currency: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who is said to have a subject in [valid_from, valid_to); no subscription: nobody."""

    known_number: int
    subject: str
    subscription_id: str | None
    valid_from: datetime
    valid_to: datetime


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything versioned, all of it; steps take what is known at a horizon."""

    meters: tuple[Meter, ...]
    ignored_types: frozenset[str]
    prices: tuple[Price, ...]
    bindings: tuple[Binding, ...]
    subscriptions: tuple[Subscription, ...]
    assignments: tuple[Assignment, ...]

    def known_at(self, horizon: int) -> "Catalogue":
        """Give what was known at a number."""
        return Catalogue(
            tuple(row for row in self.meters if row.known_number <= horizon),
            self.ignored_types,
            tuple(row for row in self.prices if row.known_number <= horizon),
            tuple(row for row in self.bindings if row.known_number <= horizon),
            tuple(row for row in self.subscriptions if row.known_number <= horizon),
            tuple(row for row in self.assignments if row.known_number <= horizon),
        )


@dataclass(frozen=True, slots=True)
class LogFacts:
    """The log, how far the stages came in it, and its manifest."""

    topic: str
    log_id: str
    partition_count: int
    known_number: int
    aggregated: Mapping[int, int]
    archived: Mapping[int, int]
    manifest: tuple[ArchiveFile, ...]
    tallies: Mapping[int, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice as it stands; `cut` as the close wrote it."""

    invoice_id: str
    account_id: str
    period_start: datetime
    period_end: datetime
    currency: str
    state: str
    cut: Mapping[str, Any]
    total_minor: int
    seller: str
    number: str | None
    document: Mapping[str, Any] | None
    document_digest: str | None
    time_zone: str

    @property
    def offsets(self) -> dict[int, int]:
        """The cut's offsets: partition -> first offset that is not in it."""
        return {int(partition): int(offset) for partition, offset in self.cut["offsets"].items()}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of an invoice."""

    invoice_id: str
    line_number: int
    subscription_id: str
    item: str
    product: str
    service_period_start: datetime
    service_period_end: datetime
    subject: str
    description: str
    quantity: Decimal
    amount_exact: Decimal
    amount_minor: int


def rows(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Run a named query of facts.sql."""
    return connection.execute(QUERIES[name], parameters).fetchall()


def read_log(connection: Connection, topic: str) -> LogFacts:
    """
    Read where the log and its stages stand.

    Raises:
        ConfigurationFault: The database knows no log of this topic.
    """
    found = rows(connection, "log_identity", {"topic": topic})
    if not found:
        raise ConfigurationFault(f"this database knows no log of {topic}: nothing was ever read from it")
    log_id, partition_count, _, known_number = found[0]
    stands = rows(connection, "offsets", {"topic": topic, "log_id": log_id})
    outcomes = ("received", "counted", "duplicate", "conflict", "quarantined", "parked", "ignored", "control")
    return LogFacts(
        topic,
        log_id,
        partition_count,
        known_number,
        {partition: offset for stage, partition, offset in stands if stage == "aggregate"},
        {partition: offset for stage, partition, offset in stands if stage == "archive"},
        tuple(ArchiveFile(*row) for row in rows(connection, "manifest", {"topic": topic, "log_id": log_id})),
        {
            row[0]: dict(zip((*outcomes, "handed_over"), row[1:], strict=True))
            for row in rows(connection, "tallies", {"topic": topic})
        },
    )


def read_catalogue(connection: Connection) -> Catalogue:
    """Read every version of everything."""
    return Catalogue(
        tuple(Meter(*row) for row in rows(connection, "meters")),
        frozenset(row[0] for row in rows(connection, "ignored_types")),
        tuple(Price(*row) for row in rows(connection, "prices")),
        tuple(Binding(*row) for row in rows(connection, "bindings")),
        tuple(Subscription(*row) for row in rows(connection, "subscriptions")),
        tuple(Assignment(*row) for row in rows(connection, "assignments")),
    )


def read_invoices(connection: Connection, invoice_ids: Sequence[str]) -> tuple[Invoice, ...]:
    """Read invoices by id."""
    return tuple(Invoice(*row) for row in rows(connection, "invoices", {"invoice_ids": list(invoice_ids)}))


def read_lines(connection: Connection, invoice_ids: Sequence[str]) -> dict[str, list[Line]]:
    """Read the lines of invoices, by invoice."""
    found: dict[str, list[Line]] = {invoice_id: [] for invoice_id in invoice_ids}
    for row in rows(connection, "lines", {"invoice_ids": list(invoice_ids)}):
        found[row[0]].append(Line(*row))
    return found
