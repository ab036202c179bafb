"""The consumer stages read Kafka with: the group deals out partitions, the database says where each goes on."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.domain.errors import ConfigurationFault, InvariantViolation, PipelineError, TransientFault
from pipeline.runtime.client_errors import ErrorLog
from pipeline.runtime.metrics import LAG_RECORDS
from pipeline.runtime.topics import await_broker

LOGGER = logging.getLogger("rackmeter.consumer")

OnAssign = Callable[[Sequence[int]], Mapping[int, int]]
OnRevoke = Callable[[Sequence[int]], None]

# A worker that died without a word is replaced after this; one that comes back with its slot takes over at once.
SESSION_TIMEOUT_MS = 10_000
REQUEST_TIMEOUT_SECONDS = 5.0
UNKNOWN_END = 1 << 62


class LogConsumer:
    """
    A member of a consumer group that starts each partition at the offset it is told, never at the group's.

    Membership is static: the slot is the member's name, so a worker that was killed and started again with the same
    slot gets its partitions back without a rebalance. Callbacks run inside `poll_batch` and `close`, in their thread;
    what they raise comes out of there. After an error out of `poll_batch` the consumer may stand still or have lost
    its place: go on with `seek`, or close it and make another.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        group: str,
        topic: str,
        slot: int,
        *,
        on_assign: OnAssign,
        on_revoke: OnRevoke,
        on_disturbance: Callable[[], None] = lambda: None,
        rest_seconds: float = 0.0,
    ) -> None:
        """
        Join the group; nothing is dealt out before the first `poll_batch`.

        Args:
            bootstrap_servers: The broker, host:port.
            group: The stage's name; all its workers share it.
            topic: The one topic to read.
            slot: Different for each worker of the group, the same at every start of one worker.
            on_assign: Takes the partitions dealt to us (all of them, as the group deals eagerly), returns the next
                offset of every one.
            on_revoke: Takes the partitions that are no longer ours, also when they were lost without notice. What it
                still writes must be fenced: somebody else may own them already.
            on_disturbance: Called when the connection to the broker broke. The log may have been rolled back
                meanwhile, so it must be compared again before anything read from it counts.
            rest_seconds: How long not to ask at the log's end, for a broker that answers an empty fetch at once and so
                would be asked thousands of times a second. 0 for one that holds it, as Kafka does.

        Raises:
            TransientFault: No broker answers. Once there is a consumer, it waits for a broker that went away.
        """
        await_broker(bootstrap_servers)
        self._topic = topic
        self._slot = slot
        self._group = group
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._on_disturbance = on_disturbance
        self._errors = ErrorLog(LOGGER, "consumer")
        self._callback_error: BaseException | None = None
        self._pending: PipelineError | None = None
        self._assigned: tuple[int, ...] = ()
        self._rest_seconds = rest_seconds
        self._is_resting = False
        self._positions: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._consumer = Consumer(_client_config(bootstrap_servers, group, slot, self._on_error))
        self._consumer.subscribe([topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)

    @property
    def assigned(self) -> tuple[int, ...]:
        """The partitions that are ours now, ascending."""
        return self._assigned

    def poll_batch(self, messages_max: int, timeout_seconds: float) -> list[Message]:
        """
        Fetch up to `messages_max` messages, waiting at most `timeout_seconds` for them to come together.

        Returns:
            Messages without error, in order within each partition; empty where none came in time.

        Raises:
            InvariantViolation: The log does not hold the offset we stand at: it was truncated or made again.
            ConfigurationFault: Another process runs with our slot.
            TransientFault: The broker refused; messages already handed out stay valid.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            raise pending
        try:
            fetched = self._fetch(messages_max, timeout_seconds)
        except KafkaException as error:
            raise self._fault(error.args[0]) from error
        finally:
            self._raise_callback_error()
        good: list[Message] = []
        failed: set[int | None] = set()
        for message in fetched:
            problem = message.error()
            if problem is not None:
                failed.add(message.partition())
                self._pending = self._pending or self._fault(problem, message)
            elif message.partition() not in failed:
                # What comes from behind a failed message is left: the next call raises, and reading begins again.
                good.append(message)
        if self._pending is not None and not good:
            pending, self._pending = self._pending, None
            raise pending
        return good

    def seek(self, offsets_next: Mapping[int, int]) -> None:
        """
        Go on from these offsets instead: what was fetched ahead is dropped.

        For a worker that forgot its memory and read the stored offsets again.

        Args:
            offsets_next: The next offset of every partition in `assigned`; others are ignored.

        Raises:
            TransientFault: The client refused.
        """
        positions = [TopicPartition(self._topic, number, offsets_next[number]) for number in self._assigned]
        try:
            self._start_at(positions)
        except KafkaException as error:
            raise self._fault(error.args[0]) from error

    def commit_hint(self, offsets_next: Mapping[int, int]) -> None:
        """
        Tell the broker where we stand, for people who look at lag.

        Nothing reads it back and a refusal is no fault: the offset that counts is in the database.
        """
        if not offsets_next:
            return
        positions = [TopicPartition(self._topic, partition, offset) for partition, offset in offsets_next.items()]
        for position in positions:
            self._measure_lag(position)
        try:
            self._consumer.commit(offsets=positions, asynchronous=True)
        except KafkaException as error:
            LOGGER.debug("offset hint refused: %s", error, extra={"action": "offset_hint_refused"})

    def _measure_lag(self, position: TopicPartition) -> None:
        try:
            # What the last fetch said of the log's end; asks nobody.
            _, high = self._consumer.get_watermark_offsets(position, cached=True)
        except KafkaException:
            return
        if high >= 0:
            lag = max(0, high - position.offset)
            LAG_RECORDS.labels(self._group, str(position.partition)).set(lag)

    def close(self) -> None:
        """Stop fetching and leave; `on_revoke` is called for what was ours. Closing twice is fine."""
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            LOGGER.debug("consumer close: %s", error, extra={"action": "consumer_close"})
        self._raise_callback_error()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fetch(self, messages_max: int, timeout_seconds: float) -> list[Message]:
        if not self._rest_seconds:
            return self._consumer.consume(messages_max, timeout_seconds)
        until = time.monotonic() + timeout_seconds
        fetched: list[Message] = []
        while True:
            if self._is_resting and self._has_more():
                self._start_at(self._places())
            left_seconds = max(0.0, until - time.monotonic())
            # While resting this brings no messages, but rebalances and errors.
            for message in self._consumer.consume(messages_max - len(fetched), min(left_seconds, self._rest_seconds)):
                fetched.append(message)
                partition, offset = message.partition(), message.offset()
                if message.error() is None and partition is not None and offset is not None:
                    self._positions[partition] = offset + 1
            if not self._is_resting and self._is_at_end():
                # Not by `pause`: fetching would begin again up to a second after `resume`.
                self._consumer.assign([])
                self._is_resting = True
            if len(fetched) >= messages_max or left_seconds == 0.0:
                return fetched

    def _is_at_end(self) -> bool:
        """Whether everything is handed out that is known to be there; asks nobody."""
        return all(
            # What the last fetch said may be older than what made us fetch again.
            place.offset >= max(self._end_of(place, cached=True), self._ends.get(place.partition, 0))
            for place in self._places()
        )

    def _has_more(self) -> bool:
        ends = {place.partition: self._end_of(place, cached=False) for place in self._places()}
        # One that could not be asked for is no end to reach: it would keep us from ever resting again.
        self._ends = {partition: end for partition, end in ends.items() if end != UNKNOWN_END}
        # An end before our place too: fetching raises what there is to say about a truncated log.
        return ends != {place.partition: place.offset for place in self._places()}

    def _end_of(self, place: TopicPartition, *, cached: bool) -> int:
        """The end of a partition; one that is not known lies far ahead, so that fetching finds out."""
        try:
            _, high = self._consumer.get_watermark_offsets(place, REQUEST_TIMEOUT_SECONDS, cached)
        except KafkaException:
            return UNKNOWN_END
        return high if high >= 0 else UNKNOWN_END

    def _places(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number, self._positions[number]) for number in self._assigned]

    def _start_at(self, places: list[TopicPartition]) -> None:
        self._consumer.assign(places)
        self._positions = {place.partition: place.offset for place in places}
        self._is_resting = False

    def _assign(self, consumer: Any, partitions: Iterable[TopicPartition]) -> None:
        numbers = sorted(position.partition for position in partitions)
        try:
            offsets = self._on_assign(numbers)
            self._start_at([TopicPartition(self._topic, number, offsets[number]) for number in numbers])
            self._assigned = tuple(numbers)
        except BaseException as error:  # noqa: BLE001 - comes out of poll_batch
            # Without this the client would go on by itself, from the group's offsets.
            consumer.assign([])
            self._assigned = ()
            self._callback_error = error

    def _revoke(self, consumer: Any, partitions: Iterable[TopicPartition]) -> None:
        del consumer
        numbers = sorted(position.partition for position in partitions)
        self._assigned = tuple(number for number in self._assigned if number not in numbers)
        try:
            self._on_revoke(numbers)
        except BaseException as error:  # noqa: BLE001 - comes out of poll_batch or close
            self._callback_error = error

    def _raise_callback_error(self) -> None:
        if self._callback_error is not None:
            error, self._callback_error = self._callback_error, None
            raise error

    def _on_error(self, error: KafkaError) -> None:
        self._errors.write(error)
        self._on_disturbance()
        if error.fatal() and self._pending is None:
            self._pending = self._fault(error)

    def _fault(self, error: KafkaError, message: Message | None = None) -> PipelineError:
        where = (
            self._topic if message is None or message.partition() is None else f"{self._topic}-{message.partition()}"
        )
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            return InvariantViolation(
                f"{where} does not hold the offset we stand at: {error.str()}. `rackmeter doctor` says how to go on.",
                "offset_out_of_range",
            )
        # The client wraps the broker's answer into a fatal error and keeps only its text.
        was_fenced = error.code() == KafkaError._FATAL and "group.instance.id" in error.str()
        if was_fenced or error.code() == KafkaError.FENCED_INSTANCE_ID:
            return ConfigurationFault(
                f"another {self._group} worker runs with slot {self._slot}: give each its own RACKMETER_WORKER_SLOT",
                "worker_slot_taken",
            )
        return TransientFault(f"{where}: {error.str()}")


def _client_config(
    bootstrap_servers: str, group: str, slot: int, on_error: Callable[[KafkaError], None]
) -> dict[str, object]:
    return {
        "bootstrap.servers": bootstrap_servers,
        "group.id": group,
        "group.instance.id": f"{group}-{slot}",
        "partition.assignment.strategy": "range",
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # With any other value the client skips to the beginning or end of a truncated log by itself.
        "auto.offset.reset": "error",
        # The embedded broker ignores the fetch limits and answers with the whole rest of the log.
        "receive.message.max.bytes": 1_000_000_000,
        "fetch.wait.max.ms": 100,
        "check.crcs": True,
        "reconnect.backoff.ms": 250,
        "reconnect.backoff.max.ms": 5_000,
        "error_cb": on_error,
        "log_level": 2,
    }
