"""What a new catalogue document changes in the stored one, and what it may not change; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from pipeline.catalogue.bindings import BoundPrice, flatten
from pipeline.catalogue.model import Account, Binding, Catalogue, Meter, Price, Seller, Subscription
from pipeline.domain.period import zone


@dataclass(frozen=True, slots=True)
class Stored:
    """The catalogue as the database has it; mappings by name, bindings in the order of their table's key."""

    sellers: Mapping[str, Seller]
    meters: Mapping[str, Meter]
    prices: Mapping[str, Price]
    accounts: Mapping[str, Account]
    subscriptions: Mapping[str, Subscription]
    bindings: Sequence[Binding]
    ignored_types: frozenset[str]
    counted_until: Mapping[str, datetime]
    """By event type, the latest event time that was counted."""


def refusals(stored: Stored, wanted: Catalogue) -> list[str]:
    """Everything in the document that would change what never changes, each with what to do instead."""
    return [
        *_meter_refusals(stored, wanted),
        *_price_refusals(stored, wanted),
        *_account_refusals(stored, wanted),
        *_subscription_refusals(stored, wanted),
        *(
            f"ignore: {event_type} was ignored before and stays so; keep it in the list"
            for event_type in sorted(stored.ignored_types - set(wanted.ignored_types))
        ),
    ]


def new_bindings(stored: Stored, wanted: Catalogue) -> list[BoundPrice]:
    """The rows to add so that the stored bindings say what the document says, by subscription, item and time."""
    price_names = {price.price_version_id: price.price for price in stored.prices.values()}
    known: dict[tuple[str, str], dict[datetime, tuple[str, str]]] = {}
    for row in stored.bindings:
        # Ordered by known number within one time, so the latest word stays.
        of_item = known.setdefault((row.subscription_id, row.item), {})
        of_item[row.effective_from] = (row.meter, price_names[row.price_version_id])
    added: list[BoundPrice] = []
    for _, subscription in sorted(wanted.subscriptions.items()):
        for item, group in groupby(flatten(wanted, subscription), key=lambda one: one.item):
            added += _missing(list(group), known.get((subscription.subscription_id, item), {}))
    return added


def _missing(wanted: list[BoundPrice], stored: Mapping[datetime, tuple[str, str]]) -> list[BoundPrice]:
    """A binding that is no longer wanted is answered by a row at its time that says what was so before it."""
    rows: list[BoundPrice] = []
    for at in sorted({*stored, *(one.effective_from for one in wanted)}):
        covering = [one for one in wanted if one.effective_from <= at]
        if covering and stored.get(at) != (covering[-1].meter, covering[-1].price):
            rows.append(replace(covering[-1], effective_from=at))
    return rows


def _meter_refusals(stored: Stored, wanted: Catalogue) -> list[str]:
    found = []
    for name, meter in wanted.meters.items():
        known = stored.meters.get(name)
        if known is not None and replace(known, meter_version_id=0) != meter:
            found.append(f"meters.{name}: a meter never changes; give it a new name and a dated change in the plan")
        if meter.event_type in stored.ignored_types:
            found.append(f"meters.{name}: {meter.event_type} was declared ignored; events of it are not counted anew")
        last_at = stored.counted_until.get(meter.event_type)
        if known is None and last_at is not None and meter.effective_from <= last_at:
            found.append(
                f"meters.{name}: events of {meter.event_type} were counted up to {last_at.isoformat()}; a meter over "
                "events already counted begins in the future: say a `from` after that, or it is a rebuild "
                "(not available yet)"
            )
    return found


def _price_refusals(stored: Stored, wanted: Catalogue) -> list[str]:
    return [
        f"prices.{name}: a price never changes; give it a new name and a dated change in the plan"
        for name, price in wanted.prices.items()
        if name in stored.prices and replace(stored.prices[name], price_version_id=0).digest != price.digest
    ]


def _account_refusals(stored: Stored, wanted: Catalogue) -> list[str]:
    found = []
    for account_id, known in stored.accounts.items():
        account = wanted.accounts.get(account_id)
        if account is None:
            found.append(f"accounts.{account_id}: is missing; an account stays, end its subscriptions with `to`")
            continue
        for field in ("currency", "time_zone", "seller"):
            before, after = getattr(known, field), getattr(account, field)
            if before != after:
                found.append(f"accounts.{account_id}.{field}: was {before} and stays so; open another account")
    for name, seller in wanted.sellers.items():
        before_seller = stored.sellers.get(name)
        if before_seller is not None and (before_seller.number_prefix, before_seller.time_zone) != (
            seller.number_prefix,
            seller.time_zone,
        ):
            found.append(f"sellers.{name}: number_prefix and time_zone stay as they were; add another seller")
    return found


def _subscription_refusals(stored: Stored, wanted: Catalogue) -> list[str]:
    found = []
    for subscription_id, known in stored.subscriptions.items():
        path = f"accounts.{known.account_id}.subscriptions.{subscription_id}"
        subscription = wanted.subscriptions.get(subscription_id)
        if subscription is None:
            found.append(f"{path}: is missing; a subscription stays, end it with `to`")
            continue
        for field in ("account_id", "plan", "starts_at"):
            before, after = getattr(known, field), getattr(subscription, field)
            if before != after:
                found.append(f"{path}: {field} was {before} and stays so; end it with `to` and begin another")
        if not any(message.startswith(path) for message in found):
            found += _item_refusals(stored, wanted, subscription, path)
    return found


def _item_refusals(stored: Stored, wanted: Catalogue, subscription: Subscription, path: str) -> list[str]:
    starts: dict[str, datetime] = {}
    for row in stored.bindings:
        if row.subscription_id == subscription.subscription_id:
            starts.setdefault(row.item, row.effective_from)
    items = {item.item: item for item in wanted.plans[subscription.plan].items}
    found = [
        f"{path}: the plan's item {item} is charged already and stays in the plan"
        for item in sorted(starts.keys() - items.keys())
    ]
    flat = flatten(wanted, subscription)
    found += _later_refusals(wanted, subscription, starts, flat)
    for bound in flat:
        first = starts.setdefault(bound.item, bound.effective_from)
        if bound.item not in items:
            continue
        if first == bound.effective_from and items[bound.item].starts is None and not _is_stored(stored, bound):
            found.append(f"plans.{subscription.plan}.items.{bound.item}: say `from` when this new item begins")
    return found


def _later_refusals(
    wanted: Catalogue, subscription: Subscription, starts: Mapping[str, datetime], flat: Sequence[BoundPrice]
) -> list[str]:
    """Rows are only added, so there is none that says an item is not charged yet."""
    zone_of_account = zone(wanted.accounts[subscription.account_id].time_zone)
    found = []
    for item, group in groupby(flat, key=lambda one: one.item):
        first, begins = starts.get(item), next(group).effective_from
        if first is not None and first < begins:
            local = first.astimezone(zone_of_account).isoformat(timespec="minutes")
            found.append(
                f"plans.{subscription.plan}.items.{item}: {subscription.subscription_id} is charged for it from "
                f"{local} on and stays so; put its `from` back, and for a time without charge give it a price of 0 "
                "with a dated change"
            )
    return found


def _is_stored(stored: Stored, bound: BoundPrice) -> bool:
    return any((row.subscription_id, row.item) == (bound.subscription_id, bound.item) for row in stored.bindings)
