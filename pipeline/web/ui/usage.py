"""Usage pages: by customer, server, meter and month; its days; a day's slots; a slot's events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse

from pipeline.domain.errors import ConfigurationFault
from pipeline.domain.period import local_midnight, parse_month, zone
from pipeline.reports import store as reports
from pipeline.runtime.postgres import Connection
from pipeline.web.ui import store
from pipeline.web.ui.charts import BarChart, bar_chart
from pipeline.web.ui.database import snapshot
from pipeline.web.ui.events import slot_events
from pipeline.web.ui.look import Look, answer

Text = Annotated[str, Query(max_length=300)]

#: More digits than any sum of quantities has.
SUM_DIGITS = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page of usage is asked for; '' stands for all."""

    account: str
    server: str
    meter: str
    month: str

    def link(self, **changed: str) -> str:
        """The page's address with something changed."""
        wanted = {"account": self.account, "server": self.server, "meter": self.meter, "month": self.month, **changed}
        return "/usage?" + urlencode({name: value for name, value in wanted.items() if value})


def add_routes(app: FastAPI, look: Look) -> None:
    """Add the pages of usage."""

    @app.get("/usage")
    def usage(
        request: Request, account: Text = "", server: Text = "", meter: Text = "", month: Text = ""
    ) -> HTMLResponse:
        with snapshot(look.database_url) as connection:
            facts = _facts(connection, Asked(account, server, meter, month))
        return answer(request, look, "/usage", "Usage", "usage.html", facts)

    @app.get("/usage/slots")
    def slots(request: Request, server: Text, meter: Text, day: Text, tz: Text = "UTC") -> HTMLResponse:
        start, end = day_edges(day, tz)
        with snapshot(look.database_url) as connection:
            rows = store.slots(connection, server, meter, start, end)
        chart = bar_chart([(str(row["slot_start"].astimezone(zone(tz)))[11:16], row["quantity"]) for row in rows])
        facts = {"server": server, "meter": meter, "day": day, "zone": tz, "rows": rows, "chart": chart}
        return answer(request, look, "/usage", f"{server}, {day}", "slots.html", facts)

    @app.get("/usage/events")
    def events(request: Request, server: Text, meter: Text, slot: datetime, tz: Text = "UTC") -> HTMLResponse:
        if slot.tzinfo is None:
            raise ConfigurationFault(f"{slot.isoformat()} has no zone", "slot_unknown")
        zone(tz)
        start = slot.astimezone(UTC)
        with snapshot(look.database_url) as connection:
            version = store.meter_at(connection, meter, start)
            end = start + timedelta(seconds=version["slot_seconds"])
            found = slot_events(connection, look.archive_dir, server, version, start, end)
        facts = {"server": server, "meter": version, "start": start, "end": end, "found": found, "zone": tz}
        return answer(request, look, "/usage", f"Events of {server}", "events.html", facts)


def day_edges(day: str, zone_name: str) -> tuple[datetime, datetime]:
    """The first instant of a local day and of the next; ConfigurationFault for what is no date or no zone."""
    zone(zone_name)
    try:
        first = date.fromisoformat(day)
        after = first + timedelta(days=1)
    except (ValueError, OverflowError):
        raise ConfigurationFault(f"{day!r} is not a date; write it as YYYY-MM-DD", "day_unknown") from None
    return (
        local_midnight(first.year, first.month, first.day, zone_name),
        local_midnight(after.year, after.month, after.day, zone_name),
    )


def month_edges(month: str) -> tuple[date, date]:
    """The first day of a month and of the next; ConfigurationFault for what is none."""
    try:
        year, number = parse_month(month)
        return date(year, number, 1), date(year + number // 12, number % 12 + 1, 1)
    except ValueError as error:
        raise ConfigurationFault(str(error), "month_unknown") from None


def _facts(connection: Connection, asked: Asked) -> dict[str, Any]:
    months = store.months(connection)
    asked = Asked(asked.account, asked.server, asked.meter, asked.month or _newest(connection, months))
    facts: dict[str, Any] = {
        "asked": asked,
        "months": months,
        "accounts": store.accounts(connection),
        "servers": store.servers(connection, asked.account or None),
        "rows": [],
        "days": [],
        "charts": [],
    }
    if not (asked.account or asked.server):
        return facts
    start, end = month_edges(asked.month) if asked.month else (None, None)
    chosen = {"account": asked.account or None, "server": asked.server or None, "meter": asked.meter or None}
    rows = reports.usage(connection, by="month", start=start, end=end, **chosen)
    facts["rows"] = rows
    if asked.meter:
        facts["days"] = reports.usage(connection, by="day", start=start, end=end, **chosen)
        facts["charts"] = day_charts(facts["days"], start, end)
    return facts


def _newest(connection: Connection, months: Sequence[str]) -> str:
    """The newest month that was invoiced: the one after it may have begun with a minute."""
    invoiced = reports.last_invoices(connection, 1)
    return invoiced[0]["period"] if invoiced else months[0] if months else ""


def day_charts(
    days: Sequence[reports.Row], start: date | None = None, end: date | None = None
) -> list[tuple[str, str, BarChart]]:
    """
    A chart for each account and meter: (title, unit, days with the sum over its servers), days without usage too.

    Args:
        days: Rows of `reports.usage` by day.
        start: The first day drawn; None: the first with usage.
        end: The day after the last one drawn; None: after the last with usage.
    """
    groups: dict[tuple[str, str, str], dict[date, Decimal]] = {}
    with localcontext() as context:
        context.prec = SUM_DIGITS
        for row in days:
            local = row["from"].astimezone(zone(row["zone"])).date()
            sums = groups.setdefault((row["account"] or "nobody", row["meter"], row["unit"]), {})
            sums[local] = sums.get(local, Decimal(0)) + row["quantity"]
    charts = []
    for (account, meter, unit), sums in groups.items():
        first, after = start or min(sums), end or max(sums) + timedelta(days=1)
        every = [first + timedelta(days=number) for number in range((after - first).days)]
        chart = bar_chart([(day.isoformat(), sums.get(day, Decimal(0))) for day in every])
        charts.append((f"{meter} of {account}", unit, chart))
    return charts
