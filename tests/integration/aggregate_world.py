"""The aggregate stage on a real database: a log in memory, its readers, and what the stage has written."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

import psycopg

from pipeline.aggregate import worker
from pipeline.aggregate.rows import COPY, RowWriter
from pipeline.aggregate.store import Fence
from pipeline.aggregate.worker import Pace, Worker
from pipeline.bootstrap import catalogue_view
from pipeline.domain.identity import home_partition
from pipeline.runtime.known_log import known_log, read_generation
from pipeline.runtime.postgres import Connection, connect
from tests.unit.aggregate.sending import IGNORED, LOG_US, READINGS, SAMPLE, SOURCE, batch, event, second

TOPIC = "usage.events"
LOG_ID = UUID("6f1f0e8e-0000-4000-8000-000000000001")

# In the order of the ids the tests' own meters have: cpu 1, reads 2, calls 3, hours 4.
METERS = """
INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds, gap_seconds_max,
    effective_from, known_number)
VALUES ('cpu', 1, %(type)s, 'time_weighted', 'cpu', 'core-second', 300, 600, '1970-01-01Z', 1),
    ('reads', 1, %(type)s, 'increase', 'reads', 'read', 300, NULL, '1970-01-01Z', 1),
    ('calls', 1, %(type)s, 'sum', 'calls', 'call', 300, NULL, '1970-01-01Z', 1),
    ('hours', 1, %(type)s, 'active_hours', NULL, 'hour', 300, NULL, '1970-01-01Z', 1)
"""
WRITTEN = (
    "consumer_offset", "partition_tally", "identity_epoch", "source_completeness", "source_subject", "decision",
    "series", "sample_stream", "usage_sample", "usage_bucket", "usage_day", "dirty_mark",
)  # fmt: skip


def set_up(connection: Connection, partition_count: int) -> None:
    """A known log, four meters over one event type, and a type that is ignored."""
    connection.execute(
        "INSERT INTO log (topic, log_id, kafka_topic_id, partition_count) VALUES (%s, %s, 'k', %s)",
        (TOPIC, LOG_ID, partition_count),
    )
    connection.execute(METERS, {"type": SAMPLE})
    connection.execute("INSERT INTO ignore_rule VALUES (%s, 1)", (IGNORED,))
    connection.execute("UPDATE known_number SET last = 1")


@contextmanager
def owner_of(database_url: str) -> Iterator[Connection]:
    """A connection that may do anything."""
    connection = connect(database_url, application_name="tests-owner", role=None)
    try:
        yield connection
    finally:
        connection.close()


class LogMessage:
    """A message of the log in memory."""

    def __init__(
        self, partition: int, offset: int, key: bytes | None, value: bytes | None, at_us: int, kind: int
    ) -> None:
        self._facts = (partition, offset, key, value, at_us, kind)

    def partition(self) -> int:
        return self._facts[0]

    def offset(self) -> int:
        return self._facts[1]

    def timestamp(self) -> tuple[int, int]:
        return (self._facts[5], self._facts[4] // 1000)

    def key(self) -> bytes | None:
        return self._facts[2]

    def value(self) -> bytes | None:
        return self._facts[3]


class LogInMemory:
    """A log of several partitions that outlives its readers."""

    def __init__(self, partition_count: int = 1) -> None:
        self.partitions: dict[int, list[LogMessage]] = {number: [] for number in range(partition_count)}

    def append(
        self,
        source: str,
        value: bytes,
        *,
        partition: int | None = None,
        at_us: int = LOG_US,
        kind: int = worker.LOG_APPEND_TIME,
    ) -> None:
        """Take a message at the end of its source's home, or of the partition named."""
        home = home_partition(source, len(self.partitions)) if partition is None else partition
        messages = self.partitions[home]
        messages.append(LogMessage(home, len(messages), source.encode(), value, at_us, kind))


class Reader:
    """A consumer that starts where its worker says and hands out what the log has, so many messages at a time."""

    def __init__(self, log: LogInMemory, owner: Worker, partitions: Sequence[int], messages_each: int = 100) -> None:
        self._log = log
        self._messages_each = messages_each
        self.next = owner.assign(partitions)
        self.hints: list[dict[int, int]] = []
        owner.attach(self)

    def poll_batch(self, messages_max: int, timeout_seconds: float) -> list[LogMessage]:
        found: list[LogMessage] = []
        for partition, offset in self.next.items():
            taken = self._log.partitions[partition][offset : offset + self._messages_each]
            self.next[partition] = offset + len(taken)
            found.extend(taken)
        return found

    def commit_hint(self, offsets_next: Mapping[int, int]) -> None:
        self.hints.append(dict(offsets_next))

    def close(self) -> None:
        self.next = {}


class Scripted(Reader):
    """A consumer that hands out what it is told, whatever the worker said."""

    def __init__(self, owner: Worker, partitions: Sequence[int], polls: Iterable[list[LogMessage]]) -> None:
        super().__init__(LogInMemory(), owner, partitions)
        self._polls = iter(polls)

    def poll_batch(self, messages_max: int, timeout_seconds: float) -> list[LogMessage]:
        return next(self._polls, [])


def new_worker(connection: Connection, *, flush_events: int = 10**9, writer: RowWriter = COPY) -> Worker:
    """A worker that flushes when nothing more comes, when told to, or after so many events."""

    def open_log() -> tuple[Fence, int]:
        log = known_log(connection, TOPIC)
        return Fence(TOPIC, log.log_id, read_generation(connection)), log.partition_count

    pace = Pace(flush_events=flush_events, flush_seconds=10**9)
    return Worker(connection, TOPIC, open_log=open_log, load_catalogue=catalogue_view, pace=pace, writer=writer)


def drain(worker_: Worker) -> None:
    """Work until nothing more comes; the last step flushes what is gathered."""
    while worker_.step():
        pass


def aggregate(connection: Connection, log: LogInMemory, *, messages_each: int = 100, writer: RowWriter = COPY) -> None:
    """Have a new worker aggregate all that is in the log."""
    worker_ = new_worker(connection, writer=writer)
    Reader(log, worker_, list(log.partitions), messages_each)
    drain(worker_)


def rows_of(connection: Connection, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    return connection.execute(query, parameters).fetchall()


def everything_written(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables the stage writes, but for times of writing."""
    found = {}
    for table in WRITTEN:
        query = psycopg.sql.SQL("SELECT to_jsonb(t) - 'updated_at' FROM {} t ORDER BY 1").format(
            psycopg.sql.Identifier(table)
        )
        found[table] = connection.execute(query).fetchall()
    return found


class Killed(BaseException):
    """Stands for a process that is no more."""


class DyingConnection:
    """
    A connection whose server goes away at the n-th statement after `arm`, or that loses the answer to its COMMIT.

    Everything else is the real connection's.
    """

    def __init__(self, real: Connection) -> None:
        self._real = real
        self._statements_left: int | None = None
        self._loses_answer = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def arm(self, statements: int) -> None:
        """Let so many statements pass, then die."""
        self._statements_left = statements

    def lose_answer(self) -> None:
        """Commit the next transaction, then break the connection before anybody hears of it."""
        self._loses_answer = True

    def execute(self, *arguments: Any, **named: Any) -> Any:
        self._count()
        return self._real.execute(*arguments, **named)

    def cursor(self, *arguments: Any, **named: Any) -> Any:
        self._count()
        return self._real.cursor(*arguments, **named)

    @contextmanager
    def transaction(self) -> Iterator[object]:
        with self._real.transaction() as inside:
            yield inside
            self._count()
        if self._loses_answer:
            self._real.close()
            raise psycopg.OperationalError("the server closed the connection unexpectedly")

    def _count(self) -> None:
        if self._statements_left is not None:
            if self._statements_left == 0:
                self._real.close()
                raise Killed
            self._statements_left -= 1


@contextmanager
def dying(database_url: str) -> Iterator[tuple[DyingConnection, Connection]]:
    """A connection that can be made to die, as itself and as what the worker takes it for."""
    real = connect(database_url, application_name="tests-dying")
    try:
        mortal = DyingConnection(real)
        yield mortal, cast(Connection, mortal)
    finally:
        real.close()


def tally(connection: Connection, partition: int = 0) -> dict[str, int]:
    """Outcomes of a partition that are not zero."""
    rows = rows_of(connection, "SELECT to_jsonb(t) - 'topic' - 'partition' FROM partition_tally t")
    return {name: count for row in rows for name, count in row[0].items() if count}


def a_little_of_everything() -> LogInMemory:
    """Messages that make a flush run every statement it has."""
    log = LogInMemory()
    log.append(SOURCE, event(1, data={**READINGS, "cpu": -1}))
    log.append(SOURCE, batch(*(event(number, at_us=second(number * 301)) for number in range(1, 6))))
    log.append(SOURCE, event(3))
    log.append(SOURCE, event(6, kind=IGNORED))
    log.append(SOURCE, event(7, kind="rackmeter.control.retired.v1", subject=None, data={}))
    log.append(SOURCE, event(8, kind="test.other.v1"))
    return log
