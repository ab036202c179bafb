"""UsageEmitter: sends a source's events to the log, each under a number that is used once, whatever crashes."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol

from pipeline.contracts.usage_event import CONTROL_PREFIX, Value, encode_event
from pipeline.domain.errors import PipelineError, TransientFault
from pipeline.domain.identity import format_sequenced_id
from pipeline.ingest.emitter_state import StateFile

FLUSH_TIMEOUT_SECONDS = 30.0


class Producer(Protocol):
    """The port to the log: acks=all, idempotent, partitioned by murmur2 of the key."""

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        """Hand a message over; it is not durable yet."""

    def flush(self, timeout_seconds: float) -> None:
        """Return when everything is acknowledged; TransientFault where it is not."""


def _now() -> datetime:
    return datetime.now(UTC)


class UsageEmitter:
    """
    One source's writer. Not for several threads at once.

    Numbers are reserved in blocks in a state file before they are used. A block is taken only after everything
    before it was acknowledged, so a crash can only leave a hole within the last block, which the next start declares
    by a `dropped` event. After a failed delivery the emitter takes no more events: close it and open it again.

    Args:
        source: Who emits; a URI.
        state_dir: Folder of the state file; survives restarts, is not copied to other machines.
        machine_id: See ingest.machine.
        producer: The port to the log; stays the caller's.
        topic: Where to, usage.events.
        block_size: Numbers reserved at once; the most a crash can leave as a hole.
        clock: Time of control events; aware.

    Raises:
        ConfigurationFault: The source is in use, or its state belongs to another machine.
        TransientFault: A hole could not be declared.
    """

    def __init__(
        self,
        source: str,
        state_dir: Path,
        machine_id: str,
        producer: Producer,
        topic: str,
        *,
        block_size: int = 1000,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self.source = source
        self._key = source.encode()
        self._producer = producer
        self._topic = topic
        self._block_size = block_size
        self._clock = clock
        self._failure: str | None = None
        self._file = StateFile(state_dir, source, machine_id)
        self._number_next = self._file.state.block_stop
        try:
            self._declare_hole()
        except BaseException:
            self._file.release()
            raise

    def emit(self, subject: str, event_type: str, time: datetime, data: Mapping[str, Value]) -> str:
        """
        Hand one event over; it is durable after the next `flush`.

        Args:
            subject: The metered thing.
            event_type: The kind of sample.
            time: When it was so; aware.
            data: Exact values: int, Decimal or str.

        Returns:
            The event's id.

        Raises:
            TypeError: A value is a float.
            ValueError: The time has no zone.
            TransientFault: The log does not take it.
        """
        return self._send(subject, event_type, time, data)

    def heartbeat(self) -> str:
        """Say that the source is alive."""
        return self._send_control("heartbeat", {})

    def complete_until(self, until: datetime) -> str:
        """Say that every event before `until` has been sent under a lower number."""
        return self._send_control("complete_until", {"until": rfc3339(until)})

    def retired(self) -> str:
        """Say that this source will send nothing more, ever."""
        return self._send_control("retired", {})

    def flush(self) -> None:
        """Wait until everything handed over is durable; TransientFault where it is not known to be."""
        try:
            self._producer.flush(FLUSH_TIMEOUT_SECONDS)
        except PipelineError as fault:
            self._failure = fault.detail
            raise

    def close(self) -> None:
        """Flush, note the last number and let go of the source; after a failure the next start declares the hole."""
        try:
            if self._failure is None:
                self.flush()
                self._file.settle(self._number_next)
        finally:
            self._file.release()

    def __enter__(self) -> "UsageEmitter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send_control(self, name: str, data: Mapping[str, Value]) -> str:
        return self._send(None, f"{CONTROL_PREFIX}{name}.v1", self._clock(), data)

    def _send(self, subject: str | None, event_type: str, time: datetime, data: Mapping[str, Value]) -> str:
        if self._failure is not None:
            raise TransientFault(f"an earlier event was not delivered ({self._failure}): close and open the emitter")
        if self._number_next >= self._file.state.block_stop:
            self.flush()
            self._file.reserve(self._block_size)
        event_id = format_sequenced_id(self._file.state.epoch, self._number_next)
        # Encoded before the number is spent, so that a refused value leaves no hole.
        event = encode_event(
            source=self.source, event_id=event_id, event_type=event_type, subject=subject, time=rfc3339(time), data=data
        )
        self._number_next += 1
        try:
            self._producer.send(self._topic, self._key, event)
        except BaseException as error:
            self._failure = str(error)
            raise
        return event_id

    def _declare_hole(self) -> None:
        first, stop = self._file.state.undeclared_from, self._number_next
        if first is None:
            return
        self._send_control("dropped", {"first": first, "last": stop - 1})
        self.flush()
        self._file.forget_hole()


def rfc3339(at: datetime) -> str:
    """The text of an aware time in UTC; ValueError for a naive one."""
    if at.tzinfo is None:
        raise ValueError(f"{at} has no zone")
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
