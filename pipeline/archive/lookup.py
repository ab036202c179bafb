"""Looks single events up in the archive, by identity or by what they say about a server; for people, not for money."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.archive.events import partition_events
from pipeline.domain.identity import home_partition
from pipeline.domain.slots import to_us
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "lookup.sql")


@dataclass(frozen=True, slots=True)
class Sighting:
    """An archived event where it stands in the log; logs of a topic are numbered from 0. Texts are as sent."""

    log_number: int
    partition: int
    log_offset: int
    index_in_message: int
    source: str
    event_id: str
    event_type: str
    subject: str
    time: str
    data: str | None

    @property
    def occurred_at(self) -> datetime | None:
        """Its time; None where it says none that can be read."""
        try:
            at = datetime.fromisoformat(self.time)
        except (ValueError, TypeError):
            return None
        return None if at.tzinfo is None else at


@dataclass(frozen=True, slots=True)
class About:
    """Events of a type about a server in [start, end)."""

    subject: str
    event_type: str
    start: datetime
    end: datetime


def find_events(
    connection: Connection,
    archive_dir: Path,
    topic: str,
    partition_count: int,
    sources: Sequence[str],
    *,
    event_id: str | None = None,
    about: About | None = None,
) -> list[Sighting]:
    """
    Read events from the archive, each as often as it was sent, in the order of the log.

    Args:
        connection: For the list of files.
        archive_dir: The archive's folder.
        topic: Of the log.
        partition_count: Of the log; a source's events are in its home partition.
        sources: Who sent them.
        event_id: Only this one.
        about: Only these; both may be given.
    """
    by_partition: dict[int, list[str]] = {}
    for source in sources:
        by_partition.setdefault(home_partition(source, partition_count), []).append(source)
    found: list[Sighting] = []
    for partition, senders in sorted(by_partition.items()):
        with partition_events(connection) as events:
            if not events.open_messages(archive_dir, topic, partition):
                continue
            rows = events.rows(
                QUERIES["find_events"],
                {
                    "sources": senders,
                    "event_id": event_id,
                    "subject": None if about is None else about.subject,
                    "event_type": None if about is None else about.event_type,
                    "from_us": 0 if about is None else to_us(about.start),
                    "to_us": 0 if about is None else to_us(about.end),
                },
            )
        found += [Sighting(row[0], partition, *row[1:]) for row in rows]
    return sorted(found, key=lambda one: (one.occurred_at or _NO_TIME, one.log_number, one.partition, one.log_offset))


_NO_TIME = datetime.fromisoformat("1970-01-01T00:00:00+00:00") - timedelta(days=1)
