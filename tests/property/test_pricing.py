"""Laws of the price models, with exact fractions."""

from fractions import Fraction
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from pipeline.catalogue.pricing import MODELS, Rated

prices = st.integers(0, 10**6).map(lambda value: f"{value // 1000}.{value % 1000:03d}")
quantities = st.fractions(min_value=0, max_value=10**6)
shares = st.fractions(min_value=0, max_value=1)


@st.composite
def tier_lists(draw: st.DrawFn) -> list[dict[str, str | None]]:
    """Ascending tiers, the last without end."""
    ends = list(accumulate(draw(st.lists(st.integers(1, 1000), max_size=5))))
    limits: list[str | None] = [*map(str, ends), None]
    return [{"up_to": limit, "unit_price": draw(prices)} for limit in limits]


def steps_add_up(rated: Rated) -> bool:
    """Whether the shown amounts of the steps come to the amount, as exactly as they are shown."""
    shown = sum((Fraction(step.amount) for step in rated.steps), Fraction(0))
    return abs(shown - rated.amount) <= Fraction(len(rated.steps), 10**12)


@given(prices, quantities, shares)
def test_per_unit_is_proportional(price: str, quantity: Fraction, share: Fraction) -> None:
    """Twice the quantity is twice the amount."""
    model, parameters = MODELS["per_unit"], {"unit_price": price}
    rated = model.rate(parameters, quantity, share)
    assert rated.amount == quantity * Fraction(price)
    assert model.rate(parameters, 2 * quantity, share).amount == 2 * rated.amount
    assert steps_add_up(rated)


@given(tier_lists(), quantities, quantities)
def test_graduated_is_the_integral_of_its_tiers(
    tiers: list[dict[str, str | None]], quantity: Fraction, more: Fraction
) -> None:
    """Each part of the quantity costs what the tier it lies in says; more never costs less."""
    model = MODELS["graduated"]
    expected, start = Fraction(0), Fraction(0)
    for tier in tiers:
        stop = quantity if tier["up_to"] is None else Fraction(tier["up_to"])
        expected += max(Fraction(0), min(stop, quantity) - start) * Fraction(str(tier["unit_price"]))
        start = stop
    rated = model.rate({"tiers": tiers}, quantity, Fraction(1))
    assert rated.amount == expected
    assert model.rate({"tiers": tiers}, quantity + more, Fraction(1)).amount >= rated.amount
    assert steps_add_up(rated)


@given(prices, prices, quantities, shares)
def test_a_cap_is_never_passed_and_is_prorated(price: str, cap: str, quantity: Fraction, share: Fraction) -> None:
    """The amount is the hours' or the cap's part of the period, whichever is less."""
    rated = MODELS["hourly_capped"].rate({"unit_price": price, "cap": cap}, quantity, share)
    assert rated.amount == min(quantity * Fraction(price), Fraction(cap) * share)
    assert steps_add_up(rated)


@given(tier_lists())
def test_what_check_finds_good_can_be_rated(tiers: list[dict[str, str | None]]) -> None:
    """Checked parameters are canonical after one normalising, and price any quantity."""
    model = MODELS["graduated"]
    assert model.check({"tiers": tiers}) == []
    canonical = model.normalise({"tiers": tiers})
    assert model.normalise(canonical) == canonical
    assert model.rate(canonical, Fraction(10**7), Fraction(1)) == model.rate(canonical, Fraction(10**7), Fraction(1, 2))
