"""The proof's price models, rounding and ownership are right by examples worked out by hand."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from pipeline.domain.errors import InvariantViolation
from pipeline.proof.events import meter_spans, needs
from pipeline.proof.facts import Assignment, Binding, Meter, to_us
from pipeline.proof.ownership import bound, month_around, owners
from pipeline.proof.prices import amount_of, minor_units, posted
from pipeline.runtime.postgres import FAR_FUTURE

START = datetime(2013, 7, 1, tzinfo=UTC)
TIERS = {
    "tiers": [
        {"up_to": "100", "unit_price": "0"},
        {"up_to": "1000", "unit_price": "0.01"},
        {"up_to": None, "unit_price": "0.008"},
    ]
}


@pytest.mark.parametrize(
    ("model", "parameters", "quantity", "share", "amount"),
    [
        ("per_unit", {"unit_price": "0.006"}, "1/3", "1", "1/500"),
        ("graduated", TIERS, "100", "1", "0"),
        ("graduated", TIERS, "101.5", "1", "0.015"),
        ("graduated", TIERS, "1500", "1", "13"),
        ("hourly_capped", {"unit_price": "0.03", "cap": "2.5"}, "10", "1", "0.3"),
        ("hourly_capped", {"unit_price": "0.03", "cap": "2.5"}, "100", "1", "2.5"),
        ("hourly_capped", {"unit_price": "0.03", "cap": "2.5"}, "100", "1/3", "5/6"),
    ],
)
def test_price_models(model: str, parameters: dict[str, object], quantity: str, share: str, amount: str) -> None:
    """Tiers price their own part; a cap is prorated to the time its price is in force."""
    assert amount_of(model, parameters, Fraction(quantity), Fraction(share)) == Fraction(amount)


def test_unknown_model_and_currency_are_refused() -> None:
    """The proof never guesses: what it has no statement of, it does not prove."""
    with pytest.raises(InvariantViolation, match="no statement of price model"):
        amount_of("surprise", {}, Fraction(1), Fraction(1))
    with pytest.raises(InvariantViolation, match="minor unit"):
        minor_units(Decimal(1), "XXX")


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("1.005", "EUR", 101),
        ("-1.005", "EUR", -101),
        ("1.0049999", "EUR", 100),
        ("0.5", "JPY", 1),
        ("1.0005", "BHD", 1001),
    ],
)
def test_rounding_is_half_away_from_zero(amount: str, currency: str, minor: int) -> None:
    """One named rule, and the currency's own number of digits."""
    assert minor_units(Decimal(amount), currency) == minor


def test_posting_has_twelve_decimals() -> None:
    """An amount is quantised once, half away from zero."""
    assert posted(Fraction(1, 3)) == Decimal("0.333333333333")
    assert posted(Fraction(5, 10**13)) == Decimal("0.000000000001")
    assert posted(Fraction(-5, 10**13)) == Decimal("-0.000000000001")


def assignment(number: int, subscription: str | None, from_hours: int, to_hours: int | None = None) -> Assignment:
    end = FAR_FUTURE if to_hours is None else START + timedelta(hours=to_hours)
    return Assignment(number, "vm", subscription, START + timedelta(hours=from_hours), end)


def test_the_latest_known_assignment_owns() -> None:
    """Known later wins where it covers; where it does not, what was known before still holds; nobody is nobody."""
    found = owners(
        [assignment(1, "a", 0), assignment(2, "b", 5, 9), assignment(3, None, 8, 10), assignment(4, "a", 20, 21)]
    )
    hours = [((row.from_us - to_us(START)) // 3_600_000_000, row.subscription_id) for row in found]
    assert hours == [(0, "a"), (5, "b"), (10, "a"), (20, "a"), (21, "a")]


def test_the_latest_effective_binding_holds() -> None:
    """Of bindings with one start the latest known holds; neighbours at one price are one stretch."""

    def binding(number: int, price: int, hours: int) -> Binding:
        return Binding(number, "s", "cpu", "cores", price, START + timedelta(hours=hours))

    rows = [binding(1, 10, 0), binding(1, 11, 5), binding(2, 12, 5), binding(3, 12, 7), binding(4, 10, 9)]
    found = bound(rows, to_us(START + timedelta(hours=20)))["s", "cpu"]
    hours = [(span.from_us - to_us(START)) // 3_600_000_000 for span in found]
    assert [(hour, span.price_version_id) for hour, span in zip(hours, found, strict=True)] == [
        (0, 10),
        (5, 12),
        (9, 10),
    ]


def test_months_are_local() -> None:
    """A month runs from local midnight to local midnight, also where clocks change in it."""
    first, after = month_around(datetime(2013, 10, 15, tzinfo=UTC), "Europe/Amsterdam")
    assert (first.astimezone(UTC), after.astimezone(UTC)) == (
        datetime(2013, 9, 30, 22, tzinfo=UTC),
        datetime(2013, 10, 31, 23, tzinfo=UTC),
    )


def test_meter_versions_follow_each_other() -> None:
    """A version is in force until the next; what must be readable follows from the versions in force."""

    def meter(version: int, field: str, hours: int, aggregation: str = "sum") -> Meter:
        start = START + timedelta(hours=hours)
        return Meter(version, "m", version, "sample", aggregation, field, "u", 900, None, start, 1)

    spans = meter_spans([meter(2, "b", 5, "increase"), meter(1, "a", 0)])
    assert [(need.fields, need.ordered_fields) for need in needs(spans)] == [(("a",), ()), (("b",), ("b",))]
    assert spans[0].to_us == spans[1].from_us
