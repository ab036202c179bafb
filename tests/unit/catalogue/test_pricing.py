"""The price models: worked examples as an invoice shows them."""

from fractions import Fraction

import pytest

from pipeline.catalogue.aggregations import AGGREGATIONS, time_weighted
from pipeline.catalogue.model import Aggregation
from pipeline.catalogue.pricing import MODELS, Step

TIERS = {
    "tiers": [
        {"up_to": "100", "unit_price": "0"},
        {"up_to": "1000", "unit_price": "0.01"},
        {"up_to": None, "unit_price": "0.008"},
    ]
}


def test_a_graduated_price_names_its_tiers() -> None:
    """1500 GB: the first hundred free, then two tiers."""
    rated = MODELS["graduated"].rate(TIERS, Fraction(1500), Fraction(1))
    assert rated.amount == 13
    assert rated.steps == (
        Step("0 to 100", "100", "0", "0"),
        Step("100 to 1000", "900", "0.01", "9"),
        Step("above 1000", "500", "0.008", "4"),
    )


@pytest.mark.parametrize(("quantity", "step_count"), [("0", 0), ("100", 1), ("100.1", 2), ("1000", 2), ("1000.1", 3)])
def test_an_edge_belongs_to_the_tier_below(quantity: str, step_count: int) -> None:
    """Exactly 100 units are all in the first tier."""
    assert len(MODELS["graduated"].rate(TIERS, Fraction(quantity), Fraction(1)).steps) == step_count


def test_a_cap_for_half_a_period_is_half_a_cap() -> None:
    """A price that is in force for half of the period takes at most half of its cap."""
    parameters = {"unit_price": "0.0275", "cap": "15.9"}
    rated = MODELS["hourly_capped"].rate(parameters, Fraction(372), Fraction(1, 2))
    assert rated.amount == Fraction("7.95")
    assert rated.steps == (Step("every hour", "372", "0.0275", "10.23"), Step("capped at 7.95", "1", "-2.28", "-2.28"))


def test_what_does_not_end_is_shown_at_twelve_decimals_and_kept_exact() -> None:
    """A third of an hour is priced as a third."""
    rated = MODELS["per_unit"].rate({"unit_price": "0.1"}, Fraction(1, 3), Fraction(1))
    assert rated.amount == Fraction(1, 30)
    assert rated.steps[0].quantity == "0.333333333333"


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_negative_quantity_is_refused(model: str) -> None:
    """Nothing is priced backwards."""
    with pytest.raises(ValueError, match="negative"):
        MODELS[model].rate({}, Fraction(-1), Fraction(1))


def test_gaps_of_one_second_over_the_interval_lose_nothing() -> None:
    """Samples 301 s apart with a gap of two intervals: every second is billed; with a gap of one, a second is lost."""
    samples = [(number * 301_000_000, 10**9) for number in range(4)]
    window = {"from_us": 0, "to_us": 900_000_000, "slot_us": 900_000_000}
    assert time_weighted.slot_quantities(samples, **window, gap_us=600_000_000) == {0: 900 * 10**15}
    assert time_weighted.slot_quantities(samples, **window, gap_us=300_000_000) == {0: 898 * 10**15}


def test_quantities_are_decimals_of_the_meters_unit() -> None:
    """10^15 of a time-weighted slot are one unit-second."""
    assert AGGREGATIONS[Aggregation.TIME_WEIGHTED].to_decimal(15 * 10**14) == Fraction(3, 2)
    assert AGGREGATIONS[Aggregation.SUM].to_decimal(10**9) == 1
    assert AGGREGATIONS[Aggregation.ACTIVE_HOURS].to_decimal(1) == 1
