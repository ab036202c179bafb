"""The spool: an emitter's events on disk, in order, under their ids, until the broker acknowledged them."""

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pipeline.domain.errors import ConfigurationFault, TransientFault
from pipeline.ingest.file_lock import take_lock
from pipeline.ingest.spool_cursor import Cursor, load_cursor, store_cursor
from pipeline.ingest.spool_holes import Holes
from pipeline.ingest.spool_segment import (
    HEADER_BYTES,
    Record,
    Segment,
    first_number,
    frame,
    load_segments,
    read_records,
    segment_path,
)
from pipeline.ingest.spool_writer import SegmentWriter
from pipeline.runtime.metrics import RECORDS, SPOOL_WAITING_BYTES

LOGGER = logging.getLogger("rackmeter.spool")

#: Errors of a disk that has no room; dropping what is oldest can help.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
ROOM_PAUSE_US = 60_000_000


class SpoolFull(TransientFault):
    """The disk does not take the event: it is lost, and its number is declared before the next one."""

    default_code = "spool_full"


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """
    How large a spool may grow, and how long what was acknowledged is kept to be sent again.

    Raises:
        ConfigurationFault: It would hold fewer than four segments, or a segment no event.
    """

    bytes_max: int = 268_435_456
    keep_acknowledged_seconds: int = 259_200
    segment_bytes: int = 1_048_576

    def __post_init__(self) -> None:
        if self.segment_bytes < 512 or self.bytes_max < 4 * self.segment_bytes:
            raise ConfigurationFault(
                f"a spool of {self.bytes_max} bytes is too small: at least {4 * self.segment_bytes} are wanted"
            )


class Batch(NamedTuple):
    """Events that wait for the broker, in order; of one epoch and one segment, at least one."""

    ordinal: int
    epoch: str
    records: tuple[Record, ...]


class Spool:
    """
    One source's spool: an emitter's outlet on one side, what a Delivery takes from on the other. Each side may have a
    thread of its own.

    Events become durable at `flush`; only durable ones are delivered. When it is full, or the disk is, the oldest
    segment goes: acknowledged ones first, then waiting ones, whose numbers `lost` names until they are declared.

    Args:
        folder: The source's own; made where it is missing.
        source: Who emits; for messages.
        limits: See SpoolLimits.
        now_us: Microseconds since 1970.

    Raises:
        ConfigurationFault: Another process has it open, or another version wrote it.
        OSError: The folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        source: str,
        limits: SpoolLimits | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.folder = folder
        self._limits = limits or SpoolLimits()
        self._now_us = now_us
        self._lock = threading.RLock()
        self._tail = 0
        self._synced_tail = 0
        self._writer: SegmentWriter | None = None
        self._cursor_is_stored = True
        self._room_made_us = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._lock_fd: int | None = take_lock(folder / "lock", source)
        try:
            self._segments = load_segments(folder)
            self._cursor = self._load_cursor()
            self._epoch, self._holes = self._cursor.holes_epoch, Holes(self._cursor.holes)
        except BaseException:
            self.close()
            raise

    @property
    def is_kept(self) -> bool:
        """Events are kept until they are delivered."""
        return True

    def begin(self, epoch: str, unsure_from: int | None, number_next: int) -> None:
        """
        Say which numbers come.

        Args:
            epoch: Of the events to come.
            unsure_from: From here on the emitter's state does not know which numbers were used; None: it knows all.
            number_next: The next number.
        """
        with self._lock:
            self._epoch = epoch
            held = self._last_number(epoch)
            if held is None:
                # The spool is gone or new: what it held is not known, and is said to be lost.
                held = (1 if unsure_from is None else unsure_from) - 1
            self._tail = self._synced_tail = min(held, number_next - 1)
            self._holes = Holes(self._cursor.holes if self._cursor.holes_epoch == epoch else ())
            waiting = self._at(self._cursor.ordinal)
            if waiting is not None and waiting.epoch == epoch:
                # Where the disk was too full to note a hole, the missing numbers at the front tell of it.
                first = first_number(waiting.path, self._cursor.offset, waiting.size)
                self._holes.add(self._last_sent(epoch) + 1, (first or 1) - 1)

    def lost(self, number: int) -> tuple[int, int] | None:
        """First and last number of a hole that is to be declared before `number` is put; None without one."""
        with self._lock:
            # The hole at the end comes first: once an event is behind it, only its declaration tells of it.
            return (self._tail + 1, number - 1) if number > self._tail + 1 else self._holes.next

    def declared(self, hole: tuple[int, int]) -> None:
        """Note that a hole's declaration was put."""
        with self._lock:
            self._holes.declared(hole)

    def put(self, number: int, event: bytes) -> None:
        """
        Append an event; it is durable after the next `flush`.

        Raises:
            SpoolFull: The disk does not take it.
            ValueError: It is empty or larger than EVENT_BYTES_MAX.
        """
        with self._lock:
            data = frame(number, self._now_us(), event)
            try:
                try:
                    self._append(data)
                except OSError as error:
                    if error.errno not in NO_ROOM or not self.make_room():
                        raise
                    self._append(data)
            except OSError as error:
                RECORDS.labels("ingest", "refused").inc()
                raise SpoolFull(f"the spool in {self.folder} does not take event {number}: {error}") from error
            self._tail = number
            RECORDS.labels("ingest", "spooled").inc()

    def flush(self) -> None:
        """
        Make durable what was put.

        Raises:
            SpoolFull: The disk did not keep it; what was put since the last flush is lost.
        """
        with self._lock:
            if self._writer is None or self._writer.synced_size == self._writer.size:
                return
            try:
                self._writer.sync()
            except OSError as error:
                RECORDS.labels("ingest", "refused").inc(self._tail - self._synced_tail)
                self._tail = self._synced_tail
                raise SpoolFull(f"{self._writer.path} cannot be made durable: {error}") from error
            finally:
                self._segments[-1].size = self._writer.size
            self._synced_tail = self._tail
            SPOOL_WAITING_BYTES.set(self.waiting_bytes)

    def make_room(self) -> bool:
        """
        Drop the oldest segment before its time, because the disk is full; False where there is none to drop.

        Events that wait are given up at most once a minute: where others take the room at once, nothing is won.
        """
        with self._lock:
            is_settled = bool(self._segments) and self._segments[0].ordinal < self._cursor.ordinal
            if not is_settled:
                if self._now_us() < self._room_made_us + ROOM_PAUSE_US:
                    return False
                self._room_made_us = self._now_us()
            return self._drop_oldest("the disk is full")

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the broker's acknowledgement."""
        with self._lock:
            after = sum(one.size - HEADER_BYTES for one in self._segments if one.ordinal > self._cursor.ordinal)
            at = self._at(self._cursor.ordinal)
            return after + (max(0, at.size - self._cursor.offset) if at is not None else 0)

    def pending(self, events_max: int, bytes_max: int) -> Batch | None:
        """The next durable events that wait, in order; None where none does."""
        with self._lock:
            while (segment := self._at(self._cursor.ordinal)) is not None:
                is_active = self._writer is not None and segment is self._segments[-1]
                stop = self._writer.synced_size if self._writer is not None and is_active else segment.size
                records: list[Record] = []
                for record in read_records(segment.path, self._cursor.offset, stop):
                    records.append(record)
                    if len(records) >= events_max or record.end_offset - self._cursor.offset >= bytes_max:
                        break
                if records:
                    return Batch(segment.ordinal, segment.epoch, tuple(records))
                if self._cursor.offset < stop:
                    self._skip_damage(segment)
                elif segment is self._segments[-1]:
                    return None
                else:
                    self._leave(segment)
            return None

    def acknowledge(self, batch: Batch) -> None:
        """Note that the broker has a batch of `pending` durably; the same batch is not given again."""
        with self._lock:
            last = batch.records[-1]
            said = replace(self._cursor, epoch=batch.epoch, number=last.number, acknowledged_us=self._now_us())
            if batch.ordinal == self._cursor.ordinal:
                said = replace(said, offset=last.end_offset)
            RECORDS.labels("ingest", "acknowledged").inc(len(batch.records))
            if batch.epoch == self._epoch:
                self._holes.acknowledge(batch.records)
            self._move(said)
            SPOOL_WAITING_BYTES.set(self.waiting_bytes)
            self._expire()

    def close(self) -> None:
        """Let go of the files; what was put and not flushed stays as the operating system has it."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
            if self._lock_fd is not None:
                os.close(self._lock_fd)
            self._writer = self._lock_fd = None

    def _load_cursor(self) -> Cursor:
        oldest = self._segments[0].ordinal if self._segments else 1
        cursor = load_cursor(self.folder) or Cursor(oldest, HEADER_BYTES)
        segment = next((one for one in self._segments if one.ordinal >= cursor.ordinal), None)
        if segment is None:
            newest = self._segments[-1].ordinal if self._segments else 0
            return replace(cursor, ordinal=max(newest, cursor.ordinal) + 1, offset=HEADER_BYTES)
        if segment.ordinal != cursor.ordinal:
            return replace(cursor, ordinal=segment.ordinal, offset=HEADER_BYTES)
        return replace(cursor, offset=min(cursor.offset, segment.size))

    def _last_number(self, epoch: str) -> int | None:
        acknowledged = self._cursor.number if self._cursor.epoch == epoch else None
        for segment in reversed(self._segments):
            if segment.epoch != epoch:
                break
            numbers = [record.number for record in read_records(segment.path, HEADER_BYTES, segment.size)]
            if numbers:
                return max(numbers[-1], acknowledged or 0)
        return acknowledged

    def _last_sent(self, epoch: str) -> int:
        return self._cursor.number if self._cursor.epoch == epoch else 0

    def _at(self, ordinal: int) -> Segment | None:
        return next((one for one in self._segments if one.ordinal == ordinal), None)

    def _append(self, data: bytes) -> None:
        active = self._segments[-1] if self._segments else None
        if active is None or active.epoch != self._epoch or active.size + len(data) > self._limits.segment_bytes:
            active = self._roll(len(data))
        elif self._writer is None:
            self._writer = SegmentWriter(active.path)
        if self._writer is None:
            raise OSError(errno.EBADF, "the spool is closed")
        self._writer.append(data)
        active.size = self._writer.size

    def _roll(self, event_bytes: int) -> Segment:
        """Begin a segment; what does not fit beside it any more is dropped, oldest first."""
        self.flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        room = self._limits.bytes_max - max(self._limits.segment_bytes, HEADER_BYTES + event_bytes)
        while sum(one.size for one in self._segments) > room and self._drop_oldest("the spool is full"):
            pass
        ordinal = max(self._cursor.ordinal - 1, self._segments[-1].ordinal if self._segments else 0) + 1
        path = segment_path(self.folder, ordinal)
        self._writer = SegmentWriter.create(path, self._epoch)
        self._segments.append(Segment(ordinal, path, self._epoch, HEADER_BYTES, 0))
        return self._segments[-1]

    def _drop_oldest(self, why: str) -> bool:
        if len(self._segments) < 2:
            return False
        oldest, following = self._segments[:2]
        start = HEADER_BYTES if oldest.ordinal > self._cursor.ordinal else self._cursor.offset
        is_settled = oldest.ordinal < self._cursor.ordinal
        waiting = [] if is_settled else list(read_records(oldest.path, start, oldest.size))
        if waiting:
            first, last = waiting[0].number, waiting[-1].number
            RECORDS.labels("ingest", "dropped").inc(len(waiting))
            LOGGER.error(
                f"{why}: {len(waiting)} events that wait for the broker are dropped, numbers {first} to {last}",
                extra={"action": "spool_dropped", "first": first, "last": last, "events": len(waiting)},
            )
            if oldest.epoch == self._epoch:
                self._holes.give_up(waiting)
        if not is_settled:
            self._pass_over(following)
        try:
            oldest.path.unlink()
        except OSError as error:
            LOGGER.error(f"{oldest.path} cannot be dropped: {error}", extra={"action": "spool_drop_failed"})
            return False
        del self._segments[0]
        if waiting:
            self._move(self._cursor)
        return True

    def _skip_damage(self, segment: Segment) -> None:
        """Give up what is behind a damaged record: where the next one begins is not known."""
        LOGGER.error(
            f"{segment.path} is damaged at byte {self._cursor.offset}: the rest of it is given up",
            extra={"action": "spool_damaged", "offset": self._cursor.offset, "bytes": segment.size},
        )
        if segment is self._segments[-1]:
            with contextlib.suppress(OSError, SpoolFull):
                self._roll(0)
        following = next((one for one in self._segments if one.ordinal > segment.ordinal), None)
        before = self._last_sent(segment.epoch)
        if following is None:
            if segment.epoch == self._epoch:
                self._holes.add(before + 1, self._tail)
            self._move(replace(self._cursor, offset=segment.size))
        else:
            self._pass_over(following)
        RECORDS.labels("ingest", "dropped").inc()

    def _pass_over(self, following: Segment) -> None:
        """Go on with a segment although what is before it was not delivered: its numbers are a hole."""
        if following.epoch == self._epoch:
            first = first_number(following.path, HEADER_BYTES, following.size)
            self._holes.add(self._last_sent(self._epoch) + 1, self._tail if first is None else first - 1)
        self._move(replace(self._cursor, ordinal=following.ordinal, offset=HEADER_BYTES))

    def _leave(self, segment: Segment) -> None:
        following = next(one for one in self._segments if one.ordinal > segment.ordinal)
        segment.settled_us = self._now_us()
        # Its time says when it was acknowledged, over restarts and to `agent resend`.
        with contextlib.suppress(OSError):
            os.utime(segment.path, ns=(segment.settled_us * 1000, segment.settled_us * 1000))
        self._move(replace(self._cursor, ordinal=following.ordinal, offset=HEADER_BYTES))
        self._expire()

    def _move(self, cursor: Cursor) -> None:
        self._cursor = cursor = replace(cursor, holes=self._holes.unacknowledged, holes_epoch=self._epoch)
        try:
            store_cursor(self.folder, cursor)
            self._cursor_is_stored = True
        except OSError as error:
            if self._cursor_is_stored:
                LOGGER.error(
                    f"the acknowledgement cannot be noted ({error}): a restart would send again; repeats count once",
                    extra={"action": "spool_cursor_not_stored"},
                )
            self._cursor_is_stored = False

    def _expire(self) -> None:
        before_us = self._now_us() - self._limits.keep_acknowledged_seconds * 1_000_000
        while len(self._segments) > 1 and self._segments[0].ordinal < self._cursor.ordinal:
            if self._segments[0].settled_us > before_us or not self._drop_oldest("kept long enough"):
                return
