"""What an operator does about events that did not count: have them decided about again, or let them go."""

from dataclasses import asdict, dataclass
from datetime import datetime

from pipeline.domain.errors import ConfigurationFault
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__, "settling.sql")


@dataclass(frozen=True, slots=True)
class Selection:
    """Open decisions: those that fit everything that is said. `since` and `until` are the log's time, half-open."""

    reason: str | None = None
    source: str | None = None
    server: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing narrows it."""
        return self == Selection()


@dataclass(frozen=True, slots=True)
class Place:
    """One event's position in the log."""

    partition: int
    offset: int
    index: int


def decide_again(connection: Connection, topic: str, selection: Selection, said_by: str) -> int:
    """
    Queue quarantined and parked events; the aggregate stage decides about them by the catalogue as it is then.

    The bytes and the log's time are those of the event, so only what changed besides can change the decision.

    Returns:
        How many are newly queued. What came under a foreign key or on a foreign partition, and messages that cannot be
        taken apart, are never queued: they have to be sent again.
    """
    parameters = {"topic": topic, "said_by": said_by, **asdict(selection)}
    return connection.execute(QUERIES["queue_decisions"], parameters).rowcount


def queued_count(connection: Connection, topic: str) -> int:
    """Tell how many events of a log still wait to be decided about again."""
    row = connection.execute(QUERIES["count_queued"], {"topic": topic}).fetchone()
    return int(row[0]) if row else 0


def drop(
    connection: Connection, topic: str, selection: Selection, *, said_by: str, note: str, place: Place | None = None
) -> int:
    """
    Let quarantined, parked and conflicting events go: none of them counts or holds a close any more.

    A good event under the same identity may still come and counts.

    Args:
        connection: In autocommit mode.
        topic: The log's topic.
        selection: Which of the open ones.
        said_by: Who says so.
        note: Why, in a sentence; kept for ever.
        place: One event only.

    Returns:
        How many were let go.

    Raises:
        ConfigurationFault: No note, or nothing says which.
    """
    if not note.strip():
        raise ConfigurationFault("say why: what is dropped is never billed", "note_missing")
    if selection.is_everything and place is None:
        raise ConfigurationFault("say which: by reason, source, server, time or position", "selection_missing")
    at = asdict(place) if place is not None else {"partition": None, "offset": None, "index": None}
    parameters = {"topic": topic, "said_by": said_by, "note": note.strip(), **asdict(selection), **at}
    return connection.execute(QUERIES["drop_decisions"], parameters).rowcount
