"""Remember marks, items and totals: rows in and out of PostgreSQL. The worker owns the transactions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from pipeline.catalogue.pricing import MODELS
from pipeline.contracts.usage_total import Segment, Total
from pipeline.domain.period import Period
from pipeline.runtime.postgres import Connection
from pipeline.runtime.sql import load_queries
from pipeline.totals.model import BilledItem, ItemKey, Mark, StoredTotal, Stretch, SubscriptionSpan
from pipeline.totals.rules import rfc3339

QUERIES = load_queries(__package__)

#: A day more on both sides than there is usage for: slots and hours reach over their samples.
USAGE_TAIL = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TakenItems:
    """Items to compute, and the marks that asked for it."""

    items: Sequence[BilledItem]
    mark_numbers: Sequence[int]


def read_marks(connection: Connection, marks_max: int) -> list[Mark]:
    """Read the oldest marks."""
    return [Mark(*row) for row in connection.execute(QUERIES["read_marks"], {"marks_max": marks_max})]


def read_usage_span(connection: Connection) -> Period | None:
    """Give the event times there is any usage for; None where there is none at all."""
    row = connection.execute(QUERIES["read_usage_span"]).fetchone()
    if row is None or row[0] is None:
        return None
    return Period(row[0] - USAGE_TAIL, row[1] + USAGE_TAIL)


def read_subscriptions(connection: Connection) -> dict[str, SubscriptionSpan]:
    """Read every subscription's span and zone."""
    return {row[0]: SubscriptionSpan(*row) for row in connection.execute(QUERIES["read_subscriptions"])}


def read_per_subject_prices(connection: Connection) -> frozenset[int]:
    """Give the price versions whose model bills each server by itself."""
    rows = connection.execute(QUERIES["read_price_models"])
    return frozenset(price_version_id for price_version_id, model in rows if MODELS[model].PER_SUBJECT)


def mark_items(
    connection: Connection, touched: Mapping[ItemKey, Period], subscriptions: Mapping[str, SubscriptionSpan]
) -> None:
    """Leave a mark for each item touched; one never seen is made where its subscription runs in its period."""
    keys = sorted(touched)
    if not keys:
        return
    running = [key for key in keys if _runs(subscriptions[key.subscription_id], touched[key])]
    accounts = [subscriptions[key.subscription_id].account_id for key in running]
    ends = [touched[key].end for key in running]
    connection.execute(QUERIES["create_items"], {**_item_columns(running), "accounts": accounts, "ends": ends})
    connection.execute(QUERIES["mark_items"], _item_columns(keys))


def _runs(subscription: SubscriptionSpan, period: Period) -> bool:
    return subscription.starts_at < period.end and period.start < subscription.ends_at


def _item_columns(keys: Sequence[ItemKey]) -> dict[str, list[Any]]:
    return {
        "subscriptions": [key.subscription_id for key in keys],
        "items": [key.item for key in keys],
        "starts": [key.period_start for key in keys],
        "subjects": [key.subject for key in keys],
    }


def delete_marks(connection: Connection, marks: Iterable[Mark]) -> None:
    """Delete the marks that were expanded, and no others."""
    connection.execute(QUERIES["delete_marks"], {"mark_numbers": [mark.mark_number for mark in marks]})


def take_items(connection: Connection, *, pace_seconds: float, items_max: int) -> TakenItems:
    """Read the items that are due and the marks that asked for them."""
    rows = connection.execute(QUERIES["take_items"], {"pace_seconds": pace_seconds, "items_max": items_max}).fetchall()
    items = [BilledItem(row[1], row[2], row[3], row[4], Period(row[5], row[6]), row[7]) for row in rows]
    return TakenItems(items, [number for row in rows for number in row[0]])


def sum_stretches(connection: Connection, stretches: Sequence[Stretch]) -> dict[int, dict[int, Decimal]]:
    """Sum the usage of stretches: item id -> segment index -> quantity."""
    columns = {
        "items": [stretch.billed_item_id for stretch in stretches],
        "segments": [stretch.segment for stretch in stretches],
        "meters": [stretch.meter for stretch in stretches],
        "subjects": [stretch.subject for stretch in stretches],
        "froms": [stretch.time_from for stretch in stretches],
        "tos": [stretch.time_to for stretch in stretches],
    }
    found: dict[int, dict[int, Decimal]] = {}
    for item_id, segment, quantity in connection.execute(QUERIES["sum_additive"], columns):
        found.setdefault(item_id, {})[segment] = quantity
    columns["starts"] = [stretch.period_start for stretch in stretches]
    for item_id, segment, quantity in connection.execute(QUERIES["count_active_hours"], columns):
        found.setdefault(item_id, {})[segment] = quantity
    return found


def read_totals(connection: Connection, items: Sequence[BilledItem]) -> dict[int, StoredTotal]:
    """Read the totals of items as they stand."""
    rows = connection.execute(QUERIES["read_totals"], {"items": [item.billed_item_id for item in items]})
    return {row[0]: StoredTotal(*row) for row in rows}


def read_generation(connection: Connection) -> int:
    """Read which generation of the database this is."""
    row = connection.execute(QUERIES["read_generation"]).fetchone()
    return int(row[0]) if row else 0


def write_totals(
    connection: Connection,
    generation: int,
    changed: Mapping[int, tuple[int, Sequence[Mapping[str, object]]]],
    unchanged: Sequence[int],
    mark_numbers: Sequence[int],
) -> None:
    """Write new revisions (item id -> revision, segments) and delete the item marks that asked for them."""
    if changed:
        items = sorted(changed)
        connection.execute(
            QUERIES["write_totals"],
            {
                "generation": generation,
                "items": items,
                "revisions": [changed[item][0] for item in items],
                "documents": [json.dumps(changed[item][1]) for item in items],
            },
        )
    if unchanged:
        connection.execute(QUERIES["touch_totals"], {"items": list(unchanged)})
    connection.execute(QUERIES["delete_item_marks"], {"mark_numbers": list(mark_numbers)})


def take_unsent(connection: Connection, items_max: int) -> dict[int, list[Total]]:
    """Read totals not sent yet, by generation."""
    return _by_generation(connection.execute(QUERIES["take_unsent"], {"items_max": items_max}))


def take_unbooked(connection: Connection, *, sweep_seconds: float, items_max: int) -> dict[int, list[Total]]:
    """Read totals sent but not booked for too long, by generation."""
    parameters = {"sweep_seconds": sweep_seconds, "items_max": items_max}
    return _by_generation(connection.execute(QUERIES["take_unbooked"], parameters))


def record_sent(connection: Connection, totals: Sequence[Total]) -> None:
    """Note that totals are on the topic."""
    columns = {"items": [t.billed_item_id for t in totals], "revisions": [t.revision for t in totals]}
    connection.execute(QUERIES["record_sent"], columns)


def count_open(connection: Connection) -> tuple[int, int]:
    """Count open marks, and totals that are not booked."""
    row = connection.execute(QUERIES["count_open"]).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def _by_generation(rows: Iterable[tuple[Any, ...]]) -> dict[int, list[Total]]:
    found: dict[int, list[Total]] = {}
    for row in rows:
        item_id, generation, revision, segments, period_start, period_end, subject, item, currency = row
        total = Total(
            billed_item_id=item_id,
            revision=revision,
            period_start=rfc3339(period_start),
            period_end=rfc3339(period_end),
            subject=subject,
            item=item,
            segments=tuple(
                Segment(part["price_version_id"], part["from"], part["to"], part["quantity"]) for part in segments
            ),
            currency=currency,
        )
        found.setdefault(generation, []).append(total)
    return found
