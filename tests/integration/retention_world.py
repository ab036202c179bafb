"""Usage over months, an edge in the middle, and what must be the same whether slots before it are kept or not."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.aggregate.rows import COPY, RowWriter
from pipeline.maintenance.rules import SETTLED, Edge
from pipeline.runtime.postgres import Connection
from tests.integration.aggregate_world import LogInMemory, aggregate, rows_of
from tests.unit.aggregate.sending import BASE_US, SOURCE, event, second

DAY = 86_400
BASE = datetime(2013, 7, 1, tzinfo=UTC)

BUCKETS = """
SELECT meter, slot_start, quantity
FROM usage_bucket JOIN series USING (series_id) JOIN meter_version USING (meter_version_id)
WHERE slot_start >= %s ORDER BY meter, slot_start
"""


def day(number: int) -> datetime:
    """The midnight so many days after the beginning."""
    return BASE + timedelta(days=number)


def edge_on(number: int) -> Edge:
    """An edge that drops what lies before a day."""
    return Edge(day(number), day(number) + SETTLED)


class Usage:
    """A server that counts its reads: ten a sample."""

    def __init__(self) -> None:
        self.log = LogInMemory()
        self._number = 0

    def sample(self, *seconds: int) -> None:
        """Take samples at these times, each heard of at once."""
        for at in seconds:
            self.late(at, heard=at)

    def late(self, at: int, *, heard: int) -> None:
        """Take a sample that the log hears of later."""
        self._number += 1
        value = event(self._number, at_us=second(at), data={"cpu": 1, "reads": 10 * self._number, "calls": 1})
        self.log.append(SOURCE, value, at_us=BASE_US + heard * 1_000_000)


def first_days(usage: Usage) -> None:
    """Three days of a sample an hour, and then silence."""
    usage.sample(*range(0, 3 * DAY, 3600))


def later_days(usage: Usage) -> None:
    """The first sample after two months, and some more."""
    usage.sample(60 * DAY, 60 * DAY + 300, 61 * DAY)


def buckets_from(connection: Connection, at: datetime) -> list[tuple[Any, ...]]:
    """(meter, slot start, quantity) of slots from a time on."""
    return rows_of(connection, BUCKETS, at)


def without_retention(connection: Connection, at: datetime, writer: RowWriter = COPY) -> list[tuple[Any, ...]]:
    """The slots from a time on where nothing is ever dropped."""
    usage = Usage()
    first_days(usage)
    later_days(usage)
    aggregate(connection, usage.log, writer=writer)
    return buckets_from(connection, at)
