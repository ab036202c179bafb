"""Where the retention edge lies."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

#: An event from `edge_at` on changes totals of months that began at most a month, an hour of active hours and a clock
#: moved by an hour before it: with 32 days their slots are all there. The schema holds us to it.
SETTLED = timedelta(days=32)

#: Two months to close, the settled one before the edge, and a day.
KEEP_DAYS_MIN = 95


@dataclass(frozen=True, slots=True)
class Edge:
    """Midnights in UTC. Before `dropped_before` slots and samples may be gone; an event before `edge_at` is parked."""

    dropped_before: datetime
    edge_at: datetime


def edge_for(now: datetime, keep_days: int) -> Edge:
    """
    Give the edge that keeps so many whole days of slots.

    Raises:
        ValueError: Fewer than KEEP_DAYS_MIN days.
    """
    if keep_days < KEEP_DAYS_MIN:
        raise ValueError(
            f"at least {KEEP_DAYS_MIN} days are kept: two months to close, and one for events that come late"
        )
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    dropped_before = midnight - timedelta(days=keep_days)
    return Edge(dropped_before, dropped_before + SETTLED)
