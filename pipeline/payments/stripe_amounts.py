"""Amounts as Stripe's API counts them, which is not always ISO 4217's minor unit. No rounding: exact or refused."""

from fractions import Fraction

from pipeline.domain.currency import minor_exponent
from pipeline.domain.money import Money

# https://docs.stripe.com/currencies
_ZERO = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"
_NO_DECIMALS = frozenset(_ZERO.split())
# Whole units only, and still counted in hundredths.
_WHOLE_IN_HUNDREDTHS = frozenset({"ISK", "UGX"})
# Counted in thousandths, the last digit being 0.
_THREE_DECIMALS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})


def stripe_amount(money: Money) -> int:
    """
    The amount as Stripe's API takes it: 12.34 EUR -> 1234, 500 JPY -> 500, 5 ISK -> 500, 1.230 KWD -> 1230.

    Raises:
        ValueError: A sentence: the currency cannot be charged by Stripe, or the amount not exactly.
        ConfigurationFault: The currency is not known at all.
    """
    currency, iso_exponent = money.currency, minor_exponent(money.currency)
    if currency in _NO_DECIMALS:
        exponent, multiple = 0, 1
    elif currency in _WHOLE_IN_HUNDREDTHS:
        exponent, multiple = 2, 100
    elif currency in _THREE_DECIMALS:
        exponent, multiple = 3, 10
    elif iso_exponent == 2:
        exponent, multiple = 2, 1
    else:
        raise ValueError(f"stripe is not known to take {currency}")
    amount = Fraction(money.minor * 10**exponent, 10**iso_exponent)
    if amount.denominator != 1 or amount.numerator % multiple:
        raise ValueError(f"{money} has more decimals than stripe takes of {currency}")
    return amount.numerator
