"""The HTTP binding of CloudEvents: headers and body of a request to the bytes of its events. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import msgspec

from pipeline.contracts import usage_event
from pipeline.domain.errors import RejectedRecord

Headers = Sequence[tuple[str, str]]

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

_ATTRIBUTE = re.compile(r"[a-z0-9]{1,64}")
_NOT_ATTRIBUTES = ("data", "data_base64", "datacontenttype")
_JSON_TYPE = re.compile(r"application/(?:[a-z0-9.!#$&^_-]+\+)?json")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_EXPECTED = f"{STRUCTURED}, {BATCH}, or application/json with ce- headers"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that holds no events we could look at one by one: HTTP status, reason code, sentence."""

    status: int
    reason: str
    detail: str


def events_of(headers: Headers, body: bytes) -> list[bytes] | Refusal:
    """
    Take a request apart.

    Args:
        headers: Names in lower case; a name may stand more than once.
        body: As sent.

    Returns:
        Each event as structured JSON, in order, not yet checked; or why there is none (400, 413, 415).
    """
    types = _values(headers, "content-type")
    if any(value.strip().lower() != "identity" for value in _values(headers, "content-encoding")):
        return Refusal(415, "content_encoding_unsupported", "send the body as it is, without Content-Encoding")
    if len(types) != 1:
        return Refusal(415, "content_type_unsupported", f"one Content-Type is wanted: {_EXPECTED}")
    media_type, _, parameters = types[0].lower().partition(";")
    media_type = media_type.strip()
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters)
    if charset is not None and charset[1] not in ("utf-8", "us-ascii"):
        return Refusal(415, "content_type_unsupported", "events are UTF-8")
    if media_type == STRUCTURED:
        return [body]
    if media_type == BATCH:
        return _batch(body)
    if _JSON_TYPE.fullmatch(media_type) and _values(headers, "ce-specversion"):
        return _binary(headers, media_type, body)
    return Refusal(415, "content_type_unsupported", f"{_EXPECTED} is wanted")


def _batch(body: bytes) -> list[bytes] | Refusal:
    if body.lstrip(b" \t\r\n")[:1] != b"[":
        return Refusal(400, "batch_invalid", "a batch is a JSON array")
    events = usage_event.split_message(body)
    if isinstance(events, RejectedRecord):
        status = 413 if events.reason_code == "batch_too_large" else 400
        return Refusal(status, events.reason_code, events.detail[:200])
    return events


def _binary(headers: Headers, media_type: str, body: bytes) -> list[bytes] | Refusal:
    envelope: dict[str, object] = {}
    for name, value in headers:
        if not name.startswith("ce-"):
            continue
        attribute = name.removeprefix("ce-")
        if not _ATTRIBUTE.fullmatch(attribute) or attribute in _NOT_ATTRIBUTES:
            return Refusal(400, "envelope_invalid", f"there can be no header {name[:60]!a}")
        if attribute in envelope:
            return Refusal(400, "envelope_invalid", f"header {name} stands twice")
        try:
            envelope[attribute] = header_text(value)
        except ValueError as error:
            return Refusal(400, "envelope_invalid", f"header {name} {error}")
    envelope["datacontenttype"] = media_type
    try:
        # Read by itself first, so that no body can add members to the envelope around it.
        envelope["data"] = msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Refusal(400, "json_invalid", f"the body is not JSON: {error}"[:200])
    return [msgspec.json.encode(envelope)]


def header_text(value: str) -> str:
    """
    Give what a ce- header says: double quotes and backslashes of quoted text taken off, then percent-decoded once.

    Raises:
        ValueError: Says what is wrong: not ASCII, a percent sign without two hex digits, bytes that are not UTF-8.
    """
    if not value.isascii():
        raise ValueError("has characters beyond ASCII; they are sent percent-encoded")
    quoted = _QUOTED.fullmatch(value)
    text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value
    if _PERCENT.search(text):
        raise ValueError("has a % without two hex digits")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 once percent-decoded") from None


def _values(headers: Headers, name: str) -> list[str]:
    return [value for key, value in headers if key == name]
