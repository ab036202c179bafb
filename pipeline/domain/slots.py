"""Time as whole microseconds since 1970 (UTC), and the edges of slots in it."""

from datetime import UTC, datetime, timedelta

US_PER_SECOND = 1_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(at: datetime) -> int:
    """Microseconds since 1970 of an aware time; a naive one is a TypeError."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(at_us: int) -> datetime:
    """The aware UTC time of microseconds since 1970; OverflowError outside the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=at_us)


def floor_us(at_us: int, width_seconds: int) -> int:
    """The edge at or before: the start of the slot the instant lies in."""
    return at_us - at_us % (width_seconds * US_PER_SECOND)


def ceil_us(at_us: int, width_seconds: int) -> int:
    """The edge at or after."""
    return at_us + -at_us % (width_seconds * US_PER_SECOND)
