"""Exact decimals from text and back; nothing passes through a float."""

import re
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow

INTEGER_DIGITS_MAX = 18
FRACTION_DIGITS_MAX = 9
NANO = 10**9
"""How many nano make one: values have at most 9 decimals, so they are whole numbers of nano."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NANO_DECIMAL = Decimal(NANO)
# Wide enough for 18 + 9 digits; what does not fit must fail, never round.
_EXACT = Context(prec=60, Emin=-90, Emax=90, traps=[Inexact, InvalidOperation, Overflow])


def parse_exact(text: str) -> Decimal:
    """Read a number as JSON writes it, with or without exponent, exactly.

    Raises ValueError, naming the limit, for any other text, for more than 18 integer digits and for more than 9
    decimals (zeros at the end do not count).
    """
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{_shown(text)} is not a decimal number")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{_shown(text)} has an exponent out of range") from None
    if not value:
        return Decimal(0)
    if value.adjusted() >= INTEGER_DIGITS_MAX:
        raise ValueError(f"{_shown(text)} has more than {INTEGER_DIGITS_MAX} integer digits")
    if fraction_digits(value) > FRACTION_DIGITS_MAX:
        raise ValueError(f"{_shown(text)} has more than {FRACTION_DIGITS_MAX} decimals")
    return value


def fraction_digits(value: Decimal) -> int:
    """How many decimals a finite value has, zeros at its end not counted."""
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is not finite")
    if exponent >= 0:
        return 0
    zeros = 0
    for digit in reversed(digits):
        if digit:
            break
        zeros += 1
    return max(0, -exponent - zeros) if zeros < len(digits) else 0


def to_nano(value: Decimal) -> int:
    """The value in whole 10^-9; ValueError where it has more than 9 decimals or is out of range."""
    try:
        scaled = _EXACT.multiply(value, _NANO_DECIMAL)
        nano = int(scaled)
    except (DecimalException, ValueError, OverflowError):
        raise ValueError(f"{value} is not a whole number of 10^-9 within range") from None
    if nano != scaled:
        raise ValueError(f"{value} has more than {FRACTION_DIGITS_MAX} decimals")
    return nano


def plain(value: Decimal) -> str:
    """The value as text without exponent and without zeros at the end: "0.004", "1200", "0"."""
    if not value:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
