"""Data leaves a command the same in all three formats, exact."""

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from pipeline.cli.output import Format, numbers, show, show_record, texts
from pipeline.cli.quarantine import escaped
from pipeline.runtime.postgres import FAR_FUTURE

COLUMNS = (*texts("server", "from"), *numbers("quantity"), *texts("unit", "codes"))
ROWS: list[dict[str, Any]] = [
    {
        "server": "vm-1",
        "from": datetime(2013, 7, 1, tzinfo=UTC),
        "quantity": Decimal("1234567890123456789012345.000000000012"),
        "unit": "KiB-second",
        "codes": ("a", "b"),
    },
    {"server": "[red]vm-2", "from": FAR_FUTURE, "quantity": Decimal("1E+3"), "unit": None, "codes": ()},
]


def written(form: Format, rows: list[dict[str, Any]] = ROWS) -> str:
    stream = io.StringIO()
    show(COLUMNS, rows, form, stream)
    return stream.getvalue()


def test_the_three_formats_agree() -> None:
    """Each cell of the table is the cell of the CSV, and the member of the JSON."""
    objects = json.loads(written(Format.JSON))
    lines = list(csv.reader(io.StringIO(written(Format.CSV))))
    table = written(Format.TABLE)
    names = [column.name for column in COLUMNS]
    assert lines[0] == names
    for cells, member in zip(lines[1:], objects, strict=True):
        assert list(member) == names
        for name, cell in zip(names, cells, strict=True):
            value = member[name]
            assert cell == ("; ".join(value) if isinstance(value, list) else "" if value is None else str(value))
            assert cell in table


def test_exact_decimals_are_strings_without_exponent() -> None:
    """A quantity is text in JSON, every digit of it, and never 1E+3."""
    first, second = json.loads(written(Format.JSON))
    assert first["quantity"] == "1234567890123456789012345.000000000012"
    assert second["quantity"] == "1000"
    assert "1234567890123456789012345.000000000012" in written(Format.TABLE)


@pytest.mark.parametrize("form", Format)
def test_a_float_is_refused(form: Format) -> None:
    """Nothing inexact is ever printed."""
    with pytest.raises(TypeError, match="float"):
        written(form, [{**ROWS[0], "quantity": 0.1}])


def test_times_are_rfc_3339_and_for_ever_is_empty() -> None:
    """A time says its zone; what has no end has no text."""
    first, second = json.loads(written(Format.JSON))
    assert first["from"] == "2013-07-01T00:00:00Z"
    assert second["from"] is None


def test_numbers_are_aligned_to_the_right() -> None:
    """Digits of one weight stand below each other."""
    lines = written(Format.TABLE).splitlines()
    ends = {line.index("1234567890123456789012345.000000000012") + 38 for line in lines if "12345.0" in line}
    ends |= {line.index("1000") + 4 for line in lines if "[red]" in line}
    assert len(ends) == 1


def test_a_table_is_plain_text_whatever_a_server_is_called() -> None:
    """No markup, colour or terminal command comes out of a name."""
    table = written(Format.TABLE, [{**ROWS[1], "server": "[bold]vm\x1b[31m\n"}])
    assert "[bold]vm\\x1b[31m\\x0a" in table
    assert "\x1b" not in table


@pytest.mark.parametrize("form", Format)
def test_no_rows_is_an_answer_too(form: Format) -> None:
    """An empty result has its headings, and is an empty list in JSON."""
    assert ("[]" if form is Format.JSON else "server") in written(form, [])


def test_a_record_shows_every_member() -> None:
    """One row as a table is a line a member."""
    stream = io.StringIO()
    columns = (*texts("issued_on"), *numbers("line"))
    import contextlib

    with contextlib.redirect_stdout(stream):
        show_record(columns, {"issued_on": date(2013, 8, 1), "line": 3}, Format.TABLE)
    assert "issued on" in stream.getvalue()
    assert "2013-08-01" in stream.getvalue()


def test_original_bytes_can_be_turned_back() -> None:
    """Escaped bytes are ASCII, and the bytes they were."""
    payload = bytes(range(256))
    text = escaped(payload)
    assert text.isascii()
    assert text.isprintable()
    assert text.encode("ascii").decode("unicode_escape").encode("latin-1") == payload
