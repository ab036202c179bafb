"""What must hold across the entries of a catalogue: references, currencies, prefixes, one way of billing.

Looked at also where entries have problems of their own: '' stands for a field that could not be read, and says nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from pipeline.catalogue.marked_yaml import Report
from pipeline.catalogue.model import Catalogue, Plan, PlanItem, Price, Subscription
from pipeline.catalogue.pricing import MODELS


def check(catalogue: Catalogue, subscriptions: Iterable[Subscription], unreadable: Set[str], report: Report) -> None:
    """Report everything that does not fit together.

    Args:
        catalogue: As read, with stand-ins where something was wrong.
        subscriptions: As written, also several of one name.
        unreadable: Sections that are no mappings; what names their entries is not called wrong as well.
        report: Takes the problems.
    """
    checker = _Checker(catalogue, unreadable, report)
    checker.check_prefixes()
    checker.check_ignored()
    for plan in catalogue.plans.values():
        for item in plan.items:
            checker.check_item(plan, item)
    for account in catalogue.accounts.values():
        checker.is_known("sellers", account.seller, f"accounts.{account.account_id}.seller")
    for subscription in subscriptions:
        checker.check_subscription(subscription)


@dataclass(frozen=True, slots=True)
class _Checker:
    catalogue: Catalogue
    unreadable: Set[str]
    report: Report

    def is_known(self, section: str, name: str, path: str) -> None:
        entries: Mapping[str, object] = getattr(self.catalogue, section)
        if name and name not in entries and section not in self.unreadable:
            self.report.add(path, f"{name!r} is not one of the {section}")

    def check_prefixes(self) -> None:
        owners: dict[str, str] = {}
        for name, seller in self.catalogue.sellers.items():
            owner = owners.setdefault(seller.number_prefix, name)
            if seller.number_prefix and owner != name:
                self.report.add(f"sellers.{name}.number_prefix", taken_prefix(seller.number_prefix, owner))

    def check_ignored(self) -> None:
        metered = {meter.event_type: meter.meter for meter in self.catalogue.meters.values()}
        ignored = self.catalogue.ignored_types
        for index, event_type in enumerate(ignored):
            path = f"ignore[{index}]"
            if event_type and event_type in metered:
                self.report.add(path, f"{event_type} is ignored, but the meter {metered[event_type]} reads it")
            if event_type and event_type in ignored[:index]:
                self.report.add(path, f"{event_type} is there twice")

    def check_item(self, plan: Plan, item: PlanItem) -> None:
        path = f"plans.{plan.plan}.items.{item.item}"
        self.is_known("meters", item.meter, f"{path}.meter")
        self.is_known("prices", item.price, f"{path}.price")
        for index, change in enumerate(item.changes):
            where = f"{path}.changes[{index}]"
            self.is_known("meters", change.meter or "", f"{where}.meter")
            self.is_known("prices", change.price or "", f"{where}.price")
            self._bills_alike(item, change.price, f"{where}.price")

    def check_subscription(self, subscription: Subscription) -> None:
        path = f"accounts.{subscription.account_id}.subscriptions.{subscription.subscription_id}"
        self.is_known("plans", subscription.plan, f"{path}.plan")
        plan = self.catalogue.plans.get(subscription.plan)
        items = {item.item: item for item in plan.items} if plan else {}
        for agreed in subscription.contract:
            where = f"{path}.contract.{agreed.item}"
            priced = f"{where}.price" if f"{where}.price" in self.report.lines else where
            if agreed.item in items:
                self._bills_alike(items[agreed.item], agreed.price, priced)
            elif items:
                message = f"the plan {subscription.plan} has no item {agreed.item}; it has {', '.join(items)}"
                self.report.add(where, message)
            self.is_known("prices", agreed.price, priced)
            self._is_in_currency(subscription, [agreed.price], priced)
        for item in items.values():
            # A contract from the start leaves the plan's own price without effect.
            if not any(agreed.item == item.item and agreed.at is None for agreed in subscription.contract):
                self._is_in_currency(subscription, _prices_of(item), f"{path}.plan")

    def _bills_alike(self, item: PlanItem, name: str | None, path: str) -> None:
        """A price bills as the first of the item's prices does whose model is known."""
        other = self._modelled(name)
        first = next(filter(None, (self._modelled(one) for one in _prices_of(item))), None)
        if first is None or other is None:
            return
        if MODELS[first.model].PER_SUBJECT != MODELS[other.model].PER_SUBJECT:
            message = f"{name} ({other.model}) bills another way (per server or not) than {first.price}"
            self.report.add(path, f"{message}; use a new item")

    def _modelled(self, name: str | None) -> Price | None:
        price = self.catalogue.prices.get(name or "")
        return price if price is not None and price.model else None

    def _is_in_currency(self, subscription: Subscription, prices: Iterable[str], path: str) -> None:
        currency = self.catalogue.accounts[subscription.account_id].currency
        for name in dict.fromkeys(prices):
            price = self.catalogue.prices.get(name)
            if price is not None and price.currency and currency and price.currency != currency:
                self.report.add(path, f"the price {name} is in {price.currency}, the account in {currency}")


def taken_prefix(prefix: str, owner: str) -> str:
    """The message about a prefix of invoice numbers that another seller has."""
    return f"{prefix!r} is the prefix of the seller {owner} already; one number would be given twice"


def _prices_of(item: PlanItem) -> Iterator[str]:
    yield item.price
    yield from (change.price for change in item.changes if change.price is not None)
