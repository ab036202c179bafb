"""Bank-transfer references."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.money import Money
from pipeline.payments.gateway import Attempt
from pipeline.payments.manual import ManualGateway, creditor_reference, is_creditor_reference


def test_the_published_example_holds() -> None:
    """RF18 5390 0754 7034 is the example banks print."""
    assert creditor_reference("539007547034") == "RF18539007547034"
    assert is_creditor_reference("RF18 5390 0754 7034")


@given(st.from_regex(r"[A-Z]{2}-[0-9]{4}-[0-9]{4}", fullmatch=True), st.integers(0, 9))
def test_a_mistyped_digit_is_noticed(number: str, digit: int) -> None:
    """The check digits hold for what was made and fail when one digit changes."""
    reference = creditor_reference(number)
    assert is_creditor_reference(reference)
    changed = reference[:-1] + str(digit)
    assert is_creditor_reference(changed) == (changed == reference)


@pytest.mark.parametrize("number", ["", "---", "A" * 22])
def test_a_number_that_does_not_fit_is_refused(number: str) -> None:
    """A reference has 1 to 21 characters after its check digits."""
    with pytest.raises(ValueError, match="creditor reference"):
        creditor_reference(number)


@pytest.mark.parametrize("text", ["", "RF", "RF00", "XX18539007547034", "RF1A539007547034", "RF18539007547034é"])
def test_what_is_no_reference_is_not_one(text: str) -> None:
    """Form first, then check digits."""
    assert not is_creditor_reference(text)


def test_asking_twice_gives_the_same_answer() -> None:
    """The manual gateway keeps no state: an attempt has one reference."""
    attempt = Attempt("inv_1", 1, "RM-2013-0001", "acme", Money(100, "EUR"), "inv_1:1")
    gateway = ManualGateway()
    assert gateway.request(attempt) == gateway.request(attempt) == gateway.look_up(attempt)
    assert gateway.request(attempt).reference == creditor_reference("RM-2013-0001")
