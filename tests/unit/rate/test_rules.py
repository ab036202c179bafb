"""Rating: a pure, exact function of a total, with one outcome an item."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalogue.model import Price
from pipeline.contracts.charge import Amount, Charge
from pipeline.contracts.usage_total import Segment, Total
from pipeline.rate.rules import rate_total

START, MIDDLE, END = "2026-06-01T00:00:00Z", "2026-06-16T00:00:00Z", "2026-07-01T00:00:00Z"


def price(number: int, model: str = "per_unit", product: str = "compute", **changed: Any) -> Price:
    values: dict[str, Any] = {
        "price": f"price-{number}",
        "version": 1,
        "model": model,
        "product": product,
        "currency": "EUR",
        "unit": "core-hour",
        "base_units": Decimal(3600),
        "parameters": {"unit_price": "0.006"},
        "price_version_id": number,
    }
    return Price(**(values | changed))


def segment(number: int, quantity: str, start: str = START, end: str = END) -> Segment:
    return Segment(price_version_id=number, start=start, end=end, quantity=quantity)


def total(*segments: Segment, **changed: Any) -> Total:
    values: dict[str, Any] = {
        "billed_item_id": 42,
        "revision": 3,
        "period_start": START,
        "period_end": END,
        "subject": "",
        "item": "cpu",
        "segments": segments,
    }
    return Total(**(values | changed))


def rate(priced: Total, *prices: Price) -> Charge:
    known: Mapping[int, Price] = {one.price_version_id: one for one in prices}
    return rate_total(priced, known)


def test_a_quantity_is_turned_into_the_prices_unit_and_priced() -> None:
    """7,200 core-seconds at 0.006 a core-hour are 0.012."""
    charge = rate(total(segment(1, "7200")), price(1))
    assert charge.outcome == "rated"
    assert charge.quantity == "7200"
    assert charge.amounts == (Amount(product="compute", currency="EUR", amount="0.012"),)
    assert [(part.unit, part.quantity) for part in charge.breakdown] == [("core-hour", "2")]
    assert [(step.quantity, step.amount) for step in charge.breakdown[0].steps] == [("2", "0.012")]


def test_an_amount_is_quantised_once_over_all_segments() -> None:
    """Two segments of a third of 10^-12 and two thirds of it post 10^-12 together, not 0 and 10^-12, nor 2 of it."""
    tiny = price(1, base_units=Decimal(3), parameters={"unit_price": "0.000000001"})
    halves = (segment(1, "0.0005", START, MIDDLE), segment(1, "0.0010", MIDDLE, END))
    assert rate(total(*halves), tiny).amounts[0].amount == "0.000000000001"


def test_a_price_change_to_another_product_gives_an_amount_for_each() -> None:
    """A segment's amount goes to its own price's product."""
    charge = rate(
        total(segment(1, "3600", START, MIDDLE), segment(2, "3600", MIDDLE, END)),
        price(1),
        price(2, product="premium", parameters={"unit_price": "0.01"}),
    )
    assert charge.amounts == (
        Amount(product="compute", currency="EUR", amount="0.006"),
        Amount(product="premium", currency="EUR", amount="0.01"),
    )
    assert charge.price_version_ids == (1, 2)


def test_tiers_begin_anew_in_each_segment() -> None:
    """The first tier is free again after a price change."""
    tiers = {"tiers": [{"up_to": "10", "unit_price": "0"}, {"up_to": None, "unit_price": "1"}]}
    changed = total(segment(1, "15", START, MIDDLE), segment(2, "15", MIDDLE, END))
    prices = [price(n, "graduated", base_units=Decimal(1), parameters=tiers) for n in (1, 2)]
    assert rate(changed, *prices).amounts[0].amount == "10"


def test_a_cap_is_prorated_by_the_share_of_the_period() -> None:
    """Half a month has half the monthly cap."""
    capped = price(1, "hourly_capped", base_units=Decimal(1), parameters={"unit_price": "1", "cap": "20"})
    charge = rate(total(segment(1, "360", START, MIDDLE)), capped)
    assert charge.amounts[0].amount == "10"


def test_an_item_that_vanished_costs_nothing() -> None:
    """No segments are a rated zero, so that what was booked is taken back."""
    charge = rate(total())
    assert (charge.outcome, charge.quantity, charge.amounts) == ("rated", "0", ())


def test_a_price_that_does_not_exist_is_an_outcome() -> None:
    """No price: said by item, with no amount and the quantity kept."""
    charge = rate(total(segment(1, "5"), segment(9, "6")), price(1))
    assert (charge.outcome, charge.quantity, charge.amounts) == ("no_price", "11", ())
    assert "9" in charge.reason


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (total(segment(1, "-1")), "quantity_negative"),
        (total(segment(1, "1e5")), "quantity_invalid"),
        (total(segment(1, "NaN")), "quantity_invalid"),
        (total(segment(1, "")), "quantity_invalid"),
        (total(segment(1, "1/3")), "quantity_invalid"),
        (total(segment(1, "1", "2026-06-01T00:00:00", END)), "time_invalid"),
        (total(segment(1, "1", "soon", END)), "time_invalid"),
        (total(segment(1, "1", END, START)), "price_inapplicable"),
        (total(segment(1, "1", "2026-05-31T00:00:00Z", END)), "segment_outside_period"),
        (total(segment(1, "1"), period_end=START), "price_inapplicable"),
        (total(segment(1, "1"), currency="USD"), "currency_differs"),
        (total(segment(2, "1")), "price_inapplicable"),
        (total(segment(3, "1")), "price_inapplicable"),
        (total(segment(1, "9" * 60)), "amount_too_large"),
    ],
)
def test_a_bad_total_fails_alone_and_says_why(bad: Total, code: str) -> None:
    """Whatever is wrong with a total is the outcome failed with a reason, never an exception."""
    unknown_model, no_parameters = price(2, "free_lunch"), price(3, parameters={})
    charge = rate(bad, price(1), unknown_model, no_parameters)
    assert charge.outcome == "failed"
    assert charge.reason.startswith(code + ":")
    assert (charge.amounts, charge.breakdown) == ((), ())


@given(st.lists(st.decimals(min_value=0, max_value=10**12, places=15), max_size=4), st.integers(1, 10**6))
def test_the_amount_is_the_exact_product_rounded_once(quantities: list[Decimal], base_units: int) -> None:
    """The posted amount differs from the rational one by at most half of 10^-12; the quantity by nothing."""
    priced = price(1, base_units=Decimal(base_units), parameters={"unit_price": "0.0137"})
    charge = rate(total(*(segment(1, format(quantity, "f")) for quantity in quantities)), priced)
    quantity = sum((Fraction(one) for one in quantities), Fraction(0))
    exact = quantity / base_units * Fraction("0.0137")
    posted = sum((Fraction(one.amount) for one in charge.amounts), Fraction(0))
    assert Fraction(charge.quantity) == quantity
    assert abs(posted - exact) <= Fraction(1, 2 * 10**12)
