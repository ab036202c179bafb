"""Documents as pages: the invoice for its buyer, the summary for whoever ran the close. The home of jinja2."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

# Display only: nothing computes with what these make.
_DISPLAY = Context(prec=60, rounding=ROUND_HALF_UP)
QUANTITY_DECIMALS_SHOWN = 6
THIN_SPACE = "\u202f"


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """An invoice in the summary's table; `total` as text with its currency, links relative to the page."""

    number: str
    account: str
    period: str
    lines: int
    total: str
    state: str
    html_link: str = ""
    json_link: str = ""


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """A ledger account of the trial balance; `balance` as decimal text."""

    name: str
    currency: str
    balance: str


@dataclass(frozen=True, slots=True)
class SummaryFacts:
    """
    What the summary page of a run shows.

    counts: (what, how many), e.g. ("sent", 412345); shown in this order.
    balance_sums: currency -> sum of the trial balance as decimal text; all zero or something is wrong.
    proof_facts: (what, value) of the proof's report.
    held: One sentence per reason an account was held.
    links: (text, link) to other files.
    """

    title: str
    period: str
    counts: Sequence[tuple[str, int]]
    invoices: Sequence[InvoiceRow]
    trial_balance: Sequence[BalanceRow]
    balance_sums: Mapping[str, str]
    proof_ok: bool
    proof_sentence: str
    proof_facts: Sequence[tuple[str, str]] = ()
    held: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()


def render_invoice(document: Mapping[str, Any]) -> str:
    """The invoice as one self-contained HTML page, A4 when printed; the same document gives the same bytes."""
    groups: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
    for line in document["lines"]:
        groups.setdefault((line["product"], "charged_before" in line), []).append(line)
    ordered = sorted(groups.items(), key=lambda group: (group[0][1], group[0][0]))
    return _environment().get_template("invoice.html").render(document=document, groups=ordered)


def render_summary(facts: SummaryFacts) -> str:
    """The whole run on one self-contained HTML page."""
    balanced = all(Decimal(balance) == 0 for balance in facts.balance_sums.values())
    return _environment().get_template("summary.html").render(facts=facts, balanced=balanced)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_template_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["grouped"] = grouped
    environment.filters["quantity"] = shown_quantity
    environment.filters["money"] = shown_money
    environment.filters["day"] = shown_day
    environment.filters["iban"] = shown_in_fours
    return environment


def _template_text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def grouped(text: str | int) -> str:
    """Thousands apart: "-1234567.890" -> "-1 234 567.890", with thin spaces that do not break, and a true minus."""
    whole, point, decimals = str(text).partition(".")
    sign, digits = ("−", whole[1:]) if whole.startswith("-") else ("", whole)
    head = len(digits) % 3
    parts = [digits[:head]] if head else []
    parts += [digits[at : at + 3] for at in range(head, len(digits), 3)]
    return sign + THIN_SPACE.join(parts) + point + decimals


def shown_quantity(text: str) -> str:
    """A quantity for reading: at most 6 decimals, "≈" before it where that is not all of it."""
    value = Decimal(text)
    rounded = _DISPLAY.quantize(value, Decimal(1).scaleb(-QUANTITY_DECIMALS_SHOWN))
    plain = format(rounded, "f").rstrip("0").rstrip(".")
    plain = "0" if plain in ("-0", "") else plain
    return ("" if rounded == value else "≈ ") + grouped(plain)


def shown_money(text: str) -> str:
    """An exact amount for reading, at least 2 and at most 6 decimals."""
    plain = shown_quantity(text)
    whole, _, decimals = plain.partition(".")
    return f"{whole}.{decimals.ljust(2, '0')}"


def shown_day(text: str) -> str:
    """ "2013-07-31" -> "31 July 2013"."""
    day = date.fromisoformat(text)
    return f"{day.day} {day:%B %Y}"


def shown_in_fours(text: str) -> str:
    """A reference or bank account in groups of four: "RF18RM2013" -> "RF18 RM20 13"."""
    compact = text.replace(" ", "")
    return " ".join(compact[at : at + 4] for at in range(0, len(compact), 4))
