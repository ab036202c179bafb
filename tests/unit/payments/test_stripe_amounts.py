"""Amounts as Stripe counts them."""

import pytest

from pipeline.domain.money import Money
from pipeline.payments.stripe_amounts import stripe_amount


@pytest.mark.parametrize(
    ("minor", "currency", "expected"),
    [
        (1234, "EUR", 1234),
        (1234, "USD", 1234),
        (500, "JPY", 500),
        (500, "KRW", 500),
        (5, "ISK", 500),
        (5, "UGX", 500),
        (1045, "HUF", 1045),
        (80045, "TWD", 80045),
        (1230, "KWD", 1230),
        (5120, "BHD", 5120),
        (700, "MGA", 7),
    ],
)
def test_each_currency_is_counted_stripes_way(minor: int, currency: str, expected: int) -> None:
    """Whole units, hundredths or thousandths, as Stripe's list of currencies has it; ours are ISO 4217's."""
    assert stripe_amount(Money(minor, currency)) == expected


@pytest.mark.parametrize(
    ("minor", "currency"),
    [(1234, "KWD"), (5124, "TND"), (750, "MGA"), (1000, "IQD"), (1000, "LYD"), (10000, "CLF"), (5, "UYI")],
)
def test_what_is_not_exact_or_not_known_is_refused(minor: int, currency: str) -> None:
    """Thousandths with a last digit, hundredths of what has none, and currencies Stripe has no rule for."""
    with pytest.raises(ValueError, match="stripe"):
        stripe_amount(Money(minor, currency))
