"""Options and arguments that several commands share, and how their texts are read."""

import os
import pwd
from datetime import UTC, date, datetime
from typing import Annotated

import typer

from pipeline.cli.output import Format
from pipeline.domain.period import local_midnight, parse_month, zone

FormatOption = Annotated[Format, typer.Option("--format", help="How data is written to stdout.")]


def examples(*lines: str) -> str:
    """The end of a command's help: one example a line, not folded."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def login_name() -> str:
    """Who runs the command, for the record."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def month_of(text: str) -> tuple[int, int]:
    """YYYY-MM as (year, month); anything else is a usage error."""
    try:
        return parse_month(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def date_of(text: str) -> date:
    """YYYY-MM-DD; anything else is a usage error."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date; write it as YYYY-MM-DD") from None


def moment_of(text: str, zone_name: str) -> datetime:
    """
    A time with its zone, or a date for its first instant in `zone_name`, as aware UTC.

    Anything else is a usage error, an unknown zone a ConfigurationFault.
    """
    try:
        if len(text) == len("2026-07-01"):
            day = date.fromisoformat(text)
            return local_midnight(day.year, day.month, day.day, zone_name)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a time; write a date, e.g. 2026-07-01, or a time with its zone, e.g. 2026-07-01T06:00:00Z"
        ) from None
    if at.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone; write e.g. {text}Z or {text}+02:00")
    return at.astimezone(UTC)


def edge_of(text: str, zone_name: str | None) -> datetime | date:
    """A time with its zone as aware UTC, or a date: as it is without a zone, else as its first instant there."""
    if zone_name is None and len(text) == len("2026-07-01"):
        return date_of(text)
    return moment_of(text, zone_name or "UTC")


def zoned(at: datetime, zone_name: str) -> datetime:
    """The same instant as a clock in that zone shows it."""
    return at.astimezone(zone(zone_name))
