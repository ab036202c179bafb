"""Laws of the domain's values, over whatever hypothesis finds."""

import itertools
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.decimals import parse_exact, plain, to_nano
from pipeline.domain.identity import IntervalSet
from pipeline.domain.rounding import quantise_posting, round_line

fractions = st.fractions(min_value=-(10**9), max_value=10**9)


@given(fractions)
def test_a_posting_is_the_nearest_decimal(value: Fraction) -> None:
    """A posting is at most half of 10^-12 away, and the opposite amount is the opposite posting."""
    posted = quantise_posting(value)
    assert abs(Fraction(posted) - value) <= Fraction(1, 2 * 10**12)
    assert quantise_posting(-value) == -posted
    assert posted.as_tuple().exponent == -12


@given(fractions, st.sampled_from(["EUR", "JPY", "KWD", "CLF"]))
def test_a_line_and_its_remainder_are_the_posting(value: Fraction, currency: str) -> None:
    """Rounding to the currency loses nothing: the remainder is kept."""
    exponent = {"EUR": 2, "JPY": 0, "KWD": 3, "CLF": 4}[currency]
    posted = quantise_posting(value)
    minor, remainder = round_line(posted, currency)
    assert Fraction(minor, 10**exponent) + Fraction(remainder) == Fraction(posted)
    assert abs(Fraction(remainder)) <= Fraction(1, 2 * 10**exponent)
    assert round_line(-posted, currency) == (-minor, -remainder)


@given(st.integers(-(10**27) + 1, 10**27 - 1))
def test_decimals_survive_text_and_nano(nano: int) -> None:
    """A value of up to 18 + 9 digits is the same after text and after 10^-9, in plain form and with exponent."""
    value = Decimal(f"{nano}E-9")
    assert parse_exact(plain(value)) == value
    assert parse_exact(f"{nano}E-9") == value
    assert to_nano(parse_exact(plain(value))) == nano


@given(st.text(max_size=30))
def test_reading_a_number_gives_a_decimal_or_a_value_error(text: str) -> None:
    """Text is either a number within the limits or refused; nothing else happens."""
    try:
        value = parse_exact(text)
    except ValueError:
        return
    assert Fraction(to_nano(value), 10**9) == Fraction(value)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 40), st.just(0)),
            st.tuples(st.just("range"), st.integers(0, 40), st.integers(0, 8)),
            st.tuples(st.just("remove"), st.integers(0, 40), st.just(0)),
        )
    )
)
def test_an_interval_set_is_a_set(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is added and removed in whatever order, the intervals hold what a plain set holds."""
    ours, model = IntervalSet(), set[int]()
    for action, number, width in steps:
        if action == "add":
            assert ours.add(number) == (number not in model)
            model.add(number)
        elif action == "range":
            ours.add_range(number, number + width)
            model.update(range(number, number + width))
        else:
            assert ours.remove(number) == (number in model)
            model.discard(number)
    assert {number for number in range(60) if number in ours} == model
    assert ours.count == len(model)
    assert ours.largest == max(model, default=None)
    pairs = ours.to_pairs()
    assert IntervalSet.from_pairs(reversed(pairs)) == ours
    assert all(one[1] < following[0] for one, following in itertools.pairwise(pairs))
    for first in range(0, 45, 5):
        for last in range(first, 45, 7):
            assert ours.covers(first, last) == (set(range(first, last + 1)) <= model)
