"""Decide which items a change touches, and cut an item into the stretches its quantity is the sum of. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from pipeline.catalogue.assignments import effective, effective_bindings
from pipeline.catalogue.model import Assignment, Binding
from pipeline.domain.decimals import plain
from pipeline.domain.period import Period, months_between, period_containing
from pipeline.totals.model import BilledItem, ItemKey, Mark, PriceSegment, SegmentTotal, Stretch, SubscriptionSpan


def items_touched(
    marks: Iterable[Mark],
    *,
    assignments: Mapping[str, Sequence[Assignment]],
    bindings: Mapping[str, Sequence[Binding]],
    subscriptions: Mapping[str, SubscriptionSpan],
    per_subject_prices: Collection[int],
    usage_span: Period | None,
) -> dict[ItemKey, Period]:
    """
    Map marks to items through every assignment ever known, so that an item that lost a server is computed again too.

    Args:
        marks: What changed.
        assignments: By subject, all ever known.
        bindings: By subscription, all ever known.
        subscriptions: By id.
        per_subject_prices: Price versions that bill each server by itself.
        usage_span: The event times there is any usage for; a change that reaches for ever is cut to it.

    Returns:
        Items with their whole periods.
    """
    if usage_span is None:
        return {}
    found: dict[ItemKey, Period] = {}
    for mark in marks:
        time_from = mark.time_from
        if mark.subscription_id is not None:
            # A price or an end cuts the whole month, also of servers that were gone before it.
            time_from = period_containing(time_from, subscriptions[mark.subscription_id].time_zone).start
        span = _clip(time_from, mark.time_to, usage_span)
        if span is None:
            continue
        for subscription_id, subject in _concerned(mark, span, assignments):
            subscription = subscriptions[subscription_id]
            # Not cut at the subscription's end: an end that moved back leaves items that must go to nothing.
            start = max(span.start, subscription.starts_at)
            if start >= span.end:
                continue
            periods = list(months_between(start, span.end, subscription.time_zone))
            for item, subjects in _items(bindings.get(subscription_id, ()), mark.meter, subject, per_subject_prices):
                for period in periods:
                    for billed_subject in subjects:
                        found[ItemKey(subscription_id, item, period.start, billed_subject)] = period
    return found


def _concerned(mark: Mark, span: Period, assignments: Mapping[str, Sequence[Assignment]]) -> Iterator[tuple[str, str]]:
    """Give each (subscription, subject) that ever had to do with what the mark names."""
    subjects = [mark.subject] if mark.subject is not None else list(assignments)
    for subject in subjects:
        holders = {
            row.subscription_id
            for row in assignments.get(subject, ())
            if row.subscription_id is not None
            and row.valid_from < span.end
            and (row.valid_to is None or row.valid_to > span.start)
        }
        for subscription_id in sorted(holders):
            if mark.subscription_id is None or mark.subscription_id == subscription_id:
                yield subscription_id, subject


def _items(
    bindings: Sequence[Binding], meter: str | None, subject: str, per_subject_prices: Collection[int]
) -> Iterator[tuple[str, set[str]]]:
    """Give each item ever bound to the meter, with the billed subjects its prices ever asked for."""
    subjects: dict[str, set[str]] = {}
    concerned = {row.item for row in bindings if meter is None or row.meter == meter}
    for row in bindings:
        if row.item in concerned:
            billed = subject if row.price_version_id in per_subject_prices else ""
            subjects.setdefault(row.item, set()).add(billed)
    yield from sorted(subjects.items())


def price_segments(
    item: BilledItem,
    bindings: Sequence[Binding],
    subscription: SubscriptionSpan,
    per_subject_prices: Collection[int],
) -> list[PriceSegment]:
    """Cut the part of the period the item has by its prices; a price of the other kind bills another item."""
    running = _clip(subscription.starts_at, subscription.ends_at, item.period)
    if running is None:
        return []
    segments = []
    for time_from, time_to, meter, price_version_id in effective_bindings(bindings, item.subscription_id, item.item):
        part = _clip(time_from, time_to, running)
        is_ours = (price_version_id in per_subject_prices) == bool(item.subject)
        if part is not None and is_ours:
            segments.append(PriceSegment(price_version_id, meter, part))
    return segments


def stretches(
    item: BilledItem, segments: Sequence[PriceSegment], assignments: Mapping[str, Sequence[Assignment]]
) -> list[Stretch]:
    """Give the stretches of usage that make the item: each segment, while a server was the subscription's."""
    subjects = [item.subject] if item.subject else sorted(assignments)
    found = []
    for subject in subjects:
        for owned in effective(assignments.get(subject, ()), subject):
            if owned.subscription_id != item.subscription_id:
                continue
            for index, segment in enumerate(segments):
                part = _clip(owned.valid_from, owned.valid_to, segment.period)
                if part is not None:
                    stretch = Stretch(
                        item.billed_item_id, index, segment.meter, subject, part.start, part.end, item.period.start
                    )
                    found.append(stretch)
    return found


def owned_at_all(item: BilledItem, assignments: Mapping[str, Sequence[Assignment]], span: SubscriptionSpan) -> bool:
    """Tell whether anything of the item is left: a server of the subscription within its part of the period."""
    running = _clip(span.starts_at, span.ends_at, item.period)
    subjects = [item.subject] if item.subject else list(assignments)
    return running is not None and any(
        owned.subscription_id == item.subscription_id and _clip(owned.valid_from, owned.valid_to, running) is not None
        for subject in subjects
        for owned in effective(assignments.get(subject, ()), subject)
    )


def canonical_segments(totals: Iterable[SegmentTotal]) -> list[dict[str, object]]:
    """Give segments as they are stored and sent: times as RFC 3339, quantities as plain decimal text."""
    return [
        {
            "price_version_id": total.price_version_id,
            "from": rfc3339(total.period.start),
            "to": rfc3339(total.period.end),
            "quantity": plain(total.quantity),
        }
        for total in totals
    ]


def with_quantities(segments: Sequence[PriceSegment], quantities: Mapping[int, Decimal]) -> list[SegmentTotal]:
    """Join segments with their quantities by index; a segment without usage is zero."""
    return [
        SegmentTotal(segment.price_version_id, segment.period, quantities.get(index, Decimal(0)))
        for index, segment in enumerate(segments)
    ]


def rfc3339(at: datetime) -> str:
    """Write an instant as UTC with Z."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _clip(time_from: datetime | None, time_to: datetime | None, bounds: Period) -> Period | None:
    start = bounds.start if time_from is None else max(time_from, bounds.start)
    end = bounds.end if time_to is None else min(time_to, bounds.end)
    return Period(start, end) if start < end else None
