"""The journal: append-only files outside the database, of what the database must not be able to forget."""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.domain.errors import ConfigurationFault, InvariantViolation, TransientFault
from pipeline.domain.keys import canonical_json

_STREAM = re.compile(r"[A-Za-z0-9._%~-]+")
_BLOCK_BYTES = 65_536

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a stream: its number from 1, the digest it carries of the line before, its record."""

    number: int
    previous: str
    record: Record
    digest: str


class Journal:
    """
    Streams of records, each a file `<stream>.jsonl` in one folder, each line carrying the digest of the line before.

    A line is on disk when `append` returns. What a crash left of a line has no end of line, was acknowledged to nobody
    and is left behind as it is: the next line goes on from the last whole one. Several processes may append, on one
    machine or on a file system whose locks work.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """
        Open the journal in a folder.

        Raises:
            ConfigurationFault: The folder is not there. It is never made here: a disk that is not mounted must not
                look like a journal in which nothing was written.
        """
        if not folder.is_dir():
            raise ConfigurationFault(
                f"the journal's folder {folder} is not there. Is its disk mounted? A new installation makes it by hand:"
                f" mkdir -p {folder}",
                "journal_missing",
            )
        self._folder = folder
        self._now = now

    def append(self, stream: str, records: Sequence[Record]) -> None:
        """
        Add records, in order, and wait until they are on disk.

        Args:
            stream: Letters, digits and ._%~- only.
            records: JSON without floats.

        Raises:
            InvariantViolation: The stream's last whole line is none of ours.
            TransientFault: The disk refused.
        """
        if not records:
            return
        with self._open(stream) as file:
            last, is_torn = _last_line(file, stream)
            number = 0 if last is None else last.number
            previous = first_digest(stream) if last is None else last.digest
            at = self._now().isoformat().replace("+00:00", "Z")
            # It may be whole but for its end; marked, it reads as no line of ours.
            lines = [b" (torn)"] if is_torn else []
            for record in records:
                number += 1
                line = canonical_json({"number": number, "at": at, "previous": previous, "record": record})
                previous = hashlib.sha256(line).hexdigest()
                lines.append(line)
            _write(file, b"\n".join(lines) + b"\n")

    def last(self, stream: str) -> Line | None:
        """
        Give a stream's last whole line; None for a stream nothing was written to.

        Raises:
            InvariantViolation: It is none of ours.
        """
        with closing(self.backwards(stream)) as lines:
            return next(lines, None)

    def backwards(self, stream: str) -> Generator[Line, None, None]:
        """
        Give a stream's whole lines, last first, each as it is in the file.

        Raises:
            InvariantViolation: A line is none of ours, or does not carry the digest of the line before it.
        """
        path = self._path(stream)
        if not path.exists():
            return
        with self._open(stream) as file:
            yield from _backwards(file, stream)

    def streams(self) -> list[str]:
        """Give the names of all streams, in order."""
        return sorted(path.stem for path in self._folder.glob("*.jsonl"))

    def _path(self, stream: str) -> Path:
        if not _STREAM.fullmatch(stream):
            raise ValueError(f"{stream!r} is no name of a stream")
        return self._folder / f"{stream}.jsonl"

    @contextmanager
    def _open(self, stream: str) -> Iterator[int]:
        """Open a stream's file with its lock held; a file that is made is in its folder for good."""
        path = self._path(stream)
        try:
            is_new = not path.exists()
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if is_new:
                    _sync_folder(self._folder)
                yield file
            finally:
                os.close(file)
        except OSError as error:
            raise TransientFault(f"the journal {path} cannot be used: {error}", "journal_unusable") from error


def first_digest(stream: str) -> str:
    """What a stream's first line carries in place of the digest of the line before."""
    return hashlib.sha256(f"rackmeter journal 1\n{stream}".encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
    os.fsync(file)


def _last_line(file: int, stream: str) -> tuple[Line | None, bool]:
    """Give the last whole line, and whether something torn is behind it."""
    size = os.fstat(file).st_size
    is_torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
    with closing(_backwards(file, stream)) as lines:
        return next(lines, None), is_torn


def _backwards(file: int, stream: str) -> Generator[Line, None, None]:
    expected: str | None = None
    for data in _raw_backwards(file):
        line = _read_line(data)
        if line is not None and expected in (None, line.digest):
            expected = line.previous
            yield line
        elif line is not None or expected is None:
            # What a crash left cannot be read, and is not the last whole line.
            raise _altered(stream)
    if expected not in (None, first_digest(stream)):
        raise _altered(stream)


def _altered(stream: str) -> InvariantViolation:
    return InvariantViolation(
        f"the journal's stream {stream} is not as it was written; `rackmeter ledger verify` says where",
        "journal_altered",
    )


def _raw_backwards(file: int) -> Iterator[bytes]:
    """Give the lines of a file that have an end, last first, empty ones left out."""
    end = os.fstat(file).st_size
    rest = b""
    is_torn_end = True
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        parts = (os.pread(file, end - start, start) + rest).split(b"\n")
        if len(parts) > 1 and is_torn_end:
            parts.pop()
            is_torn_end = False
        rest = parts[0]
        yield from (part for part in reversed(parts[1:]) if part)
        end = start
    if rest and not is_torn_end:
        yield rest


def _read_line(data: bytes) -> Line | None:
    try:
        value = json.loads(data)
        return Line(value["number"], value["previous"], value["record"], hashlib.sha256(data).hexdigest())
    except (ValueError, KeyError, TypeError):
        return None
