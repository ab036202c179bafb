"""Delivery: takes events out of a spool and hands them to the log, in order, until the broker acknowledged them."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.contracts.usage_event import EVENTS_PER_MESSAGE_MAX, encode_batch
from pipeline.domain.errors import TransientFault
from pipeline.ingest.outlet import Producer
from pipeline.ingest.spool import Batch, Spool
from pipeline.ingest.spool_segment import Record
from pipeline.runtime.metrics import FAULTS

LOGGER = logging.getLogger("rackmeter.delivery")

FLUSH_TIMEOUT_SECONDS = 20.0
#: After a fault a message is tried, and not for long: a client that looks for its broker takes processor time.
PROBE_TIMEOUT_SECONDS = 10.0
IDLE_SECONDS = 0.5
PAUSE_SECONDS_MAX = 30.0
BATCH_EVENTS_MAX = 2000
BATCH_BYTES_MAX = 2_000_000
#: Half of what the topic takes in a message.
MESSAGE_BYTES_MAX = 524_288


class ClosableProducer(Producer, Protocol):
    """A port to the log that is given up after a fault."""

    def close(self) -> None:
        """Forget what was not acknowledged."""


#: Makes a producer; it calls back with the log's own time (milliseconds since 1970) of messages it acknowledged.
ProducerFactory = Callable[[Callable[[int], None]], ClosableProducer]


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """
    How it goes.

    `skew_ms` is by how much this machine's clock is certainly ahead of the log's (behind, where negative) at the last
    acknowledgement; 0 where the two agree as far as one can tell, None where the log tells no time. `fault` is why the
    last attempt failed, None after a good one.
    """

    acknowledged_us: int | None = None
    skew_ms: int | None = None
    fault: str | None = None
    fault_count: int = 0


class Delivery:
    """
    Delivers one spool. The broker's absence blocks nobody but its own thread.

    Args:
        spool: From which; acknowledged batch by batch.
        source: The spool's: the key.
        topic: usage.events.
        make_producer: Called again after each fault, since a producer that failed is of no more use.
        now_us: Microseconds since 1970, for the clock's skew.
    """

    def __init__(
        self,
        spool: Spool,
        source: str,
        topic: str,
        make_producer: ProducerFactory,
        *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.state = DeliveryState()
        self._spool = spool
        self._key = source.encode()
        self._topic = topic
        self._make_producer = make_producer
        self._now_us = now_us
        self._producer: ClosableProducer | None = None
        self._log_ms: int | None = None

    def run(self, stop: threading.Event) -> None:
        """Deliver until told to stop; then once more what waits, if the broker takes it, and let go of the log."""
        pause_seconds = 1.0
        while not stop.is_set():
            try:
                if not self.step():
                    stop.wait(IDLE_SECONDS)
                pause_seconds = 1.0
            except TransientFault:
                stop.wait(pause_seconds)
                pause_seconds = min(pause_seconds * 2, PAUSE_SECONDS_MAX)
        try:
            while self.state.fault is None and self.step():
                pass
        except TransientFault:
            LOGGER.warning("what waits stays in the spool until the next start", extra={"action": "undelivered"})
        self.close()

    def step(self) -> bool:
        """
        Deliver one batch; False where nothing waits.

        Raises:
            TransientFault: The broker did not acknowledge it; it is given again, under the same ids.
        """
        is_probe = self.state.fault is not None
        batch = self._spool.pending(EVENTS_PER_MESSAGE_MAX if is_probe else BATCH_EVENTS_MAX, BATCH_BYTES_MAX)
        if batch is None:
            return False
        started_us = self._now_us()
        self._log_ms = None
        try:
            self._send(batch, PROBE_TIMEOUT_SECONDS if is_probe else FLUSH_TIMEOUT_SECONDS)
        except TransientFault as fault:
            self._note_fault(fault)
            self.close()
            raise
        ended_us = self._now_us()
        if self.state.fault is not None:
            LOGGER.info("the broker acknowledges again", extra={"action": "delivering"})
        self._spool.acknowledge(batch)
        skew_ms = None if self._log_ms is None else certain_skew_ms(started_us, ended_us, self._log_ms)
        self.state = DeliveryState(ended_us, skew_ms, None, self.state.fault_count)
        return True

    def close(self) -> None:
        """Let go of the log."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    def _send(self, batch: Batch, timeout_seconds: float) -> None:
        producer = self._producer = self._producer or self._make_producer(self._note_log_time)
        for message in messages(batch.records):
            producer.send(self._topic, self._key, message)
        producer.flush(timeout_seconds)

    def _note_log_time(self, log_ms: int) -> None:
        self._log_ms = log_ms

    def _note_fault(self, fault: TransientFault) -> None:
        FAULTS.labels("ingest", "transient").inc()
        if self.state.fault is None:
            LOGGER.warning(
                f"not delivered, kept in the spool and tried again: {fault.detail}", extra={"action": "not_delivered"}
            )
        self.state = DeliveryState(
            self.state.acknowledged_us, self.state.skew_ms, fault.detail, self.state.fault_count + 1
        )


def messages(records: Sequence[Record]) -> Iterator[bytes]:
    """The messages of records: events of one source gathered as far as a message takes them, in order."""
    gathered: list[bytes] = []
    size = 0
    for record in records:
        if gathered and (len(gathered) == EVENTS_PER_MESSAGE_MAX or size + len(record.event) > MESSAGE_BYTES_MAX):
            yield encode_batch(gathered) if len(gathered) > 1 else gathered[0]
            gathered, size = [], 0
        gathered.append(record.event)
        size += len(record.event) + 1
    if gathered:
        yield encode_batch(gathered) if len(gathered) > 1 else gathered[0]


def certain_skew_ms(started_us: int, ended_us: int, log_ms: int) -> int:
    """
    By how much the local clock must be ahead of the log's (behind: negative), in milliseconds.

    The log stamped a message between its sending and its acknowledgement, so within that span nothing is certain.
    """
    if log_ms < started_us // 1000:
        return started_us // 1000 - log_ms
    if log_ms > -(-ended_us // 1000):
        return -(-ended_us // 1000) - log_ms
    return 0
