"""Where the retention edge lies."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from pipeline.domain.period import calendar_month
from pipeline.maintenance.rules import KEEP_DAYS_MIN, SETTLED, edge_for

NOW = datetime(2026, 11, 22, 0, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))


def test_the_edge_is_a_midnight_in_utc() -> None:
    """Whole days stay, counted back from the beginning of today in UTC, whatever zone the clock has."""
    edge = edge_for(NOW, 100)

    assert edge.dropped_before == datetime(2026, 8, 13, tzinfo=UTC)
    assert edge.edge_at == datetime(2026, 9, 14, tzinfo=UTC)


@pytest.mark.parametrize("zone_name", ["UTC", "Asia/Kolkata", "Pacific/Apia", "America/Havana", "Australia/Lord_Howe"])
def test_a_month_that_an_event_can_change_has_all_its_slots(zone_name: str) -> None:
    """The earliest event that counts reaches back an hour; the month that hour lies in began after what was dropped."""
    for day in range(800):
        edge = edge_for(datetime(2026, 11, 22, tzinfo=UTC) + timedelta(days=day), 100)
        reached = (edge.edge_at - timedelta(hours=1)).astimezone(ZoneInfo(zone_name))

        assert calendar_month(reached.year, reached.month, zone_name).start >= edge.dropped_before


def test_too_few_days_are_refused() -> None:
    """A month is closed before its slots can go."""
    with pytest.raises(ValueError, match="at least 95"):
        edge_for(NOW, KEEP_DAYS_MIN - 1)
    assert edge_for(NOW, KEEP_DAYS_MIN).edge_at + timedelta(days=62) < NOW
    assert SETTLED.days == 32
