"""The archive stage's rows: its offsets, its manifest, and the one transaction that moves both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from pipeline.archive.files import WrittenFile
from pipeline.domain.errors import ConfigurationFault, Fenced, InvariantViolation
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a partition stands and the fence that says it is ours."""

    offset_next: int
    flush_number: int
    generation: int


@dataclass(frozen=True, slots=True)
class Move:
    """A partition's step in one flush; `log_time_us` is the highest append time in it."""

    partition: int
    before: Stand
    offset_next: int
    log_time_us: int


def read_log_id(connection: Connection, topic: str) -> str:
    """
    Give our own id of the topic's log.

    Raises:
        ConfigurationFault: The log was never adopted.
    """
    row = connection.execute(QUERIES["log_of_topic"], {"topic": topic}).fetchone()
    if row is None:
        raise ConfigurationFault(f"the log of {topic} is not adopted in this database yet. Run `rackmeter migrate`.")
    return str(row[0])


def claim(connection: Connection, topic: str, log_id: str, partitions: Sequence[int]) -> dict[int, Stand]:
    """
    Take partitions over: raise their flush numbers, so that whoever had them cannot commit any more.

    Raises:
        InvariantViolation: A row belongs to another log or to another generation of the database.
    """
    with connection.transaction():
        parameters = {"topic": topic, "log_id": log_id, "partitions": list(partitions)}
        connection.execute(QUERIES["add_missing_offsets"], parameters)
        rows = connection.execute(QUERIES["claim_offsets"], parameters).fetchall()
    stands: dict[int, Stand] = {}
    for partition, row_log_id, offset_next, flush_number, generation, generation_now in rows:
        if row_log_id != log_id:
            raise InvariantViolation(
                f"partition {partition} of {topic} was archived from log {row_log_id}, now it is log {log_id}:"
                " the topic was made anew or rolled back. See `rackmeter doctor`."
            )
        if generation != generation_now:
            raise InvariantViolation(
                f"partition {partition} of {topic} stands in generation {generation}, the database is in"
                f" {generation_now}: adopt the restored database first."
            )
        stands[partition] = Stand(offset_next, flush_number, generation)
    return stands


def listed_paths(connection: Connection, topic: str, log_id: str, partition: int) -> set[str]:
    """Give the files of a partition that exist, by the manifest."""
    rows = connection.execute(
        QUERIES["listed_paths"], {"topic": topic, "log_id": log_id, "partition": partition}
    ).fetchall()
    return {str(path) for (path,) in rows}


def commit_flush(
    connection: Connection, topic: str, log_id: str, moves: Sequence[Move], files: Sequence[WrittenFile]
) -> dict[int, Stand]:
    """
    The commit point: list the files and move the offsets, in one transaction.

    Returns:
        The new stand of every partition moved.

    Raises:
        Fenced: A partition does not stand where this worker left it, or a range is already listed.
    """
    try:
        with connection.transaction():
            partitions = [move.partition for move in moves]
            connection.execute(QUERIES["lock_offsets"], {"topic": topic, "partitions": partitions})
            moved = connection.execute(QUERIES["move_offsets"], _move_parameters(topic, log_id, moves)).rowcount
            if moved != len(moves):
                raise Fenced(f"{len(moves) - moved} of partitions {partitions} of {topic} were taken over")
            connection.execute(QUERIES["list_files"], _file_parameters(topic, log_id, files))
    except psycopg.errors.UniqueViolation as error:
        raise Fenced(f"somebody else listed a file of this range: {error.diag.message_detail}") from error
    return {
        move.partition: Stand(move.offset_next, move.before.flush_number + 1, move.before.generation) for move in moves
    }


def archived_offsets(connection: Connection, topic: str) -> dict[int, int]:
    """Give the offset the evidence reaches, by partition."""
    return dict(connection.execute(QUERIES["archived_offsets"], {"topic": topic}).fetchall())


def _move_parameters(topic: str, log_id: str, moves: Sequence[Move]) -> Mapping[str, object]:
    return {
        "topic": topic,
        "log_id": log_id,
        "partitions": [move.partition for move in moves],
        "offsets_before": [move.before.offset_next for move in moves],
        "flush_numbers": [move.before.flush_number for move in moves],
        "generations": [move.before.generation for move in moves],
        "offsets_next": [move.offset_next for move in moves],
        "log_times_us": [move.log_time_us for move in moves],
    }


def _file_parameters(topic: str, log_id: str, files: Sequence[WrittenFile]) -> Mapping[str, object]:
    return {
        "topic": topic,
        "log_id": log_id,
        "partitions": [file.plan.partition for file in files],
        "offsets_first": [file.plan.offset_first for file in files],
        "offsets_next": [file.plan.offset_next for file in files],
        "log_days": [file.plan.log_day for file in files],
        "paths": [file.path for file in files],
        "row_counts": [file.row_count for file in files],
        "byte_counts": [file.byte_count for file in files],
        "digests": [file.digest for file in files],
    }
