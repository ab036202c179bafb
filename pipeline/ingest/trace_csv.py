"""A recorded trace as CSV: read, checked as a whole before anything is sent, values kept as their text."""

import csv
import gzip
import hashlib
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pipeline.contracts.usage_event import HOST_SAMPLE_FIELDS
from pipeline.domain.decimals import parse_exact
from pipeline.domain.errors import Problem, Problems
from pipeline.domain.period import Period, period_containing

COLUMNS = ("vm", "timestamp", *HOST_SAMPLE_FIELDS)
PROBLEMS_MAX = 50
SPAN_DAYS_MAX = 62
NAME_CHARACTERS_MAX = 200

_SECONDS_MAX = 253_402_300_799  # the end of the year 9999
_VALUE = r"(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,9})?"
# One match a row is what makes reading fast; a row that does not match is looked at column by column.
_ROW = re.compile(rf'([^,"\x00-\x1f\x7f-\x9f]{{1,200}}),([0-9]{{1,11}}),({_VALUE}(?:,{_VALUE}){{8}})\r?')
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class TraceRow(NamedTuple):
    """One sample: Unix seconds, the server's index in the trace, its row number there (from 1), values as text."""

    timestamp: int
    vm_index: int
    number: int
    values: str


@dataclass(frozen=True, slots=True)
class Trace:
    """A checked trace: sha256 of its text, servers in order of appearance, rows in file order."""

    digest: str
    vms: tuple[str, ...]
    rows: tuple[TraceRow, ...]

    def period(self, zone_name: str) -> Period:
        """The calendar month, in the zone, that holds the most rows; of two that hold as many, the earlier one."""
        # Every zone's midnights are quarter hours of UTC, so a quarter lies in one month.
        quarters = Counter(row.timestamp // 900 for row in self.rows)
        months: Counter[Period] = Counter()
        for quarter, count in quarters.items():
            months[period_containing(datetime.fromtimestamp(quarter * 900, UTC), zone_name)] += count
        return min(months.items(), key=lambda item: (-item[1], item[0]))[0]


def read_trace(path: Path) -> Trace:
    """
    Read a CSV or CSV.gz trace with the columns of COLUMNS, in any order.

    Raises:
        Problems: Everything that is wrong, by line and column; the first 50 and how many more.
    """
    content = _read_content(path)
    found = _Findings(str(path))
    lines = _decode(content, found).split("\n")
    while lines and lines[-1].strip() == "":
        lines.pop()
    order = _column_order(lines[0] if lines else "", found)
    if len(lines) <= 1:
        found.add(1, "vm", "the trace has no rows")
    vms, rows = _read_rows(lines, order, found)
    _check_span(rows, found)
    found.raise_if_any()
    return Trace(hashlib.sha256(content).hexdigest(), tuple(vms), tuple(rows))


class _Findings:
    """Problems gathered up to a bound, the rest counted; and what rows that are left out say of the time."""

    def __init__(self, file: str) -> None:
        self.count = 0
        self.left_out_lines: list[int] = []
        self.left_out_times: list[tuple[int, int]] = []
        """Unix second and line, of rows that have one."""
        self._file = file
        self._problems: list[Problem] = []

    def add(self, line: int, field: str, message: str, *, is_bounded: bool = True) -> None:
        self.count += 1
        if not is_bounded or len(self._problems) < PROBLEMS_MAX:
            self._problems.append(Problem(self._file, line, field, message))

    def raise_if_any(self) -> None:
        if not self.count:
            return
        left = self.count - len(self._problems)
        if left:
            last = max(problem.line for problem in self._problems)
            self._problems.append(Problem(self._file, last, "…", f"and {left} more problems ({self.count} in all)"))
        raise Problems(self._problems)


def _read_content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise Problems([Problem(str(path), 0, "file", f"cannot be read: {reason}")]) from error


def _decode(content: bytes, found: _Findings) -> str:
    """The text; of one that is not all UTF-8, with every such line noted, what can be read."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("utf-8-sig", errors="surrogateescape")
    for line_number, line in enumerate(text.split("\n"), start=1):
        if _SURROGATE.search(line):
            found.add(line_number, "text", "is not UTF-8")
    return text


class _Order(NamedTuple):
    """Where each of COLUMNS stands in a row, None for one that is missing; how many columns the header has."""

    positions: tuple[int | None, ...]
    width: int


_USUAL_ORDER = _Order(tuple(range(len(COLUMNS))), len(COLUMNS))


def _column_order(header: str, found: _Findings) -> _Order:
    """Read the header; what is wrong is noted, and the columns that are known are looked at all the same."""
    try:
        names = next(csv.reader([header.rstrip("\r")], strict=True), [])
    except csv.Error as error:
        found.add(1, "header", f"is not CSV: {error}")
        return _Order((None,) * len(COLUMNS), 0)
    for name in COLUMNS:
        if names.count(name) != 1:
            found.add(1, name, "the column is missing" if name not in names else "the column stands twice")
    for name in names:
        if name not in COLUMNS:
            found.add(1, name[:40], f"is no column of a trace; they are {','.join(COLUMNS)}")
    return _Order(tuple(names.index(name) if name in names else None for name in COLUMNS), len(names))


def _read_rows(lines: list[str], order: _Order, found: _Findings) -> tuple[dict[str, int], list[TraceRow]]:
    is_usual_order = order == _USUAL_ORDER
    match_row = _ROW.fullmatch
    vms: dict[str, int] = {}
    numbers: list[int] = []
    rows: list[TraceRow] = []
    for line_number, line in enumerate(lines[1:], start=2):
        match = match_row(line) if is_usual_order else None
        if match is not None:
            vm, timestamp, values = match[1], int(match[2]), match[3]
        else:
            checked = _check_row(line, line_number, order, found)
            if checked is None:
                found.left_out_lines.append(line_number)
                continue
            vm, timestamp, values = checked
        index = vms.get(vm)
        if index is None:
            index = vms[vm] = len(numbers)
            numbers.append(0)
        numbers[index] += 1
        rows.append(TraceRow(timestamp, index, numbers[index], values))
    return vms, rows


def _check_row(line: str, line_number: int, order: _Order, found: _Findings) -> tuple[str, int, str] | None:
    try:
        cells = next(csv.reader([line.rstrip("\r")], strict=True), [])
    except csv.Error as error:
        found.add(line_number, "row", f"is not CSV: {error}")
        return None
    if order.width and len(cells) != order.width:
        found.add(line_number, "row", f"has {len(cells)} columns, not {order.width}")
        return None
    # A column that is missing was told at the header.
    vm, timestamp, *values = (None if at is None else cells[at] for at in order.positions)
    before = found.count
    if vm is not None and (not vm or len(vm) > NAME_CHARACTERS_MAX or _CONTROL_CHARACTER.search(vm)):
        found.add(line_number, "vm", f"{vm[:40]!a} is not 1 to {NAME_CHARACTERS_MAX} printable characters")
    seconds = _unix_seconds(timestamp) if timestamp is not None else None
    if timestamp is not None and seconds is None:
        found.add(line_number, "timestamp", f"{timestamp[:40]!a} is not Unix seconds")
    written = [value for value in values if value is not None]
    for name, value in zip(HOST_SAMPLE_FIELDS, values, strict=True):
        try:
            if value is not None and parse_exact(value) < 0:
                found.add(line_number, name, f"{value[:40]} is negative")
        except ValueError as error:
            found.add(line_number, name, str(error))
    if found.count == before and vm is not None and seconds is not None and len(written) == len(values):
        return vm, seconds, ",".join(written)
    if seconds is not None:
        found.left_out_times.append((seconds, line_number))
    return None


def _unix_seconds(text: str) -> int | None:
    is_number = re.fullmatch("[0-9]{1,12}", text) is not None
    return int(text) if is_number and int(text) <= _SECONDS_MAX else None


def _check_span(rows: list[TraceRow], found: _Findings) -> None:
    """Note a trace that is too long at its latest row; rows that are left out for another reason count too."""
    seconds = [row.timestamp for row in rows]
    times = list(found.left_out_times)
    if seconds:
        edges = (seconds.index(min(seconds)), seconds.index(max(seconds)))
        times += [(seconds[index], _line_of(index, found.left_out_lines)) for index in edges]
    (first, first_line), (last, last_line) = min(times, default=(0, 0)), max(times, default=(0, 0))
    if last - first > SPAN_DAYS_MAX * 86_400:
        days = (last - first) // 86_400
        message = f"the trace spans {days} days from line {first_line} to here; at most {SPAN_DAYS_MAX} (two months)"
        found.add(last_line, "timestamp", message, is_bounded=False)


def _line_of(index: int, left_out_lines: list[int]) -> int:
    """The line of a row, which comes after the header and after rows that were left out."""
    line = index + 2
    for left_out in left_out_lines:
        if left_out > line:
            break
        line += 1
    return line
