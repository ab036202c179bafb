"""The entries of a catalogue document, one reader for each kind: fields and their types, nothing across entries.

What is wrong is reported and a stand-in is given for it ('' for a name or a word), so that all other problems of the
entry, and of entries that name it, are found in the same reading. Nothing with a stand-in leaves the reading.
"""

import re
from datetime import datetime
from typing import Literal

from pipeline.catalogue.marked_yaml import Tree
from pipeline.catalogue.model import (
    ALWAYS,
    SLOT_EDGE_SECONDS,
    Account,
    Aggregation,
    Change,
    ContractPrice,
    Meter,
    Plan,
    PlanItem,
    Price,
    Seller,
    Subscription,
)
from pipeline.catalogue.pricing import MODELS
from pipeline.catalogue.section import Section, is_name, not_a_name, place
from pipeline.domain.currency import minor_exponent
from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.period import zone

SLOT_SECONDS_DEFAULT = 300
PAYMENT_TERMS_DAYS_DEFAULT = 14
CONTROL_TYPE_PREFIX = "rackmeter.control."
PAYMENT_GATEWAYS: tuple[Literal["manual"], Literal["stripe"]] = ("manual", "stripe")
_STRIPE_CUSTOMER = re.compile(r"cus_[A-Za-z0-9]+")
_STRIPE_METHOD = re.compile(r"(?:pm|card|src)_[A-Za-z0-9_]+")
GATE_POLICIES: tuple[Literal["hold"]] = ("hold",)


def read_seller(name: str, section: Section) -> Seller:
    """A legal entity."""
    return Seller(
        seller=name,
        name=section.text("name"),
        address=section.texts("address"),
        tax_id=section.text("tax_id", ""),
        bank_account=section.text("bank_account", ""),
        number_prefix=section.text("number_prefix"),
        time_zone=_zone(section),
    )


def read_meter(name: str, section: Section) -> Meter:
    """A meter."""
    aggregation = section.choice("aggregation", Aggregation)
    event_type = section.text("event_type")
    if event_type.startswith(CONTROL_TYPE_PREFIX):
        section.problem("event_type", f"begins with {CONTROL_TYPE_PREFIX}, which is ours and never metered")
    value_field = section.text("value", None)
    if aggregation is Aggregation.ACTIVE_HOURS and value_field is not None:
        section.problem("value", "has no meaning for active_hours, which counts samples; leave it out")
    if aggregation not in (None, Aggregation.ACTIVE_HOURS) and not section.has("value"):
        section.problem("value", f"is missing; {aggregation} reads a field of the event's data")
    if value_field is not None and (not value_field.isprintable() or '"' in value_field or "\\" in value_field):
        section.problem("value", f"{value_field!r} is not a name: no quotes, backslashes or control characters")
    gap_seconds_max = section.integer("max_gap_seconds") if section.has("max_gap_seconds") else None
    section.tree("max_gap_seconds")
    if aggregation is Aggregation.TIME_WEIGHTED and gap_seconds_max is None:
        section.problem("max_gap_seconds", "is missing; it says how long a value holds without a sample")
    if aggregation not in (None, Aggregation.TIME_WEIGHTED) and gap_seconds_max is not None:
        section.problem("max_gap_seconds", f"has no meaning for {aggregation}; leave it out")
    slot_seconds = section.integer("slot_seconds", SLOT_SECONDS_DEFAULT)
    if SLOT_EDGE_SECONDS % slot_seconds:
        section.problem("slot_seconds", f"is {slot_seconds}, which does not divide {SLOT_EDGE_SECONDS}")
    # A meter belongs to no account, so its dates are midnights of UTC.
    effective_from = section.time("from", "UTC") or ALWAYS
    return Meter(
        name,
        1,
        event_type,
        aggregation or Aggregation.SUM,
        value_field,
        section.text("unit"),
        slot_seconds,
        gap_seconds_max,
        effective_from,
    )


def read_price(name: str, section: Section) -> Price:
    """A price with the parameters of its model; those are empty where they cannot be read."""
    model_name = section.choice("model", tuple(MODELS))
    product, currency = section.name("product"), _currency(section)
    unit, base_units = section.text("unit"), section.decimal_above_zero("base_units")
    parameters = section.rest()
    read: dict[str, object] = {}
    if model_name is not None:
        faults = MODELS[model_name].check(parameters)
        for fault in faults:
            section.problem(fault.field, fault.message)
        if not faults:
            read = MODELS[model_name].normalise(parameters)
    return Price(name, 1, model_name or "", product, currency, unit, base_units, read)


def read_plan(name: str, section: Section) -> Plan:
    """A plan and its items."""
    items = []
    for item_name, item in section.sections("items"):
        changes = _read_changes(item)
        items.append(PlanItem(item_name, item.name("meter"), item.name("price"), item.moment("from"), changes))
        item.finish()
    if not items and section.tree("items") in (None, {}):
        section.problem("items", "is missing; a plan charges for at least one item")
    return Plan(name, tuple(items))


def _read_changes(item: Section) -> tuple[Change, ...]:
    changes: list[Change] = []
    last: datetime | None = None
    for change in item.items("changes"):
        meter, price = _name_or_none(change, "meter"), _name_or_none(change, "price")
        if meter is None and price is None:
            change.problem("price", "is missing; a change names a price, a meter, or both")
        at = change.moment("from", is_required=True)
        change.finish()
        if at is not None:
            # Any zone will do for the order: dates are placed in the same one.
            placed = place(at, "UTC")
            if last is not None and placed <= last:
                change.problem("from", "is not after the change before it")
            last = placed
        changes.append(Change(at or ALWAYS, meter, price))
    return tuple(changes)


def read_account(account_id: str, section: Section, only_seller: str | None) -> Account:
    """A billing account; `only_seller` stands in where the account names none."""
    gateway = section.choice("payment_gateway", PAYMENT_GATEWAYS, "manual") or "manual"
    return Account(
        account_id=account_id,
        name=section.text("name"),
        address=section.texts("address"),
        currency=_currency(section),
        time_zone=_zone(section),
        seller=section.text("seller", only_seller) if only_seller else section.name("seller"),
        gate_policy=section.choice("gate_policy", GATE_POLICIES, "hold") or "hold",
        payment_gateway=gateway,
        payment_terms_days=section.integer("payment_terms_days", PAYMENT_TERMS_DAYS_DEFAULT),
        payment_customer=_stripe_name(section, "payment_customer", _STRIPE_CUSTOMER, "cus_...", gateway),
        payment_method=_stripe_name(section, "payment_method", _STRIPE_METHOD, "pm_...", gateway),
    )


def _stripe_name(section: Section, key: str, form: re.Pattern[str], example: str, gateway: str) -> str:
    """What Stripe calls a buyer or a card; never shown where it is malformed, for it may be a card's number."""
    if gateway != "stripe":
        if section.has(key):
            section.problem(key, f"has no meaning for {gateway}; leave it out")
        section.tree(key)
        return ""
    if not section.has(key):
        section.problem(key, f"is missing; an account that pays by stripe has Stripe's id, {example}")
        section.tree(key)
        return ""
    text = section.text(key)
    if text and not form.fullmatch(text):
        section.problem(key, f"is not an id of Stripe's, {example}; card data has no place here")
        return ""
    return text


def read_subscription(subscription_id: str, account: Account, section: Section) -> Subscription:
    """A subscription of the account; its dates are midnights of the account's zone."""
    starts_at = section.time("from", account.time_zone, is_required=True)
    ends_at = section.time("to", account.time_zone)
    if starts_at is not None and ends_at is not None and ends_at <= starts_at:
        section.problem("to", "is not after from")
    agreed = Section(section.tree("contract"), section.at("contract"), section.report)
    contract = tuple(_read_contract_price(item, tree, agreed) for item, tree in agreed.rest().items())
    plan = section.name("plan")
    return Subscription(subscription_id, account.account_id, plan, starts_at or ALWAYS, ends_at, contract)


def _read_contract_price(item: str, tree: Tree, agreed: Section) -> ContractPrice:
    if isinstance(tree, str):
        if not is_name(tree):
            agreed.problem(item, not_a_name(tree))
            tree = ""
        return ContractPrice(item, tree, None)
    section = Section(tree, agreed.at(item), agreed.report)
    price, at = section.name("price"), section.moment("from")
    section.finish()
    # None would say that the plan's own price never applies.
    return ContractPrice(item, price, at or (ALWAYS if section.has("from") else None))


def _name_or_none(section: Section, key: str) -> str | None:
    if section.has(key):
        return section.name(key)
    section.tree(key)
    return None


def _currency(section: Section) -> str:
    currency = section.text("currency")
    try:
        if currency:
            minor_exponent(currency)
    except ConfigurationFault as fault:
        section.problem("currency", fault.detail)
        return ""
    return currency


def _zone(section: Section) -> str:
    name = section.text("time_zone")
    try:
        if name:
            zone(name)
            return name
    except ConfigurationFault as fault:
        section.problem("time_zone", fault.detail)
    # A stand-in, so that dates of the broken account can still be looked at.
    return "UTC"
