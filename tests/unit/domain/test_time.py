"""Periods, slots, keys and problems."""

import itertools
from datetime import UTC, date, datetime, timedelta, timezone
from fractions import Fraction

import pytest

from pipeline.domain.errors import ConfigurationFault, Problem, Problems, RejectedRecord
from pipeline.domain.keys import canonical_json, digest, invoice_id, payment_key
from pipeline.domain.period import Period, calendar_month, months_between, parse_month, period_containing
from pipeline.domain.slots import ceil_us, floor_us, from_us, to_us


def utc(*parts: int) -> datetime:
    """A time in UTC."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def test_a_month_runs_between_local_midnights() -> None:
    """July in Amsterdam begins at 22:00 UTC; March has 743 hours."""
    assert calendar_month(2013, 7, "Europe/Amsterdam") == Period(utc(2013, 6, 30, 22), utc(2013, 7, 31, 22))
    march = calendar_month(2026, 3, "Europe/Amsterdam")
    assert march.end - march.start == timedelta(hours=743)
    assert calendar_month(2026, 12, "Asia/Kathmandu").start == utc(2026, 11, 30, 18, 15)


def test_a_skipped_midnight_is_the_instant_of_the_skip() -> None:
    """In Beirut clocks jump from midnight to one: the day begins at the jump."""
    assert calendar_month(2018, 4, "Asia/Beirut").start == utc(2018, 3, 31, 21)
    assert period_containing(utc(2018, 3, 24, 22), "Asia/Beirut").start == utc(2018, 2, 28, 22)


def test_every_instant_lies_in_its_month() -> None:
    """The edges belong to the month that begins there."""
    july = calendar_month(2013, 7, "Europe/Amsterdam")
    assert period_containing(july.start, "Europe/Amsterdam") == july
    assert period_containing(july.end - timedelta(microseconds=1), "Europe/Amsterdam") == july
    assert not july.contains(july.end)


def test_months_follow_each_other_without_gap() -> None:
    """Each month ends where the next begins, over changes of the clock and of the year."""
    months = list(months_between(utc(2025, 10, 5), utc(2026, 5, 1), "Europe/Paris"))
    assert len(months) == 8
    assert all(one.end == following.start for one, following in itertools.pairwise(months))


def test_a_share_is_an_exact_fraction_of_time() -> None:
    """The share of the 15th at noon on in July is 16.5 of 31 days."""
    july = calendar_month(2013, 7, "UTC")
    assert Period(utc(2013, 7, 15, 12), july.end).share_of(july) == Fraction(33, 62)
    assert Period(utc(2013, 8, 1), utc(2013, 8, 2)).share_of(july) == 0


@pytest.mark.parametrize(("start", "end"), [(utc(2026, 1, 2), utc(2026, 1, 2)), (utc(2026, 1, 2), utc(2026, 1, 1))])
def test_a_period_ends_after_it_starts(start: datetime, end: datetime) -> None:
    """There is no empty period."""
    with pytest.raises(ValueError, match="ends after"):
        Period(start, end)


def test_a_period_takes_utc_only() -> None:
    """Equal periods have equal text; so no other zone, and no naive time."""
    for edge in (datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))):  # noqa: DTZ001
        with pytest.raises(ValueError, match="aware UTC"):
            Period(edge, utc(2026, 2, 1))


@pytest.mark.parametrize("text", ["2013-7", "2013-13", "2013-00", "2013-07-01", "", "٢٠١٣-07"])
def test_what_is_no_month_is_refused(text: str) -> None:
    """A month is YYYY-MM."""
    assert parse_month("2013-07") == (2013, 7)
    with pytest.raises(ValueError, match="YYYY-MM"):
        parse_month(text)


def test_an_unknown_zone_is_a_configuration_fault() -> None:
    """A zone that cannot be found names itself."""
    for name in ("Europe/Bonn", "", "../etc/passwd", "Europe"):
        with pytest.raises(ConfigurationFault):
            calendar_month(2026, 1, name)


def test_slots_begin_at_whole_multiples_since_1970() -> None:
    """The edge before and the edge after an instant enclose it; an edge is both."""
    at = to_us(utc(2026, 6, 1, 12, 7, 30))
    assert from_us(floor_us(at, 900)) == utc(2026, 6, 1, 12)
    assert from_us(ceil_us(at, 900)) == utc(2026, 6, 1, 12, 15)
    assert floor_us(ceil_us(at, 900), 900) == ceil_us(at, 900)
    assert from_us(floor_us(-1, 900)) == utc(1969, 12, 31, 23, 45)


def test_canonical_json_has_one_form_and_no_floats() -> None:
    """The order of keys does not matter, and no float gets into a digest."""
    assert canonical_json({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'.encode()
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    for wrong in ({"a": 0.1}, {1: "a"}, [date(2026, 1, 1)], {"a": {"b": [float("nan")]}}):
        with pytest.raises(TypeError):
            canonical_json(wrong)


def test_keys_are_the_same_each_time() -> None:
    """An invoice's id depends on account and instant, not on the zone the instant is written in."""
    start = utc(2013, 6, 30, 22)
    one = invoice_id("aurora-games", start)
    assert one == invoice_id("aurora-games", start.astimezone(timezone(timedelta(hours=2))))
    assert one != invoice_id("zephyr-bank", start)
    assert len(one) == 24
    assert payment_key(one, 2) == f"{one}:2"


def test_problems_are_printed_one_a_line_in_the_order_of_the_file() -> None:
    """All problems of a file are seen at once."""
    problems = Problems([Problem("a.yaml", 9, "x", "is bad"), Problem("a.yaml", 2, "y", "is missing")])
    assert str(problems) == "a.yaml:2: y: is missing\na.yaml:9: x: is bad"
    assert isinstance(problems, ConfigurationFault)


def test_a_problem_without_a_line_names_file_and_field_in_one_line() -> None:
    """No line 0 is printed; a name from the file that holds a line's end does not break the list."""
    assert str(Problem("a.csv", 0, "file", "cannot be read")) == "a.csv: file: cannot be read"
    assert str(Problem("a.csv", 3, "a\nb", "is \ud800")) == "a.csv:3: a\\nb: is \\ud800"


def test_a_rejected_record_names_its_reason() -> None:
    """The reason code is what quarantine files it under."""
    rejected = RejectedRecord("value_negative", "cpu_cores is -1")
    assert (rejected.reason_code, rejected.code, rejected.detail) == (
        "value_negative",
        "value_negative",
        "cpu_cores is -1",
    )
