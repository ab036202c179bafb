"""The sink's loop: read a batch of charges, book it, tell the broker where we stand."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pipeline.contracts.charge import Charge, decode_charges
from pipeline.domain.errors import RejectedRecord, TransientFault
from pipeline.ledger_sink.posting import Result, Results, book_charges
from pipeline.runtime.metrics import FAULTS, FLUSH_SECONDS, RECORDS, Health
from pipeline.runtime.postgres import Connection

LOGGER = logging.getLogger("rackmeter.ledger_sink")
STAGE = "ledger_sink"
TOPIC = "billing.charges"

# A message carries up to 500 charges; this many messages make one round of booking.
MESSAGES_MAX = 20
POLL_SECONDS = 0.5
BACK_OFF_SECONDS = 0.2
BACK_OFF_SECONDS_MAX = 10.0


class ChargesMessage(Protocol):
    """A message of billing.charges."""

    def value(self) -> bytes | None:
        """Give the message's bytes."""

    def partition(self) -> int | None:
        """Give its partition."""

    def offset(self) -> int | None:
        """Give its offset."""


class ChargesConsumer(Protocol):
    """What the sink needs of `runtime.consumer.LogConsumer`."""

    def poll_batch(self, messages_max: int, timeout_seconds: float) -> Sequence[ChargesMessage]:
        """Fetch messages."""

    def commit_hint(self, offsets_next: Mapping[int, int]) -> None:
        """Tell the broker where we stand."""

    def close(self) -> None:
        """Leave the group."""


class Worker:
    """A ledger sink; any number may run, on any partitions, even on the same ones."""

    def __init__(self, connect: Callable[[], Connection], consumer: ChargesConsumer, health: Health) -> None:
        """
        Connect and take the consumer over; `close` gives both back.

        Args:
            connect: Opens a connection as rackmeter_app; called again after a lost one.
            consumer: Of billing.charges; where it begins is a matter of time only, never of right.
            health: Told of every step.

        Raises:
            TransientFault: The database does not answer.
        """
        self._connect = connect
        self._consumer = consumer
        self._health = health
        self._connection: Connection | None = connect()
        self._unbooked: Sequence[ChargesMessage] = ()

    def run(self, stop: threading.Event) -> None:
        """
        Book until told to stop, with back-off while the database does not answer.

        Raises:
            TransientFault: The broker did not answer; start the process again, it goes on from the group's offsets.
            InvariantViolation: Stop.
        """
        delay_seconds = BACK_OFF_SECONDS
        while not stop.is_set():
            try:
                self.step()
                delay_seconds = BACK_OFF_SECONDS
            except TransientFault as fault:
                if not self._unbooked:
                    # It came out of the consumer, which may stand still from here on without saying so again.
                    raise
                FAULTS.labels(STAGE, "transient").inc()
                LOGGER.warning("%s", fault.detail, extra={"action": "back_off", "delay_seconds": delay_seconds})
                self._disconnect()
                stop.wait(delay_seconds)
                delay_seconds = min(2 * delay_seconds, BACK_OFF_SECONDS_MAX)
            self._health.step()

    def step(self) -> int:
        """
        Book one batch of messages, waiting for it at most half a second.

        Returns:
            How many charges were decided about.

        Raises:
            TransientFault: Nothing is lost: the next step takes the same messages again.
            InvariantViolation: Stop.
        """
        if not self._unbooked:
            self._unbooked = self._consumer.poll_batch(MESSAGES_MAX, POLL_SECONDS)
        if not self._unbooked:
            return 0
        results = self._book(self._unbooked)
        self._consumer.commit_hint(_offsets_next(self._unbooked))
        self._unbooked = ()
        for result, count in results.items():
            RECORDS.labels(STAGE, result).inc(count)
        return results.total()

    def close(self) -> None:
        """Leave the group and close the connection."""
        self._consumer.close()
        self._disconnect()

    def _book(self, messages: Sequence[ChargesMessage]) -> Results:
        results: Results = Counter()
        charges: dict[int, list[Charge]] = {}
        for message in messages:
            try:
                batch = decode_charges(message.value() or b"")
            except RejectedRecord as rejection:
                results[Result.FAILED] += _log_unreadable(message, rejection.detail)
                continue
            for refused in batch.refused:
                results[Result.FAILED] += _log_unreadable(message, refused)
            charges.setdefault(batch.generation, []).extend(batch.charges)
        started_at = time.monotonic()
        for generation, of_generation in sorted(charges.items()):
            results += book_charges(self._connected(), generation, of_generation)
        FLUSH_SECONDS.labels(STAGE).observe(time.monotonic() - started_at)
        return results

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _offsets_next(messages: Sequence[ChargesMessage]) -> dict[int, int]:
    positions = ((message.partition(), message.offset()) for message in messages)
    return {partition: offset + 1 for partition, offset in positions if partition is not None and offset is not None}


def _log_unreadable(message: ChargesMessage, why: str) -> int:
    LOGGER.error(
        "a charge cannot be read and is skipped; its total stays unbooked and is sent again: %s",
        why,
        extra={"action": "charge_unreadable", "partition": message.partition(), "offset": message.offset()},
    )
    return 1
