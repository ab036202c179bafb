"""Billing periods: half-open spans of time that begin and end at local midnights."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.domain.errors import ConfigurationFault

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """[start, end): aware UTC datetimes, start before end, else ValueError."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for edge in (self.start, self.end):
            if edge.utcoffset() != timedelta(0):
                raise ValueError(f"a period's edges are aware UTC times, not {edge.isoformat()}")
        if self.start >= self.end:
            raise ValueError(f"a period ends after it starts: {self.start.isoformat()} to {self.end.isoformat()}")

    def contains(self, at: datetime) -> bool:
        """Whether the instant lies in the period; the end does not."""
        return self.start <= at < self.end

    def intersection(self, other: "Period") -> "Period | None":
        """What both cover, or None."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Period(start, end) if start < end else None

    def share_of(self, other: "Period") -> Fraction:
        """The fraction of `other`'s time that this period covers, between 0 and 1."""
        common = self.intersection(other)
        if common is None:
            return Fraction(0)
        return Fraction((common.end - common.start) // _MICROSECOND, (other.end - other.start) // _MICROSECOND)


def zone(name: str) -> ZoneInfo:
    """The IANA time zone of that name; an unknown one is a ConfigurationFault."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationFault(
            f"time zone {name!r} is not known; write an IANA name, e.g. Europe/Amsterdam", "time_zone_unknown"
        ) from None


def local_midnight(year: int, month: int, day: int, zone_name: str) -> datetime:
    """The first instant of a local day, in UTC. Where the clock skips midnight, the instant of the skip."""
    return datetime(year, month, day, tzinfo=zone(zone_name)).astimezone(UTC)


def calendar_month(year: int, month: int, zone_name: str) -> Period:
    """A month between two local midnights."""
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    return Period(local_midnight(year, month, 1, zone_name), local_midnight(*following, 1, zone_name))


def period_containing(at: datetime, zone_name: str) -> Period:
    """The local calendar month the instant lies in."""
    local = at.astimezone(zone(zone_name))
    return calendar_month(local.year, local.month, zone_name)


def months_between(start: datetime, end: datetime, zone_name: str) -> Iterator[Period]:
    """Every local calendar month that [start, end) touches, ascending."""
    at = start
    while at < end:
        period = period_containing(at, zone_name)
        yield period
        at = period.end


def parse_month(text: str) -> tuple[int, int]:
    """ "2013-07" -> (2013, 7); anything else is a ValueError."""
    match = _MONTH.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a month; write it as YYYY-MM, e.g. 2026-06")
    return int(match[1]), int(match[2])
