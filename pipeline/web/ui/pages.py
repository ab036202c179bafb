"""Templates to HTML: every value escaped, every number exact, every time with its zone."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FunctionLoader, StrictUndefined

from pipeline.domain.decimals import plain
from pipeline.domain.period import zone
from pipeline.invoice_batch.documents.render import grouped as grouped_text
from pipeline.runtime.postgres import FAR_FUTURE, FAR_PAST

HEX_BYTES_A_LINE = 16


def render(template: str, facts: Mapping[str, object]) -> str:
    """
    Make a page or a part of one.

    Args:
        template: Its file's name.
        facts: What it shows, by name; one that the template misses is an error.
    """
    return _environment().get_template(template).render(facts)


def static_text(name: str) -> str:
    """Give a style sheet, script or picture of ours."""
    return resources.files(__package__).joinpath("static", name).read_text(encoding="utf-8")


def exact(value: Decimal | int | str) -> str:
    """Give a number as text with every digit and no exponent: "1234.5"."""
    return plain(value) if isinstance(value, Decimal) else str(value)


def grouped(value: Decimal | int | str) -> str:
    """Give every digit, thousands apart by thin spaces that do not break, and a true minus: "−1 234.5"."""
    return grouped_text(exact(value))


def moment(at: datetime, zone_name: str = "UTC", exactly: bool = False) -> str:  # noqa: FBT001  # a template's filter
    """
    Give an instant as a clock in that zone shows it, with the offset: "2026-06-01 00:00:00 +02:00".

    Args:
        at: An aware time.
        zone_name: IANA name.
        exactly: With the fraction of the second, where it has one.
    """
    if at in (FAR_FUTURE, FAR_PAST):
        return "without end" if at == FAR_FUTURE else "without beginning"
    local = at.astimezone(zone(zone_name))
    offset = local.strftime("%z")
    behind = "UTC" if zone_name == "UTC" else f"{offset[:3]}:{offset[3:5]}"
    fraction = f".{local.microsecond:06}".rstrip("0") if exactly and local.microsecond else ""
    return f"{local:%Y-%m-%d %H:%M:%S}{fraction} {behind}"


def instant(at: datetime) -> str:
    """Give an instant for machines: RFC 3339 in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def weekday(day: date) -> str:
    """Give a day with its weekday: "Mon 2026-06-01"."""
    return f"{day:%a} {day.isoformat()}"


def hex_lines(payload: bytes) -> list[tuple[str, str, str]]:
    """Give bytes as (offset, hex, text) lines; what is no printable ASCII is a dot."""
    lines = []
    for at in range(0, len(payload), HEX_BYTES_A_LINE):
        part = payload[at : at + HEX_BYTES_A_LINE]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "·" for byte in part)
        lines.append((f"{at:06x}", part.hex(" "), text))
    return lines


def escaped_text(payload: bytes) -> str:
    r"""Give bytes as text that can be turned back: a tab is \t, a byte 255 is \xff."""
    return payload.decode("latin-1").encode("unicode_escape").decode("ascii")


def words(name: str) -> str:
    """Give a name of code for reading: "unbooked_totals" -> "unbooked totals"."""
    return name.replace("_", " ")


def in_path(text: object) -> str:
    """Give a text as one step of a path or one value of a query."""
    return quote(str(text), safe="")


def as_json(value: Mapping[str, Any] | list[Any]) -> str:
    """Give JSON on several lines, keys in order."""
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_template_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (exact, grouped, moment, instant, weekday, hex_lines, escaped_text, words, in_path, as_json)
    environment.filters.update({one.__name__: one for one in filters})
    return environment


def _template_text(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")
