"""A spool looked at from outside, also while its agent runs: what waits, what is kept, what was declared as lost."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.ingest.spool_cursor import Cursor, load_cursor
from pipeline.ingest.spool_holes import Hole, declared_by
from pipeline.ingest.spool_segment import HEADER_BYTES, Record, list_segments, read_epoch, read_records


@dataclass(frozen=True, slots=True)
class SpoolReport:
    """
    What a spool holds.

    `kept_*` is everything on disk, `waiting_*` what the broker has not acknowledged, `oldest_waiting_us` when the
    first of it was spooled (microseconds since 1970); `acknowledged_*` is the last acknowledgement; `last_number` the
    last event's; `holes` are the numbers that were declared as lost by what is still on disk, or are to be declared.
    """

    segment_count: int
    kept_bytes: int
    waiting_events: int
    waiting_bytes: int
    oldest_waiting_us: int | None
    last_number: int
    acknowledged_number: int
    acknowledged_us: int | None
    holes: tuple[Hole, ...]


def inspect_spool(folder: Path) -> SpoolReport:
    """Read a whole spool; a segment that is dropped meanwhile is left out. OSError where the folder cannot be read."""
    cursor = load_cursor(folder) or Cursor(0, HEADER_BYTES)
    segment_count = kept_bytes = waiting_events = waiting_bytes = 0
    oldest_us: int | None = None
    last_number = cursor.number
    holes: set[Hole] = set(cursor.holes)
    for ordinal, path, size in _whole_segments(folder):
        segment_count += 1
        kept_bytes += size
        start = HEADER_BYTES
        for record in read_records(path, HEADER_BYTES, size):
            last_number = record.number
            if (hole := declared_by(record)) is not None:
                holes.add(hole)
            if ordinal > cursor.ordinal or (ordinal == cursor.ordinal and start >= cursor.offset):
                waiting_events += 1
                waiting_bytes += record.end_offset - start
                oldest_us = record.spooled_us if oldest_us is None else oldest_us
            start = record.end_offset
    return SpoolReport(
        segment_count=segment_count,
        kept_bytes=kept_bytes,
        waiting_events=waiting_events,
        waiting_bytes=waiting_bytes,
        oldest_waiting_us=oldest_us,
        last_number=last_number,
        acknowledged_number=cursor.number,
        acknowledged_us=cursor.acknowledged_us or None,
        holes=tuple(sorted(holes)),
    )


def acknowledged_since(folder: Path, since_us: int) -> Iterator[list[Record]]:
    """
    What the broker acknowledged since a time, a segment at a time, in order.

    By whole segments, so some that were acknowledged earlier are among them. What still waits is left to its agent.
    """
    cursor = load_cursor(folder)
    if cursor is None:
        return
    for ordinal, path, size in _whole_segments(folder):
        try:
            settled_us = path.stat().st_mtime_ns // 1000
            if ordinal > cursor.ordinal or (ordinal < cursor.ordinal and settled_us < since_us):
                continue
            stop = cursor.offset if ordinal == cursor.ordinal else size
            records = list(read_records(path, HEADER_BYTES, stop))
        except FileNotFoundError:
            continue
        if records:
            yield records


def _whole_segments(folder: Path) -> Iterator[tuple[int, Path, int]]:
    for ordinal, path in list_segments(folder):
        try:
            if read_epoch(path) is not None:
                yield ordinal, path, path.stat().st_size
        except FileNotFoundError:
            continue
