"""Traces: read as they are, or refused with everything that is wrong."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.domain.errors import Problems
from pipeline.ingest.trace_csv import COLUMNS, TraceRow, read_trace

HEADER = ",".join(COLUMNS)
VALUES = "4,10400,2710.4518,8388608,5103272.8,61.25,14.0625,812.5,0"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def problems_of(path: Path) -> list[tuple[int, str]]:
    with pytest.raises(Problems) as refused:
        read_trace(path)
    assert all(problem.file == str(path) for problem in refused.value.problems)
    return [(problem.line, problem.field) for problem in refused.value.problems]


def test_rows_keep_their_text_and_count_within_their_server(tmp_path: Path) -> None:
    """Values stay as written; a row's number counts its server's rows in file order, a repeated row too."""
    path = write(tmp_path / "t.csv", f"a,100,{VALUES}", f"b,50,{VALUES}", f"a,100,{VALUES}")
    trace = read_trace(path)
    assert trace.vms == ("a", "b")
    assert trace.rows == (TraceRow(100, 0, 1, VALUES), TraceRow(50, 1, 1, VALUES), TraceRow(100, 0, 2, VALUES))


def test_compressed_trace_is_the_same_trace(tmp_path: Path) -> None:
    """A trace has one digest, compressed or not: replaying it either way counts once."""
    plain = write(tmp_path / "t.csv", f"a,100,{VALUES}")
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_trace(plain) == read_trace(packed)


def test_columns_may_stand_in_any_order_and_cells_in_quotes(tmp_path: Path) -> None:
    """Columns are found by name; a quoted cell is the cell."""
    header = ",".join(reversed(COLUMNS))
    path = write(tmp_path / "t.csv", ",".join(reversed(VALUES.split(","))) + ',100,"a,b"\r', header=header)
    trace = read_trace(path)
    assert trace.vms == ("a,b",)
    assert trace.rows[0].values == VALUES


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    """A bad trace names line and column of everything that is wrong."""
    path = write(
        tmp_path / "t.csv",
        f"a,100,{VALUES}",
        "a,100,1,2,3",
        f",yesterday,{VALUES}",
        "a,200,4,NaN,-1,8388608,5103272.8,1e400,0.00000000001,,0",
        "",
        f"a,300,{VALUES}",
    )
    assert problems_of(path) == [
        (3, "row"),
        (4, "timestamp"),
        (4, "vm"),
        (5, "cpu_capacity_mhz"),
        (5, "cpu_usage_mhz"),
        (5, "disk_read_kb_s"),
        (5, "disk_write_kb_s"),
        (5, "net_rx_kb_s"),
        (6, "row"),
    ]


def test_problems_are_bounded_and_counted(tmp_path: Path) -> None:
    """The first fifty problems are named, the rest is counted."""
    path = write(tmp_path / "t.csv", *["a,x," + VALUES] * 120)
    with pytest.raises(Problems) as refused:
        read_trace(path)
    assert len(refused.value.problems) == 51
    assert "and 70 more problems (120 in all)" in str(refused.value)


def test_a_bad_header_does_not_hide_bad_rows(tmp_path: Path) -> None:
    """A missing and an unknown column are both named on line 1; the columns that are known are looked at."""
    rows = ("x", f"a,100,{VALUES}", f"a,soon,{VALUES}", f"a,200,{VALUES},1")
    path = write(tmp_path / "t.csv", *rows, header=HEADER.replace("vm,", "server,"))
    assert problems_of(path) == [(1, "server"), (1, "vm"), (2, "row"), (4, "timestamp"), (5, "row")]


@pytest.mark.parametrize("header", ["x" * 200_000, '"vm,timestamp', "vm," * 12, "\ufeff\u2028,vm"])
def test_whatever_the_header_is_problems_are_the_answer(tmp_path: Path, header: str) -> None:
    """A header that is no CSV, too long or of strange characters is a problem on line 1."""
    path = write(tmp_path / "t.csv", f"a,100,{VALUES}", header=header)
    assert (1, "timestamp") in problems_of(path) or (1, "header") in problems_of(path)


def test_every_line_that_is_not_utf8_is_named_with_all_else(tmp_path: Path) -> None:
    """Bytes that are no text hide no other problem."""
    path = tmp_path / "t.csv"
    rows = [HEADER.encode(), b"\xe9," + f"100,{VALUES}".encode(), f"a,soon,{VALUES}".encode(), b"b\xff,1,2"]
    path.write_bytes(b"\n".join(rows))
    assert problems_of(path) == [(2, "text"), (3, "timestamp"), (4, "row"), (4, "text")]


@pytest.mark.parametrize("content", [b"", HEADER.encode(), b"\x1f\x8b\x08broken", b"\xff\xfe"])
def test_file_without_rows_or_text_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty file, a broken archive and bytes that are no text are problems, not crashes."""
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert problems_of(path)


def test_missing_file_is_a_problem(tmp_path: Path) -> None:
    """A file that is not there is named."""
    path = tmp_path / "none.csv"
    assert problems_of(path) == [(0, "file")]
    with pytest.raises(Problems, match=rf"^{path}: file: cannot be read"):
        read_trace(path)


def test_more_than_two_months_are_refused(tmp_path: Path) -> None:
    """A trace spans two months at most; the latest row is named."""
    path = write(tmp_path / "t.csv", f"a,9,{VALUES}", f"a,{63 * 86400},{VALUES}", f"a,0,{VALUES}")
    assert problems_of(path) == [(3, "timestamp")]
    with pytest.raises(Problems, match="spans 63 days from line 4 to here; at most 62"):
        read_trace(path)
    assert read_trace(write(path, f"a,0,{VALUES}", f"a,{62 * 86400},{VALUES}")).rows


@pytest.mark.parametrize("late", [f"b,{63 * 86400},{VALUES}", f"b,{63 * 86400},NaN{VALUES[1:]}"])
def test_a_span_that_is_too_long_is_told_with_all_else(tmp_path: Path, late: str) -> None:
    """Rows with other problems do not hide it, count for it, and do not shift the line that is named."""
    path = write(tmp_path / "t.csv", "a,1", f"a,x,{VALUES}", f"a,0,{VALUES}", "a,2", late, f"c,-,{VALUES}")
    found = problems_of(path)
    assert [one for one in found if one[0] != 6] == [(2, "row"), (3, "timestamp"), (5, "row"), (7, "timestamp")]
    assert (6, "timestamp") in found
    assert ((6, "cpu_cores") in found) == ("NaN" in late)


def test_a_span_that_is_too_long_is_told_beyond_the_bound(tmp_path: Path) -> None:
    """However many rows are bad, that the file is too long is not one of those that are only counted."""
    path = write(tmp_path / "t.csv", *["a,x," + VALUES] * 120, f"a,0,{VALUES}", f"a,{63 * 86400},{VALUES}")
    found = problems_of(path)
    assert found[-2:] == [(123, "timestamp"), (123, "…")]
    assert len(found) == 52


def test_period_is_the_month_with_most_rows_in_the_zone(tmp_path: Path) -> None:
    """The month is that of the zone: 22:03 UTC on 30 June is July in Amsterdam and June in London's UTC."""
    june_30_2203 = int(datetime(2013, 6, 30, 22, 3, tzinfo=UTC).timestamp())
    june_29 = june_30_2203 - 86_400
    trace = read_trace(write(tmp_path / "t.csv", *[f"a,{at},{VALUES}" for at in (june_29, june_30_2203, june_30_2203)]))
    assert trace.period("Europe/Amsterdam").start == datetime(2013, 6, 30, 22, tzinfo=UTC)
    assert trace.period("UTC").start == datetime(2013, 6, 1, tzinfo=UTC)
