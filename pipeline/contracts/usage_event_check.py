"""The definition of a well-formed event: what is wrong with given bytes, and what can still be read of them."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple, cast

import msgspec

from pipeline.domain.slots import to_us

CONTROL_PREFIX = "rackmeter.control."
NAME_CHARACTERS_MAX = 256
DEPTH_MAX = 32

_NAMES = ("source", "id", "type", "subject")
_DETAIL_CHARACTERS_MAX = 200
_TOO_DEEP = f"nested more than {DEPTH_MAX} deep"
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))"
)
_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_KEY = re.compile(rb'"([^"]*)"[ \t\r\n]*:')
_FACT = {name: re.compile(rb'"%s"[ \t\r\n]*:[ \t\r\n]*"([^"\\]*)"' % name.encode()) for name in (*_NAMES, "time")}


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """
    Why an event is not well-formed: a reason code of docs/reasons.md and a sentence that names the field.

    The facts are what could still be read, each None where it could not; all of them fit PostgreSQL text.
    """

    reason: str
    detail: str
    source: str | None = None
    event_id: str | None = None
    subject: str | None = None
    event_type: str | None = None
    occurred_us: int | None = None


class _Finding(NamedTuple):
    reason: str
    detail: str


class _Refused(ValueError):
    """The text is JSON by its grammar, but not JSON we take."""


def check_event(raw: bytes) -> Rejection | None:
    """Look at everything in an event; None where it is well-formed."""
    try:
        text = raw.decode("utf-8")
        event = json.loads(
            text,
            object_pairs_hook=_members_once,
            parse_constant=_refuse_constant,
            parse_int=_any_number,
            parse_float=_any_number,
        )
    except (ValueError, RecursionError) as error:
        detail = _TOO_DEEP if isinstance(error, RecursionError) else str(error)
        return _rejection(_Finding("json_invalid", detail), _facts_of_bytes(raw))
    if not isinstance(event, dict):
        return _rejection(_Finding("envelope_invalid", "the event is not an object"), {})
    finding = _depth(event) or _first_finding(event) or _surrogate(event)
    return None if finding is None else _rejection(finding, event)


def is_plain_shape(shape: bytes) -> bool:
    """Whether the check of a whole text depends on its shape alone: ASCII, nothing escaped, no two members alike."""
    if b"\\" in shape or not shape.isascii():
        return False
    keys = _KEY.findall(shape)
    return len(keys) == len(set(keys))


def instant_us(text: str) -> int:
    """
    Microseconds since 1970 of an RFC 3339 time with zone, finer digits cut off.

    Raises:
        ValueError: Says what is wrong: no zone, not a date, a leap second, before 1970, more than 9 decimals.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("is not RFC 3339 with a zone and at most 9 decimals of the second")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if second == 60:
        raise ValueError("is a leap second")
    zone = UTC
    if match[9]:
        hours, minutes = int(match[10]), int(match[11])
        if hours > 23 or minutes > 59:
            raise ValueError("has a zone out of range")
        offset = timedelta(hours=hours, minutes=minutes)
        zone = timezone(offset if match[9] == "+" else -offset)
    whole_us = to_us(datetime(year, month, day, hour, minute, second, tzinfo=zone))
    if not 0 <= whole_us < _YEAR_10000_US:
        raise ValueError("is outside the years 1970 to 9999")
    return whole_us + int(((match[7] or "") + "000000")[:6])


_YEAR_10000_US = to_us(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)) + 1_000_000


def _first_finding(event: dict[str, object]) -> _Finding | None:
    version = event.get("specversion")
    if not isinstance(version, str):
        return _Finding("envelope_invalid", "specversion is missing or no text")
    if version != "1.0":
        return _Finding("specversion_unsupported", f"specversion is {_shown(version)}, not 1.0")
    for name in ("source", "id", "type"):
        value = event.get(name)
        if not isinstance(value, str):
            return _Finding("envelope_invalid", f"{name} is missing or no text")
        if problem := _name_problem(value):
            return _Finding("name_invalid", f"{name} {problem}")
    return _time_finding(event.get("time")) or _subject_finding(event) or _data_finding(event)


def _time_finding(time: object) -> _Finding | None:
    if time is None:
        return _Finding("time_missing", "time is missing")
    if not isinstance(time, str):
        return _Finding("time_invalid", "time is no text")
    try:
        instant_us(time)
    except ValueError as error:
        return _Finding("time_invalid", f"time {_shown(time)} {error}")
    return None


def _subject_finding(event: dict[str, object]) -> _Finding | None:
    subject = event.get("subject")
    if subject is None:
        is_control = cast(str, event["type"]).startswith(CONTROL_PREFIX)
        return None if is_control else _Finding("subject_missing", "subject is missing")
    if not isinstance(subject, str):
        return _Finding("envelope_invalid", "subject is no text")
    problem = _name_problem(subject)
    return _Finding("name_invalid", f"subject {problem}") if problem else None


def _data_finding(event: dict[str, object]) -> _Finding | None:
    if isinstance(event.get("data"), dict):
        return None
    return _Finding("envelope_invalid", "data is missing or no object")


def _depth(event: dict[str, object]) -> _Finding | None:
    # Where Python gives up depends on its stack; the same bytes must get the same answer everywhere.
    level: list[object] = [event]
    for _ in range(DEPTH_MAX):
        inner: list[object] = []
        for value in level:
            inner.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        if not inner:
            return None
        level = inner
    return _Finding("json_invalid", _TOO_DEEP)


def _surrogate(event: dict[str, object]) -> _Finding | None:
    # PostgreSQL text and UTF-8 have no unpaired surrogates; JSON's \ud800 can write one.
    if _SURROGATE.search(json.dumps(event, ensure_ascii=False)):
        return _Finding("json_invalid", "a text holds half a character (an unpaired surrogate)")
    return None


def _name_problem(value: str) -> str:
    if not value:
        return "is empty"
    if len(value) > NAME_CHARACTERS_MAX:
        return f"has {len(value)} characters; at most {NAME_CHARACTERS_MAX}"
    if _CONTROL_CHARACTER.search(value) or _SURROGATE.search(value):
        return f"{_shown(value)} holds a control character or half a character"
    return ""


def _members_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"member {_shown(twice)} stands twice: readers would not agree which one counts")
    return members


def _any_number(_text: str) -> int:
    # What a number says is the reading's matter; a giant one is not even built.
    return 0


def _refuse_constant(word: str) -> None:
    raise _Refused(f"{word} is not JSON")


def _facts_of_bytes(raw: bytes) -> dict[str, object]:
    """Read what is not ambiguous from bytes that are not JSON."""
    facts: dict[str, object] = {}
    for name, pattern in _FACT.items():
        found = pattern.findall(raw)
        if len(found) == 1:
            try:
                facts[name] = found[0].decode("utf-8")
            except UnicodeDecodeError:
                continue
    return facts


def _rejection(finding: _Finding, facts: dict[str, object]) -> Rejection:
    source, event_id, event_type, subject = (
        value if isinstance(value := facts.get(name), str) and not _name_problem(value) else None
        for name in ("source", "id", "type", "subject")
    )
    try:
        occurred_us = instant_us(str(facts.get("time")))
    except ValueError:
        occurred_us = None
    detail = finding.detail[:_DETAIL_CHARACTERS_MAX]
    return Rejection(finding.reason, _postgres_text(detail), source, event_id, subject, event_type, occurred_us)


def _postgres_text(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii").replace("\x00", "\\x00")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "…")
