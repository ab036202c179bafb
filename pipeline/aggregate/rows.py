"""Bring many rows into a table: by COPY, or as arrays where a server takes no COPY. Both write the same rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from pipeline.aggregate.model import Decision, Folded, StreamKey
from pipeline.domain.slots import from_us
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)


class RowWriter(Protocol):
    """The way into a table."""

    def write_lines(self, connection: Connection, target: str, lines: Iterable[str]) -> None:
        """Write lines in COPY's text format to what `copy_TARGET` and `insert_TARGET` of queries.sql name."""

    def write_rows(self, connection: Connection, target: str, rows: Iterable[Sequence[Any]]) -> None:
        """Write rows of values to it."""


class CopyRows:
    """COPY, several times as fast as any INSERT."""

    def write_lines(self, connection: Connection, target: str, lines: Iterable[str]) -> None:
        """See RowWriter."""
        with connection.cursor() as cursor, cursor.copy(QUERIES[f"copy_{target}"]) as copy:
            copy.write("".join(lines))

    def write_rows(self, connection: Connection, target: str, rows: Iterable[Sequence[Any]]) -> None:
        """See RowWriter."""
        with connection.cursor() as cursor, cursor.copy(QUERIES[f"copy_{target}"]) as copy:
            for row in rows:
                copy.write_row(row)


class InsertRows:
    """One INSERT from arrays, for servers that do not take COPY: the WebAssembly build the tests run TimescaleDB in."""

    def write_lines(self, connection: Connection, target: str, lines: Iterable[str]) -> None:
        """See RowWriter."""
        connection.execute(QUERIES[f"insert_{target}"], {"lines": [line.rstrip("\n") for line in lines]})

    def write_rows(self, connection: Connection, target: str, rows: Iterable[Sequence[Any]]) -> None:
        """See RowWriter."""
        columns = [list(column) for column in zip(*rows, strict=True)]
        connection.execute(QUERIES[f"insert_{target}"], columns)


COPY = CopyRows()


def write_decisions(connection: Connection, writer: RowWriter, topic: str, decisions: Iterable[Decision]) -> None:
    """Append decisions, payloads with them."""
    rows = [
        (
            topic, decision.position.partition, decision.position.log_offset, decision.position.index_in_message,
            decision.outcome, decision.reason, decision.detail, decision.source, decision.event_id,
            decision.subject, decision.event_type,
            None if decision.occurred_us is None else from_us(decision.occurred_us),
            from_us(decision.log_time_us), decision.content_digest, decision.payload,
        )
        for decision in decisions
    ]  # fmt: skip
    if rows:
        writer.write_rows(connection, "decisions", rows)


def write_samples(connection: Connection, writer: RowWriter, folded: Folded, ids: Mapping[StreamKey, int]) -> None:
    """Append samples. Readings are kept in nano, as JSON integers: exact at any size, and small."""
    writer.write_lines(
        connection,
        "samples",
        (
            f"{ids[key]}\t{timestamp(at_us)}\t{epoch}\t{number}\t{_json(readings)}\n"
            for key, samples in folded.samples.items()
            for at_us, epoch, number, readings in samples
        ),
    )


def stage_buckets(connection: Connection, writer: RowWriter, lines: Iterable[str]) -> None:
    """Bring slots in, text as it is; the next statement merges them."""
    connection.execute(QUERIES["create_bucket_stage"])
    connection.execute(QUERIES["empty_bucket_stage"])
    writer.write_lines(connection, "buckets", lines)


# The slots of a flush repeat for every meter and server, its samples' instants for many servers.
@lru_cache(maxsize=100_000)
def timestamp(at_us: int) -> str:
    """Give an instant as PostgreSQL reads it."""
    return from_us(at_us).isoformat()


def _json(readings: Mapping[str, int]) -> str:
    return "{" + ",".join([f"{_quoted(name)}:{value}" for name, value in readings.items()]) + "}"


@lru_cache(maxsize=1_000)
def _quoted(name: str) -> str:
    # A name may need escapes in JSON, and COPY takes each backslash for one of its own.
    return json.dumps(name).replace("\\", "\\\\")
