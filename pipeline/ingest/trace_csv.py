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
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Problems([Problem(str(path), line, "text", "is not UTF-8")]) from error
    lines = text.split("\n")
    while lines and lines[-1].strip() == "":
        lines.pop()
    found = _Findings(str(path))
    order = _column_order(lines[0] if lines else "", found)
    if order is None:
        found.raise_if_any()
    vms, rows = _read_rows(lines, order, found)
    if not rows and not found.count:
        found.add(1, "vm", "the trace has no rows")
    found.raise_if_any()
    _check_span(rows, found)
    return Trace(hashlib.sha256(content).hexdigest(), tuple(vms), tuple(rows))


class _Findings:
    """Problems gathered up to a bound; the rest is counted."""

    def __init__(self, file: str) -> None:
        self.count = 0
        self._file = file
        self._problems: list[Problem] = []

    def add(self, line: int, field: str, message: str) -> None:
        self.count += 1
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(Problem(self._file, line, field, message))

    def raise_if_any(self) -> None:
        if not self.count:
            return
        left = self.count - len(self._problems)
        if left:
            last = self._problems[-1].line
            self._problems.append(Problem(self._file, last, "…", f"and {left} more problems ({self.count} in all)"))
        raise Problems(self._problems)


def _read_content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise Problems([Problem(str(path), 0, "file", f"cannot be read: {error}")]) from error


def _column_order(header: str, found: _Findings) -> tuple[int, ...] | None:
    """Where each of COLUMNS stands in a row; None, with the problems noted, where the header is wrong."""
    names = next(csv.reader([header]), [])
    for name in COLUMNS:
        if names.count(name) != 1:
            found.add(1, name, "the column is missing" if name not in names else "the column stands twice")
    for name in names:
        if name not in COLUMNS:
            found.add(1, name, f"is no column of a trace; they are {','.join(COLUMNS)}")
    return None if found.count else tuple(names.index(name) for name in COLUMNS)


def _read_rows(
    lines: list[str], order: tuple[int, ...] | None, found: _Findings
) -> tuple[dict[str, int], list[TraceRow]]:
    order = order or tuple(range(len(COLUMNS)))
    is_usual_order = order == tuple(range(len(COLUMNS)))
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
                continue
            vm, timestamp, values = checked
        index = vms.get(vm)
        if index is None:
            index = vms[vm] = len(numbers)
            numbers.append(0)
        numbers[index] += 1
        rows.append(TraceRow(timestamp, index, numbers[index], values))
    return vms, rows


def _check_row(line: str, line_number: int, order: tuple[int, ...], found: _Findings) -> tuple[str, int, str] | None:
    try:
        cells = next(csv.reader([line.rstrip("\r")], strict=True), [])
    except csv.Error as error:
        found.add(line_number, "row", f"is not CSV: {error}")
        return None
    if len(cells) != len(COLUMNS):
        found.add(line_number, "row", f"has {len(cells)} columns, not {len(COLUMNS)}")
        return None
    vm, timestamp, *values = (cells[position] for position in order)
    before = found.count
    if not vm or len(vm) > NAME_CHARACTERS_MAX or _CONTROL_CHARACTER.search(vm):
        found.add(line_number, "vm", f"{vm[:40]!a} is not 1 to {NAME_CHARACTERS_MAX} printable characters")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or int(timestamp) > _SECONDS_MAX:
        found.add(line_number, "timestamp", f"{timestamp[:40]!a} is not Unix seconds")
    for name, value in zip(HOST_SAMPLE_FIELDS, values, strict=True):
        try:
            if parse_exact(value) < 0:
                found.add(line_number, name, f"{value[:40]} is negative")
        except ValueError as error:
            found.add(line_number, name, str(error))
    return None if found.count > before else (vm, int(timestamp), ",".join(values))


def _check_span(rows: list[TraceRow], found: _Findings) -> None:
    first, last = min(row.timestamp for row in rows), max(row.timestamp for row in rows)
    if last - first > SPAN_DAYS_MAX * 86_400:
        days = (last - first) // 86_400
        found.add(0, "timestamp", f"the trace spans {days} days; at most {SPAN_DAYS_MAX} (two months)")
    found.raise_if_any()
