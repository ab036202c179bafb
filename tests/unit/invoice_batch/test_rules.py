"""Lines, totals and numbers of an invoice."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.errors import InvariantViolation
from pipeline.domain.period import Period, calendar_month
from pipeline.invoice_batch import rules, seals
from pipeline.invoice_batch.model import ItemCharge, Posting, Segment

ZONE = "Europe/Amsterdam"
JUNE, JULY, AUGUST = (calendar_month(2013, month, ZONE) for month in (6, 7, 8))


def item(number: int, period: Period = JULY, subject: str = "", **changes: Any) -> ItemCharge:
    values: dict[str, Any] = {
        "billed_item_id": number,
        "subscription_id": "main",
        "item": "cpu",
        "subject": subject,
        "period": period,
        "revision": 1,
        "segments": (Segment(7, "compute", Decimal("3600")),),
        "breakdown": ({"price_version_id": 7, "steps": []},),
    }
    return ItemCharge(**(values | changes))


def posting(entry: int, item_id: int, amount: str, product: str = "compute", currency: str = "EUR") -> Posting:
    return Posting(entry, item_id, product, currency, Decimal(amount))


def draft(items: list[ItemCharge], postings: list[Posting]) -> list[Any]:
    return rules.draft_lines(items, postings, JULY, "EUR", ZONE)


def test_a_line_is_rounded_once_over_all_its_postings() -> None:
    """Three postings of 0.004 are one cent, not three times nothing."""
    lines = draft([item(1)], [posting(entry, 1, "0.004") for entry in (1, 2, 3)])
    assert [(line.amount_exact, line.amount_minor, line.ledger_entry_ids) for line in lines] == [
        (Decimal("0.012"), 1, (1, 2, 3))
    ]


def test_the_total_is_the_sum_of_the_lines_a_reader_sees() -> None:
    """Two lines of 0.005 are 0.01 each, and 0.02 together."""
    lines = draft([item(1), item(2)], [posting(1, 1, "0.005"), posting(2, 2, "0.005")])
    assert rules.total_minor(lines) == 2


def test_usage_that_costs_nothing_stands_on_the_invoice_and_no_usage_does_not() -> None:
    """A free tier is shown with its quantity; an item without use and without postings is left out."""
    idle = item(2, segments=(Segment(7, "compute", Decimal(0)),))
    lines = draft([item(1), idle], [])
    assert [(line.billed_item_id, line.amount_minor) for line in lines] == [(1, 0)]


def test_an_older_item_without_postings_is_not_shown_again() -> None:
    """June stands on June's invoice."""
    assert draft([item(1, JUNE)], []) == []


def test_late_usage_is_its_own_line_after_the_period() -> None:
    """A posting for June on July's invoice is named as June's."""
    lines = draft([item(1, JUNE), item(2)], [posting(1, 1, "1"), posting(2, 2, "2")])
    assert [(line.service_period, line.description) for line in lines] == [
        (JULY, "cpu"),
        (JUNE, "cpu: correction for June 2013"),
    ]


def test_a_change_of_product_gives_each_product_its_line() -> None:
    """What moved off a product is credited there, what moved on is charged there."""
    split = item(1, segments=(Segment(8, "premium", Decimal(5)),), breakdown=({"price_version_id": 8},))
    lines = draft([split], [posting(1, 1, "-3"), posting(2, 1, "4", "premium")])
    assert [(line.product, line.amount_minor, line.quantity, len(line.breakdown)) for line in lines] == [
        ("compute", -300, Decimal(0), 0),
        ("premium", 400, Decimal(5), 1),
    ]


def test_servers_stand_in_the_order_people_count() -> None:
    """vm-2 comes before vm-10."""
    lines = draft([item(1, subject="vm-10"), item(2, subject="vm-2")], [])
    assert [line.subject for line in lines] == ["vm-2", "vm-10"]


@pytest.mark.parametrize(
    ("items", "foreign"),
    [
        ([item(1, AUGUST)], posting(1, 1, "1")),
        ([item(1)], posting(1, 1, "1", currency="USD")),
        ([item(1)], posting(1, 2, "1")),
    ],
    ids=["later period", "other currency", "unread item"],
)
def test_a_foreign_posting_stops_the_cut(items: list[ItemCharge], foreign: Posting) -> None:
    """July's usage never stands on June's invoice, nor dollars among euros."""
    with pytest.raises(InvariantViolation):
        draft(items, [foreign])


@given(st.lists(st.decimals(min_value=-(10**9), max_value=10**9, places=12), min_size=1, max_size=20))
def test_an_invoice_posts_exactly_what_it_took(amounts: list[Decimal]) -> None:
    """Receivable, credits and rounding sum to zero, to the last digit."""
    taken = {(index % 3, JULY.start): Decimal(0) for index in range(len(amounts))}
    for index, amount in enumerate(amounts):
        taken[index % 3, JULY.start] = rules.exact_sum((taken[index % 3, JULY.start], amount))
    total = Decimal(rules.total_minor(draft([item(1)], [posting(n, 1, str(a)) for n, a in enumerate(amounts)]))) / 100
    credited, rounding = rules.ledger_amounts(taken, total)
    assert rules.exact_sum([total, rounding, *(amount for _, _, amount in credited)]) == 0


def test_numbers_and_dates() -> None:
    """Numbers carry their year and grow beyond four digits; the year is that of the issue."""
    assert rules.series_of(date(2014, 1, 1)) == "2014"
    assert rules.invoice_number("RM", "2013", 1) == "RM-2013-0001"
    assert rules.invoice_number("RM", "2013", 12345) == "RM-2013-12345"
    assert rules.due_date(date(2013, 12, 31), 14) == date(2014, 1, 14)
    assert rules.month_label(datetime(2013, 6, 30, 22, tzinfo=UTC), ZONE) == "2013-07"


def test_a_digest_covers_every_column_of_every_row() -> None:
    """Text and null as JSON, one row a line."""
    assert seals.rows_digest([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    different: list[list[list[object]]] = [[[1, None]], [[1, "None"]], [[1], [None]], [["1", "ü"]]]
    digests = {seals.rows_digest(rows) for rows in different}
    assert len(digests) == 4
    assert seals.rows_digest([[1]]) == seals.rows_digest([["1"]])
    assert seals.canonical_parameters({"b": ["1"], "a": None}) == '{"a":null,"b":["1"]}'
