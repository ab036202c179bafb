"""Who has which server when, and what an item is charged by when: the proof's own reading of versioned facts."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from pipeline.proof.facts import Assignment, Binding, to_us


@dataclass(frozen=True, slots=True)
class Owned:
    """A subject is a subscription's in [from_us, to_us)."""

    subject: str
    from_us: int
    to_us: int
    subscription_id: str


@dataclass(frozen=True, slots=True)
class Bound:
    """An item is measured by a meter and charged at a price in [from_us, to_us)."""

    from_us: int
    to_us: int
    meter: str
    price_version_id: int


def owners(assignments: Sequence[Assignment]) -> list[Owned]:
    """At every instant the assignment with the highest known number that covers it says who the owner is."""
    by_subject: dict[str, list[Assignment]] = defaultdict(list)
    for assignment in assignments:
        by_subject[assignment.subject].append(assignment)
    found: list[Owned] = []
    for subject, said in by_subject.items():
        spans = [(to_us(row.valid_from), to_us(row.valid_to), row) for row in said]
        edges = sorted({edge for start, end, _ in spans for edge in (start, end)})
        for start, end in itertools.pairwise(edges):
            covering = [row for span_start, span_end, row in spans if span_start <= start < span_end]
            if covering:
                owner = max(covering, key=lambda row: row.known_number).subscription_id
                if owner is not None:
                    found.append(Owned(subject, start, end, owner))
    return found


def bound(bindings: Sequence[Binding], until_us: int) -> dict[tuple[str, str], list[Bound]]:
    """
    At every instant the row with the latest `effective_from` not after it holds; of such rows the latest known.

    Args:
        bindings: As known at the horizon.
        until_us: Where the last one ends.

    Returns:
        (subscription, item) -> stretches, neighbours at the same meter and price joined.
    """
    latest: dict[tuple[str, str], dict[int, Binding]] = defaultdict(dict)
    for row in sorted(bindings, key=lambda row: row.known_number):
        latest[row.subscription_id, row.item][to_us(row.effective_from)] = row
    found: dict[tuple[str, str], list[Bound]] = {}
    for key, by_start in latest.items():
        stretches: list[Bound] = []
        starts = sorted(by_start)
        for start, end in zip(starts, [*starts[1:], max(until_us, starts[-1] + 1)], strict=True):
            row = by_start[start]
            if stretches and (stretches[-1].meter, stretches[-1].price_version_id) == (row.meter, row.price_version_id):
                start = stretches.pop().from_us
            stretches.append(Bound(start, end, row.meter, row.price_version_id))
        found[key] = stretches
    return found


def month_around(at: datetime, zone_name: str) -> tuple[datetime, datetime]:
    """Give the calendar month, in a zone, that holds an instant: local midnights of two firsts."""
    local = at.astimezone(ZoneInfo(zone_name))
    first = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    after = (first.replace(tzinfo=None) + timedelta(days=32)).replace(day=1, tzinfo=ZoneInfo(zone_name))
    return first, after
