"""Step five: attribute slots to subscriptions, price them, and give what every billed item should cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.proof import prices
from pipeline.proof.facts import Catalogue, Price, to_time, to_us
from pipeline.proof.ownership import bound, owners
from pipeline.proof.steps import decimal_text, steps_of
from pipeline.proof.usage import QUERIES, SCALE
from pipeline.proof.workspace import Workspace


class Window(NamedTuple):
    """A billing period of an account, in microseconds."""

    account_id: str
    from_us: int
    to_us: int


class ItemKey(NamedTuple):
    """What a billed item is; `subject` is '' where the price is not per server."""

    subscription_id: str
    item: str
    period_from_us: int
    subject: str


@dataclass(frozen=True, slots=True)
class Part:
    """What an item used while one price was in force: `quantity` in the meter's unit, `share` of the period."""

    price: Price
    from_us: int
    to_us: int
    quantity: Fraction
    share: Fraction

    @property
    def segment(self) -> dict[str, Any]:
        """It as a total has it."""
        return {
            "price_version_id": self.price.price_version_id,
            "from": _stamp(self.from_us),
            "to": _stamp(self.to_us),
            "quantity": decimal_text(self.quantity),
        }

    @property
    def breakdown(self) -> dict[str, Any]:
        """It as a charge and an invoice's line have it, in the price's unit and with the steps of the price."""
        quantity = self.quantity / Fraction(self.price.base_units)
        return {
            "price_version_id": self.price.price_version_id,
            "price": self.price.price,
            "unit": self.price.unit,
            "quantity": decimal_text(quantity),
            "from": _stamp(self.from_us),
            "to": _stamp(self.to_us),
            "steps": [
                {
                    "label": step.label,
                    "quantity": decimal_text(step.quantity),
                    "unit_price": decimal_text(step.unit_price),
                    "amount": decimal_text(step.amount),
                }
                for step in steps_of(self.price.model, self.price.parameters, quantity, self.share)
            ],
        }


@dataclass(slots=True)
class Cost:
    """
    What an item used and costs, by product; quantities in the meter's unit, amounts with 12 decimals.

    parts: All of its prices in order of time, also those nothing was used at; none where nothing was used at all.
    """

    quantities: dict[str, Fraction] = field(default_factory=dict)
    amounts: dict[str, Decimal] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)

    @property
    def quantity(self) -> Fraction:
        """Of all products."""
        return sum(self.quantities.values(), Fraction(0))


@dataclass(frozen=True, slots=True)
class _Segment:
    subscription_id: str
    item: str
    meter: str
    price: Price
    from_us: int
    to_us: int
    window: Window

    @property
    def share(self) -> Fraction:
        return Fraction(self.to_us - self.from_us, self.window.to_us - self.window.from_us)


@dataclass(frozen=True, slots=True)
class Recomputed:
    """Costs of every item of some windows, and how many counted events each window rests on."""

    costs: Mapping[ItemKey, Cost]
    events: Mapping[Window, int]
    subjects: Mapping[str, frozenset[str]]

    def of_account(self, account_id: str, accounts: Mapping[str, str]) -> "Recomputed":
        """Give the costs of one account's subscriptions; `accounts`: subscription -> account."""
        costs = {key: cost for key, cost in self.costs.items() if accounts.get(key.subscription_id) == account_id}
        return Recomputed(costs, self.events, self.subjects)


def recompute(workspace: Workspace, known: Catalogue, windows: Iterable[Window]) -> Recomputed:
    """
    Cost every item of the windows, from `slot_usage`.

    Args:
        workspace: With `slot_usage` filled for all windows.
        known: The catalogue as of the cut's horizon.
        windows: Account periods.
    """
    listed = sorted(set(windows))
    accounts = {row.subscription_id: row.account_id for row in known.subscriptions}
    owned = [row for row in owners(known.assignments) if row.subscription_id in accounts]
    workspace.load(
        "owner",
        {
            "subject": pa.string(),
            "from_us": pa.int64(),
            "to_us": pa.int64(),
            "subscription_id": pa.string(),
            "account_id": pa.string(),
        },
        [(row.subject, row.from_us, row.to_us, row.subscription_id, accounts[row.subscription_id]) for row in owned],
    )
    workspace.load("account_window", {"account_id": pa.string(), "from_us": pa.int64(), "to_us": pa.int64()}, listed)
    segments = _segments(known, listed)
    _load_segments(workspace, segments)
    quantities = {
        (segment_id, subject): Fraction(int(quantity), 10**SCALE)
        for name in ("add_up", "add_up_hours")
        for segment_id, subject, quantity in workspace.rows(QUERIES[name])
    }
    window_of = {(window.account_id, window.from_us): window for window in listed}
    events = {window_of[account, start]: count for account, start, count in workspace.rows(QUERIES["events_of_period"])}
    subjects: dict[str, set[str]] = {}
    for row in known.assignments:
        if row.subscription_id in accounts:
            subjects.setdefault(accounts[row.subscription_id], set()).add(row.subject)
    return Recomputed(
        _costs(segments, quantities), events, {account: frozenset(names) for account, names in subjects.items()}
    )


def _segments(known: Catalogue, windows: Sequence[Window]) -> list[_Segment]:
    """Cut each window by the subscription's life and the prices of its items."""
    price_of = {price.price_version_id: price for price in known.prices}
    bindings = bound(known.bindings, max((window.to_us for window in windows), default=0))
    found: list[_Segment] = []
    for subscription in known.subscriptions:
        lives_from = to_us(subscription.starts_at)
        lives_to = None if subscription.ends_at is None else to_us(subscription.ends_at)
        for window in windows:
            if window.account_id != subscription.account_id:
                continue
            opens = max(window.from_us, lives_from)
            closes = window.to_us if lives_to is None else min(window.to_us, lives_to)
            for (subscription_id, item), stretches in bindings.items():
                for stretch in stretches if subscription_id == subscription.subscription_id else ():
                    start, end = max(opens, stretch.from_us), min(closes, stretch.to_us)
                    if start < end:
                        price = price_of[stretch.price_version_id]
                        found.append(_Segment(subscription_id, item, stretch.meter, price, start, end, window))
    return found


def _load_segments(workspace: Workspace, segments: Sequence[_Segment]) -> None:
    workspace.load(
        "segment",
        {
            "segment_id": pa.int64(),
            "subscription_id": pa.string(),
            "meter": pa.string(),
            "per_subject": pa.bool_(),
            "from_us": pa.int64(),
            "to_us": pa.int64(),
            "period_from_us": pa.int64(),
            "period_to_us": pa.int64(),
        },
        [
            (
                segment_id,
                segment.subscription_id,
                segment.meter,
                segment.price.model in prices.PER_SERVER_MODELS,
                segment.from_us,
                segment.to_us,
                segment.window.from_us,
                segment.window.to_us,
            )
            for segment_id, segment in enumerate(segments)
        ],
    )


def _costs(segments: Sequence[_Segment], quantities: Mapping[tuple[int, str], Fraction]) -> dict[ItemKey, Cost]:
    costs: dict[ItemKey, Cost] = {}
    exact: dict[tuple[ItemKey, str], Fraction] = {}
    for (segment_id, subject), quantity in quantities.items():
        segment = segments[segment_id]
        price = segment.price
        key = ItemKey(segment.subscription_id, segment.item, segment.window.from_us, subject)
        amount = prices.amount_of(price.model, price.parameters, quantity / Fraction(price.base_units), segment.share)
        cost = costs.setdefault(key, Cost())
        cost.quantities[price.product] = cost.quantities.get(price.product, Fraction(0)) + quantity
        exact[key, price.product] = exact.get((key, price.product), Fraction(0)) + amount
    for (key, product), amount in exact.items():
        costs[key].amounts[product] = prices.posted(amount)
    by_item: dict[tuple[str, str, int], list[tuple[int, _Segment]]] = {}
    for segment_id, segment in enumerate(segments):
        item = (segment.subscription_id, segment.item, segment.window.from_us)
        by_item.setdefault(item, []).append((segment_id, segment))
    for key, cost in costs.items():
        for segment_id, segment in by_item[key.subscription_id, key.item, key.period_from_us]:
            if (segment.price.model in prices.PER_SERVER_MODELS) == bool(key.subject):
                quantity = quantities.get((segment_id, key.subject), Fraction(0))
                cost.parts.append(Part(segment.price, segment.from_us, segment.to_us, quantity, segment.share))
    return costs


def _stamp(at_us: int) -> str:
    return to_time(at_us).isoformat().replace("+00:00", "Z")


def window_of(account_id: str, start: datetime, end: datetime) -> Window:
    """Give a window of instants."""
    return Window(account_id, to_us(start), to_us(end))
