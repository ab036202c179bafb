"""Booking: the difference to what is posted, balanced, per product and currency."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts.charge import Amount, Charge, Outcome
from pipeline.domain.errors import RejectedRecord
from pipeline.ledger_sink.rules import BilledItem, BookedCharge, book, latest, read_amounts

ITEM = BilledItem(42, "acme", datetime(2026, 6, 1, tzinfo=UTC))
NOTHING = BookedCharge(1, 0, {})


def charge(revision: int, outcome: Outcome = "rated", item: int = 42, **amounts: str) -> Charge:
    return Charge(
        billed_item_id=item,
        revision=revision,
        outcome=outcome,
        reason="" if outcome == "rated" else f"{outcome}: for a reason",
        quantity="1",
        amounts=tuple(Amount(product=name, currency="EUR", amount=text) for name, text in amounts.items()),
        price_version_ids=(),
        breakdown=(),
    )


def test_usage_debits_unbilled_and_credits_revenue() -> None:
    """The first charge posts its whole amount, under a key of item, generation and revision."""
    booking = book(charge(3, compute="8.64"), ITEM, 1, NOTHING)
    assert [(entry.ledger_account.name, entry.amount) for entry in booking.entries] == [
        ("unbilled:acme:EUR", Decimal("8.64")),
        ("revenue:compute:EUR", Decimal("-8.64")),
    ]
    assert booking.key == "usage:42:1:3"


def test_a_backdated_plan_change_moves_revenue_between_products() -> None:
    """The difference is per product: the same sum on another product is four entries, not none."""
    booking = book(charge(4, premium="8.64"), ITEM, 1, BookedCharge(1, 3, {("compute", "EUR"): Decimal("8.64")}))
    assert {(entry.ledger_account.name, entry.amount) for entry in booking.entries} == {
        ("unbilled:acme:EUR", Decimal("-8.64")),
        ("revenue:compute:EUR", Decimal("8.64")),
        ("unbilled:acme:EUR", Decimal("8.64")),
        ("revenue:premium:EUR", Decimal("-8.64")),
    }


def test_the_same_amount_written_otherwise_posts_nothing() -> None:
    """8.640 is 8.64: no entry of zero."""
    assert (
        book(charge(4, compute="8.640"), ITEM, 1, BookedCharge(1, 3, {("compute", "EUR"): Decimal("8.64")})).entries
        == ()
    )


def test_a_vanished_item_is_booked_back_to_zero() -> None:
    """No amounts take back what is posted."""
    booking = book(charge(4), ITEM, 1, BookedCharge(1, 3, {("compute", "EUR"): Decimal("8.64")}))
    assert [entry.amount for entry in booking.entries] == [Decimal("-8.64"), Decimal("8.64")]


@pytest.mark.parametrize("outcome", ["no_price", "failed"])
def test_an_unrated_charge_leaves_what_is_posted(outcome: Outcome) -> None:
    """Nothing is posted and the posted amounts stay on record."""
    booking = book(charge(4, outcome), ITEM, 1, BookedCharge(1, 3, {("compute", "EUR"): Decimal("8.64")}))
    assert booking.entries == ()
    assert read_amounts(booking.posted) == {("compute", "EUR"): Decimal("8.64")}


@pytest.mark.parametrize("text", ["", "1e3", "0.0000000000001", "NaN", "1" * 27, " 1", "1.", "١"])
def test_an_amount_the_ledger_cannot_hold_is_refused(text: str) -> None:
    """Only plain decimals of at most 26 + 12 digits are amounts."""
    with pytest.raises(RejectedRecord):
        book(charge(1, compute=text), ITEM, 1, NOTHING)


def test_a_product_named_twice_is_refused() -> None:
    """One amount a product and currency, or nobody knows which is meant."""
    with pytest.raises(RejectedRecord):
        read_amounts([Amount(product="a", currency="EUR", amount="1"), Amount(product="a", currency="EUR", amount="1")])


def test_of_several_charges_of_an_item_the_highest_revision_is_kept() -> None:
    """The others are superseded, whatever their order; items come ascending."""
    kept = latest([charge(2, item=9), charge(5, item=7), charge(4, item=9), charge(3, item=9)])
    assert [(number, one.revision) for number, one in kept.items()] == [(7, 5), (9, 4)]


amounts = st.dictionaries(
    st.sampled_from(["compute", "disk", "network"]),
    st.decimals(min_value=-(10**20), max_value=10**20, places=12).map(lambda value: format(value, "f")),
)


@given(st.lists(amounts, min_size=1, max_size=6))
def test_any_sequence_of_charges_posts_the_last_one(charges: list[dict[str, str]]) -> None:
    """The sum of all differences is the last charge, and every transaction balances."""
    booked, posted = NOTHING, dict[str, Fraction]()
    for revision, wanted in enumerate(charges, start=1):
        booking = book(charge(revision, "rated", 42, **wanted), ITEM, 1, booked)
        assert sum((Fraction(entry.amount) for entry in booking.entries), Fraction(0)) == 0
        assert all(entry.amount for entry in booking.entries)
        for entry in booking.entries:
            name = entry.ledger_account.name
            posted[name] = posted.get(name, Fraction(0)) + Fraction(entry.amount)
        booked = BookedCharge(1, revision, read_amounts(booking.posted))
    revenue = {name: -amount for name, amount in posted.items() if name.startswith("revenue:") and amount}
    last = {f"revenue:{name}:EUR": Fraction(text) for name, text in charges[-1].items() if Fraction(text)}
    assert revenue == last


def test_a_mended_price_is_booked_at_the_revision_it_failed_at() -> None:
    """A charge that failed is overtaken by a rated one of its own revision, and by no other of it."""
    failed = BookedCharge(1, 4, {}, is_rated=False)

    assert failed.is_overtaken_by(1, charge(4, compute="1"))
    assert not failed.is_overtaken_by(1, charge(4, "failed"))
    assert not failed.is_overtaken_by(1, charge(3, compute="1"))
    assert not BookedCharge(1, 4, {}).is_overtaken_by(1, charge(4, compute="1"))
