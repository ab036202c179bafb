"""The proof's DuckDB: bounded memory, two threads, and fast ways in for rows."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import Queries

MEMORY_LIMIT = "2GB"
THREADS = 2


class Workspace:
    """One recomputation's tables; `folder` holds what is copied out and what memory cannot hold."""

    def __init__(self, duck: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self._duck = duck
        self._folder = folder

    def run(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement."""
        self._duck.execute(statement, parameters or {})

    def rows(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a query, give its rows."""
        return self._duck.execute(statement, parameters or {}).fetchall()

    def run_all(self, queries: Queries, names: Sequence[str]) -> None:
        """Run named statements without parameters, one after the other."""
        for name in names:
            self._duck.execute(queries[name])

    def load(self, table: str, columns: Mapping[str, pa.DataType], rows: Sequence[Sequence[Any]]) -> None:
        """Make a table of rows."""
        values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
        arrow = pa.table(
            {name: pa.array(column, kind) for (name, kind), column in zip(columns.items(), values, strict=True)}
        )
        self._duck.register("incoming", arrow)
        self._duck.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM incoming")
        self._duck.unregister("incoming")

    def copy(
        self,
        table: str,
        columns: Mapping[str, str],
        connection: Connection,
        statement: str,
        parameters: Mapping[str, Any],
    ) -> None:
        """Make a table of what a PostgreSQL COPY statement gives; `columns`: name -> DuckDB type."""
        path = self._folder / f"{table}.csv"
        with path.open("wb") as file, connection.cursor().copy(statement, parameters) as stream:
            for block in stream:
                file.write(block)
        kinds = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
        self._duck.execute(
            f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM"
            f" read_csv($path, header = false, delim = ',', quote = '\"', auto_detect = false, columns = {{{kinds}}})",
            {"path": str(path)},
        )
        path.unlink()


@contextmanager
def open_workspace() -> Iterator[Workspace]:
    """Open an empty workspace; everything of it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rackmeter-proof-") as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": THREADS,
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": folder,
        }
        with duckdb.connect(":memory:", config=config) as duck:
            # Progress bars belong to the caller, order of insertion to nobody.
            duck.execute("SET enable_progress_bar = false")
            duck.execute("SET preserve_insertion_order = false")
            yield Workspace(duck, Path(folder))


def path_list(paths: Sequence[Path]) -> str:
    """Give paths as a DuckDB list literal."""
    return "[" + ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths) + "]"
