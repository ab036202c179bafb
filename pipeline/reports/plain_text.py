"""The books as plain-text accounting files, as hledger and Beancount read them: pure, one line at a time."""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from pipeline.domain.errors import ConfigurationFault

if TYPE_CHECKING:
    from pipeline.reports.books import BookedTransaction, Row, Summary

#: What each kind of ledger account is to an accountant.
ROOTS = {
    "unbilled": "Assets",
    "receivable": "Assets",
    "revenue": "Income",
    "rounding": "Expenses",
    "cash": "Assets",
}

DECIMALS = 12

_CURRENCY = re.compile(r"[A-Z]{3}")
_ESCAPED = re.compile(r"-([0-9A-F]{2})")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class Dialect(StrEnum):
    """Whose syntax."""

    HLEDGER = "hledger"
    BEANCOUNT = "beancount"


def export_lines(dialect: Dialect, summary: "Summary", transactions: "Iterable[BookedTransaction]") -> Iterator[str]:
    """
    Give the lines of a file with every posting, ending with an assertion of every account's balance.

    Args:
        dialect: Whose syntax.
        summary: Of the same snapshot as the transactions.
        transactions: In the order they were booked. Their dates are days of UTC.

    Raises:
        ConfigurationFault: A kind of account or a currency that cannot be written.
    """
    write = _hledger if dialect is Dialect.HLEDGER else _beancount
    yield f"; The books of Rackmeter, for {dialect}. Debits are positive; days are of UTC; {DECIMALS} decimals, exact."
    if summary.head is not None:
        yield f"; The chain's head: position {summary.head[0]}, {summary.head[1]}"
    yield from write(summary, transactions)


def beancount_part(text: str) -> str:
    """
    Write a text as a part of a Beancount account: letters, digits and hyphens, beginning with a capital or a digit.

    A first small letter becomes a capital; whatever else a text begins with, it gets a 0 before it. Every other
    character becomes its UTF-8 bytes as -XX.
    """
    escaped = "".join(one if one in _PLAIN else "".join(f"-{byte:02X}" for byte in one.encode()) for one in text)
    first = text[:1]
    return first.upper() + escaped[1:] if "a" <= first <= "z" else "0" + escaped


def from_beancount_part(part: str) -> str:
    """Give the text that `beancount_part` wrote."""
    escaped = part[1:] if part[0] == "0" else part[0].lower() + part[1:]
    return unquote(_ESCAPED.sub(r"%\1", escaped))


def hledger_part(text: str) -> str:
    """Write a text as a part of an hledger account: what means something there, spaces and non-ASCII as %XX."""
    return quote(text, safe="")


def from_hledger_part(part: str) -> str:
    """Give the text that `hledger_part` wrote."""
    return unquote(part)


def _parts(name: str, kind: str, currency: str) -> tuple[str, str, list[str]]:
    """Root, kind and what is between kind and currency of a ledger account's name."""
    if kind not in ROOTS:
        raise ConfigurationFault(f"ledger accounts of the kind {kind} cannot be exported yet", "kind_unknown")
    if not _CURRENCY.fullmatch(currency):
        raise ConfigurationFault(f"{currency!r} cannot be exported: three capitals are wanted", "currency_unknown")
    owner = name.removeprefix(kind).removesuffix(f":{currency}").removeprefix(":")
    return ROOTS[kind], kind, [owner] if owner else []


def hledger_account(name: str, kind: str, currency: str) -> str:
    """E.g. assets:unbilled:acme:EUR."""
    root, kind, owner = _parts(name, kind, currency)
    return ":".join([root.lower(), kind, *map(hledger_part, owner), currency])


def beancount_account(name: str, kind: str, currency: str) -> str:
    """E.g. Assets:Unbilled:Acme:EUR."""
    root, kind, owner = _parts(name, kind, currency)
    return ":".join([root, kind.title().replace("_", ""), *map(beancount_part, owner), currency])


def _hledger(summary: "Summary", transactions: "Iterable[BookedTransaction]") -> Iterator[str]:
    yield "decimal-mark ."
    for currency in sorted({row["currency"] for row in summary.accounts}):
        yield f"commodity 1000.{'0' * DECIMALS} {currency}"
    for row in summary.accounts:
        yield f"account {_account(row, hledger_account)}"
    for one in transactions:
        yield ""
        yield f"{_day(one.booked_at)} * ({_comment(one.key)}) {_comment(' '.join([one.kind, *one.words]))}"
        yield f"    ; posting: {one.number}, position: {one.position or 'not sealed'}"
        for entry in one.entries:
            tag = f"  ; period: {entry.period}" if entry.period else ""
            account = hledger_account(entry.ledger_account, entry.account_kind, entry.currency)
            yield f"    {account}  {_number(entry.amount)} {entry.currency}{tag}"
    if summary.last_at is not None:
        yield ""
        yield f"{_day(summary.last_at)} * balances as the books have them"
        for row in summary.accounts:
            currency = row["currency"]
            yield f"    {_account(row, hledger_account)}  0 {currency} = {_number(row['balance'])} {currency}"


def _beancount(summary: "Summary", transactions: "Iterable[BookedTransaction]") -> Iterator[str]:
    if summary.first_at is None or summary.last_at is None:
        return
    for row in summary.accounts:
        yield f"{_day(summary.first_at)} open {_account(row, beancount_account)} {row['currency']}"
    for one in transactions:
        yield ""
        yield f'{_day(one.booked_at)} * "{_quoted(" ".join([one.kind, *one.words]))}"'
        yield f'  key: "{_quoted(one.key)}"'
        yield f"  posting: {one.number}"
        if one.position is not None:
            yield f"  position: {one.position}"
        for entry in one.entries:
            account = beancount_account(entry.ledger_account, entry.account_kind, entry.currency)
            yield f"  {account}  {_number(entry.amount)} {entry.currency}"
            if entry.period:
                yield f'    period: "{entry.period}"'
    yield ""
    for row in summary.accounts:
        # A balance is of the morning; the last day is over on the next.
        balance = f"{_number(row['balance'])} ~ 0 {row['currency']}"
        yield f"{_day(summary.last_at) + timedelta(days=1)} balance {_account(row, beancount_account)}  {balance}"


def _account(row: "Row", named: Callable[[str, str, str], str]) -> str:
    return named(row["name"], row["kind"], row["currency"])


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


def _number(amount: Decimal) -> str:
    return f"{amount:.{DECIMALS}f}"


def _comment(text: str) -> str:
    """Text for hledger's first line: no parenthesis, semicolon, bar or end of line, which mean something there."""
    return "".join(one if one.isprintable() and one not in "();|%" else quote(one) for one in text)


def _quoted(text: str) -> str:
    cleaned = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return cleaned.replace("\\", "\\\\").replace('"', '\\"')
