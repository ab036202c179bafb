"""Reads the facts the pipeline left in PostgreSQL, as plain values; times become microseconds since 1970 UTC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

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
    """A row of the manifest; `log_number` is the log's, `partition` is numbered on over all logs."""

    partition: int
    offset_first: int
    offset_next: int
    row_count: int
    digest: str
    path: str
    log_number: int


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
    """A subscription with its account's zone and currency; `ends`: what was said about its end, by known number."""

    subscription_id: str
    account_id: str
    starts_at: datetime
    known_number: int
    time_zone: str
    currency: str
    ends: Mapping[int, datetime | None]

    @property
    def ends_at(self) -> datetime | None:
        """The end by the latest word; None for none."""
        return self.ends[max(self.ends)] if self.ends else None

    def known_at(self, horizon: int) -> "Subscription":
        """Give it with what was said about its end up to a number."""
        return replace(self, ends={number: end for number, end in self.ends.items() if number <= horizon})


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who is said to have a subject in [valid_from, valid_to); no subscription: nobody."""

    known_number: int
    subject: str
    subscription_id: str | None
    valid_from: datetime
    valid_to: datetime


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """An event type that is not metered."""

    event_type: str
    known_number: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything versioned, all of it; steps take what is known at a horizon."""

    meters: tuple[Meter, ...]
    ignore_rules: tuple[IgnoreRule, ...]
    prices: tuple[Price, ...]
    bindings: tuple[Binding, ...]
    subscriptions: tuple[Subscription, ...]
    assignments: tuple[Assignment, ...]

    def known_at(self, horizon: int) -> "Catalogue":
        """Give what was known at a number."""
        return Catalogue(
            tuple(row for row in self.meters if row.known_number <= horizon),
            tuple(row for row in self.ignore_rules if row.known_number <= horizon),
            tuple(row for row in self.prices if row.known_number <= horizon),
            tuple(row for row in self.bindings if row.known_number <= horizon),
            tuple(row.known_at(horizon) for row in self.subscriptions if row.known_number <= horizon),
            tuple(row for row in self.assignments if row.known_number <= horizon),
        )

    @property
    def ignored_types(self) -> frozenset[str]:
        """Event types that are not metered."""
        return frozenset(row.event_type for row in self.ignore_rules)

    def reading_number(self, horizon: int) -> int:
        """Give the newest number, up to a horizon, that changed how events are read: of a meter or an ignore rule."""
        numbers = [row.known_number for row in self.meters] + [row.known_number for row in self.ignore_rules]
        return max((number for number in numbers if number <= horizon), default=0)


class LostSpan(NamedTuple):
    """Numbers [first, after) of a source's epoch that were counted from a log and lost with it, never archived."""

    log_number: int
    source: str
    epoch: str
    first: int
    after: int


@dataclass(frozen=True, slots=True)
class LogFacts:
    """
    All logs the topic has been, how far the stages came in each, and the manifest.

    Partitions are numbered on: partition p of log k is k x partition_count + p. The first log's keep their numbers.

    logs: Each log's ids, oldest first; the last is the present one.
    began: Where the reading of a partition began.
    """

    topic: str
    logs: tuple[tuple[str, ...], ...]
    partition_count: int
    known_number: int
    began: Mapping[int, int]
    aggregated: Mapping[int, int]
    archived: Mapping[int, int]
    manifest: tuple[ArchiveFile, ...]
    tallies: Mapping[int, Mapping[str, int]]
    lost: tuple[LostSpan, ...]

    def number_of(self, log_id: str) -> int | None:
        """Give which log an id belongs to, counted from 0; None for one the topic never was."""
        return next((number for number, ids in enumerate(self.logs) if log_id in ids), None)

    def offsets_at(self, log_number: int, offsets: Mapping[int, int]) -> dict[int, int]:
        """Give the offsets up to which there is evidence, for a cut at `offsets` of a log: of those before, all."""
        earlier = {
            partition: min(offset, self.archived.get(partition, 0))
            for partition, offset in self.aggregated.items()
            if partition < log_number * self.partition_count
        }
        return earlier | {
            log_number * self.partition_count + partition: offset for partition, offset in offsets.items()
        }

    def offsets_now(self) -> dict[int, int]:
        """Give the offsets up to which there is evidence, or will be once the archive is as far as aggregate."""
        number = len(self.logs) - 1
        first = number * self.partition_count
        return self.offsets_at(
            number, {partition - first: offset for partition, offset in self.aggregated.items() if partition >= first}
        )

    def offsets_of(self, invoice: "Invoice") -> dict[int, int]:
        """Give the offsets an invoice was cut at."""
        number = self.number_of(str(invoice.cut.get("log_id")))
        return self.offsets_at(len(self.logs) - 1 if number is None else number, invoice.offsets)


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice as it stands; `cut` as the close wrote it; its billing period's state and end."""

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
    issued_on: date | None
    due_on: date | None
    proof: Mapping[str, Any] | None
    period_state: str | None
    closed_to: datetime | None

    @property
    def name(self) -> str:
        """How differences name it: by its number, where it has one, and its id."""
        return f"invoice {self.number} ({self.invoice_id})" if self.number else f"invoice {self.invoice_id}"

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
    breakdown: Sequence[Mapping[str, Any]]


def rows(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Run a named query of facts.sql."""
    return connection.execute(QUERIES[name], parameters).fetchall()


def read_log(connection: Connection, topic: str) -> LogFacts:
    """
    Read where the log and its stages stand.

    Raises:
        ConfigurationFault: The database knows no log of this topic.
    """
    about = {"topic": topic}
    logs = rows(connection, "logs", about)
    if not logs:
        raise ConfigurationFault(f"this database knows no log of {topic}: nothing was ever read from it")
    *_, partition_count, known_number = logs[-1]
    stands = rows(connection, "offsets", about)
    outcomes = ("received", "counted", "duplicate", "conflict", "quarantined", "parked", "ignored", "control")
    return LogFacts(
        topic,
        tuple(tuple(log_ids) for _, log_ids, _, _ in logs),
        partition_count,
        known_number,
        {partition: first for stage, partition, first, _ in stands if stage == "archive"},
        {partition: offset for stage, partition, _, offset in stands if stage == "aggregate"},
        {partition: offset for stage, partition, _, offset in stands if stage == "archive"},
        tuple(ArchiveFile(*row) for row in rows(connection, "manifest", about)),
        {
            row[0]: dict(zip((*outcomes, "handed_over"), row[1:], strict=True))
            for row in rows(connection, "tallies", about)
        },
        tuple(LostSpan(*row) for row in rows(connection, "lost_numbers", about)),
    )


def read_catalogue(connection: Connection) -> Catalogue:
    """Read every version of everything."""
    ends: dict[str, dict[int, datetime | None]] = {}
    for subscription_id, known_number, ends_at in rows(connection, "subscription_ends"):
        ends.setdefault(subscription_id, {})[known_number] = ends_at
    return Catalogue(
        tuple(Meter(*row) for row in rows(connection, "meters")),
        tuple(IgnoreRule(*row) for row in rows(connection, "ignore_rules")),
        tuple(Price(*row) for row in rows(connection, "prices")),
        tuple(Binding(*row) for row in rows(connection, "bindings")),
        tuple(Subscription(*(*row, ends.get(row[0], {}))) for row in rows(connection, "subscriptions")),
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
