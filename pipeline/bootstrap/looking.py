"""Wire what people look up: the reports' questions and the archive's events."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.bootstrap.stages import EVENTS_TOPIC
from pipeline.runtime.postgres import Connection
from pipeline.runtime.settings import Settings

if TYPE_CHECKING:
    from pipeline.archive.lookup import Sighting
    from pipeline.reports.explain import FindEvents, Node
    from pipeline.reports.trace import Sent


def event_finder(settings: Settings, connection: Connection) -> "FindEvents":
    """Give what finds the events about a server in a stretch of time, with what was decided about each."""
    from pipeline.archive.lookup import About, find_events
    from pipeline.reports import trace

    partition_count = trace.partition_count(connection, EVENTS_TOPIC)

    def find(server: str, event_type: str, start: datetime, end: datetime) -> Sequence["Node"]:
        sources = trace.speakers(connection, server, event_type)
        about = About(server, event_type, start, end)
        found = find_events(connection, settings.archive_dir, EVENTS_TOPIC, partition_count, sources, about=about)
        return trace.seen(connection, EVENTS_TOPIC, [_sent(one) for one in found])

    return find


def trace_event(settings: Settings, connection: Connection, event_id: str, source: str | None) -> list["Node"]:
    """
    Follow an event forward; nothing where the archive does not have it.

    Raises:
        ConfigurationFault: It cannot be told which source's event is meant.
    """
    from pipeline.archive.lookup import find_events
    from pipeline.reports import trace

    partition_count = trace.partition_count(connection, EVENTS_TOPIC)
    sources = trace.senders(connection, event_id, source)
    found = find_events(connection, settings.archive_dir, EVENTS_TOPIC, partition_count, sources, event_id=event_id)
    if not found:
        return []
    return list(trace.trace(connection, EVENTS_TOPIC, [_sent(one) for one in found]))


def _sent(one: "Sighting") -> "Sent":
    from pipeline.reports.trace import Sent

    return Sent(
        one.log_number, one.partition, one.log_offset, one.index_in_message, one.source, one.event_id, one.event_type,
        one.subject, one.occurred_at, one.data,
    )  # fmt: skip
