"""Brings messages into the log and says when they are durable: waiting requests share one flush of the producer."""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.domain.errors import TransientFault
from pipeline.runtime import metrics

LOGGER = logging.getLogger("rackmeter.collector")
STAGE = "collector"

IDLE_SECONDS = 1.0
#: A flush takes at most this much together, so that one round trip stays short.
FLUSH_BYTES = 8_000_000


class Producer(Protocol):
    """The port to the log; runtime.producer.LogProducer has it. After a TransientFault it is of no more use."""

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        """Hand one message over for sending."""

    def flush(self, timeout_seconds: float = 30.0) -> None:
        """Wait until every message sent so far is acknowledged; TransientFault where one is not."""

    def close(self) -> None:
        """Forget what was not acknowledged."""


Messages = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Parcel:
    messages: Messages
    byte_count: int
    done: "Future[None]" = field(default_factory=Future)


class Sender:
    """
    A thread that sends what requests publish.

    Args:
        make_producer: Called at the start, and again after each fault.
        topic: Written to.
        ack_seconds: How long a flush may wait for the broker.
        health: Told of each turn; halted where the thread ends by a fault of ours.
    """

    def __init__(
        self, make_producer: Callable[[], Producer], topic: str, *, ack_seconds: float, health: metrics.Health
    ) -> None:
        self._make_producer = make_producer
        self._topic = topic
        self._ack_seconds = ack_seconds
        self._health = health
        self._parcels: queue.SimpleQueue[_Parcel | None] = queue.SimpleQueue()
        self._producer: Producer | None = None
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self.has_failed = False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def publish(self, messages: Messages) -> "Future[None]":
        """
        Have messages sent; the future is done once the broker has acknowledged all of them.

        It fails with TransientFault where at least one is not acknowledged: any of them may be in the log all the same.
        Cancelled before its turn, nothing of it is sent.
        """
        parcel = _Parcel(messages, sum(len(value) for _, value in messages))
        if self.has_failed:
            parcel.done.set_exception(TransientFault("the collector is ending"))
        else:
            self._parcels.put(parcel)
        return parcel.done

    def close(self) -> None:
        """Send what was published, and end."""
        self._parcels.put(None)
        self._thread.join(self._ack_seconds * 2 + 1)

    def _run(self) -> None:
        parcels: list[_Parcel] = []
        try:
            is_open = True
            while is_open:
                parcels, is_open = self._gather()
                if parcels:
                    self._send(parcels)
                self._health.step()
        except BaseException as error:
            # A fault of ours: whoever waits is told, the process ends, and another start begins anew.
            self.has_failed = True
            self._health.halt(f"the sender ended: {error}")
            self._fail(parcels, TransientFault("the collector met a fault of its own"))
            raise
        finally:
            self._drop_producer()

    def _gather(self) -> tuple[list[_Parcel], bool]:
        """Give what waits, at most a flush's worth, and whether more may come."""
        parcels: list[_Parcel] = []
        byte_count = 0
        wait_seconds = IDLE_SECONDS
        while byte_count < FLUSH_BYTES:
            try:
                parcel = self._parcels.get(timeout=wait_seconds) if not parcels else self._parcels.get_nowait()
            except queue.Empty:
                break
            if parcel is None:
                return parcels, False
            if parcel.done.set_running_or_notify_cancel():
                parcels.append(parcel)
                byte_count += parcel.byte_count
        return parcels, True

    def _send(self, parcels: Sequence[_Parcel]) -> None:
        try:
            if self._producer is None:
                self._producer = self._make_producer()
            with metrics.FLUSH_SECONDS.labels(STAGE).time():
                for parcel in parcels:
                    for key, value in parcel.messages:
                        self._producer.send(self._topic, key, value)
                self._producer.flush(self._ack_seconds)
        except TransientFault as fault:
            metrics.FAULTS.labels(STAGE, "transient").inc()
            LOGGER.warning(fault.detail, extra={"action": "send_failed", "requests": len(parcels)})
            self._drop_producer()
            self._fail(parcels, fault)
        else:
            for parcel in parcels:
                parcel.done.set_result(None)

    @staticmethod
    def _fail(parcels: Sequence[_Parcel], fault: TransientFault) -> None:
        for parcel in parcels:
            if not parcel.done.done():
                parcel.done.set_exception(fault)

    def _drop_producer(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None
