"""Values: exact from the JSON text on, or refused by name."""

import contextlib
import time
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts.usage_reading import reading_decoder
from pipeline.domain.errors import RejectedRecord

read = reading_decoder(("a",))


def nano_of(text: str) -> int:
    return read(msgspec.Raw(b'{"a":' + text.encode() + b"}"))[0]


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("1", 10**9),
        ('"1"', 10**9),
        ("0.000000001", 1),
        ("12345678901234567.123456", 12345678901234567123456000),
        ('"999999999999999999.999999999"', 10**27 - 1),
        ("1.50000000000000000000", 1_500_000_000),
        ("1e2", 100 * 10**9),
        ('"1E-9"', 1),
        ("-0", 0),
        ('"-0.0"', 0),
        ("0e999", 0),
        ('"\\u0031"', 10**9),
    ],
)
def test_value_is_exact(text: str, nano: int) -> None:
    """A JSON number or a string of one becomes a whole number of 10^-9, to the last digit."""
    assert nano_of(text) == nano


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1e18", "value_out_of_range"),
        ("1000000000000000000", "value_out_of_range"),
        ("1e400", "value_out_of_range"),
        ("1E+999999999", "value_out_of_range"),
        ("1e-400", "value_too_precise"),
        ("1E-999999999", "value_too_precise"),
        ("1E+99999999999999999999999", "value_invalid"),
        ("0.0000000001", "value_too_precise"),
        ("-1", "value_negative"),
        ('"-0.000000001"', "value_negative"),
        ('""', "value_invalid"),
        ('"NaN"', "value_invalid"),
        ('"sNaN"', "value_invalid"),
        ('"-Infinity"', "value_invalid"),
        ('"1_000"', "value_invalid"),
        ('"１"', "value_invalid"),
        ('"1."', "value_invalid"),
        ('"0x10"', "value_invalid"),
        ("null", "value_invalid"),
        ("false", "value_invalid"),
        ("[]", "value_invalid"),
        ("{}", "value_invalid"),
    ],
)
def test_value_that_is_not_usage_is_refused(text: str, reason: str) -> None:
    """Whatever is no number, negative, too large or too fine is refused under its own reason, naming the field."""
    with pytest.raises(RejectedRecord) as refused:
        nano_of(text)
    assert refused.value.reason_code == reason
    assert "data.a" in refused.value.detail


@pytest.mark.parametrize("text", ["1E+999999999", "0E+999999999", "1E-999999999", "9" * 100_000, "0." + "9" * 100_000])
def test_giant_values_are_judged_quickly(text: str) -> None:
    """No giant integer is built on the way to a refusal."""
    began = time.process_time()
    with contextlib.suppress(RejectedRecord):
        nano_of(text)
    assert time.process_time() - began < 0.2


def test_missing_field_is_named() -> None:
    """A member that is not there is value_missing."""
    with pytest.raises(RejectedRecord) as refused:
        reading_decoder(("a", "b"))(msgspec.Raw(b'{"a":1}'))
    assert (refused.value.reason_code, refused.value.detail) == ("value_missing", "data.b is missing")


def test_fields_may_have_any_name() -> None:
    """A member's name need not be one Python would take."""
    assert reading_decoder(("class", "a-b", "ü"))(msgspec.Raw('{"ü":3,"a-b":2,"class":1}'.encode())) == (
        10**9,
        2 * 10**9,
        3 * 10**9,
    )


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?", fullmatch=True))
def test_number_and_string_agree_with_decimal(text: str) -> None:
    """As number and as string a value is the same, and what Decimal says it is, or refused both ways alike."""
    if not text.isascii():
        return
    answers: list[int | str] = []
    for written in (text, f'"{text}"'):
        try:
            answers.append(nano_of(written))
        except RejectedRecord as refused:
            answers.append(refused.reason_code)
    assert answers[0] == answers[1]
    if isinstance(answers[0], int):
        assert Decimal(answers[0]).scaleb(-9) == Decimal(text)
