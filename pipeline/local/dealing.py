"""The demo's rule for who has which server: dealt round like cards, one server moving in the middle of the month."""

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from pipeline.catalogue.model import Assignment
from pipeline.domain.period import Period

MOVING_SERVER_INDEX = 7
MOVING_DAY = 15


def deal(
    servers: Sequence[str], subscriptions: Sequence[str], period: Period, zone_name: str = "Europe/Amsterdam"
) -> list[Assignment]:
    """Deal servers, in the order of their names, round the subscriptions, each for ever from the period's start.

    The eighth server moves to the next subscription on the 15th of the period's month at local noon.

    Args:
        servers: Names in any order; each is dealt once.
        subscriptions: In the order they are dealt to; at least one.
        period: A calendar month in the zone.
        zone_name: Whose noon it is.

    Returns:
        Assignments in the order to store them; their known numbers are still 0.
    """
    found: list[Assignment] = []
    for index, server in enumerate(sorted(set(servers))):
        owner = subscriptions[index % len(subscriptions)]
        found.append(Assignment(0, server, owner, period.start, None))
        if index == MOVING_SERVER_INDEX:
            following = subscriptions[(index + 1) % len(subscriptions)]
            found.append(Assignment(0, server, following, _noon_of_the_15th(period, zone_name), None))
    return found


def _noon_of_the_15th(period: Period, zone_name: str) -> datetime:
    local = period.start.astimezone(ZoneInfo(zone_name))
    return local.replace(day=MOVING_DAY, hour=12).astimezone(UTC)
