"""Values of the totals stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from pipeline.domain.period import Period


@dataclass(frozen=True, slots=True)
class Mark:
    """Something changed: a subject's meter in a time range, or (subject None) a subscription's prices."""

    mark_number: int
    subject: str | None
    meter: str | None
    subscription_id: str | None
    time_from: datetime
    time_to: datetime


class ItemKey(NamedTuple):
    """What a billed item is; `subject` is '' where the price is not per server."""

    subscription_id: str
    item: str
    period_start: datetime
    subject: str


@dataclass(frozen=True, slots=True)
class BilledItem:
    """A billed item as stored."""

    billed_item_id: int
    account_id: str
    subscription_id: str
    item: str
    period: Period
    subject: str


@dataclass(frozen=True, slots=True)
class SubscriptionSpan:
    """From when to when a subscription runs, and the zone its periods are cut in."""

    subscription_id: str
    account_id: str
    time_zone: str
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of one subject's usage of one meter that belongs to a segment of an item."""

    billed_item_id: int
    segment: int
    meter: str
    subject: str
    time_from: datetime
    time_to: datetime
    period_start: datetime


@dataclass(frozen=True, slots=True)
class PriceSegment:
    """A part of the period at one price and meter, before its quantity is known."""

    price_version_id: int
    meter: str
    period: Period


@dataclass(frozen=True, slots=True)
class SegmentTotal:
    """A segment with its quantity, in the meter's unit."""

    price_version_id: int
    period: Period
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class StoredTotal:
    """A total as it stands; `segments` as stored (canonical JSON values)."""

    billed_item_id: int
    generation: int
    revision: int
    segments: Sequence[dict[str, object]]
