"""Settles duplicates: finds each one's twin in the archive and says whether it is the same event or a conflict."""

import logging
from collections.abc import Iterable, Iterator, Sequence
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
_DUPLICATE = pa.schema([*_POSITION, ("source", pa.string()), ("event_id", pa.string())])
_SLICE = pa.schema([*_DUPLICATE, ("value", pa.binary())])

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Settled:
    """What a pass found: verdicts given, and duplicates whose twin is not in the archive (they stay open)."""

    duplicates: int = 0
    conflicts: int = 0
    without_twin: int = 0


@dataclass(frozen=True, slots=True)
class _Pair:
    duplicate: Position
    twin: Position
    same_bytes: bool


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
    duplicates = connection.execute(QUERIES["unsettled_duplicates"], parameters).fetchall()
    if not duplicates:
        return Settled()
    files = connection.execute(QUERIES["files_to_read"], {**parameters, "offset_last": duplicates[-1][0]}).fetchall()
    if not files:
        return Settled(without_twin=len(duplicates))
    with duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "2GB"}) as archive:
        _load(archive, duplicates, [str(archive_dir / path) for (path,) in files])
        pairs = _compare(connection, archive, parameters)
        same = [pair.duplicate for pair in pairs if pair.same_bytes]
        conflicts: list[_Pair] = []
        for pair, is_same in _judge(archive, [pair for pair in pairs if not pair.same_bytes]):
            if is_same:
                same.append(pair.duplicate)
            else:
                conflicts.append(pair)
    _record(connection, parameters, same, conflicts)
    return Settled(len(same), len(conflicts), len(duplicates) - len(pairs))


def _load(archive: duckdb.DuckDBPyConnection, duplicates: Sequence[tuple[Any, ...]], paths: list[str]) -> None:
    archive.register("duplicate_rows", _table(duplicates, _DUPLICATE))
    archive.execute(DUCKDB_QUERIES["open_duplicates"])
    quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    archive.execute(DUCKDB_QUERIES["open_messages"].replace("$paths", f"[{quoted}]"))
    rows = (
        (log_offset, part.index, part.source, part.event_id, part.value)
        for log_offset, value in archive.execute(DUCKDB_QUERIES["array_messages"]).fetchall()
        for part in take_apart(value)
    )
    archive.register("slice_rows", _table(list(rows), _SLICE))
    archive.execute(DUCKDB_QUERIES["find_candidates"])


def _compare(connection: Connection, archive: duckdb.DuckDBPyConnection, parameters: dict[str, Any]) -> list[_Pair]:
    asked = archive.execute(DUCKDB_QUERIES["other_positions"]).fetchall()
    not_taken = connection.execute(
        QUERIES["not_taken"],
        {**parameters, "log_offsets": [row[0] for row in asked], "indexes": [row[1] for row in asked]},
    ).fetchall()
    archive.register("not_taken_rows", _table(not_taken, _POSITION))
    return [
        _Pair((log_offset, index), (twin_offset, twin_index), same_bytes)
        for log_offset, index, twin_offset, twin_index, same_bytes in archive.execute(
            DUCKDB_QUERIES["compare"]
        ).fetchall()
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


def _record(
    connection: Connection, parameters: dict[str, Any], same: Sequence[Position], conflicts: Sequence[_Pair]
) -> None:
    with connection.transaction():
        if same:
            connection.execute(QUERIES["settle_duplicates"], {**parameters, **_columns(same)})
        if conflicts:
            details = [f"differs from the event at offset {pair.twin[0]}, index {pair.twin[1]}" for pair in conflicts]
            connection.execute(
                QUERIES["mark_conflicts"],
                {**parameters, **_columns([pair.duplicate for pair in conflicts]), "details": details},
            )


def _columns(positions: Iterable[Position]) -> dict[str, list[int]]:
    listed = list(positions)
    return {"log_offsets": [position[0] for position in listed], "indexes": [position[1] for position in listed]}


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
