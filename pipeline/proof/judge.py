"""Judges messages that SQL cannot: our own reading of what a well-formed event is, a byte at a time if need be."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from pipeline.proof.facts import to_us

CONTROL = "rackmeter.control."
BATCH_MAX = 100
NAME_MAX = 256
INTEGER_DIGITS_MAX = 18
DECIMALS_MAX = 9
DEPTH_MAX = 32
# The extension by which a collector says that it gave the event its time.
STAMP = "timestampedby"

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt]([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII,
)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_SPACE = " \t\r\n"


class Fault(ValueError):
    """Why an event is not well-formed; its text is a short word."""


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """
    One event of a message. `fault` is None for a well-formed one; the rest is what could be read.

    `nano` has a value in 10^-9 for each field asked for, None where there is no good one. `stamped`: its time is not
    its sender's.
    """

    index: int
    fault: str | None
    source: str | None = None
    event_id: str | None = None
    event_type: str | None = None
    subject: str | None = None
    at_us: int | None = None
    nano: tuple[int | None, ...] = ()
    stamped: bool = False


def judge_message(value: bytes | None, fields: Sequence[str]) -> list[Judged]:
    """Take a message apart and judge each event; index -1 stands for a message that cannot be taken apart."""
    # Escaped bytes become lone surrogates, which every text is searched for.
    text = (value or b"").decode("utf-8", "surrogateescape")
    if not text.lstrip(_SPACE).startswith("["):
        return [_judge(0, text, fields)]
    try:
        elements = list(_elements(text))
    except (ValueError, RecursionError):
        return [Judged(-1, "batch_invalid")]
    if not 1 <= len(elements) <= BATCH_MAX:
        return [Judged(-1, "batch_size")]
    return [_judge(index, element, fields) for index, element in enumerate(elements)]


def exact_nano(value: object) -> int | None:
    """Give a JSON number, or a text that is one, in 10^-9; None for anything else and what is out of limits."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value) is None:
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    if not number:
        return 0
    _, digits, exponent = number.as_tuple()
    if number < 0 or not isinstance(exponent, int) or number.adjusted() >= INTEGER_DIGITS_MAX:
        return None
    significant = "".join(map(str, digits)).rstrip("0")
    exponent += len(digits) - len(significant)
    return int(significant) * 10 ** (exponent + DECIMALS_MAX) if exponent >= -DECIMALS_MAX else None


def instant_us(text: object) -> int | None:
    """Give an RFC 3339 time with zone in microseconds since 1970, finer digits cut off; None for anything else."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = match.groups()
    try:
        local = datetime.fromisoformat(day).replace(tzinfo=UTC)
        at_us = to_us(local) + (int(hour) * 3600 + int(minute) * 60 + int(second)) * 1_000_000
    except ValueError:
        return None
    if sign:
        shift_us = timedelta(hours=int(zone_hours), minutes=int(zone_minutes)) // timedelta(microseconds=1)
        at_us -= shift_us if sign == "+" else -shift_us
    at_us += int((fraction or "").ljust(6, "0")[:6])
    return at_us if 0 <= at_us < to_us(datetime(9999, 12, 31, tzinfo=UTC)) + 86_400_000_000 else None


def _elements(text: str) -> Iterator[str]:
    scan = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=_no_constant).raw_decode
    position = _skip(text, text.index("[") + 1)
    if text[position : position + 1] == "]":
        position += 1
    else:
        while True:
            _, end = scan(text, position)
            yield text[position:end]
            position = _skip(text, end)
            mark = text[position : position + 1]
            position += 1
            if mark == "]":
                break
            if mark != ",":
                raise Fault("batch_invalid")
            position = _skip(text, position)
    if _skip(text, position) != len(text):
        raise Fault("batch_invalid")


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _judge(index: int, text: str, fields: Sequence[str]) -> Judged:
    event: dict[str, Any] = {}
    fault: str | None = None
    try:
        event = _read(text)
        _check_envelope(event)
    except Fault as found:
        fault = str(found)
    except (ValueError, RecursionError):
        fault = "json_invalid"
    names = {
        name: value if _is_name(value := event.get(name)) else None for name in ("source", "id", "type", "subject")
    }
    data = event.get("data")
    if fault is None and str(names["type"]).startswith(CONTROL) and isinstance(data, dict):
        fault = _control_fault(str(names["type"]), data)
    return Judged(
        index,
        fault,
        names["source"],
        names["id"],
        names["type"],
        names["subject"],
        instant_us(event.get("time")),
        tuple(exact_nano(data.get(name)) if isinstance(data, dict) else None for name in fields),
        type(event.get(STAMP)) is str and event[STAMP] == "collector",
    )


def _read(text: str) -> dict[str, Any]:
    event = json.loads(
        text, parse_float=Number, parse_int=Number, parse_constant=_no_constant, object_pairs_hook=_each_once
    )
    if not isinstance(event, dict):
        raise Fault("envelope_invalid")
    if _depth(event) > DEPTH_MAX:
        raise Fault("json_invalid")
    if any("\ud800" <= letter <= "\udfff" for letter in json.dumps(event, ensure_ascii=False)):
        raise Fault("json_invalid")
    return event


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _check_envelope(event: dict[str, Any]) -> None:
    if type(event.get("specversion")) is not str or event["specversion"] != "1.0":
        raise Fault("specversion")
    for name in ("source", "id", "type"):
        if not _is_name(event.get(name)):
            raise Fault(name)
    if instant_us(event.get("time")) is None or type(event["time"]) is not str:
        raise Fault("time")
    subject = event.get("subject")
    if subject is None and not event["type"].startswith(CONTROL):
        raise Fault("subject_missing")
    if subject is not None and not _is_name(subject):
        raise Fault("subject")
    if not isinstance(event.get("data"), dict):
        raise Fault("data")


def _control_fault(event_type: str, data: dict[str, Any]) -> str | None:
    kind = event_type.removeprefix(CONTROL)
    if kind in ("retired.v1", "heartbeat.v1"):
        return None
    if kind == "complete_until.v1":
        is_text = type(data.get("until")) is str
        return None if is_text and instant_us(data["until"]) is not None else "control_invalid"
    if kind == "dropped.v1":
        first, last = (
            int(value) if isinstance(value, Number) and value.isascii() and value.isdigit() and len(value) < 19 else 0
            for value in (data.get("first"), data.get("last"))
        )
        return None if 1 <= first <= last else "control_invalid"
    return "control_invalid"


def _is_name(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= NAME_MAX and _UNPRINTABLE.search(value) is None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Fault("json_invalid")
    return members


def _no_constant(word: str) -> object:
    raise Fault(f"json_invalid: {word}")
