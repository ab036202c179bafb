"""Writes, lists and sweeps the archive's Parquet files; a file is durable before anybody hears of it."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.archive.rules import PlannedFile, is_archive_file, partition_folder

SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("log_offset", pa.int64(), nullable=False),
        pa.field("log_time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A durable file, ready to be listed; `path` is relative to the archive folder, `digest` its sha256 in hex."""

    plan: PlannedFile
    path: str
    row_count: int
    byte_count: int
    digest: str


def write_file(archive_dir: Path, plan: PlannedFile) -> WrittenFile:
    """
    Write one file and make it durable: temporary name, fsync, rename, fsync of the folders.

    Raises:
        OSError: The disk refuses; nothing is listed, the caller tries again later.
    """
    relative = plan.path(secrets.token_hex(8))
    final = archive_dir / relative
    new_folders = [folder for folder in final.parents if not folder.exists()]
    final.parent.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    # Numbers and names repeat from message to message, but whole values do not: a dictionary would only cost.
    pq.write_table(_table(plan), sink, compression="zstd", use_dictionary=False, row_group_size=100_000)
    content = sink.getvalue().to_pybytes()
    temporary = final.with_name(final.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(final)
    for folder in {final.parent, *(new.parent for new in new_folders)}:
        _sync_folder(folder)
    return WrittenFile(plan, relative.as_posix(), len(plan.records), len(content), hashlib.sha256(content).hexdigest())


def files_of_partition(archive_dir: Path, topic: str, log_id: str, partition: int) -> list[str]:
    """List a partition's files on disk, temporary ones included, as paths relative to the archive folder."""
    folder = archive_dir / partition_folder(topic, log_id, partition)
    return sorted(
        path.relative_to(archive_dir).as_posix()
        for path in folder.rglob("*.parquet*")
        if path.is_file() and is_archive_file(path.name)
    )


def remove_files(archive_dir: Path, relative_paths: Iterable[str]) -> None:
    """Remove files that no manifest row lists."""
    for path in relative_paths:
        (archive_dir / path).unlink(missing_ok=True)


def _table(plan: PlannedFile) -> pa.Table:
    records = plan.records
    return pa.table(
        [
            pa.array([plan.partition] * len(records), pa.int32()),
            pa.array([record.log_offset for record in records], pa.int64()),
            pa.array([record.log_time_us for record in records], pa.timestamp("us", tz="UTC")),
            pa.array([record.key for record in records], pa.binary()),
            pa.array([record.value for record in records], pa.binary()),
        ],
        schema=SCHEMA,
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
