"""Finds what was counted and never archived, for a log that is lost: its bytes are nowhere any more."""

from pathlib import Path

from pipeline.archive.events import partition_events
from pipeline.runtime.log_adoption import LostNumbers
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)
DUCKDB_QUERIES = load_queries(__package__, "lost.sql")


def find_lost(connection: Connection, archive_dir: Path, topic: str) -> list[LostNumbers]:
    """
    Give the numbers that were counted from the topic's present log beyond what the archive has of it.

    Reads the archive of those partitions only in which it is behind.

    Args:
        connection: Inside a transaction that keeps aggregate and archive from going on.
        archive_dir: The archive folder.
        topic: The log's topic.
    """
    found: list[LostNumbers] = []
    for (partition,) in connection.execute(QUERIES["partitions_behind"], {"topic": topic}).fetchall():
        archived = _archived_numbers(connection, archive_dir, topic, partition)
        sources, epochs, numbers = zip(*archived, strict=True) if archived else ((), (), ())
        rows = connection.execute(
            QUERIES["numbers_without_evidence"],
            {"partition": partition, "sources": list(sources), "epochs": list(epochs), "numbers": list(numbers)},
        ).fetchall()
        found += [LostNumbers(*row) for row in rows]
    return found


def _archived_numbers(
    connection: Connection, archive_dir: Path, topic: str, partition: int
) -> list[tuple[str, str, str]]:
    with partition_events(connection) as events:
        if not events.open(archive_dir, topic, partition):
            return []
        about = {"topic": topic, "partition": partition}
        events.copy(QUERIES["not_taken_of_partition"], DUCKDB_QUERIES["open_not_taken"], about)
        return [(source, epoch, numbers) for source, epoch, numbers in events.rows(DUCKDB_QUERIES["archived_numbers"])]
