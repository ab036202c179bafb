"""What must hold across the entries of a catalogue: references, currencies, order of changes, one way of billing."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from pipeline.catalogue.marked_yaml import Report
from pipeline.catalogue.model import Catalogue, Moment, Plan, PlanItem, Subscription
from pipeline.catalogue.pricing import MODELS
from pipeline.catalogue.section import place

Declared = Mapping[str, Sequence[str]]
"""Names by section as written, so that an entry with a problem of its own is not called unknown too."""


def check(catalogue: Catalogue, declared: Declared, report: Report) -> None:
    """Report everything that does not fit together."""
    _check_ignored(catalogue, report)
    for plan in catalogue.plans.values():
        for item in plan.items:
            _check_item(catalogue, declared, plan, item, report)
    for account in catalogue.accounts.values():
        path = f"accounts.{account.account_id}"
        _known(declared, "sellers", account.seller, f"{path}.seller", report)
    for subscription in catalogue.subscriptions.values():
        _check_subscription(catalogue, declared, subscription, report)


def _check_ignored(catalogue: Catalogue, report: Report) -> None:
    metered = {meter.event_type: meter.meter for meter in catalogue.meters.values()}
    for index, event_type in enumerate(catalogue.ignored_types):
        if event_type in metered:
            report.add(f"ignore[{index}]", f"{event_type} is ignored, but the meter {metered[event_type]} reads it")
        if event_type in catalogue.ignored_types[:index]:
            report.add(f"ignore[{index}]", f"{event_type} is there twice")


def _known(declared: Declared, section: str, name: str, path: str, report: Report) -> bool:
    if name in declared[section]:
        return True
    if name:
        report.add(path, f"{name!r} is not one of the {section}")
    return False


def _check_item(catalogue: Catalogue, declared: Declared, plan: Plan, item: PlanItem, report: Report) -> None:
    path = f"plans.{plan.plan}.items.{item.item}"
    _known(declared, "meters", item.meter, f"{path}.meter", report)
    _known(declared, "prices", item.price, f"{path}.price", report)
    for index, change in enumerate(item.changes):
        where = f"{path}.changes[{index}]"
        if change.meter is not None:
            _known(declared, "meters", change.meter, f"{where}.meter", report)
        if change.price is not None and _known(declared, "prices", change.price, f"{where}.price", report):
            _same_subject(catalogue, item, change.price, f"{where}.price", report)
    # Any zone will do for the order: dates are placed in the same one.
    times = [_placed(change.at) for change in item.changes]
    for index in range(1, len(times)):
        if times[index] <= times[index - 1]:
            report.add(f"{path}.changes[{index}].from", "is not after the change before it")


def _placed(at: Moment) -> datetime:
    return place(at, "UTC")


def _same_subject(catalogue: Catalogue, item: PlanItem, price: str, path: str, report: Report) -> None:
    first, other = catalogue.prices.get(item.price), catalogue.prices.get(price)
    if first is None or other is None:
        return
    if MODELS[first.model].PER_SUBJECT != MODELS[other.model].PER_SUBJECT:
        report.add(
            path, f"{price} ({other.model}) bills another way (per server or not) than {item.price}; use a new item"
        )


def _check_subscription(catalogue: Catalogue, declared: Declared, subscription: Subscription, report: Report) -> None:
    path = f"accounts.{subscription.account_id}.subscriptions.{subscription.subscription_id}"
    _known(declared, "plans", subscription.plan, f"{path}.plan", report)
    plan = catalogue.plans.get(subscription.plan)
    items = {item.item: item for item in plan.items} if plan else {}
    for agreed in subscription.contract:
        where = f"{path}.contract.{agreed.item}"
        if plan is not None and agreed.item not in items:
            report.add(where, f"the plan {plan.plan} has no item {agreed.item}; it has {', '.join(items)}")
        if _known(declared, "prices", agreed.price, where, report):
            if agreed.item in items:
                _same_subject(catalogue, items[agreed.item], agreed.price, where, report)
            _check_currency(catalogue, subscription, [agreed.price], where, report)
    for item in items.values():
        # A contract from the start leaves the plan's own price without effect.
        if not any(agreed.item == item.item and agreed.at is None for agreed in subscription.contract):
            changed = [change.price for change in item.changes if change.price is not None]
            _check_currency(catalogue, subscription, [item.price, *changed], f"{path}.plan", report)


def _check_currency(
    catalogue: Catalogue, subscription: Subscription, prices: Iterable[str], path: str, report: Report
) -> None:
    account = catalogue.accounts.get(subscription.account_id)
    for name in prices:
        price = catalogue.prices.get(name)
        if account is not None and price is not None and price.currency != account.currency:
            report.add(path, f"the price {name} is in {price.currency}, the account in {account.currency}")
