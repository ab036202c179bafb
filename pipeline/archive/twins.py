"""Settles duplicates: finds each one's twin in the archive and says whether it is the same event or a conflict."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.archive.content import same_content, take_apart
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

LOGGER = logging.getLogger("rackmeter.archive")
QUERIES = load_queries(__package__)
DUCKDB_QUERIES = load_queries(__package__, "twins.sql")

_POSITION = pa.schema([("log_offset", pa.int64()), ("index_in_message", pa.int32())])
_SLICE = pa.schema([*_POSITION, ("source", pa.string()), ("event_id", pa.string()), ("value", pa.binary())])

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Settled:
    """What a pass found: verdicts given, and duplicates whose twin is not in the archive (they stay open)."""

    duplicates: int = 0
    conflicts: int = 0
    without_twin: int = 0


@dataclass(frozen=True, slots=True)
class _Pair:
    """A duplicate and the event that was taken, whose bytes differ."""

    duplicate: Position
    twin: Position


def settle(connection: Connection, archive_dir: Path, topic: str, partitions: Sequence[int]) -> Settled:
    """
    Give every archived, unsettled duplicate of these partitions its verdict; one transaction a partition.

    Args:
        connection: In autocommit mode.
        archive_dir: The archive folder.
        topic: The log's topic.
        partitions: Partitions to look at. A twin is always in its duplicate's partition: both are the source's home.

    Returns:
        How many verdicts were given.
    """
    open_partitions = connection.execute(
        QUERIES["partitions_with_duplicates"], {"topic": topic, "partitions": list(partitions)}
    ).fetchall()
    results = [_settle_partition(connection, archive_dir, topic, partition) for (partition,) in open_partitions]
    total = Settled(
        sum(r.duplicates for r in results), sum(r.conflicts for r in results), sum(r.without_twin for r in results)
    )
    if total.conflicts or total.without_twin:
        LOGGER.warning(
            "events with the identity of another stay open",
            extra={"action": "settle", "conflicts": total.conflicts, "without_twin": total.without_twin},
        )
    return total


def _settle_partition(connection: Connection, archive_dir: Path, topic: str, partition: int) -> Settled:
    parameters: dict[str, Any] = {"topic": topic, "partition": partition}
    with (
        tempfile.TemporaryDirectory(prefix="rackmeter-twins-") as folder,
        duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "2GB", "temp_directory": folder}) as archive,
    ):
        duplicate_count, offset_last = _load_duplicates(connection, archive, Path(folder), parameters)
        files = connection.execute(QUERIES["files_to_read"], {**parameters, "offset_last": offset_last}).fetchall()
        if not duplicate_count or not files:
            return Settled(without_twin=duplicate_count)
        _load_candidates(archive, [str(archive_dir / path) for (path,) in files])
        pairs = _find_pairs(connection, archive, parameters)
        same_count, *same_arrays = _row(archive, "same_bytes")
        same: list[Position] = []
        conflicts: list[_Pair] = []
        for pair, is_same in _judge(archive, pairs):
            if is_same:
                same.append(pair.duplicate)
            else:
                conflicts.append(pair)
    with connection.transaction():
        for log_offsets, indexes in (same_arrays, _arrays(same)):
            positions = {"log_offsets": log_offsets, "indexes": indexes}
            connection.execute(QUERIES["settle_duplicates"], {**parameters, **positions})
        if conflicts:
            _record_conflicts(connection, parameters, conflicts)
    settled_count = same_count + len(same)
    return Settled(settled_count, len(conflicts), duplicate_count - settled_count - len(conflicts))


def _load_duplicates(
    connection: Connection, archive: duckdb.DuckDBPyConnection, folder: Path, parameters: dict[str, Any]
) -> tuple[int, int | None]:
    """Copy the open duplicates over; give how many and the last one's offset."""
    path = folder / "duplicates.csv"
    with path.open("wb") as file, connection.cursor().copy(QUERIES["unsettled_duplicates"], parameters) as stream:
        for block in stream:
            file.write(block)
    archive.execute(DUCKDB_QUERIES["open_duplicates"], {"path": str(path)})
    count, offset_last = _row(archive, "extent")
    return count, offset_last


def _load_candidates(archive: duckdb.DuckDBPyConnection, paths: list[str]) -> None:
    quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    archive.execute(DUCKDB_QUERIES["open_messages"].replace("$paths", f"[{quoted}]"))
    rows = (
        (log_offset, part.index, part.source, part.event_id, part.value)
        for log_offset, value in archive.execute(DUCKDB_QUERIES["array_messages"]).fetchall()
        for part in take_apart(value)
    )
    archive.register("slice_rows", _table(list(rows), _SLICE))
    archive.execute(DUCKDB_QUERIES["find_candidates"])


def _find_pairs(connection: Connection, archive: duckdb.DuckDBPyConnection, parameters: dict[str, Any]) -> list[_Pair]:
    """Pair each duplicate with its twin, and give those whose bytes differ."""
    log_offsets, indexes = _row(archive, "other_positions")
    asked = {**parameters, "log_offsets": log_offsets, "indexes": indexes}
    archive.register("not_taken_rows", _table(connection.execute(QUERIES["not_taken"], asked).fetchall(), _POSITION))
    archive.execute(DUCKDB_QUERIES["compare"])
    return [
        _Pair((row[0], row[1]), (row[2], row[3])) for row in archive.execute(DUCKDB_QUERIES["other_bytes"]).fetchall()
    ]


def _judge(archive: duckdb.DuckDBPyConnection, pairs: Sequence[_Pair]) -> Iterator[tuple[_Pair, bool]]:
    """Compare by content what differs in bytes: order of keys and spelling of numbers do not matter, values do."""
    offsets = {position[0] for pair in pairs for position in (pair.duplicate, pair.twin)}
    archive.register("offset_rows", pa.table({"log_offset": pa.array(sorted(offsets), pa.int64())}))
    messages = dict(archive.execute(DUCKDB_QUERIES["values_at"]).fetchall())
    for pair in pairs:
        yield pair, same_content(_event_at(messages, pair.duplicate), _event_at(messages, pair.twin))


def _event_at(messages: dict[int, bytes], position: Position) -> bytes:
    log_offset, index = position
    return next((part.value for part in take_apart(messages[log_offset]) if part.index == index), b"")


def _record_conflicts(connection: Connection, parameters: dict[str, Any], conflicts: Sequence[_Pair]) -> None:
    log_offsets, indexes = _arrays([pair.duplicate for pair in conflicts])
    details = [f"differs from the event at offset {pair.twin[0]}, index {pair.twin[1]}" for pair in conflicts]
    connection.execute(
        QUERIES["mark_conflicts"], {**parameters, "log_offsets": log_offsets, "indexes": indexes, "details": details}
    )


def _arrays(positions: Sequence[Position]) -> tuple[str, str]:
    """Give positions as two PostgreSQL arrays."""
    offsets, indexes = (",".join(str(position[part]) for position in positions) for part in (0, 1))
    return f"{{{offsets}}}", f"{{{indexes}}}"


def _row(archive: duckdb.DuckDBPyConnection, name: str) -> tuple[Any, ...]:
    # Fetched to the end: DuckDB keeps a connection busy with what is not.
    (row,) = archive.execute(DUCKDB_QUERIES[name]).fetchall()
    return tuple(row)


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
