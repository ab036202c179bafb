"""UsageEmitter: gives a source's events numbers that are used once, whatever crashes, and puts them into an outlet."""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from pipeline.contracts.usage_event import CONTROL_PREFIX, Value, encode_event
from pipeline.domain.errors import PipelineError, TransientFault
from pipeline.domain.identity import format_sequenced_id
from pipeline.ingest.emitter_state import StateFile
from pipeline.ingest.outlet import Outlet, Producer

__all__ = ["Outlet", "Producer", "UsageEmitter", "rfc3339"]

LOGGER = logging.getLogger("rackmeter.emitter")


def _now() -> datetime:
    return datetime.now(UTC)


class UsageEmitter:
    """
    One source's writer. Not for several threads at once.

    Numbers are reserved in blocks in a state file before they are used. A block is taken only after everything
    before it was safe in the outlet, so a crash can only leave a hole within the last block, which is declared by a
    `dropped` event before anything else is sent. After a failed delivery an emitter without a spool takes no more
    events: close it and open it again. One with a spool goes on, and declares what it could not keep.

    Args:
        source: Who emits; a URI.
        state_dir: Folder of the state file; survives restarts, is not copied to other machines.
        machine_id: See ingest.machine.
        outlet: A Spool, or a DirectOutlet; stays the caller's.
        block_size: Numbers reserved at once; the most a crash can leave as a hole.
        clock: Time of control events; aware.

    Raises:
        ConfigurationFault: The source is in use, or its state belongs to another machine.
        TransientFault: A hole could not be declared.
        OSError: The state cannot be written.
    """

    def __init__(
        self,
        source: str,
        state_dir: Path,
        machine_id: str,
        outlet: Outlet,
        *,
        block_size: int = 1000,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self.source = source
        self._outlet = outlet
        self._block_size = block_size
        self._clock = clock
        self._failure: str | None = None
        self._file = StateFile(state_dir, source, machine_id)
        self._number_next = self._file.state.block_stop
        try:
            self._begin()
        except BaseException:
            self._file.release()
            raise

    def emit(self, subject: str, event_type: str, time: datetime, data: Mapping[str, Value]) -> str:
        """
        Hand one event over; it is safe after the next `flush`.

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
            TransientFault: The outlet does not take it. It is lost; its number, if it had one, is declared later.
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
        """Wait until everything handed over is safe; TransientFault where it is not known to be."""
        try:
            self._outlet.flush()
        except PipelineError as fault:
            self._fail(fault.detail)
            raise

    def close(self) -> None:
        """Flush, note the last number and let go of the source; after a failure the next start declares the hole."""
        try:
            if self._failure is None:
                self.flush()
                self._settle()
        finally:
            self._file.release()

    def __enter__(self) -> "UsageEmitter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        state = self._file.state
        self._outlet.begin(state.epoch, state.undeclared_from, self._number_next)
        if state.undeclared_from is None:
            return
        try:
            self._declare_lost()
            self.flush()
        except TransientFault as fault:
            if not self._outlet.is_kept:
                raise
            LOGGER.error(f"a hole is declared later: {fault.detail}", extra={"action": "hole_undeclared"})
            return
        self._file.forget_hole()

    def _send_control(self, name: str, data: Mapping[str, Value]) -> str:
        return self._send(None, f"{CONTROL_PREFIX}{name}.v1", self._clock(), data)

    def _send(self, subject: str | None, event_type: str, time: datetime, data: Mapping[str, Value]) -> str:
        # Encoded before a number is spent, so that a refused value leaves no hole.
        self._encode(1, subject, event_type, time, data)
        self._declare_lost()
        return self._put(subject, event_type, time, data)

    def _declare_lost(self) -> None:
        while (hole := self._outlet.lost(self._number_next)) is not None:
            self._put(None, f"{CONTROL_PREFIX}dropped.v1", self._clock(), {"first": hole[0], "last": hole[1]})
            self._outlet.declared(hole)

    def _put(self, subject: str | None, event_type: str, time: datetime, data: Mapping[str, Value]) -> str:
        if self._failure is not None:
            raise TransientFault(f"an earlier event was not delivered ({self._failure}): close and open the emitter")
        if self._number_next >= self._file.state.block_stop:
            self.flush()
            self._reserve()
        number = self._number_next
        event = self._encode(number, subject, event_type, time, data)
        self._number_next += 1
        try:
            self._outlet.put(number, event)
        except BaseException as error:
            self._fail(str(error))
            raise
        return format_sequenced_id(self._file.state.epoch, number)

    def _encode(
        self, number: int, subject: str | None, event_type: str, time: datetime, data: Mapping[str, Value]
    ) -> bytes:
        return encode_event(
            source=self.source,
            event_id=format_sequenced_id(self._file.state.epoch, number),
            event_type=event_type,
            subject=subject,
            time=rfc3339(time),
            data=data,
        )

    def _reserve(self) -> None:
        try:
            try:
                self._file.reserve(self._block_size)
            except OSError:
                if not self._outlet.make_room():
                    raise
                self._file.reserve(self._block_size)
        except OSError as error:
            raise TransientFault(f"{self._file.path} cannot be written: {error}") from error

    def _settle(self) -> None:
        try:
            self._file.settle(self._number_next)
        except OSError as error:
            raise TransientFault(f"{self._file.path} cannot be written: {error}") from error

    def _fail(self, why: str) -> None:
        if not self._outlet.is_kept:
            self._failure = why


def rfc3339(at: datetime) -> str:
    """The text of an aware time in UTC; ValueError for a naive one."""
    if at.tzinfo is None:
        raise ValueError(f"{at} has no zone")
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
