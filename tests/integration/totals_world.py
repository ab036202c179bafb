"""The totals stage on a real database: a small catalogue, usage put straight into buckets, a topic in memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pipeline.catalogue.model import Assignment
from pipeline.catalogue.servers import assign
from pipeline.contracts.usage_total import Total, decode_totals
from pipeline.domain.errors import TransientFault
from pipeline.runtime.postgres import Connection, connect
from pipeline.totals.worker import Worker
from tests.unit.aggregate.sending import SAMPLE

LONG_AGO, JULY, AUGUST = (datetime(2013, month, 1, tzinfo=UTC) for month in (1, 7, 8))
PRICES = {"cpu-a": 1, "cpu-b": 2, "server": 3, "hour": 4}
SUBSCRIPTIONS = ("a", "b", "c")

CATALOGUE = """
INSERT INTO seller (seller, name, number_prefix, time_zone, known_number) VALUES ('host', 'Host', 'RM', 'UTC', 1);
INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds, gap_seconds_max,
    effective_from, known_number)
VALUES ('cpu', 1, '{sample}', 'time_weighted', 'cpu', 'core-second', 300, 600, '1970-01-01Z', 1),
    ('reads', 1, '{sample}', 'increase', 'reads', 'read', 300, NULL, '1970-01-01Z', 1),
    ('calls', 1, '{sample}', 'sum', 'calls', 'call', 300, NULL, '1970-01-01Z', 1),
    ('hours', 1, '{sample}', 'active_hours', NULL, 'hour', 300, NULL, '1970-01-01Z', 1);
INSERT INTO price_version (price, version, model, product, currency, unit, base_units, parameters, digest, known_number)
SELECT price, 1, model, 'compute', 'EUR', 'u', 1, '{{}}', price, 1
FROM (VALUES ('cpu-a', 'per_unit'), ('cpu-b', 'per_unit'), ('server', 'hourly_capped'), ('hour', 'per_unit'))
    AS p (price, model);
INSERT INTO billing_account (account_id, name, currency, time_zone, seller, known_number)
SELECT name, name, 'EUR', '{zone}', 'host', 1 FROM unnest('{{a,b,c}}'::text[]) AS name;
INSERT INTO subscription (subscription_id, account_id, plan, starts_at, known_number)
SELECT name, name, 'standard', '2013-01-01Z', 1 FROM unnest('{{a,b,c}}'::text[]) AS name;
UPDATE known_number SET last = 1
"""
BIND = """
INSERT INTO price_binding (known_number, subscription_id, item, meter, price_version_id, effective_from)
VALUES (%(known)s, %(subscription)s, %(item)s, %(meter)s, %(price)s, %(at)s)
"""
MARK_PRICES = """
INSERT INTO dirty_mark (subscription_id, time_from, time_to) VALUES (%(subscription)s, %(at)s, 'infinity')
"""
SERIES = """
INSERT INTO series (meter_version_id, subject, source)
SELECT meter_version_id, %(subject)s, '' FROM meter_version WHERE meter = %(meter)s ON CONFLICT DO NOTHING
"""
USE = """
WITH s AS (SELECT series_id FROM series JOIN meter_version USING (meter_version_id)
           WHERE meter = %(meter)s AND subject = %(subject)s),
bucket AS (
    INSERT INTO usage_bucket AS b SELECT series_id, %(at)s, %(quantity)s FROM s
    ON CONFLICT (series_id, slot_start) DO UPDATE SET quantity = b.quantity + excluded.quantity),
day AS (
    INSERT INTO usage_day AS d SELECT series_id, (%(at)s AT TIME ZONE 'UTC')::date, %(quantity)s FROM s
    WHERE %(meter)s <> 'hours'
    ON CONFLICT (series_id, day) DO UPDATE SET quantity = d.quantity + excluded.quantity),
seen AS (
    INSERT INTO source_subject AS x VALUES ('s', %(subject)s, 'sample', %(at)s, %(at)s)
    ON CONFLICT (source, subject, event_type) DO UPDATE
    SET first_at = least(x.first_at, excluded.first_at), last_at = greatest(x.last_at, excluded.last_at))
INSERT INTO dirty_mark (subject, meter, time_from, time_to)
SELECT %(subject)s, %(meter)s, %(at)s::timestamptz - interval '1 hour', %(at)s::timestamptz + interval '15 minutes'
WHERE %(marked)s
"""
TOTALS = """
SELECT b.subscription_id, b.item, b.subject, b.period_start, t.revision, t.segments, t.generation
FROM usage_total t JOIN billed_item b USING (billed_item_id) ORDER BY 1, 2, 3, 4
"""


@dataclass
class TopicInMemory:
    """What was put on usage.totals; a broker that is down takes nothing."""

    messages: list[bytes] = field(default_factory=list)
    is_down: bool = False
    _queued: list[bytes] = field(default_factory=list)

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        self._queued.append(value)

    def flush(self, timeout_seconds: float) -> None:
        queued, self._queued = self._queued, []
        if self.is_down:
            raise TransientFault("the broker does not answer")
        self.messages += queued

    def taken(self) -> list[Total]:
        """The totals that came since the last look."""
        messages, self.messages = self.messages, []
        return [total for message in messages for total in decode_totals(message).totals]


@dataclass
class World:
    """The database and the topic of one test."""

    database_url: str
    owner: Connection
    connection: Connection
    topic: TopicInMemory = field(default_factory=TopicInMemory)
    lag: int = 0

    def worker(
        self, connection: Connection | None = None, *, pace_seconds: float = 0.0, sweep_seconds: float = 60.0
    ) -> Worker:
        return Worker(
            connection or self.connection,
            self.topic,
            "usage.totals",
            pace_seconds=pace_seconds,
            sweep_seconds=sweep_seconds,
            lag=lambda: self.lag,
        )

    def bind(self, subscription: str, item: str, meter: str, price: str, at: datetime = LONG_AGO) -> None:
        """Charge an item by a meter at a price from a time on, and mark that it changed."""
        known = self.owner.execute("UPDATE known_number SET last = last + 1 RETURNING last").fetchone()
        values = {"known": known and known[0], "subscription": subscription, "item": item, "meter": meter, "at": at}
        self.owner.execute(BIND, {**values, "price": PRICES[price]})
        self.owner.execute(MARK_PRICES, values)

    def give(self, subject: str, subscription: str | None, start: datetime, end: datetime | None = None) -> None:
        """Assign a server, as the command does."""
        assign(self.connection, [Assignment(0, subject, subscription, start, end)], "test")

    def end(self, subscription: str, at: datetime | None, known: datetime | None = None) -> None:
        """Say when a subscription ends, with the mark that the catalogue leaves; `known` is an end known before."""
        number = self.owner.execute("UPDATE known_number SET last = last + 1 RETURNING last").fetchone()
        self.owner.execute("INSERT INTO subscription_end VALUES (%s, %s, %s)", (number and number[0], subscription, at))
        self.owner.execute(MARK_PRICES, {"subscription": subscription, "at": min(filter(None, (at, known)))})

    def use(
        self, subject: str, at: datetime, quantity: int | Decimal = 1, meter: str = "cpu", *, marked: bool = True
    ) -> None:
        """Add to the usage of a slot, as a flush does."""
        with connect(self.database_url, application_name="tests-use") as own, own.transaction():
            self.use_many(own, [(subject, at, quantity)], meter, marked=marked)

    def use_many(
        self,
        connection: Connection,
        rows: Sequence[tuple[str, datetime, int | Decimal]],
        meter: str = "cpu",
        *,
        marked: bool = True,
    ) -> None:
        for subject in sorted({row[0] for row in rows}):
            connection.execute(SERIES, {"subject": subject, "meter": meter})
        with connection.cursor() as cursor:
            cursor.executemany(
                USE,
                [
                    {"subject": subject, "at": at, "quantity": Decimal(quantity), "meter": meter, "marked": marked}
                    for subject, at, quantity in rows
                ],
            )

    def settle(self) -> None:
        """Compute and send all that is dirty."""
        self.worker().drain()

    def totals(self) -> dict[tuple[str, str, str, datetime], tuple[int, list[Any]]]:
        """(subscription, item, subject, period start) -> revision, segments."""
        return {tuple(row[:4]): (row[4], row[5]) for row in self.owner.execute(TOTALS).fetchall()}

    def quantity(
        self, subscription: str, item: str = "cpu", subject: str = "", start: datetime = JULY
    ) -> int | Decimal:
        """The quantity of an item over all its segments."""
        _, segments = self.totals()[subscription, item, subject, start]
        return sum(Decimal(part["quantity"]) for part in segments)

    def revision(self, subscription: str, item: str = "cpu", subject: str = "", start: datetime = JULY) -> int:
        return self.totals()[subscription, item, subject, start][0]

    def count(self, table: str) -> int:
        row = self.owner.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        return int(row[0]) if row else 0

    @contextmanager
    def other(self) -> Iterator[Connection]:
        """Another connection of the application."""
        connection = connect(self.database_url, application_name="tests-other")
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def make_world(database_url: str, zone: str = "UTC") -> Iterator[World]:
    """Three subscriptions whose item `cpu` is charged by the meter cpu."""
    owner = connect(database_url, application_name="tests-owner", role=None)
    connection = connect(database_url, application_name="tests")
    try:
        owner.execute(CATALOGUE.format(zone=zone, sample=SAMPLE).encode())
        world = World(database_url, owner, connection)
        for subscription in SUBSCRIPTIONS:
            world.bind(subscription, "cpu", "cpu", "cpu-a")
        owner.execute("DELETE FROM dirty_mark")
        yield world
    finally:
        connection.close()
        owner.close()


Interruption = Callable[[], None]


def once(action: Interruption) -> Interruption:
    """An action that happens at the first call only."""
    left = [action]

    def act() -> None:
        if left:
            left.pop()()

    return act
