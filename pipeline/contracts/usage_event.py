"""
The message of usage.events: a CloudEvent, or an array of them, to typed values and back.

Decoding has a fast and a slow way to one answer. `usage_event_check.check_event` is the definition: it looks at
everything. The fast way decodes only what is needed and trusts the *shape* of the bytes, which is what is left of
them without digits, hex letters, dots and dashes: whatever the definition asks of a whole text (UTF-8, no member
twice, no control characters, `data` is an object) depends on the shape alone, and shapes that passed are remembered.
"""

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from pipeline.contracts.usage_event_check import (
    CONTROL_PREFIX,
    NAME_CHARACTERS_MAX,
    Rejection,
    check_event,
    instant_us,
    is_plain_shape,
)
from pipeline.contracts.usage_reading import reading_decoder
from pipeline.domain.decimals import plain
from pipeline.domain.errors import RejectedRecord
from pipeline.domain.identity import SequencedId, parse_sequenced_id

__all__ = [
    "CONTROL_PREFIX",
    "HOST_SAMPLE_FIELDS",
    "HOST_SAMPLE_TYPE",
    "Rejection",
    "UsageEvent",
    "Value",
    "decode_event",
    "encode_batch",
    "encode_event",
    "reading_decoder",
    "split_message",
]

EVENTS_PER_MESSAGE_MAX = 100
#: The extension, and its value, by which the collector says that it gave an event its time.
STAMP_ATTRIBUTE, STAMP = "timestampedby", "collector"
HOST_SAMPLE_TYPE = "rackmeter.host.sample.v1"
HOST_SAMPLE_FIELDS = (
    "cpu_cores",
    "cpu_capacity_mhz",
    "cpu_usage_mhz",
    "memory_provisioned_kb",
    "memory_usage_kb",
    "disk_read_kb_s",
    "disk_write_kb_s",
    "net_rx_kb_s",
    "net_tx_kb_s",
)

Value = int | str | Decimal

_VARYING = b"0123456789abcdef.-"
_SHAPES_MAX = 4096
_SHAPE_BYTES_MAX = 4096
_MINUTES_MAX = 200_000
_SEQUENCED_ID_CHARACTERS = 29
_SECONDS_US = {f"{second:02d}Z": second * 1_000_000 for second in range(60)}
_WHITESPACE = b" \t\r\n"


class UsageEvent(msgspec.Struct, frozen=True, gc=False):
    """
    A well-formed event.

    `sequence` is None where the id is not of our numbered form; `subject` is None only for control events;
    `occurred_us` is the event time in microseconds since 1970, floored; `data` is the JSON object as sent.
    """

    source: str
    id: str
    sequence: SequencedId | None
    type: str
    subject: str | None
    occurred_us: int
    data: msgspec.Raw

    @property
    def is_control(self) -> bool:
        """Whether the event speaks about its source and not about usage."""
        return self.type.startswith(CONTROL_PREFIX)


class _Envelope(msgspec.Struct, frozen=True, gc=False):
    specversion: str
    id: str
    source: str
    type: str
    time: str
    data: msgspec.Raw
    subject: str | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
# Caches of pure functions; their bounds only cost time.
_shapes: set[bytes] = set()
_minutes: dict[str, int] = {}


def split_message(value: bytes | None) -> list[bytes] | RejectedRecord:
    """
    Take a message apart into its events, each as sent.

    Returns:
        One element for a single event, 1 to 100 for an array; a RejectedRecord (batch_invalid, batch_too_large)
        where the array cannot be taken apart. What the elements are is not looked at.
    """
    if value is None:
        return [b""]
    if value[:1] != b"[" and value.lstrip(_WHITESPACE)[:1] != b"[":
        return [value]
    try:
        events = _decode_array(value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return RejectedRecord("batch_invalid", f"the array cannot be taken apart: {error}")
    if not events:
        return RejectedRecord("batch_invalid", "the array is empty")
    if len(events) > EVENTS_PER_MESSAGE_MAX:
        return RejectedRecord("batch_too_large", f"{len(events)} events; at most {EVENTS_PER_MESSAGE_MAX}")
    return [bytes(event) for event in events]


def decode_event(raw: bytes) -> UsageEvent | Rejection:
    """Decode one event; bad input is a Rejection with its reason code, never an exception."""
    try:
        envelope = _decode_envelope(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return check_event(raw) or Rejection("json_invalid", "not decodable")
    source, event_id, event_type, subject = envelope.source, envelope.id, envelope.type, envelope.subject
    occurred_us = _occurred_us(envelope.time)
    if (
        occurred_us is None
        or envelope.specversion != "1.0"
        or not (source and event_id and event_type)
        or (not subject and (subject is not None or not event_type.startswith(CONTROL_PREFIX)))
        or len(source) + len(event_id) + len(event_type) + len(subject or "") > NAME_CHARACTERS_MAX
        or raw.translate(None, _VARYING) not in _shapes
    ):
        rejection = check_event(raw)
        if rejection is not None:
            return rejection
        _remember_shape(raw)
        occurred_us = instant_us(envelope.time)
    return UsageEvent(source, event_id, _sequence(event_id), event_type, subject, occurred_us, envelope.data)


def encode_event(
    *, source: str, event_id: str, event_type: str, subject: str | None, time: str, data: Mapping[str, Value]
) -> bytes:
    """
    One event as bytes.

    Args:
        source: The emitter.
        event_id: Unique within the source.
        event_type: The kind of sample.
        subject: The metered thing; None only for control events.
        time: RFC 3339 with zone.
        data: Members by name; decimals are sent as strings, so that no reader takes them for doubles.

    Raises:
        TypeError: A value is neither int, str nor Decimal (a float is not exact).
    """
    envelope: dict[str, object] = {"specversion": "1.0", "id": event_id, "source": source, "type": event_type}
    if subject is not None:
        envelope["subject"] = subject
    envelope["time"] = time
    envelope["data"] = {name: _exact(name, value) for name, value in data.items()}
    return msgspec.json.encode(envelope)


def encode_batch(events: list[bytes]) -> bytes:
    """Several encoded events of one source as one message."""
    return b"[" + b",".join(events) + b"]"


def _exact(name: str, value: Value) -> int | str:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{name} is a {type(value).__name__}; send int, Decimal or str, which are exact")
    return value


def _sequence(event_id: str) -> SequencedId | None:
    return parse_sequenced_id(event_id) if len(event_id) == _SEQUENCED_ID_CHARACTERS else None


def _occurred_us(text: str) -> int | None:
    # Events come in time order, near enough: "2013-07-01T00:03:" is the same for very many of them.
    second_us = _SECONDS_US.get(text[17:])
    if second_us is None:
        return None
    prefix = text[:17]
    minute_us = _minutes.get(prefix)
    if minute_us is None:
        try:
            minute_us = instant_us(prefix + "00Z")
        except ValueError:
            return None
        if len(_minutes) >= _MINUTES_MAX:
            _minutes.clear()
        _minutes[prefix] = minute_us
    return minute_us + second_us


def _remember_shape(raw: bytes) -> None:
    shape = raw.translate(None, _VARYING)
    if len(shape) <= _SHAPE_BYTES_MAX and is_plain_shape(shape):
        if len(_shapes) >= _SHAPES_MAX:
            _shapes.clear()
        _shapes.add(shape)
