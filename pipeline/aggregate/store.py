"""Remember what a flush decided: rows in and out of PostgreSQL. The worker owns the transaction."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from pipeline.aggregate import stretches
from pipeline.aggregate.model import EpochState, Folded, PartitionProgress, Sample, SeriesKey, StreamKey
from pipeline.aggregate.rows import COPY, RowWriter, stage_buckets, timestamp, write_decisions, write_samples
from pipeline.aggregate.rules import NO_EDGE_US, MeterBook
from pipeline.domain.errors import Fenced
from pipeline.domain.identity import IntervalSet
from pipeline.domain.slots import US_PER_SECOND, from_us, to_us
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)

DAY_US = 86_400 * US_PER_SECOND
TALLIES = ("received", "counted", "duplicate", "quarantined", "parked", "ignored", "control")

#: A time before every log time.
LOG_TIME_NONE_US = 0


@dataclass(frozen=True, slots=True)
class Fence:
    """What a flush expects of the database it writes to: the same log, the same generation."""

    topic: str
    log_id: UUID
    generation: int


def read_progress(connection: Connection, fence: Fence, partitions: Sequence[int]) -> dict[int, PartitionProgress]:
    """Read where the partitions stand, creating rows at offset 0 for those never seen."""
    parameters = {"topic": fence.topic, "partitions": list(partitions), "log_id": fence.log_id}
    connection.execute(QUERIES["create_offsets"], parameters)
    progress = {}
    for row in connection.execute(QUERIES["read_offsets"], parameters).fetchall():
        partition, offset_next, flush_number, generation, log_id, log_time_max = row
        if generation != fence.generation or log_id != fence.log_id:
            raise Fenced(f"partition {partition} belongs to log {log_id}, generation {generation}")
        log_time_us = to_us(log_time_max) if log_time_max is not None else LOG_TIME_NONE_US
        progress[partition] = PartitionProgress(offset_next, flush_number, log_time_us, offset_next)
    return progress


def read_catalogue_number(connection: Connection) -> int:
    """Read which meters and ignore rules there are; another number means that they must be read again."""
    row = connection.execute(QUERIES["read_catalogue_number"]).fetchone()
    return int(row[0]) if row else 0


def read_edge_us(connection: Connection) -> int:
    """Read from when on slots may change, in microseconds; NO_EDGE_US where nothing was dropped."""
    row = connection.execute(QUERIES["read_retention_edge"]).fetchone()
    return to_us(row[0]) if row and row[0] is not None else NO_EDGE_US


def hold_catalogue(connection: Connection, catalogue_number: int) -> None:
    """
    Keep meters and ignore rules as they are until the transaction ends.

    Raises:
        Fenced: They changed since the flush was folded.
    """
    connection.execute(QUERIES["hold_catalogue"])
    if read_catalogue_number(connection) != catalogue_number:
        raise Fenced("the meters changed while events were folded: they are read and folded again")


def read_epochs(connection: Connection, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], EpochState]:
    """Read the states of identities; those never seen come back empty."""
    keys = sorted(wanted)
    states = {key: EpochState() for key in keys}
    parameters = {"sources": [key[0] for key in keys], "epochs": [key[1] for key in keys]}
    for source, epoch, *sets, first_seen_at in connection.execute(QUERIES["read_epochs"], parameters):
        counted, quarantined, parked, dropped = map(_intervals, sets)
        states[source, epoch] = EpochState(counted, quarantined, parked, dropped, to_us(first_seen_at))
    return states


def write_flush(
    connection: Connection,
    fence: Fence,
    folded: Folded,
    progress: Mapping[int, PartitionProgress],
    home: Callable[[str], int],
    book: MeterBook,
    writer: RowWriter = COPY,
) -> None:
    """
    Write one flush inside the caller's transaction. Lock order: offset rows, identities, series, samples, buckets.

    Raises:
        Fenced: A partition no longer stands where this worker left it; nothing may be committed.
    """
    _fence_and_advance(connection, fence, progress)
    _write_tallies(connection, fence, progress)
    _write_epochs(connection, folded, home)
    _write_decisions(connection, writer, fence, folded)
    _write_seen(connection, folded)
    dirty = _write_samples(connection, writer, folded, book)
    dirty += _write_sums(connection, writer, folded, book)
    dirty += _write_active(connection, writer, folded, book)
    if dirty:
        subjects, meters, froms, tos = zip(*dirty, strict=True)
        connection.execute(
            QUERIES["add_dirty_marks"],
            {"subjects": list(subjects), "meters": list(meters), "froms": list(froms), "tos": list(tos)},
        )


def _fence_and_advance(connection: Connection, fence: Fence, progress: Mapping[int, PartitionProgress]) -> None:
    partitions = sorted(progress)
    rows = [progress[partition] for partition in partitions]
    held = connection.execute(
        QUERIES["fence_and_advance"],
        {
            "topic": fence.topic,
            "log_id": fence.log_id,
            "generation": fence.generation,
            "partitions": partitions,
            "offsets": [row.offset_next for row in rows],
            "flush_numbers": [row.flush_number for row in rows],
            "reached": [row.offset_reached for row in rows],
            "log_times": [from_us(row.log_time_us) for row in rows],
        },
    ).fetchall()
    lost = set(partitions) - {row[0] for row in held}
    if lost:
        raise Fenced(f"partitions {sorted(lost)} were moved on by another worker")


def _write_tallies(connection: Connection, fence: Fence, progress: Mapping[int, PartitionProgress]) -> None:
    partitions = sorted(partition for partition, row in progress.items() if row.tally)
    if partitions:
        counts = {name: [progress[partition].tally[name] for partition in partitions] for name in TALLIES}
        connection.execute(QUERIES["add_tallies"], {"topic": fence.topic, "partitions": partitions, **counts})


def _write_epochs(connection: Connection, folded: Folded, home: Callable[[str], int]) -> None:
    keys = sorted(folded.epochs)
    if keys:
        states = [folded.epochs[key] for key in keys]
        connection.execute(
            QUERIES["write_epochs"],
            {
                "sources": [key[0] for key in keys],
                "epochs": [key[1] for key in keys],
                "partitions": [home(key[0]) for key in keys],
                "first_seen": [from_us(state.first_seen_us) for state in states],
                "counted": [_multirange(state.counted) for state in states],
                "quarantined": [_multirange(state.quarantined) for state in states],
                "parked": [_multirange(state.parked) for state in states],
                "dropped": [_multirange(state.dropped) for state in states],
            },
        )
    if folded.completeness:
        said = sorted((key, value) for key, value in folded.completeness.items())
        connection.execute(
            QUERIES["write_completeness"],
            {
                "sources": [key[0] for key, _ in said],
                "epochs": [key[1] for key, _ in said],
                "subjects": [key[2] for key, _ in said],
                "untils": ["infinity" if until is None else from_us(until).isoformat() for _, (until, _) in said],
                "numbers": [number for _, (_, number) in said],
            },
        )


def _write_decisions(connection: Connection, writer: RowWriter, fence: Fence, folded: Folded) -> None:
    write_decisions(connection, writer, fence.topic, folded.decisions)
    # Sources that may have an open decision and a counted event of one identity: what is new of either.
    sources = {source for source, _ in folded.epochs}
    sources |= {row.source for row in folded.decisions if row.source is not None and row.payload is not None}
    connection.execute(QUERIES["settle_superseded"], {"sources": sorted(sources)})


def _write_seen(connection: Connection, folded: Folded) -> None:
    keys = sorted(folded.seen)
    if keys:
        connection.execute(
            QUERIES["write_seen"],
            {
                **_stream_columns(keys),
                "firsts": [from_us(folded.seen[key][0]) for key in keys],
                "lasts": [from_us(folded.seen[key][1]) for key in keys],
            },
        )


Dirty = tuple[str, str, datetime, datetime]


def _write_samples(connection: Connection, writer: RowWriter, folded: Folded, book: MeterBook) -> list[Dirty]:
    """Keep new samples and recompute the slots they change; gives what became dirty."""
    keys = sorted(folded.samples)
    if not keys:
        return []
    connection.execute(QUERIES["create_streams"], _stream_columns(keys))
    rows = connection.execute(QUERIES["read_streams"], _stream_columns(keys)).fetchall()
    ids = {(source, subject, event_type): stream_id for source, subject, event_type, stream_id in rows}
    rules = {key: book.ordered_meters(key[2]) for key in keys}
    changed = {
        key: stretches.stretch_of(folded.samples[key], max((rule.gap_us for rule in rules[key]), default=0))
        for key in keys
    }
    stored, following = _read_neighbours(connection, ids, changed)
    quantities: dict[tuple[SeriesKey, int], int] = {}
    dirty: list[Dirty] = []
    for key in keys:
        stretch = changed[key]
        end_us = stretches.stretch_end_us(stretch, following.get(ids[key]))
        found = stretches.slot_quantities(
            rules[key], stored.get(ids[key], []), folded.samples[key], from_us=stretch.from_us, to_us=end_us
        )
        for (meter_version_id, slot_us), quantity in found.items():
            quantities[(meter_version_id, key[1], key[0]), slot_us] = quantity
        for meter in sorted({rule.meter for rule in rules[key]}):
            dirty.append((key[1], meter, from_us(stretch.from_us), from_us(end_us)))
    write_samples(connection, writer, folded, ids)
    scales = {r.meter_version_id: 15 if r.aggregation == "time_weighted" else 9 for rs in rules.values() for r in rs}
    _replace_buckets(connection, writer, quantities, scales)
    return dirty


def _read_neighbours(
    connection: Connection, ids: Mapping[StreamKey, int], changed: Mapping[StreamKey, stretches.Stretch]
) -> tuple[dict[int, list[Sample]], dict[int, int]]:
    """Give stored samples by stream, and the time of the first stored one after the newest, where there is one."""
    keys = sorted(changed)
    parameters = {
        "streams": [ids[key] for key in keys],
        "from_at": [from_us(changed[key].from_us) for key in keys],
        "last_at": [from_us(changed[key].last_us) for key in keys],
        "reach_at": [from_us(changed[key].reach_us) for key in keys],
    }
    stored: dict[int, list[Sample]] = {}
    following: dict[int, int] = {}
    for stream_id, occurred_at, epoch, number, readings, next_at in connection.execute(
        QUERIES["read_neighbours"], parameters
    ):
        stored.setdefault(stream_id, []).append((to_us(occurred_at), epoch, number, json.loads(readings)))
        if next_at is not None:
            following[stream_id] = to_us(next_at)
    return stored, following


def _replace_buckets(
    connection: Connection,
    writer: RowWriter,
    quantities: Mapping[tuple[SeriesKey, int], int],
    scales: Mapping[int, int],
) -> None:
    if not quantities:
        return
    series = _series_ids(connection, {key for key, _ in quantities})
    stage_buckets(
        connection,
        writer,
        (
            f"{series[key]}\t{timestamp(slot_us)}\t{quantity}e-{scales[key[0]]}\n"
            for (key, slot_us), quantity in quantities.items()
        ),
    )
    connection.execute(QUERIES["replace_buckets"])
    touched = sorted({(series[key], slot_us - slot_us % DAY_US) for key, slot_us in quantities})
    days = [(series_id, from_us(day_us).date()) for series_id, day_us in touched]
    connection.execute(QUERIES["sum_days"], {"series": [day[0] for day in days], "days": [day[1] for day in days]})


def _write_sums(connection: Connection, writer: RowWriter, folded: Folded, book: MeterBook) -> list[Dirty]:
    if not folded.sums:
        return []
    series = _series_ids(connection, {key for key, _ in folded.sums})
    by_day: dict[tuple[int, int], int] = {}
    for (key, slot), quantity in folded.sums.items():
        day = (series[key], slot - slot % DAY_US)
        by_day[day] = by_day.get(day, 0) + quantity
    stage_buckets(
        connection,
        writer,
        (f"{series[key]}\t{timestamp(slot)}\t{quantity}e-9\n" for (key, slot), quantity in folded.sums.items()),
    )
    connection.execute(QUERIES["add_buckets"])
    connection.execute(
        QUERIES["add_days"],
        {
            "series": [key[0] for key in by_day],
            "days": [from_us(key[1]).date() for key in by_day],
            "quantities": [_nano(quantity) for quantity in by_day.values()],
        },
    )
    return _spans(folded.sums, book)


def _write_active(connection: Connection, writer: RowWriter, folded: Folded, book: MeterBook) -> list[Dirty]:
    if not folded.active:
        return []
    series = _series_ids(connection, {key for key, _ in folded.active})
    stage_buckets(connection, writer, (f"{series[key]}\t{timestamp(slot)}\t1\n" for key, slot in folded.active))
    connection.execute(QUERIES["set_active"])
    # An hour belongs to who held its start, which lies up to an hour before the slot that made it active.
    return [(subject, meter, at - timedelta(hours=1), to) for subject, meter, at, to in _spans(folded.active, book)]


def _spans(touched: Iterable[tuple[SeriesKey, int]], book: MeterBook) -> list[Dirty]:
    """Give one dirty span a series: from its first touched slot to the end of its last."""
    spans: dict[SeriesKey, tuple[int, int]] = {}
    for key, slot_us in touched:
        first, last = spans.get(key, (slot_us, slot_us))
        spans[key] = (min(first, slot_us), max(last, slot_us))
    edge_us = stretches.EDGE_SECONDS * US_PER_SECOND
    return [
        (key[1], book.meter_name(key[0]), from_us(first), from_us(last + edge_us))
        for key, (first, last) in sorted(spans.items())
    ]


def _series_ids(connection: Connection, keys: set[SeriesKey]) -> dict[SeriesKey, int]:
    ordered = sorted(keys)
    parameters: dict[str, Any] = {
        "meter_version_ids": [key[0] for key in ordered],
        "subjects": [key[1] for key in ordered],
        "sources": [key[2] for key in ordered],
    }
    rows = connection.execute(QUERIES["read_series"], parameters).fetchall()
    if len(rows) < len(ordered):
        connection.execute(QUERIES["create_series"], parameters)
        rows = connection.execute(QUERIES["read_series"], parameters).fetchall()
    return {(meter, subject, source): series_id for meter, subject, source, series_id in rows}


def _stream_columns(keys: Sequence[StreamKey]) -> dict[str, list[str]]:
    return {
        "sources": [key[0] for key in keys],
        "subjects": [key[1] for key in keys],
        "event_types": [key[2] for key in keys],
    }


def _nano(quantity: int) -> Decimal:
    # Built from its digits: arithmetic would round to the context's precision.
    sign, digits = (1, str(-quantity)) if quantity < 0 else (0, str(quantity))
    return Decimal((sign, tuple(map(int, digits)), -9))


def _intervals(multirange: str) -> IntervalSet:
    """Read int8multirange's canonical text, e.g. {[1,5),[7,9)}."""
    body = multirange.strip("{}")
    if not body:
        return IntervalSet()
    pairs = (piece.strip("[)").split(",") for piece in body.replace("),[", ")|[").split("|"))
    return IntervalSet.from_pairs((int(start), int(stop)) for start, stop in pairs)


def _multirange(intervals: IntervalSet) -> str:
    return "{" + ",".join(f"[{start},{stop})" for start, stop in intervals.to_pairs()) + "}"
