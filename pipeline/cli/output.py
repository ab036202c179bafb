"""How data leaves a command: the same rows as a table for people, as JSON or as CSV for programs, on stdout."""

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, TextIO

import typer

from pipeline.domain.decimals import plain

# A table on a pipe must not be folded to some terminal's width.
PIPE_WIDTH_CHARACTERS = 10_000

_CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in [*range(0x20), *range(0x7F, 0xA0)]}

Rows = Iterable[Mapping[str, Any]]


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Column:
    """One member of every row: its name in JSON and CSV, its heading in a table."""

    name: str
    is_number: bool = False

    @property
    def heading(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ")


def texts(*names: str) -> tuple[Column, ...]:
    """Columns that are read from the left."""
    return tuple(Column(name) for name in names)


def numbers(*names: str) -> tuple[Column, ...]:
    """Columns that are aligned at their last digit."""
    return tuple(Column(name, is_number=True) for name in names)


def show(columns: Sequence[Column], rows: Rows, form: Format, stream: TextIO | None = None) -> None:
    """
    Write rows.

    Args:
        columns: Which members, in which order.
        rows: Cells are text, whole numbers, exact decimals, aware times, dates, booleans, tuples of texts, or None.
        form: Table, JSON (a list of objects) or CSV (with a heading line).
        stream: Defaults to stdout.

    Exact decimals are written as strings without exponent; a float is a TypeError.
    """
    stream = sys.stdout if stream is None else stream
    picked = [[row[column.name] for column in columns] for row in rows]
    if form is Format.JSON:
        names = [column.name for column in columns]
        objects = [dict(zip(names, map(_json_value, cells), strict=True)) for cells in picked]
        stream.write(json.dumps(objects, ensure_ascii=False, indent=2) + "\n")
    elif form is Format.CSV:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([column.name for column in columns])
        writer.writerows([[_text(cell) for cell in cells] for cells in picked])
    else:
        _show_table(columns, picked, stream)


def show_record(columns: Sequence[Column], record: Mapping[str, Any], form: Format) -> None:
    """Write one row; as a table, a line a member."""
    if form is not Format.TABLE:
        show(columns, [record], form)
        return
    lines = [{"field": column.heading, "value": _text(record[column.name])} for column in columns]
    show(texts("field", "value"), lines, form)


def say(text: str) -> None:
    """Tell the person at the terminal something that is not data."""
    typer.echo(text, err=True)


def _show_table(columns: Sequence[Column], rows: Sequence[Sequence[object]], stream: TextIO) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.heading, justify="right" if column.is_number else "left", no_wrap=column.is_number)
    for cells in rows:
        table.add_row(*(_text(cell).translate(_CONTROL_CHARACTERS) for cell in cells))
    # markup off: a server may be called [red].
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH_CHARACTERS
    console.print(table)


def _text(cell: object) -> str:
    if isinstance(cell, tuple):
        return "; ".join(map(_text, cell))
    value = _json_value(cell)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _json_value(cell: object) -> str | int | bool | list[object] | None:
    if cell is None or isinstance(cell, bool | int):
        return cell
    if isinstance(cell, str):
        return str(cell)
    if isinstance(cell, Decimal):
        return plain(cell)
    if isinstance(cell, datetime):
        return _moment(cell)
    if isinstance(cell, date):
        return cell.isoformat()
    if isinstance(cell, tuple):
        return [_json_value(member) for member in cell]
    raise TypeError(f"{type(cell).__name__} cannot be written exactly")


def _moment(at: datetime) -> str | None:
    # What the database calls infinity comes as the last representable instant.
    if at.year == MAXYEAR:
        return None
    text = at.isoformat()
    return text.replace("+00:00", "Z") if at.tzinfo is UTC or text.endswith("+00:00") else text
