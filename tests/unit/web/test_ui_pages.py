"""What pages show is exact, in its zone, and never markup."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from pipeline.runtime.postgres import FAR_FUTURE
from pipeline.web.ui import charts, pages
from pipeline.web.ui.charts import bar_chart, tall_layout, wide_layout
from pipeline.web.ui.events import Found, SlotEvent
from pipeline.web.ui.usage import day_charts

HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Decimal("1E+3"), "1\u202f000"),
        (Decimal("0.000000000000000000000000000000000001"), "0.000000000000000000000000000000000001"),
        (Decimal("-1234567.8900"), "−1\u202f234\u202f567.89"),
        ("12.00", "12.00"),
        (9_007_199_254_740_993, "9\u202f007\u202f199\u202f254\u202f740\u202f993"),
        (-12, "−12"),
    ],
)
def test_numbers_keep_every_digit(value: Decimal | int | str, shown: str) -> None:
    """Thousands are set apart; nothing is rounded and nothing has an exponent."""
    assert pages.grouped(value) == shown


def test_times_say_their_zone() -> None:
    """The clock of the zone with its offset; UTC by name; what has no end says so."""
    at = datetime(2026, 5, 31, 22, 0, 0, 120_000, tzinfo=UTC)
    assert pages.moment(at, "Europe/Amsterdam") == "2026-06-01 00:00:00 +02:00"
    assert pages.moment(at, "Asia/Kathmandu", exactly=True) == "2026-06-01 03:45:00.12 +05:45"
    assert pages.moment(at) == "2026-05-31 22:00:00 UTC"
    assert pages.moment(FAR_FUTURE) == "without end"
    assert pages.instant(at) == "2026-05-31T22:00:00.120000Z"


def test_bytes_are_shown_safely() -> None:
    """As text that can be turned back, and as hex beside what is printable."""
    payload = b'{"a": "\xff\x00\t</pre>'
    assert pages.escaped_text(payload) == r'{"a": "\xff\x00\t</pre>'
    assert pages.hex_lines(payload) == [
        ("000000", "7b 22 61 22 3a 20 22 ff 00 09 3c 2f 70 72 65 3e", '{"a": "···</pre>')
    ]


def test_hostile_values_stay_text() -> None:
    """An event's own names and bytes are escaped wherever they are shown."""
    event = SlotEvent(
        "usage.events", 0, 1, 0, HOSTILE, HOSTILE, datetime(2026, 6, 1, tzinfo=UTC), "counted", "", "in",
        HOSTILE.encode(),
    )  # fmt: skip
    start = datetime(2026, 6, 1, tzinfo=UTC)
    meter = {"meter": HOSTILE, "value_field": HOSTILE}
    facts = {"server": HOSTILE, "meter": meter, "start": start, "end": start, "found": Found([event]), "zone": "UTC"}
    page = pages.render("events.html", facts)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 6


def test_bars_stand_on_zero_and_little_is_seen() -> None:
    """Heights are in proportion; nothing has no bar, a little has one."""
    chart = bar_chart([("a", Decimal(0)), ("b", Decimal("0.0000001")), ("c", Decimal(50)), ("d", Decimal(100))])
    assert [bar.height for bar in chart.bars] == [0, 4, 500, charts.BARS_HEIGHT]
    assert all(bar.y + bar.height == charts.BARS_HEIGHT for bar in chart.bars)
    assert bar_chart([]).highest == 0


def test_a_days_chart_sums_servers_exactly_and_shows_days_without_usage() -> None:
    """More digits than a Decimal keeps by itself are kept; every day of the month has its place."""
    tiny, big = Decimal("0." + "0" * 35 + "1"), Decimal(10**20)
    row = {"account": "acme", "meter": "cpu", "unit": "core-second", "zone": "Europe/Amsterdam"}
    days = [{**row, "from": datetime(2026, 6, 1, 22, tzinfo=UTC), "quantity": quantity} for quantity in (tiny, big)]
    ((title, unit, chart),) = day_charts(days, date(2026, 6, 1), date(2026, 7, 1))
    assert (title, unit, len(chart.bars)) == ("cpu of acme", "core-second", 30)
    assert pages.exact(chart.highest) == "1" + "0" * 20 + "." + "0" * 35 + "1"
    assert [bar.label for bar in chart.bars if bar.height] == ["2026-06-02"]


@pytest.mark.parametrize("layout", [wide_layout(), tall_layout()], ids=lambda layout: layout.name)
def test_no_box_of_the_flow_covers_another(layout: charts.Layout) -> None:
    """Every box is in the drawing, and none lies on another."""
    places = list(layout.places.values())
    assert len(places) == 8
    for index, one in enumerate(places):
        assert one.x >= 0
        assert one.x + one.width <= layout.width
        assert one.y + one.height <= layout.height
        for other in places[index + 1 :]:
            apart_x = one.x + one.width <= other.x or other.x + other.width <= one.x
            apart_y = one.y + one.height <= other.y or other.y + other.height <= one.y
            assert apart_x or apart_y
