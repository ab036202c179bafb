"""What a total is the sum of: day sums and partial days, hours by who held their start, in every zone."""

import random
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from pipeline.domain.period import calendar_month
from pipeline.domain.slots import to_us
from pipeline.runtime.postgres import connect
from tests.integration.aggregate_world import LOG_ID, TOPIC, LogInMemory, aggregate
from tests.integration.totals_world import JULY, LONG_AGO, World, make_world
from tests.unit.aggregate.sending import SOURCE, event

pytestmark = pytest.mark.real

QUARTER = timedelta(minutes=15)
HOUR = timedelta(hours=1)

MONTHS = [
    ("Asia/Kolkata", 2013, 7),
    ("Asia/Kathmandu", 2013, 7),
    ("Europe/Amsterdam", 2013, 3),
    ("Europe/Amsterdam", 2013, 10),
    ("America/New_York", 2013, 11),
    ("Australia/Lord_Howe", 2013, 10),
    ("UTC", 2013, 2),
]


@pytest.mark.parametrize(("zone", "year", "month"), MONTHS)
def test_days_and_parts_of_days_are_the_sum_of_slots(database_url: str, zone: str, year: int, month: int) -> None:
    """Trap 17: local months, a move and a price change inside days; the total is the sum of the slots in each part."""
    dice = random.Random(f"{zone} {month}")
    period = calendar_month(year, month, zone)
    moved = period.start + 9 * timedelta(days=1) + 37 * QUARTER
    priced = period.start + 9 * timedelta(days=1) + 3 * QUARTER
    with make_world(database_url, zone) as world:
        world.give("vm", "a", LONG_AGO)
        world.give("vm", "b", moved, moved + timedelta(days=11, hours=5))
        world.bind("a", "cpu", "cpu", "cpu-b", priced)
        around = [edge + step * QUARTER for edge in (period.start, period.end, moved, priced) for step in range(-5, 6)]
        anywhere = [period.start + QUARTER * dice.randrange(-200, 31 * 96 + 200) for _ in range(150)]
        used = [("vm", at, Decimal(dice.randrange(1, 10**12)).scaleb(-9)) for at in sorted({*around, *anywhere})]
        with closing(connect(database_url, application_name="tests-use")) as own, own.transaction():
            world.use_many(own, used)
        world.settle()

        def between(start: datetime, end: datetime) -> Decimal:
            return sum((quantity for _, at, quantity in used if start <= at < end), Decimal(0))

        totals = world.totals()
        returned = moved + timedelta(days=11, hours=5)
        assert [Decimal(part["quantity"]) for part in totals["b", "cpu", "", period.start][1]] == [
            between(moved, returned)
        ]
        assert [Decimal(part["quantity"]) for part in totals["a", "cpu", "", period.start][1]] == [
            between(period.start, priced),
            between(priced, moved) + between(returned, period.end),
        ]


def test_whole_days_are_not_added_up_again(database_url: str) -> None:
    """Whole days come from day sums, whatever was dropped of their slots; parts of days come from slots."""
    with make_world(database_url) as world:
        world.give("vm", "a", LONG_AGO)
        world.use("vm", JULY + HOUR, 5)
        world.owner.execute("DELETE FROM usage_bucket")
        world.settle()
        assert world.quantity("a") == 5


def test_both_versions_of_a_meter_are_in_a_total(database_url: str) -> None:
    """Trap 21: a meter whose version changed in mid-month is one meter; its versions' series add up."""
    with make_world(database_url) as world:
        world.give("vm", "a", LONG_AGO)
        world.use("vm", JULY, 5)
        world.owner.execute(
            "INSERT INTO meter_version (meter, version, event_type, aggregation, value_field, unit, slot_seconds,"
            " gap_seconds_max, effective_from, known_number)"
            " VALUES ('cpu', 2, 'x', 'time_weighted', 'v', 'core-second', 900, 600, '2013-07-10Z', 2)"
        )
        world.owner.execute("INSERT INTO series (meter_version_id, subject, source) VALUES (5, 'vm', '')")
        world.owner.execute("INSERT INTO usage_bucket SELECT max(series_id), '2013-07-11Z', 7 FROM series")
        world.owner.execute("INSERT INTO usage_day SELECT max(series_id), '2013-07-11', 7 FROM series")
        world.settle()
        assert world.quantity("a") == 12


def see(world: World, *at: datetime) -> None:
    """A server was seen in these slots."""
    for one in at:
        world.owner.execute("DELETE FROM usage_bucket WHERE slot_start = %s", (one,))
        world.use("vm", one, 1, "hours")


@pytest.fixture
def hourly_items() -> Sequence[str]:
    """Subscriptions billed by hours in these tests."""
    return ("a", "b")


def test_an_hour_belongs_to_who_held_its_start(database_url: str, hourly_items: Sequence[str]) -> None:
    """Moved at a quarter past, the running hour stays with who had it begin; many slots of an hour are one hour."""
    with make_world(database_url) as world:
        for subscription in hourly_items:
            world.bind(subscription, "hours", "hours", "hour")
        world.give("vm", "a", LONG_AGO)
        world.give("vm", "b", JULY + 10 * HOUR + QUARTER)
        see(world, JULY + 9 * HOUR, JULY + 10 * HOUR, JULY + 10 * HOUR + 2 * QUARTER, JULY + 10 * HOUR + 3 * QUARTER)
        see(world, JULY + 11 * HOUR + QUARTER)
        world.settle()
        assert (world.quantity("a", "hours"), world.quantity("b", "hours")) == (2, 1)


def test_an_hour_seen_only_after_a_move_is_the_old_owners(database_url: str, hourly_items: Sequence[str]) -> None:
    """The one sample of the hour came after the move: aggregate's mark still reaches who held the hour's start."""
    with make_world(database_url) as world:
        for subscription in hourly_items:
            world.bind(subscription, "hours", "hours", "hour")
        world.give("vm", "a", LONG_AGO)
        world.give("vm", "b", JULY + 10 * HOUR + QUARTER)
        world.owner.execute("INSERT INTO log VALUES (%s, %s, 'k', 1)", (TOPIC, LOG_ID))
        log = LogInMemory()
        for number, at in enumerate((JULY - 30 * 24 * HOUR, JULY + 10 * HOUR + 2 * QUARTER), start=1):
            log.append(SOURCE, event(number, subject="vm", at_us=to_us(at)))
            aggregate(world.connection, log)
            world.settle()
        assert world.quantity("a", "hours") == 1
        assert world.quantity("b", "hours") == 0


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Asia/Kolkata", "UTC"])
def test_hours_are_counted_from_the_periods_start(database_url: str, zone: str) -> None:
    """Where the month begins at a quarter past in UTC, its hours do too."""
    period = calendar_month(2013, 7, zone)
    with make_world(database_url, zone) as world:
        world.bind("a", "hours", "hours", "hour")
        world.give("vm", "a", LONG_AGO)
        see(world, period.start - QUARTER, period.start, period.start + 3 * QUARTER)
        see(world, period.end - QUARTER, period.end)
        world.settle()
        assert world.quantity("a", "hours", start=period.start) == 2
        assert world.quantity("a", "hours", start=period.end) == 1


def test_an_hour_ends_with_its_period(database_url: str) -> None:
    """A month with half an hour too much has a last short hour; what comes after it is the next month's alone."""
    period = calendar_month(2013, 4, "Australia/Lord_Howe")
    assert (period.end - period.start) % HOUR == 2 * QUARTER
    with make_world(database_url, "Australia/Lord_Howe") as world:
        world.bind("a", "hours", "hours", "hour")
        world.give("vm", "a", LONG_AGO)
        see(world, period.start, period.end)
        world.settle()
        assert world.quantity("a", "hours", start=period.start) == 1
        assert world.quantity("a", "hours", start=period.end) == 1


def test_hours_follow_the_price_at_their_start(database_url: str) -> None:
    """A price that changes within an hour is for the hours that begin at it or later."""
    with make_world(database_url) as world:
        world.bind("a", "hours", "hours", "hour")
        world.bind("a", "hours", "hours", "cpu-b", JULY + 10 * HOUR + QUARTER)
        world.give("vm", "a", LONG_AGO)
        see(world, JULY + 10 * HOUR + 2 * QUARTER, JULY + 11 * HOUR)
        world.settle()
        assert [part["quantity"] for part in world.totals()["a", "hours", "", JULY][1]] == ["1", "1"]


def test_hours_of_servers_add_up(database_url: str) -> None:
    """Where the price is not per server, each server's hours count, the same hour of two of them twice."""
    with make_world(database_url) as world:
        world.bind("a", "hours", "hours", "hour")
        for subject in ("vm", "other"):
            world.give(subject, "a", LONG_AGO)
            world.use(subject, JULY, 1, "hours")
        world.settle()
        assert world.quantity("a", "hours") == 2
