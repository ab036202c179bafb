"""`rackmeter usage`: what was used, from the buckets."""

from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, edge_of, examples, zoned
from pipeline.cli.output import Format, numbers, say, show, texts
from pipeline.domain.period import zone

app = typer.Typer(
    no_args_is_help=True,
    help="What was used, by account, server and meter.",
    epilog=examples("rackmeter usage list --account acme"),
)


class By(StrEnum):
    """How long the stretches are that usage is summed over."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@app.command(
    "list",
    epilog=examples(
        "rackmeter usage list --account acme",
        "rackmeter usage list --server vm-5 --meter cpu --by day --from 2013-07-01 --to 2013-08-01",
        "rackmeter usage list --by hour --zone UTC --from 2013-07-01 --to 2013-07-02",
        "rackmeter usage list --format csv > usage.csv",
    ),
)
def list_usage(
    account: Annotated[str | None, typer.Option(help="Only what this account had at the time.")] = None,
    server: Annotated[str | None, typer.Option(help="Only this server.")] = None,
    meter: Annotated[str | None, typer.Option(help="Only this meter.")] = None,
    start: Annotated[str, typer.Option("--from", help="First day, or a time with zone.")] = "",
    end: Annotated[str, typer.Option("--to", help="The day or time it ends before.")] = "",
    by: Annotated[By, typer.Option(help="Sum over each of these.")] = By.MONTH,
    zone_name: Annotated[
        str | None,
        typer.Option("--zone", help="IANA zone in which days and months begin; default: each account's own, else UTC."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Sum usage by account, server and meter. What nobody had has no account. Quantities are exact, in `unit`.

    Months are cut as invoices cut them: in the account's own time zone, unless --zone says another.
    """
    from pipeline.reports import store

    if zone_name is not None:
        zone(zone_name)
    with reading(settings_for("database_url")) as connection:
        rows = store.usage(
            connection,
            by=by.value,
            zone_name=zone_name,
            account=account,
            server=server,
            meter=meter,
            start=edge_of(start, zone_name) if start else None,
            end=edge_of(end, zone_name) if end else None,
        )
        dropped_before = store.usage_dropped_before(connection)
    local = [{**row, "from": zoned(row["from"], row["zone"])} for row in rows]
    columns = (*texts("account", "server", "meter", "from"), *numbers("quantity"), *texts("unit"))
    show(columns, local, form)
    if dropped_before is not None:
        say(f"slots before {dropped_before:%Y-%m-%d} were dropped: what is listed before is not whole")
    if not rows:
        say("no usage is kept that fits; `rackmeter status` tells how far the stages are")


@app.command("show", epilog=examples("rackmeter usage show vm-5", "rackmeter usage show vm-5 --sources"))
def show_usage(
    server: Annotated[str, typer.Argument(help="The server, as its events name it in `subject`.")],
    sources: Annotated[bool, typer.Option("--sources", help="Show who speaks for it instead.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Show what is kept of one server: slots and quantity by meter, or its sources and how complete they are."""
    from pipeline.reports import store

    with reading(settings_for("database_url")) as connection:
        if sources:
            columns = (
                *texts("source", "event_type", "first_at", "last_at", "complete_until", "has_no_hole"),
                *numbers("declared_lost"),
            )
            show(columns, store.usage_sources(connection, server), form)
            return
        rows = store.usage_series(connection, server)
    columns = (
        *texts("meter"),
        *numbers("version"),
        *texts("aggregation", "source"),
        *numbers("slots"),
        *texts("first_slot", "last_slot"),
        *numbers("quantity"),
        *texts("unit"),
    )
    show(columns, rows, form)
    if not rows:
        say(f"nothing is kept of {server!r}; `rackmeter quarantine list --server {server}` shows what was refused")
