"""The producer every stage writes Kafka with: idempotent, acknowledged by all, partitioned as Java clients do."""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, Producer

from pipeline.domain.errors import InvariantViolation, TransientFault
from pipeline.runtime.client_errors import ErrorLog

LOGGER = logging.getLogger("rackmeter.producer")

# How long a send may wait for room in the client's buffer before it is a fault.
FULL_BUFFER_SECONDS = 60.0

NEXT_STEP = "Is the broker running? `rackmeter doctor` tells more; then try again."


class LogProducer:
    """
    Sends messages and tells at `flush` whether all of them are durable.

    Order within a partition is kept and a resend inside the client makes no duplicate. A message is acknowledged only
    once a `flush` after it returned. After a TransientFault the producer is of no more use: close it and make another,
    then send again from what you know to be acknowledged.

    `on_log_time` is told the log's own time (milliseconds since 1970) of each acknowledged message whose topic has one.

    It can be made while no broker answers, for senders that must outlive one; who rather ends calls
    `topics.await_broker` first.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        linger_ms: int = 20,
        on_log_time: Callable[[int], None] | None = None,
    ) -> None:
        self._on_log_time = on_log_time
        self._is_closed = False
        self._first_failure: str | None = None
        self._errors = ErrorLog(LOGGER, "producer")
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                # librdkafka's own default is another hash than Java's: one source would have two homes.
                "partitioner": "murmur2_random",
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "batch.size": 262_144,
                "queue.buffering.max.kbytes": 131_072,
                "message.max.bytes": 4_194_304,
                "reconnect.backoff.ms": 250,
                "reconnect.backoff.max.ms": 5_000,
                "error_cb": self._on_error,
                "log_level": 2,
            }
        )

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        """
        Hand one message over for sending; waits while the client's buffer is full.

        Raises:
            TransientFault: An earlier message was not delivered, or the buffer stayed full.
            InvariantViolation: The message is larger than the topic takes.
        """
        deadline = time.monotonic() + FULL_BUFFER_SECONDS
        while True:
            self._raise_failure()
            try:
                self._producer.produce(topic, value, key, on_delivery=self._on_delivery)
                break
            except BufferError:
                self._producer.poll(0.1)
                if time.monotonic() > deadline:
                    raise TransientFault(
                        f"the broker takes no messages of {topic}: the buffer stays full. {NEXT_STEP}"
                    ) from None
            except KafkaException as error:
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise InvariantViolation(f"a message of {len(value)} bytes is too large for {topic}") from error
                raise TransientFault(f"{topic}: {error.args[0].str()}") from error
        self._producer.poll(0)

    def flush(self, timeout_seconds: float = 30.0) -> None:
        """
        Wait until every message sent so far is acknowledged by the broker.

        Raises:
            TransientFault: At least one is not, and may or may not be in the log.
        """
        unsent_count = self._producer.flush(timeout_seconds)
        self._raise_failure()
        if unsent_count:
            raise TransientFault(
                f"{unsent_count} messages were not acknowledged within {timeout_seconds:g} s. {NEXT_STEP}"
            )

    def close(self) -> None:
        """Forget what was not acknowledged and let go of the connections; waits for nothing. Harmless if repeated."""
        if self._is_closed:
            return
        self._is_closed = True
        self._producer.purge()
        self._producer.flush(1.0)
        # The client holds our callbacks and they hold us: with this reference it would live on, threads and all,
        # until Python looks for cycles.
        del self._producer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._first_failure is None:
            self._first_failure = f"a message for {message.topic()} was not delivered: {error.str()}"
        elif error is None and self._on_log_time is not None:
            kind, log_ms = message.timestamp()
            if kind == TIMESTAMP_LOG_APPEND_TIME:
                self._on_log_time(log_ms)

    def _on_error(self, error: KafkaError) -> None:
        self._errors.write(error)
        if error.fatal() and self._first_failure is None:
            self._first_failure = f"the producer is broken: {error.str()}"

    def _raise_failure(self) -> None:
        if self._first_failure is not None:
            raise TransientFault(f"{self._first_failure}. {NEXT_STEP}")
