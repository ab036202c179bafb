"""The events a slot was made of, as they were sent, from the archive: each with its position and what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.archive.events import Position, partition_events
from pipeline.contracts.usage_event import UsageEvent, decode_event
from pipeline.runtime.postgres import Connection
from pipeline.web.ui import store

EVENTS_TOPIC = "usage.events"

#: A partition with more than this in the archive is not searched for a page.
ARCHIVE_BYTES_MAX = 1_000_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SlotEvent:
    """
    One event.

    log: The name of the log it is in; with partition, offset and index its position.
    outcome: counted, duplicate, ...; "not read" where nothing was decided yet. reason: its code, where there is one.
    relation: "in" the slot, or "before" it: the sample that the slot of an ordered meter begins with.
    """

    log: str
    partition: int
    offset: int
    index: int
    event_id: str
    source: str
    occurred_at: datetime
    outcome: str
    reason: str
    relation: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """Events in the order of their times; `missing` says in a sentence why there may be more, or is ''."""

    events: Sequence[SlotEvent]
    missing: str = ""


def slot_events(
    connection: Connection,
    archive_dir: Path | None,
    server: str,
    meter: dict[str, Any],
    start: datetime,
    end: datetime,
) -> Found:
    """
    Find the events of a slot.

    Args:
        connection: Is read only.
        archive_dir: The archive; None where it is not known.
        server: Whose.
        meter: A row of `store.meter_at`.
        start: Of the slot.
        end: Of the slot.

    For a meter that needs samples in order the one before the slot is given too, if its value reaches into it.
    """
    if archive_dir is None:
        return Found([], "the archive's folder is not known here: set RACKMETER_ARCHIVE_DIR, or give --folder")
    events: list[SlotEvent] = []
    missing = []
    for source, partition in store.homes(connection, server, meter["event_type"]):
        if store.archive_bytes(connection, EVENTS_TOPIC, partition) > ARCHIVE_BYTES_MAX:
            missing.append(f"partition {partition} has more in the archive than a page searches")
            continue
        found = _of_source(connection, archive_dir, source, partition)
        mine = [one for one in found if _is_about(one[1], server, meter["event_type"])]
        events += _with_outcomes(connection, partition, _around(mine, meter, start, end))
    events.sort(key=lambda one: (one.occurred_at, one.log, one.partition, one.offset, one.index))
    return Found(events, "; ".join(missing))


_Placed = tuple[Position, UsageEvent, bytes]


def _of_source(connection: Connection, archive_dir: Path, source: str, partition: int) -> list[_Placed]:
    with partition_events(connection) as archive:
        decoded = [
            (position, decode_event(value), value)
            for position, value in archive.of_source(archive_dir, EVENTS_TOPIC, partition, source)
        ]
    return [(position, event, value) for position, event, value in decoded if isinstance(event, UsageEvent)]


def _is_about(event: UsageEvent, server: str, event_type: str) -> bool:
    return event.subject == server and event.type == event_type


def _around(
    mine: Sequence[_Placed], meter: dict[str, Any], start: datetime, end: datetime
) -> list[tuple[_Placed, datetime, str]]:
    """Give those in the slot, and the one before it that an ordered meter's slot begins with."""
    timed = sorted(((_at(one[1]), one) for one in mine), key=lambda pair: (pair[0], pair[1][0]))
    inside = [(one, at, "in") for at, one in timed if start <= at < end]
    if meter["aggregation"] not in ("time_weighted", "increase"):
        return inside
    gap = timedelta(seconds=meter["gap_seconds_max"] or meter["slot_seconds"])
    # An increase is counted from the sample before, however old; a value holds for the gap.
    before = [at for at, _ in timed if at < start and (meter["aggregation"] == "increase" or at >= start - gap)]
    last = before[-1] if before else None
    return [*((one, at, "before") for at, one in timed if at == last), *inside]


def _with_outcomes(
    connection: Connection, partition: int, chosen: Sequence[tuple[_Placed, datetime, str]]
) -> list[SlotEvent]:
    logs = store.log_names(connection, EVENTS_TOPIC, partition)
    places = sorted({(logs[one[0].log_number][0], one[0].log_offset) for one, _, _ in chosen})
    decided = store.outcomes_at(connection, partition, places) if places else {}
    events = []
    for (position, event, raw), at, relation in chosen:
        name, offset_next = logs[position.log_number]
        otherwise = ("counted" if position.log_offset < offset_next else "not read", "")
        outcome, reason = decided.get((name, position.log_offset, position.index_in_message), otherwise)
        events.append(
            SlotEvent(
                name,
                partition,
                position.log_offset,
                position.index_in_message,
                event.id,
                event.source,
                at,
                outcome,
                reason,
                relation,
                raw,
            )
        )
    return events


def _at(event: UsageEvent) -> datetime:
    return _EPOCH + timedelta(microseconds=event.occurred_us)
