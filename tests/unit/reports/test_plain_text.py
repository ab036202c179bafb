"""Exported books: names that can be told back, amounts as they are, whatever texts hold."""

import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.domain.errors import ConfigurationFault
from pipeline.reports.books import BookedEntry, BookedTransaction, Summary
from pipeline.reports.plain_text import (
    Dialect,
    beancount_account,
    beancount_part,
    export_lines,
    from_beancount_part,
    from_hledger_part,
    hledger_account,
    hledger_part,
)

AT = datetime(2026, 6, 30, 23, 30, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(TEXTS)
@example("acme")
@example("Acme")
@example("0acme")
@example("-41cme")
@example("a:b  c;d%41")
@example("ß é")
def test_names_are_told_back(name: str) -> None:
    """Every name is written in the characters a program takes, and read back as it was; so no two become one."""
    beancount, hledger = beancount_part(name), hledger_part(name)

    assert re.fullmatch("[A-Z0-9][A-Za-z0-9-]*", beancount)
    assert re.fullmatch("[A-Za-z0-9_.~%-]+", hledger)
    assert from_beancount_part(beancount) == name
    assert from_hledger_part(hledger) == name


def test_accounts_are_put_under_what_they_are() -> None:
    """What customers owe is an asset, what a product earned is income; a name may hold a colon of its own."""
    named = [("unbilled:acme:EUR", "unbilled"), ("revenue:a:b:EUR", "revenue"), ("rounding:EUR", "rounding")]

    assert [beancount_account(name, kind, "EUR") for name, kind in named] == [
        "Assets:Unbilled:Acme:EUR",
        "Income:Revenue:A-3Ab:EUR",
        "Expenses:Rounding:EUR",
    ]
    assert [hledger_account(name, kind, "EUR") for name, kind in named] == [
        "assets:unbilled:acme:EUR",
        "income:revenue:a%3Ab:EUR",
        "expenses:rounding:EUR",
    ]


@pytest.mark.parametrize(("kind", "currency"), [("suspense", "EUR"), ("unbilled", "euro")])
def test_what_cannot_be_written_is_refused(kind: str, currency: str) -> None:
    """An account that the export knows no place for is not left out."""
    with pytest.raises(ConfigurationFault, match="cannot be exported"):
        hledger_account(f"{kind}:x:{currency}", kind, currency)


def books() -> tuple[Summary, list[BookedTransaction]]:
    entries = (
        BookedEntry("unbilled:acme:EUR", "unbilled", "EUR", Decimal("1234567890123456.000000000001"), "2013-07"),
        BookedEntry("revenue:compute:EUR", "revenue", "EUR", Decimal("-1234567890123456.000000000001"), None),
    )
    one = BookedTransaction(7, "usage:1:1:1", "usage", AT, 3, ("acme-main", 'a "b" (c); d|e\n'), entries)
    accounts = tuple(
        {"name": e.ledger_account, "kind": e.account_kind, "currency": e.currency, "balance": e.amount} for e in entries
    )
    return Summary(accounts, AT, AT, (3, "ab" * 32)), [one]


def test_an_hledger_file_is_as_it_should_be() -> None:
    """Digit for digit; what means something to hledger in a description is escaped."""
    assert list(export_lines(Dialect.HLEDGER, *books()))[1:] == [
        "; The chain's head: position 3, " + "ab" * 32,
        "decimal-mark .",
        "commodity 1000.000000000000 EUR",
        "account assets:unbilled:acme:EUR",
        "account income:revenue:compute:EUR",
        "",
        '2026-06-30 * (usage:1:1:1) usage acme-main a "b" %28c%29%3B d%7Ce%0A',
        "    ; posting: 7, position: 3",
        "    assets:unbilled:acme:EUR  1234567890123456.000000000001 EUR  ; period: 2013-07",
        "    income:revenue:compute:EUR  -1234567890123456.000000000001 EUR",
        "",
        "2026-06-30 * balances as the books have them",
        "    assets:unbilled:acme:EUR  0 EUR = 1234567890123456.000000000001 EUR",
        "    income:revenue:compute:EUR  0 EUR = -1234567890123456.000000000001 EUR",
    ]


def test_a_beancount_file_is_as_it_should_be() -> None:
    """Accounts are opened on the first day; balances are of the morning after the last."""
    assert list(export_lines(Dialect.BEANCOUNT, *books()))[2:] == [
        "2026-06-30 open Assets:Unbilled:Acme:EUR EUR",
        "2026-06-30 open Income:Revenue:Compute:EUR EUR",
        "",
        '2026-06-30 * "usage acme-main a \\"b\\" (c); d|e\\\\n"',
        '  key: "usage:1:1:1"',
        "  posting: 7",
        "  position: 3",
        "  Assets:Unbilled:Acme:EUR  1234567890123456.000000000001 EUR",
        '    period: "2013-07"',
        "  Income:Revenue:Compute:EUR  -1234567890123456.000000000001 EUR",
        "",
        "2026-07-01 balance Assets:Unbilled:Acme:EUR  1234567890123456.000000000001 ~ 0 EUR",
        "2026-07-01 balance Income:Revenue:Compute:EUR  -1234567890123456.000000000001 ~ 0 EUR",
    ]


@pytest.mark.parametrize("dialect", Dialect)
def test_empty_books_are_a_file_too(dialect: Dialect) -> None:
    """Before anything is booked there is nothing to assert."""
    lines = list(export_lines(dialect, Summary((), None, None, None), []))
    assert all(line.startswith((";", "decimal-mark")) for line in lines)
