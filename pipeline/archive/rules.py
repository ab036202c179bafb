"""Plans the archive's files: which records go into one, what it is called, what its name says."""

import datetime
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

DAY_US = 86_400_000_000

_FILE_NAME = re.compile(r"^(?P<first>\d{20})-(?P<next>\d{20})-(?P<token>[0-9a-f]{16})\.parquet$")


@dataclass(frozen=True, slots=True)
class Record:
    """A message as the log holds it; `log_time_us` is the broker's append time in microseconds since 1970 UTC."""

    log_offset: int
    log_time_us: int
    key: bytes | None
    value: bytes | None

    @property
    def byte_count(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """Records of one partition and log day, and the offset range [offset_first, offset_next) they stand for."""

    topic: str
    log_id: str
    partition: int
    offset_first: int
    offset_next: int
    log_day: datetime.date
    records: Sequence[Record]

    def path(self, token: str) -> PurePosixPath:
        """Give the file's place below the archive folder; `token` makes it this attempt's own."""
        return partition_folder(self.topic, self.log_id, self.partition) / (
            f"{self.log_day.isoformat()}/{self.offset_first:020d}-{self.offset_next:020d}-{token}.parquet"
        )


def partition_folder(topic: str, log_id: str, partition: int) -> PurePosixPath:
    """Give the folder that holds a partition's files, by log: a re-created topic never mixes with the old one."""
    return PurePosixPath(topic) / log_id / f"{partition:05d}"


def is_archive_file(name: str) -> bool:
    """Tell whether a file's name is one this stage gives, temporary ones included."""
    return _FILE_NAME.match(name.removesuffix(".tmp")) is not None


def log_day(log_time_us: int) -> datetime.date:
    """Give the UTC day of an append time."""
    return datetime.date(1970, 1, 1) + datetime.timedelta(days=log_time_us // DAY_US)


def plan_files(
    topic: str, log_id: str, partition: int, offset_next: int, records: Sequence[Record]
) -> Iterator[PlannedFile]:
    """
    Cut a partition's records into files, one a run of the same log day.

    Args:
        topic: The log's topic.
        log_id: Our own id of the log.
        partition: The partition.
        offset_next: Where the archive stands; the first file begins there, so that ranges join without a gap.
        records: In offset order, none below offset_next.

    Yields:
        Files whose ranges cover [offset_next, last offset + 1) exactly.

    Raises:
        ValueError: Records are out of order or lie below offset_next.
    """
    begin = 0
    range_first = offset_next
    for index, record in enumerate(records):
        if record.log_offset < (records[index - 1].log_offset + 1 if index else offset_next):
            raise ValueError(f"offset {record.log_offset} of partition {partition} is out of order")
        is_last = index + 1 == len(records)
        day = log_day(record.log_time_us)
        if is_last or log_day(records[index + 1].log_time_us) != day:
            yield PlannedFile(
                topic, log_id, partition, range_first, record.log_offset + 1, day, records[begin : index + 1]
            )
            begin = index + 1
            range_first = record.log_offset + 1
