"""Settles duplicates: finds each one's twin in the archive and says whether it is the same event or a conflict."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.archive.content import same_content
from pipeline.archive.events import END, POSITION, PartitionEvents, Position, partition_events
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

LOGGER = logging.getLogger("rackmeter.archive")
QUERIES = load_queries(__package__)
DUCKDB_QUERIES = load_queries(__package__, "twins.sql")

_IDENTITY = pa.schema([("source", pa.string()), ("event_id", pa.string())])


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


@dataclass(frozen=True, slots=True)
class _LostDuplicate:
    """A duplicate whose bytes went with its log; their digest is kept."""

    position: Position
    source: str
    event_id: str
    digest: bytes


@dataclass(slots=True)
class _Verdicts:
    """What a partition's pass will write; the arrays are of PostgreSQL: log numbers, offsets, indexes."""

    same_count: int
    same_arrays: tuple[str, str, str]
    same: list[Position]
    conflicts: list[_Pair]
    stand_ins: list[tuple[str, str]]


def settle(connection: Connection, archive_dir: Path, topic: str, partitions: Sequence[int]) -> Settled:
    """
    Give every archived, unsettled duplicate of these partitions its verdict; one transaction a partition.

    Logs that were set aside are looked at too, and twins may lie in an older log than their duplicates. Where the event
    that was taken was lost before it was archived, its first repeat becomes its evidence.

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
    about: dict[str, Any] = {"topic": topic, "partition": partition}
    lost = [
        _LostDuplicate(Position(*row[:3]), *row[3:])
        for row in connection.execute(QUERIES["lost_duplicates"], about).fetchall()
    ]
    with partition_events(connection) as events:
        events.copy(QUERIES["unsettled_duplicates"], DUCKDB_QUERIES["open_duplicates"], about)
        count, *last = events.row(DUCKDB_QUERIES["extent"])
        open_count = count + len(lost)
        if not open_count or not events.open(archive_dir, topic, partition, END if lost else (last[0], last[1])):
            return Settled(without_twin=open_count)
        verdicts = _compare(connection, events, about)
        verdicts.same += _repeated(events, lost)
    with connection.transaction():
        connection.execute(QUERIES["lock_settling"], about)
        for arrays in (verdicts.same_arrays, _arrays(verdicts.same)):
            connection.execute(QUERIES["settle_duplicates"], about | _named(arrays))
        if verdicts.stand_ins:
            sources, event_ids = zip(*verdicts.stand_ins, strict=True)
            connection.execute(QUERIES["add_found"], {"sources": list(sources), "event_ids": list(event_ids)})
        if verdicts.conflicts:
            details = [_difference(pair) for pair in verdicts.conflicts]
            arrays = _arrays([pair.duplicate for pair in verdicts.conflicts])
            connection.execute(QUERIES["mark_conflicts"], about | _named(arrays) | {"details": details})
    settled_count = verdicts.same_count + len(verdicts.same)
    conflict_count = len(verdicts.conflicts)
    return Settled(settled_count, conflict_count, open_count - settled_count - conflict_count)


def _compare(connection: Connection, events: PartitionEvents, about: dict[str, Any]) -> _Verdicts:
    """Pair each duplicate with its twin; by content where their bytes differ."""
    events.run(DUCKDB_QUERIES["find_candidates"])
    others = _named(events.row(DUCKDB_QUERIES["other_positions"]))
    not_taken = connection.execute(QUERIES["not_taken"], about | others).fetchall()
    events.register("not_taken_rows", POSITION, not_taken)
    events.run(DUCKDB_QUERIES["compare"])
    same_count, *same_arrays = events.row(DUCKDB_QUERIES["same_bytes"])
    numbers, offsets, indexes = same_arrays
    stand_ins = [(source, event_id) for source, event_id in events.rows(DUCKDB_QUERIES["stand_ins"])]
    verdicts = _Verdicts(same_count, (numbers, offsets, indexes), [], [], stand_ins)
    pairs = [_Pair(Position(*row[:3]), Position(*row[3:])) for row in events.rows(DUCKDB_QUERIES["other_bytes"])]
    for pair, is_same in _judge(events, pairs):
        if is_same:
            verdicts.same.append(pair.duplicate)
        else:
            verdicts.conflicts.append(pair)
    return verdicts


def _judge(events: PartitionEvents, pairs: Sequence[_Pair]) -> Iterator[tuple[_Pair, bool]]:
    """Compare by content what differs in bytes: order of keys and spelling of numbers do not matter, values do."""
    values = events.values(position for pair in pairs for position in (pair.duplicate, pair.twin))
    for pair in pairs:
        yield pair, same_content(values.get(pair.duplicate, b""), values.get(pair.twin, b""))


def _repeated(events: PartitionEvents, lost: Sequence[_LostDuplicate]) -> list[Position]:
    """Give the lost duplicates whose very bytes the archive has elsewhere: they get their verdict there."""
    if not lost:
        return []
    events.register("lost_rows", _IDENTITY, sorted({(one.source, one.event_id) for one in lost}))
    found = {Position(*row[:3]): (row[3], row[4]) for row in events.rows(DUCKDB_QUERIES["repeats_of_lost"])}
    archived = {(*found[position], _digest(value)) for position, value in events.values(found).items()}
    return [one.position for one in lost if (one.source, one.event_id, one.digest) in archived]


def _digest(value: bytes) -> bytes:
    """Give what aggregate keeps of a duplicate's bytes."""
    return hashlib.blake2b(value, digest_size=16).digest()


def _difference(pair: _Pair) -> str:
    twin = pair.twin
    where = "" if twin.log_number == pair.duplicate.log_number else f" of log {twin.log_number}"
    return f"differs from the event at offset {twin.log_offset}, index {twin.index_in_message}{where}"


def _arrays(positions: Sequence[Position]) -> tuple[str, ...]:
    """Give positions as PostgreSQL arrays."""
    return tuple("{" + ",".join(str(position[part]) for position in positions) + "}" for part in range(3))


def _named(arrays: Sequence[str]) -> dict[str, str]:
    return dict(zip(("log_numbers", "log_offsets", "indexes"), arrays, strict=True))
