"""The proof's steps of a price are right by examples worked out by hand, and add up to what the price costs."""

from fractions import Fraction

import pytest

from pipeline.domain.errors import InvariantViolation
from pipeline.payments.manual import is_creditor_reference
from pipeline.proof.issued import creditor_reference
from pipeline.proof.prices import amount_of
from pipeline.proof.steps import decimal_text, steps_of

TIERS = {
    "tiers": [
        {"up_to": "100", "unit_price": "0"},
        {"up_to": "1000.5", "unit_price": "0.01"},
        {"up_to": None, "unit_price": "0.008"},
    ]
}
CAPPED = {"unit_price": "0.03", "cap": "2.5"}


@pytest.mark.parametrize(
    ("model", "parameters", "quantity", "share", "labels"),
    [
        ("per_unit", {"unit_price": "0.006"}, "1/3", "1", ["every unit"]),
        ("graduated", TIERS, "0", "1", []),
        ("graduated", TIERS, "100", "1", ["0 to 100"]),
        ("graduated", TIERS, "1500", "1", ["0 to 100", "100 to 1000.5", "above 1000.5"]),
        ("hourly_capped", CAPPED, "10", "1", ["every hour"]),
        ("hourly_capped", CAPPED, "100", "1/3", ["every hour", "capped at 0.833333333333"]),
    ],
)
def test_steps(model: str, parameters: dict[str, object], quantity: str, share: str, labels: list[str]) -> None:
    """Each step is named, and their amounts are the price, whatever of the month it was in force for."""
    steps = steps_of(model, parameters, Fraction(quantity), Fraction(share))

    assert [step.label for step in steps] == labels
    assert sum(step.amount for step in steps) == amount_of(model, parameters, Fraction(quantity), Fraction(share))


def test_a_model_without_a_statement_is_refused() -> None:
    """What the proof cannot state is not taken for proven."""
    with pytest.raises(InvariantViolation, match="moonlight"):
        steps_of("moonlight", {}, Fraction(1), Fraction(1))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0", "0"),
        ("100", "100"),
        ("-5/2", "-2.5"),
        ("1/3", "0.333333333333"),
        ("-1/10000000000000000000", "-0.0000000000000000001"),
        ("-1/30000000000000", "0"),
    ],
)
def test_decimal_text(value: str, text: str) -> None:
    """Decimals that end are whole; others are cut to a posting's; there is no zero with a sign."""
    assert decimal_text(Fraction(value)) == text


def test_references() -> None:
    """The proof's ISO 11649 reference is the one whose check digits hold."""
    assert creditor_reference("RM-2013-0001") == "RF59RM20130001"
    assert all(is_creditor_reference(creditor_reference(f"RM-2013-{number:04d}")) for number in range(1, 300))
