"""Decide about each event of a request as the aggregate stage would, and pack what is right. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from pipeline.aggregate.rules import FUTURE_US_MAX, MeterBook
from pipeline.contracts.control_event import decode_control
from pipeline.contracts.usage_event import (
    EVENTS_PER_MESSAGE_MAX,
    STAMP,
    STAMP_ATTRIBUTE,
    Rejection,
    UsageEvent,
    decode_event,
    encode_batch,
)
from pipeline.domain.errors import RejectedRecord
from pipeline.domain.slots import US_PER_SECOND

#: A larger event would not fit into a message of usage.events with room for what is put around it.
EVENT_BYTES_MAX = 900_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What became of one event.

    `event` is None where it was rejected; `raw` is what goes into the log. `reason` and `detail` say why it was
    rejected, or, of an accepted one, why the aggregate stage will park it; '' else.
    """

    event_id: str | None
    event: UsageEvent | None
    raw: bytes
    reason: str = ""
    detail: str = ""


def judge(raw: bytes, covers: Callable[[str], bool], book: MeterBook, now_us: int) -> Verdict:
    """
    Decide about one event.

    Args:
        raw: As sent.
        covers: Whether the sender may speak for a source.
        book: The meters in force.
        now_us: For events without a time, and for those too far ahead; microseconds since 1970.
    """
    if len(raw) > EVENT_BYTES_MAX:
        return Verdict(None, None, raw, "event_too_large", f"{len(raw)} bytes; at most {EVENT_BYTES_MAX}")
    event = decode_event(raw)
    if _claims_stamp(raw) and not (isinstance(event, Rejection) and event.reason == "json_invalid"):
        event_id = event.event_id if isinstance(event, Rejection) else event.id
        return Verdict(event_id, None, raw, "envelope_invalid", f"{STAMP_ATTRIBUTE} is the collector's word")
    if isinstance(event, Rejection) and event.reason == "time_missing":
        raw = stamped(raw, now_us)
        event = decode_event(raw)
    if isinstance(event, Rejection):
        return Verdict(event.event_id, None, raw, event.reason, event.detail)
    if not covers(event.source):
        detail = f"this token may not send for source {event.source[:60]!a}"
        return Verdict(event.id, None, raw, "source_forbidden", detail)
    try:
        reason, detail = _fate(event, book, now_us)
    except RejectedRecord as rejected:
        return Verdict(event.id, None, raw, rejected.reason_code, rejected.detail)
    return Verdict(event.id, event, raw, reason, detail)


def _claims_stamp(raw: bytes) -> bool:
    # Spelt out or with an escape in it; only then it is worth reading the members.
    if STAMP_ATTRIBUTE.encode() not in raw and b"\\" not in raw:
        return False
    try:
        return STAMP_ATTRIBUTE in msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def stamped(raw: bytes, now_us: int) -> bytes:
    """Give an event without a time this one, and say so in an extension; all else stays as it was spelt."""
    members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    at = _EPOCH + timedelta(microseconds=now_us)
    members["time"] = msgspec.Raw(b'"%b"' % at.strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode())
    members[STAMP_ATTRIBUTE] = msgspec.Raw(b'"%b"' % STAMP.encode())
    return msgspec.json.encode(members)


def _fate(event: UsageEvent, book: MeterBook, now_us: int) -> tuple[str, str]:
    """Say why an event would be parked, or ('', ''); raises RejectedRecord where it would be quarantined."""
    if event.occurred_us > now_us + FUTURE_US_MAX:
        raise RejectedRecord("time_future", f"time is {(event.occurred_us - now_us) // US_PER_SECOND} s ahead")
    if event.is_control:
        decode_control(event)
    elif event.type not in book.ignored_types:
        plan = book.plan(event.type, event.occurred_us)
        if plan is None:
            return "unknown_meter", f"kept, but it waits for a meter of {event.type[:60]!a} at this time"
        plan.decode(event.data)
    if event.sequence is None:
        return "unsequenced_id", "kept, but it waits: ids are 16 hex digits, a dash and 12 digits"
    return "", ""


def messages_of(verdicts: Iterable[Verdict]) -> list[tuple[bytes, bytes]]:
    """
    Pack accepted events as messages of usage.events: (key, value), one source each, in the order given.

    A message holds at most 100 events and no more bytes than the largest event, unless it holds one alone.
    """
    by_source: dict[str, list[bytes]] = {}
    for verdict in verdicts:
        if verdict.event is not None:
            by_source.setdefault(verdict.event.source, []).append(verdict.raw)
    return [
        (source.encode(), events[0] if len(events) == 1 else encode_batch(events))
        for source, all_events in by_source.items()
        for events in _chunks(all_events)
    ]


def _chunks(events: Sequence[bytes]) -> list[list[bytes]]:
    chunks: list[list[bytes]] = []
    size_bytes = 0
    for event in events:
        if not chunks or len(chunks[-1]) >= EVENTS_PER_MESSAGE_MAX or size_bytes + len(event) > EVENT_BYTES_MAX:
            chunks.append([])
            size_bytes = 0
        chunks[-1].append(event)
        size_bytes += len(event) + 1
    return chunks
