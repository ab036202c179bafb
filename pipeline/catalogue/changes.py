"""What a new catalogue document changes in the stored one, and what it may not change; pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from pipeline.catalogue.bindings import BoundPrice, flatten
from pipeline.catalogue.check import taken_prefix
from pipeline.catalogue.model import ALWAYS, Account, Binding, Catalogue, Meter, Price, Seller, Subscription
from pipeline.domain.decimals import plain
from pipeline.domain.errors import Problem
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


def refusals(stored: Stored, wanted: Catalogue) -> list[Problem]:
    """Everything in the document that would change what never changes, each at its place with what to do instead."""
    found = [
        *_meter_refusals(stored, wanted),
        *_price_refusals(stored, wanted),
        *_seller_refusals(stored, wanted),
        *_account_refusals(stored, wanted),
        *_subscription_refusals(stored, wanted),
        *_item_refusals(stored, wanted),
        *(
            ("ignore", f"{event_type} was ignored before and stays so; keep it in the list")
            for event_type in sorted(stored.ignored_types - set(wanted.ignored_types))
        ),
    ]
    # Subscriptions of one plan are refused the same thing at the same place.
    return [wanted.positions.problem(path, message) for path, message in dict.fromkeys(found)]


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


_Refusals = Iterator[tuple[str, str]]
"""Paths in the document, as its checks write them, and what is wrong there."""

_NEW_NAME = "give the new one a new name and a dated change in the plan"
_METER_KEYS = {
    "event_type": "event_type",
    "aggregation": "aggregation",
    "value_field": "value",
    "unit": "unit",
    "slot_seconds": "slot_seconds",
    "gap_seconds_max": "max_gap_seconds",
}


def _meter_refusals(stored: Stored, wanted: Catalogue) -> _Refusals:
    for name, meter in wanted.meters.items():
        path = f"meters.{name}"
        known = stored.meters.get(name)
        if known is not None:
            for field, key in _METER_KEYS.items():
                before = getattr(known, field)
                if before != getattr(meter, field):
                    yield f"{path}.{key}", f"was {_shown(before)} and stays so: a meter never changes; {_NEW_NAME}"
            if known.effective_from != meter.effective_from:
                before = None if known.effective_from == ALWAYS else known.effective_from.isoformat()
                yield f"{path}.from", f"was {_shown(before)} and stays so: a meter never changes; {_NEW_NAME}"
        if meter.event_type in stored.ignored_types:
            message = f"{meter.event_type} was declared ignored; events of it are not counted anew"
            yield f"{path}.event_type", message
        last_at = stored.counted_until.get(meter.event_type)
        if known is None and last_at is not None and meter.effective_from <= last_at:
            message = (
                f"events of {meter.event_type} were counted up to {last_at.isoformat()}; a meter over events already "
                "counted begins in the future: say a `from` after that, or it is a rebuild (not available yet)"
            )
            yield f"{path}.from", message


def _price_refusals(stored: Stored, wanted: Catalogue) -> _Refusals:
    for name, price in wanted.prices.items():
        known = stored.prices.get(name)
        if known is None:
            continue
        for path, before in _differences(_written(known), _written(price), f"prices.{name}"):
            yield path, f"was {_shown(before)} and stays so: a price never changes; {_NEW_NAME}"


def _written(price: Price) -> dict[str, object]:
    """The fields of a price under their names in the document."""
    names = ("model", "product", "currency", "unit")
    own: dict[str, object] = {name: getattr(price, name) for name in names}
    return {**own, "base_units": plain(price.base_units), **price.parameters}


def _differences(known: object, wanted: object, path: str) -> Iterator[tuple[str, object]]:
    """The paths of what differs, with what is known there."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        # Another model has other parameters: that is told once.
        same_model = known.get("model") == wanted.get("model")
        for key in {**known, **wanted} if same_model else known.keys() & wanted.keys():
            yield from _differences(known.get(key), wanted.get(key), f"{path}.{key}")
    elif isinstance(known, list) and isinstance(wanted, list) and len(known) == len(wanted):
        for index, (before, after) in enumerate(zip(known, wanted, strict=True)):
            yield from _differences(before, after, f"{path}[{index}]")
    elif known != wanted:
        yield path, known


def _shown(before: object) -> str:
    if before is None:
        return "not there"
    return f"a list of {len(before)}" if isinstance(before, list) else str(before)


def _seller_refusals(stored: Stored, wanted: Catalogue) -> _Refusals:
    prefixes = {seller.number_prefix: seller.seller for seller in stored.sellers.values()}
    for name, seller in wanted.sellers.items():
        known = stored.sellers.get(name)
        owner = prefixes.get(seller.number_prefix, name)
        if known is not None:
            for field in ("number_prefix", "time_zone"):
                before = getattr(known, field)
                if before != getattr(seller, field):
                    yield f"sellers.{name}.{field}", f"was {before} and stays so; add another seller"
        if owner != name:
            yield f"sellers.{name}.number_prefix", taken_prefix(seller.number_prefix, owner)


def _account_refusals(stored: Stored, wanted: Catalogue) -> _Refusals:
    for account_id, known in stored.accounts.items():
        path = f"accounts.{account_id}"
        account = wanted.accounts.get(account_id)
        if account is None:
            yield path, "is missing; an account stays, end its subscriptions with `to`"
            continue
        for field in ("currency", "time_zone", "seller"):
            before = getattr(known, field)
            if before != getattr(account, field):
                yield f"{path}.{field}", f"was {before} and stays so; open another account"


def _subscription_refusals(stored: Stored, wanted: Catalogue) -> _Refusals:
    advice = "end the subscription with `to` and begin another"
    for subscription_id, known in stored.subscriptions.items():
        subscription = wanted.subscriptions.get(subscription_id)
        if subscription is None:
            # A missing account is told by itself.
            if known.account_id in wanted.accounts:
                path = f"accounts.{known.account_id}.subscriptions.{subscription_id}"
                yield path, "is missing; a subscription stays, end it with `to`"
            continue
        path = f"accounts.{subscription.account_id}.subscriptions.{subscription_id}"
        if known.account_id != subscription.account_id:
            yield path, f"belongs to the account {known.account_id} and stays there; {advice}"
        if known.plan != subscription.plan:
            yield f"{path}.plan", f"was {known.plan} and stays so; {advice}"
        before = known.starts_at.astimezone(zone(stored.accounts[known.account_id].time_zone))
        after = subscription.starts_at.astimezone(zone(wanted.accounts[subscription.account_id].time_zone))
        # The same date in another zone is the fault of zone or account, which is told by itself.
        is_same_date = before.tzinfo != after.tzinfo and before.replace(tzinfo=None) == after.replace(tzinfo=None)
        if known.starts_at != subscription.starts_at and not is_same_date:
            yield f"{path}.from", f"was {before.isoformat(timespec='minutes')} and stays so; {advice}"


def _item_refusals(stored: Stored, wanted: Catalogue) -> _Refusals:
    starts: dict[str, dict[str, datetime]] = {}
    for row in stored.bindings:
        starts.setdefault(row.subscription_id, {}).setdefault(row.item, row.effective_from)
    # Plans are judged with subscriptions as they are: that one would be missing or another is told by itself. Their
    # contracts do not matter here, for they change no item's beginning.
    judged = replace(wanted, accounts={**wanted.accounts, **stored.accounts})
    for subscription_id, known in stored.subscriptions.items():
        if known.plan in wanted.plans:
            yield from _items_of(judged, known, starts.get(subscription_id, {}))


def _items_of(wanted: Catalogue, subscription: Subscription, starts: Mapping[str, datetime]) -> _Refusals:
    path = f"plans.{subscription.plan}.items"
    items = {item.item: item for item in wanted.plans[subscription.plan].items}
    for item in sorted(starts.keys() - items.keys()):
        yield f"{path}.{item}", "is missing; it is charged already and stays in the plan"
    zone_of_account = zone(wanted.accounts[subscription.account_id].time_zone)
    for item, group in groupby(flatten(wanted, subscription), key=lambda one: one.item):
        first, begins = starts.get(item), next(group).effective_from
        if first is None:
            if items[item].starts is None:
                yield f"{path}.{item}.from", "is missing; say when this new item begins"
        elif first < begins:
            # Rows are only added, so there is none that says an item is not charged yet.
            local = first.astimezone(zone_of_account).isoformat(timespec="minutes")
            message = (
                f"{subscription.subscription_id} is charged for it from {local} on and stays so; put its `from` back, "
                "and for a time without charge give it a price of 0 with a dated change"
            )
            yield f"{path}.{item}.from", message
