"""Money: minor units, the two roundings, and exact decimals."""

from decimal import Decimal
from fractions import Fraction

import pytest

from pipeline.domain.currency import minor_exponent
from pipeline.domain.decimals import parse_exact, plain, to_nano
from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.money import Money, format_minor
from pipeline.domain.rounding import quantise_posting, round_line


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(1234, "EUR", "12.34"), (-5, "EUR", "-0.05"), (0, "EUR", "0.00"), (12, "JPY", "12"), (1, "KWD", "0.001")],
)
def test_minor_units_are_shown_with_the_currencys_decimals(minor: int, currency: str, text: str) -> None:
    """ISO 4217 says how many decimals a currency shows."""
    assert format_minor(minor, currency) == text
    assert str(Money(minor, currency)) == f"{text} {currency}"


def test_an_unknown_currency_is_refused() -> None:
    """Nothing is rounded to a currency whose decimals we do not know."""
    with pytest.raises(ConfigurationFault, match="EURO"):
        minor_exponent("EURO")


@pytest.mark.parametrize(
    ("value", "posted"),
    [
        (Fraction(1, 3), "0.333333333333"),
        (Fraction(2, 3), "0.666666666667"),
        (Fraction(1, 2 * 10**12), "0.000000000001"),
        (Fraction(-1, 2 * 10**12), "-0.000000000001"),
        (Fraction(10**20), "100000000000000000000.000000000000"),
    ],
)
def test_postings_are_rounded_half_away_from_zero(value: Fraction, posted: str) -> None:
    """A posting has 12 decimals, whatever its size."""
    assert f"{quantise_posting(value):f}" == posted


@pytest.mark.parametrize(
    ("amount", "currency", "minor", "remainder"),
    [
        ("0.005", "EUR", 1, "-0.005"),
        ("-0.005", "EUR", -1, "0.005"),
        ("0.004999999999", "EUR", 0, "0.004999999999"),
        ("0.5", "JPY", 1, "-0.5"),
        ("1.0005", "BHD", 1001, "-0.0005"),
    ],
)
def test_lines_are_rounded_half_away_from_zero(amount: str, currency: str, minor: int, remainder: str) -> None:
    """A line's minor units plus its remainder are what was posted."""
    assert round_line(Decimal(amount), currency) == (minor, Decimal(remainder))


def test_an_amount_finer_than_a_posting_is_refused() -> None:
    """What has more than 12 decimals never was in the ledger."""
    with pytest.raises(ValueError, match="12 decimals"):
        round_line(Decimal("0.0000000000001"), "EUR")


@pytest.mark.parametrize(
    "text", ["0", "-0", "0.10", "12e3", "1E-9", "100e-11", "999999999999999999.999999999", "0e99999"]
)
def test_numbers_within_the_limits_are_read_exactly(text: str) -> None:
    """A value is its text, also with an exponent or with zeros at the end."""
    assert parse_exact(text) == Decimal(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1e18", "18 integer digits"),
        ("1e400", "18 integer digits"),
        ("1E+999999999", "18 integer digits"),
        ("1e99999999999999999999", "exponent"),
        ("1e-400", "9 decimals"),
        ("0.0000000001", "9 decimals"),
        *(
            (text, "not a decimal")
            for text in ("", " 1", "01", "+1", ".5", "1.", "1_0", "0x1", "NaN", "Infinity", "١", "1\n")
        ),
    ],
)
def test_numbers_beyond_the_limits_are_refused_by_name(text: str, why: str) -> None:
    """The message names the limit that the text breaks."""
    with pytest.raises(ValueError, match=why):
        parse_exact(text)


def test_nano_is_exact_or_refused() -> None:
    """Values become whole 10^-9, never rounded ones."""
    assert to_nano(Decimal("1.000000001")) == 1_000_000_001
    assert to_nano(Decimal("1.00000000000000000000000000000000000000")) == 10**9
    for wrong in ("1E-10", "1E+400", "1E-400", "NaN", "Infinity"):
        with pytest.raises(ValueError, match=wrong.replace("+", ".")):
            to_nano(Decimal(wrong))


@pytest.mark.parametrize(("value", "text"), [("1E+3", "1000"), ("0.0040", "0.004"), ("-0", "0"), ("0E-12", "0")])
def test_plain_text_has_no_exponent_and_no_spare_zeros(value: str, text: str) -> None:
    """One number has one text."""
    assert plain(Decimal(value)) == text
