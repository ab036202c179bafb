"""What a source says about itself: the control events of usage.events, decoded to typed values."""

from dataclasses import dataclass

import msgspec

from pipeline.contracts.usage_event import UsageEvent
from pipeline.contracts.usage_event_check import CONTROL_PREFIX, instant_us
from pipeline.domain.errors import RejectedRecord
from pipeline.domain.identity import NUMBER_MAX

COMPLETE_UNTIL_TYPE = CONTROL_PREFIX + "complete_until.v1"
RETIRED_TYPE = CONTROL_PREFIX + "retired.v1"
HEARTBEAT_TYPE = CONTROL_PREFIX + "heartbeat.v1"
DROPPED_TYPE = CONTROL_PREFIX + "dropped.v1"


@dataclass(frozen=True, slots=True)
class CompleteUntil:
    """Everything up to this event time was sent; None: for ever (the source is retired). Microseconds since 1970."""

    until_us: int | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """Numbers `first` to `last`, both included, will never come."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The source lives."""


ControlEvent = CompleteUntil | Dropped | Heartbeat


class _CompleteUntilData(msgspec.Struct):
    until: str


class _DroppedData(msgspec.Struct):
    first: int
    last: int


def decode_control(event: UsageEvent) -> ControlEvent:
    """
    Read a control event's data.

    Raises:
        RejectedRecord: control_invalid, naming what is wrong; also for a control type that does not exist.
    """
    try:
        if event.type == COMPLETE_UNTIL_TYPE:
            return CompleteUntil(instant_us(msgspec.json.decode(event.data, type=_CompleteUntilData).until))
        if event.type == RETIRED_TYPE:
            return CompleteUntil(None)
        if event.type == HEARTBEAT_TYPE:
            return Heartbeat()
        if event.type == DROPPED_TYPE:
            data = msgspec.json.decode(event.data, type=_DroppedData)
            if not 1 <= data.first <= data.last <= NUMBER_MAX:
                raise RejectedRecord("control_invalid", f"data.first and data.last: {data.first} to {data.last}")
            return Dropped(data.first, data.last)
    except (msgspec.MsgspecError, ValueError) as error:
        raise RejectedRecord("control_invalid", f"data of {event.type}: {error}"[:200]) from None
    raise RejectedRecord("control_invalid", f"{event.type!r} is not a control event we know")
