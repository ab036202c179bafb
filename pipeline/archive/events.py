"""The archived events of one partition, over all the logs its topic has been, as views of a DuckDB."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import duckdb
import pyarrow as pa

from pipeline.archive.content import take_apart
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries

QUERIES = load_queries(__package__)
DUCKDB_QUERIES = load_queries(__package__, "events.sql")


class Position(NamedTuple):
    """An event of the partition; logs of a topic are numbered from 0."""

    log_number: int
    log_offset: int
    index_in_message: int


#: Behind every log and offset there is.
END = (1 << 31) - 1, (1 << 63) - 1

POSITION = pa.schema([("log_number", pa.int32()), ("log_offset", pa.int64()), ("index_in_message", pa.int32())])
_PLACE = pa.schema([("log_number", pa.int32()), ("log_offset", pa.int64())])
_SLICE = pa.schema([*POSITION, ("source", pa.string()), ("event_id", pa.string()), ("value", pa.binary())])


class PartitionEvents:
    """One partition's events; `message` and, by `open`, `event` are views once it was said that there are any."""

    def __init__(self, connection: Connection, duck: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self._connection = connection
        self._duck = duck
        self._folder = folder

    def open(self, archive_dir: Path, topic: str, partition: int, last: tuple[int, int] = END) -> bool:
        """Make the views, of files up to a log's number and an offset in it; False where nothing is archived."""
        if not self.open_messages(archive_dir, topic, partition, last):
            return False
        slices = (
            (number, log_offset, part.index, part.source, part.event_id, part.value)
            for number, log_offset, value in self.rows(DUCKDB_QUERIES["array_messages"])
            for part in take_apart(value)
        )
        self.register("slice_rows", _SLICE, list(slices))
        self.run(DUCKDB_QUERIES["open_events"])
        return True

    def of_source(self, archive_dir: Path, topic: str, partition: int, source: str) -> Iterator[tuple[Position, bytes]]:
        """Give the events of messages with the source as their key, in the order of the log, as they were sent."""
        if self.open_messages(archive_dir, topic, partition):
            for number, log_offset, value in self.rows(_fill("messages_of_source", source=_quoted(source))):
                for part in take_apart(value):
                    yield Position(number, log_offset, part.index), part.value

    def open_messages(self, archive_dir: Path, topic: str, partition: int, last: tuple[int, int] = END) -> bool:
        """Make the view of messages only, which takes none of them apart; False where nothing is archived."""
        log_number, offset_last = last
        files = self._connection.execute(
            QUERIES["archived_files"],
            {"topic": topic, "partition": partition, "log_number": log_number, "offset_last": offset_last},
        ).fetchall()
        if not files:
            return False
        pieces = [
            _fill(
                "read_files",
                number=str(number),
                offset_end=str(offset_end),
                paths="[" + ", ".join(_quoted(str(archive_dir / path)) for _, _, path in listed) + "]",
            )
            for (number, offset_end), listed in groupby(files, key=lambda row: row[:2])
        ]
        self.run(_fill("open_messages", pieces=" UNION ALL ".join(pieces)))
        return True

    def run(self, statement: str) -> None:
        """Run a statement."""
        self._duck.execute(statement)

    def rows(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a query, give its rows."""
        return self._duck.execute(statement, parameters).fetchall()

    def row(self, statement: str) -> tuple[Any, ...]:
        """Run a query of one row."""
        # Fetched to the end: DuckDB keeps a connection busy with what is not.
        (row,) = self.rows(statement)
        return row

    def register(self, name: str, schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> None:
        """Make rows readable under a name."""
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        self._duck.register(name, pa.table(arrays, schema=schema))

    def copy(self, statement: LiteralString, read: str, parameters: Mapping[str, Any]) -> None:
        """Run a DuckDB statement over what a PostgreSQL COPY statement gives; it reads the file at $path."""
        path = self._folder / "copied.csv"
        with path.open("wb") as file, self._connection.cursor().copy(statement, parameters) as stream:
            for block in stream:
                file.write(block)
        self._duck.execute(read, {"path": str(path)})

    def values(self, positions: Iterable[Position]) -> dict[Position, bytes]:
        """Read events as they were sent, by position; positions that are not archived are left out."""
        wanted = set(positions)
        self.register("place_rows", _PLACE, sorted({position[:2] for position in wanted}))
        return {
            position: part.value
            for number, log_offset, value in self.rows(DUCKDB_QUERIES["values_at"])
            for part in take_apart(value)
            if (position := Position(number, log_offset, part.index)) in wanted
        }


@contextmanager
def partition_events(connection: Connection) -> Iterator[PartitionEvents]:
    """Open an empty DuckDB for one partition; everything of it is gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="rackmeter-twins-") as folder,
        duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "2GB", "temp_directory": folder}) as duck,
    ):
        yield PartitionEvents(connection, duck, Path(folder))


def _fill(name: str, **parts: str) -> str:
    """Give a statement with the parts put in that DuckDB takes no parameters for: a view's definition."""
    statement: str = DUCKDB_QUERIES[name]
    for key, text in parts.items():
        statement = statement.replace(f"${key}", text)
    return statement


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
