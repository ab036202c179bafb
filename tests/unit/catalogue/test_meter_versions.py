"""Versions of meters hold until the next one begins."""

from dataclasses import replace
from datetime import UTC, datetime

from pipeline.catalogue.meter_versions import effective_meters
from pipeline.catalogue.model import ALWAYS, Aggregation, Meter

FIRST = Meter("calls", 1, "sample", Aggregation.SUM, "calls", "call", 300, None, ALWAYS, 1)


def test_each_version_holds_until_the_next_of_its_name_begins() -> None:
    """Whatever order they come in; another meter's versions do not end it."""
    at = [datetime(2026, 6, day, tzinfo=UTC) for day in (1, 2)]
    second = replace(FIRST, version=2, event_type="other", effective_from=at[0])
    third = replace(FIRST, version=3, effective_from=at[1])
    bytes_ = replace(FIRST, meter="bytes")
    assert effective_meters([second, bytes_, third, FIRST]) == [
        (FIRST, at[0]),
        (second, at[1]),
        (third, None),
        (bytes_, None),
    ]
