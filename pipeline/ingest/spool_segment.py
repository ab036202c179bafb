"""A segment of the spool: how a record lies on disk, and how a file of records is read until its first damage."""

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipeline.domain.errors import ConfigurationFault

LOGGER = logging.getLogger("rackmeter.spool")

SUFFIX = ".seg"
MAGIC = b"rackmeter-spool-1 "
EPOCH_CHARACTERS = 16
HEADER_BYTES = len(MAGIC) + EPOCH_CHARACTERS + 1
#: An event larger than this is refused; a message of the log takes a megabyte.
EVENT_BYTES_MAX = 262_144

# Number, time of spooling in microseconds since 1970, length of the event, crc32 of all three and the event.
_FRAME = struct.Struct(">QQII")
_CHECKED = struct.Struct(">QQI")


@dataclass(slots=True)
class Segment:
    """A file of the spool. `size` is the bytes of whole records; `settled_us` when all of them were acknowledged."""

    ordinal: int
    path: Path
    epoch: str
    size: int
    settled_us: int


class Record(NamedTuple):
    """An event as it was spooled: its number, when (microseconds since 1970), its bytes, and where it ends."""

    number: int
    spooled_us: int
    event: bytes
    end_offset: int


def header(epoch: str) -> bytes:
    """The first bytes of a segment; ValueError for an epoch that is not 16 characters."""
    if len(epoch) != EPOCH_CHARACTERS:
        raise ValueError(f"{epoch!r} is no epoch")
    return MAGIC + epoch.encode("ascii") + b"\n"


def frame(number: int, spooled_us: int, event: bytes) -> bytes:
    """A record's bytes; ValueError for an event that is empty or larger than EVENT_BYTES_MAX."""
    if not 0 < len(event) <= EVENT_BYTES_MAX:
        raise ValueError(f"an event of {len(event)} bytes; 1 to {EVENT_BYTES_MAX} are taken")
    checksum = _checksum(number, spooled_us, event)
    return _FRAME.pack(number, spooled_us, len(event), checksum) + event


def read_epoch(path: Path) -> str | None:
    """
    The epoch of a segment's records; None where its header was never written whole.

    Raises:
        ConfigurationFault: The file was written by another version.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if head[: len(MAGIC)] != MAGIC[: len(head)]:
        raise ConfigurationFault(
            f"{path} is no spool of this version: let the version that wrote it deliver what it holds, or move it away"
        )
    return head[len(MAGIC) : -1].decode("ascii", "replace") if len(head) == HEADER_BYTES else None


def read_records(path: Path, offset: int, stop: int) -> Iterator[Record]:
    """Records from one offset to another; ends early at the first one that is torn or damaged."""
    with path.open("rb") as file:
        file.seek(offset)
        while offset < stop:
            record = _read_record(file, offset, stop)
            if record is None:
                return
            offset = record.end_offset
            yield record


def first_number(path: Path, offset: int, stop: int) -> int | None:
    """The number of the record at an offset; None where there is no whole one."""
    return next((record.number for record in read_records(path, offset, stop)), None)


def list_segments(folder: Path) -> list[tuple[int, Path]]:
    """Ordinals and files of a folder's segments, oldest first."""
    return sorted((int(path.stem), path) for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def load_segments(folder: Path) -> list[Segment]:
    """
    A folder's segments, oldest first, the newest cut to whole records. For whoever holds its lock.

    Raises:
        ConfigurationFault: One was written by another version.
    """
    found: list[Segment] = []
    for ordinal, path in list_segments(folder):
        epoch = read_epoch(path)
        if epoch is None:
            path.unlink()
            continue
        stat = path.stat()
        found.append(Segment(ordinal, path, epoch, stat.st_size, stat.st_mtime_ns // 1000))
    if found:
        _cut_torn_tail(found[-1])
    return found


def _cut_torn_tail(newest: Segment) -> None:
    end = HEADER_BYTES
    for record in read_records(newest.path, HEADER_BYTES, newest.size):
        end = record.end_offset
    if end < newest.size:
        LOGGER.warning(
            f"{newest.path}: {newest.size - end} bytes of an event that was never written whole are cut off",
            extra={"action": "spool_torn_tail", "bytes": newest.size - end},
        )
        os.truncate(newest.path, end)
        newest.size = end


def segment_path(folder: Path, ordinal: int) -> Path:
    """The file of a segment."""
    return folder / f"{ordinal:010d}{SUFFIX}"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_record(file: BinaryIO, offset: int, stop: int) -> Record | None:
    head = file.read(_FRAME.size)
    if len(head) < _FRAME.size:
        return None
    number, spooled_us, length, checksum = _FRAME.unpack(head)
    end_offset = offset + _FRAME.size + length
    if not 0 < length <= EVENT_BYTES_MAX or end_offset > stop:
        return None
    event = file.read(length)
    if len(event) < length or _checksum(number, spooled_us, event) != checksum:
        return None
    return Record(number, spooled_us, event, end_offset)


def _checksum(number: int, spooled_us: int, event: bytes) -> int:
    return zlib.crc32(event, zlib.crc32(_CHECKED.pack(number, spooled_us, len(event))))
