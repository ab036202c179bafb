"""The catalogue's values: meters, prices, plans, sellers, accounts, subscriptions, bindings, assignments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum

from pipeline.catalogue.positions import Positions
from pipeline.domain.decimals import plain
from pipeline.domain.keys import digest

SLOT_EDGE_SECONDS = 900
"""Every slot divides this, so every time zone's midnight is a slot edge; owners change at multiples of it."""

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""When a meter is in force from if the catalogue does not say."""


class Aggregation(StrEnum):
    """How samples become a quantity; see `pipeline.catalogue.aggregations`."""

    SUM = "sum"
    TIME_WEIGHTED = "time_weighted"
    INCREASE = "increase"
    ACTIVE_HOURS = "active_hours"


@dataclass(frozen=True, slots=True)
class Meter:
    """A version of a meter; `meter_version_id` is 0 until it was stored."""

    meter: str
    version: int
    event_type: str
    aggregation: Aggregation
    value_field: str | None
    """Top-level member of an event's data; None where the aggregation takes none."""
    unit: str
    slot_seconds: int
    gap_seconds_max: int | None
    """How long a gauge holds without a sample; None for other aggregations."""
    effective_from: datetime
    meter_version_id: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """A version of a price; immutable once stored; `price_version_id` is 0 until then."""

    price: str
    version: int
    model: str
    product: str
    currency: str
    unit: str
    """What the price is quoted in, e.g. GiB-hour."""
    base_units: Decimal
    """How many of the meter's units make one `unit`."""
    parameters: Mapping[str, object]
    """Of the model, canonical: decimals as plain strings."""
    price_version_id: int = 0

    @property
    def digest(self) -> str:
        """sha256 over all that an amount depends on, as 64 hex digits."""
        return digest(
            {
                "price": self.price,
                "version": self.version,
                "model": self.model,
                "product": self.product,
                "currency": self.currency,
                "unit": self.unit,
                "base_units": plain(self.base_units),
                "parameters": self.parameters,
            }
        )


Moment = date
"""An aware datetime; or a date, which means its local midnight in the zone of the account it is applied to."""


@dataclass(frozen=True, slots=True)
class Change:
    """From a time on, another meter or price; None leaves what was there."""

    at: Moment
    meter: str | None
    price: str | None


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One thing a plan charges for; `starts` None means from the subscription's start."""

    item: str
    meter: str
    price: str
    starts: Moment | None
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan: what its subscriptions are charged for."""

    plan: str
    items: tuple[PlanItem, ...]


@dataclass(frozen=True, slots=True)
class Seller:
    """The legal entity that invoices."""

    seller: str
    name: str
    address: tuple[str, ...]
    tax_id: str
    bank_account: str
    number_prefix: str
    time_zone: str


@dataclass(frozen=True, slots=True)
class Account:
    """A billing account: who pays, in which currency, whose midnights bound the periods."""

    account_id: str
    name: str
    address: tuple[str, ...]
    currency: str
    time_zone: str
    seller: str
    gate_policy: str
    payment_gateway: str
    payment_terms_days: int
    payment_customer: str = ""
    """The gateway's name for the buyer."""
    payment_method: str = ""
    """The gateway's name for the card; never card data."""


@dataclass(frozen=True, slots=True)
class ContractPrice:
    """A price agreed with one subscription for a plan's item; `at` None means from the subscription's start."""

    item: str
    price: str
    at: Moment | None


@dataclass(frozen=True, slots=True)
class Subscription:
    """An account on a plan, from a time on; aware UTC times; `ends_at` None means no end is known."""

    subscription_id: str
    account_id: str
    plan: str
    starts_at: datetime
    ends_at: datetime | None
    contract: tuple[ContractPrice, ...]

    def is_running_at(self, at: datetime) -> bool:
        """Whether it has begun and not ended at a time."""
        return self.starts_at <= at and (self.ends_at is None or at < self.ends_at)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A whole catalogue document, checked; all mappings are by name."""

    sellers: Mapping[str, Seller]
    meters: Mapping[str, Meter]
    prices: Mapping[str, Price]
    plans: Mapping[str, Plan]
    accounts: Mapping[str, Account]
    subscriptions: Mapping[str, Subscription]
    ignored_types: tuple[str, ...]
    text: str
    """The YAML it was read from."""
    positions: Positions = field(compare=False, repr=False)
    """Where its fields stand there, for those who find one of them wrong later."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A row of price_binding: from `effective_from` on the item is charged by this meter at this price."""

    known_number: int
    subscription_id: str
    item: str
    meter: str
    price_version_id: int
    effective_from: datetime


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who has a server in [valid_from, valid_to), aware UTC on 15-minute marks; None: nobody, or no end.

    `known_number` is 0 until it was stored; of two that cover an instant the higher one owns it.
    """

    known_number: int
    subject: str
    subscription_id: str | None
    valid_from: datetime
    valid_to: datetime | None
