"""Which meter and price an item of a subscription has when: plans and contracts flattened to bindings."""

from dataclasses import dataclass
from datetime import datetime

from pipeline.catalogue.model import Catalogue, PlanItem, Subscription
from pipeline.catalogue.section import place


@dataclass(frozen=True, slots=True)
class BoundPrice:
    """From `effective_from` (aware UTC) on, the subscription's item is charged by this meter at this price."""

    subscription_id: str
    item: str
    meter: str
    price: str
    effective_from: datetime


def flatten(catalogue: Catalogue, subscription: Subscription) -> list[BoundPrice]:
    """All bindings of a subscription, by item and ascending time.

    A plan's changes apply until a contract price begins; from then on the contract price stands. Dates are local
    midnights of the account's zone. What lies before the subscription's start is folded into its first binding.
    """
    zone_name = catalogue.accounts[subscription.account_id].time_zone
    found: list[BoundPrice] = []
    for item in catalogue.plans[subscription.plan].items:
        steps = _plan_steps(item, subscription, zone_name)
        steps = _with_contract(steps, item, subscription, zone_name)
        previous: tuple[str, str] | None = None
        for at, meter, price in steps:
            if (meter, price) != previous:
                found.append(BoundPrice(subscription.subscription_id, item.item, meter, price, at))
            previous = (meter, price)
    return found


_Step = tuple[datetime, str, str]


def _plan_steps(item: PlanItem, subscription: Subscription, zone_name: str) -> list[_Step]:
    start = subscription.starts_at
    if item.starts is not None:
        start = max(start, place(item.starts, zone_name))
    meter, price = item.meter, item.price
    steps: list[_Step] = []
    # A date and a time with its zone order only once both are placed.
    for at, change in sorted(
        ((place(change.at, zone_name), change) for change in item.changes), key=lambda one: one[0]
    ):
        if not steps and at > start:
            steps.append((start, meter, price))
        meter, price = change.meter or meter, change.price or price
        if steps and steps[-1][0] == at:
            steps.pop()
        if at > start:
            steps.append((at, meter, price))
    return steps or [(start, meter, price)]


def _with_contract(steps: list[_Step], item: PlanItem, subscription: Subscription, zone_name: str) -> list[_Step]:
    start = steps[0][0]
    for agreed in subscription.contract:
        if agreed.item != item.item:
            continue
        at = start if agreed.at is None else max(start, place(agreed.at, zone_name))
        before = [step for step in steps if step[0] < at]
        after = [step for step in steps if step[0] > at]
        meter = [step for step in steps if step[0] <= at][-1][1]
        steps = [*before, (at, meter, agreed.price), *((when, other, agreed.price) for when, other, _ in after)]
    return steps
