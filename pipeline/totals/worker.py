"""The totals stage's loop: expand marks to items, compute items that are due, send what is new or was not booked."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import psycopg

from pipeline.catalogue.store import load_assignments, load_bindings
from pipeline.contracts.usage_total import Total, pack_totals
from pipeline.domain.errors import TransientFault
from pipeline.runtime import metrics
from pipeline.runtime.postgres import Connection, is_transient
from pipeline.totals import rules, store
from pipeline.totals.model import BilledItem

STAGE = "totals"
LOGGER = logging.getLogger("rackmeter.totals")

MARKS_MAX = 20_000
ITEMS_MAX = 5_000
SEND_TIMEOUT_SECONDS = 30.0

#: The sweep waits while more messages than this lie unread before rate or the ledger sink.
LAG_MESSAGES_MAX = 100


class LogWriter(Protocol):
    """The port to the topic; runtime.producer.LogProducer has it."""

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        """Queue a message."""

    def flush(self, timeout_seconds: float) -> None:
        """Wait until every message is acknowledged; TransientFault where one is not."""


class Worker:
    """
    Computes totals and sends them.

    Args:
        connection: In autocommit mode, as runtime.postgres.connect gives it.
        producer: Where totals go.
        topic: usage.totals.
        pace_seconds: An item is computed at most this often.
        sweep_seconds: A total not booked after this long is sent again, each time after twice the wait.
        lag: Messages that lie unread before the stages behind us; the sweep adds none to a backlog.
        idle_seconds: How long to wait when there was nothing to do.
    """

    def __init__(
        self,
        connection: Connection,
        producer: LogWriter,
        topic: str,
        *,
        pace_seconds: float,
        sweep_seconds: float,
        lag: Callable[[], int],
        idle_seconds: float = 0.3,
        health: metrics.Health | None = None,
    ) -> None:
        self._connection = connection
        self._producer = producer
        self._topic = topic
        self._pace_seconds = pace_seconds
        self._sweep_seconds = sweep_seconds
        self._lag = lag
        self._idle_seconds = idle_seconds
        self._health = health

    def run(self, stop: threading.Event) -> None:
        """
        Work until told to stop.

        Raises:
            TransientFault: Broker or database stopped answering; start again.
        """
        try:
            while not stop.is_set():
                done = self.step()
                if self._health:
                    self._health.step()
                if not done:
                    stop.wait(self._idle_seconds)
        except psycopg.Error as error:
            if is_transient(error):
                raise TransientFault(f"the database stopped answering: {error}") from error
            raise

    def step(self) -> int:
        """Do one round: expand, compute, send, sweep; gives how many rows moved."""
        done = self.expand() + self.compute(self._pace_seconds) + self.send() + self.sweep()
        marks, unbooked = store.count_open(self._connection)
        metrics.DIRTY_MARKS.set(marks)
        metrics.UNBOOKED_TOTALS.set(unbooked)
        return done

    def drain(self) -> None:
        """Compute everything dirty now, whatever the pace, and send it: for a close, or when asked."""
        while self.expand() + self.compute(0.0) + self.send():
            pass

    def expand(self) -> int:
        """Turn marks into item marks, in one transaction; gives how many marks were taken."""
        with self._connection.transaction():
            marks = store.read_marks(self._connection, MARKS_MAX)
            if not marks:
                return 0
            subscriptions = store.read_subscriptions(self._connection)
            touched = rules.items_touched(
                marks,
                assignments=load_assignments(self._connection),
                bindings=load_bindings(self._connection),
                subscriptions=subscriptions,
                per_subject_prices=store.read_per_subject_prices(self._connection),
                usage_span=store.read_usage_span(self._connection),
            )
            store.mark_items(self._connection, touched, subscriptions)
            store.delete_marks(self._connection, marks)
        return len(marks)

    def compute(self, pace_seconds: float) -> int:
        """
        Compute items that are due in one snapshot; a lost race is tried again in a new one.

        Returns:
            How many items were computed.
        """
        while True:
            try:
                with self._connection.transaction():
                    self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    return self._compute(pace_seconds)
            except psycopg.errors.SerializationFailure:
                metrics.FAULTS.labels(STAGE, "serialization").inc()

    def _compute(self, pace_seconds: float) -> int:
        taken = store.take_items(self._connection, pace_seconds=pace_seconds, items_max=ITEMS_MAX)
        if not taken.items:
            return 0
        segments = self._segments(taken.items)
        stored = store.read_totals(self._connection, taken.items)
        generation = store.read_generation(self._connection)
        changed: dict[int, tuple[int, Sequence[Mapping[str, object]]]] = {}
        unchanged: list[int] = []
        for item in taken.items:
            now, before = segments[item.billed_item_id], stored.get(item.billed_item_id)
            if before is not None and before.segments == now and before.generation == generation:
                unchanged.append(item.billed_item_id)
            else:
                revision = before.revision + 1 if before is not None and before.generation == generation else 1
                changed[item.billed_item_id] = (revision, now)
        store.write_totals(self._connection, generation, changed, unchanged, taken.mark_numbers)
        metrics.RECORDS.labels(STAGE, "changed").inc(len(changed))
        metrics.RECORDS.labels(STAGE, "unchanged").inc(len(unchanged))
        return len(taken.items)

    def _segments(self, items: Sequence[BilledItem]) -> dict[int, list[dict[str, object]]]:
        """Compute the segments of items, as they are stored. An item nothing is left of has none: it books to zero."""
        assignments = load_assignments(self._connection)
        bindings = load_bindings(self._connection)
        subscriptions = store.read_subscriptions(self._connection)
        per_subject_prices = store.read_per_subject_prices(self._connection)
        prices = {}
        stretches = []
        for item in items:
            subscription = subscriptions[item.subscription_id]
            owned = rules.owned_at_all(item, assignments, subscription)
            prices[item.billed_item_id] = (
                rules.price_segments(item, bindings.get(item.subscription_id, ()), subscription, per_subject_prices)
                if owned
                else []
            )
            stretches += rules.stretches(item, prices[item.billed_item_id], assignments)
        quantities = store.sum_stretches(self._connection, stretches)
        return {
            item_id: rules.canonical_segments(rules.with_quantities(parts, quantities.get(item_id, {})))
            for item_id, parts in prices.items()
        }

    def send(self) -> int:
        """Put new revisions on the topic; gives how many."""
        return self._send(store.take_unsent(self._connection, ITEMS_MAX))

    def sweep(self) -> int:
        """Send again what was not booked in time, unless the stages behind us lag."""
        unbooked = store.take_unbooked(self._connection, sweep_seconds=self._sweep_seconds, items_max=ITEMS_MAX)
        if not unbooked or self._lag() > LAG_MESSAGES_MAX:
            return 0
        count = self._send(unbooked)
        metrics.RECORDS.labels(STAGE, "sent_again").inc(count)
        LOGGER.info("sent again what was not booked", extra={"action": "sweep", "totals": count})
        return count

    def _send(self, by_generation: Mapping[int, Sequence[Total]]) -> int:
        totals = [total for batch in by_generation.values() for total in batch]
        for generation, batch in by_generation.items():
            for message in pack_totals(generation, batch):
                self._producer.send(self._topic, None, message)
        if totals:
            self._producer.flush(SEND_TIMEOUT_SECONDS)
            store.record_sent(self._connection, totals)
        return len(totals)
