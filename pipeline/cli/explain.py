"""`rackmeter explain` and `rackmeter trace`: from an amount back to events, and from an event forward to its line."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, date_of, examples
from pipeline.cli.output import Format, numbers, say, show, texts

if TYPE_CHECKING:
    from pipeline.reports.explain import Node

app = typer.Typer()

_INDENT = "  "


@app.command(
    epilog=examples(
        "rackmeter explain RM-2013-0001",
        "rackmeter explain RM-2013-0001 --line 3",
        "rackmeter explain RM-2013-0001 --line 3 --server vm-5 --day 2013-07-04 --events",
        "rackmeter explain usage:5:1:3 --format json",
    )
)
def explain(
    name: Annotated[
        str, typer.Argument(metavar="INVOICE|LINE|POSTING", help="A number or id, NUMBER:LINE, or a posting's key.")
    ],
    line: Annotated[int | None, typer.Option(min=1, help="Which line of the invoice.")] = None,
    server: Annotated[str | None, typer.Option(help="Only this server's usage.")] = None,
    day: Annotated[
        str, typer.Option(metavar="YYYY-MM-DD", help="The slots of this day, in the account's zone, instead of days.")
    ] = "",
    events: Annotated[bool, typer.Option("--events", help="With --day: the events behind the slots too.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Show how an amount came about: line, postings, price steps, total, servers, days, slots, events.

    A whole invoice is shown down to its prices; name a line or a posting to go further down. `level` counts from 0.
    A total is the present one; where usage came since an invoice, its segment says so.
    """
    from pipeline import bootstrap
    from pipeline.reports.explain import Depth
    from pipeline.reports.explain import explain as explained

    if events and not day:
        raise typer.BadParameter("--events needs the --day they are of")
    settings = settings_for("database_url", *(["archive_dir"] if events else []))
    with reading(settings) as connection:
        find = bootstrap.event_finder(settings, connection) if events else None
        depth = Depth(server, date_of(day) if day else None, find)
        _show(list(explained(connection, name, line, depth)), form)
    if line is None and ":" not in name:
        say("name a line (--line) to see the usage behind it")


@app.command(
    epilog=examples(
        "rackmeter trace 00f3a1b2c3d4e5f6-000000000012",
        "rackmeter trace 00f3a1b2c3d4e5f6-000000000012 --source urn:agent:vm-5 --format json",
    )
)
def trace(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's id.")],
    source: Annotated[str | None, typer.Option(help="Who sent it; needed where several sent one of that id.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Follow an event forward: what was decided each time it was sent, slots, totals, postings, invoice lines.

    It is looked up in the archive. Exit code 1: it is not there (yet).
    """
    from pipeline import bootstrap

    settings = settings_for("database_url", "archive_dir")
    with reading(settings) as connection:
        nodes = bootstrap.trace_event(settings, connection, event_id, source)
    if not nodes:
        say(f"the archive has no event {event_id}; it may not be archived yet: `rackmeter status`")
        raise typer.Exit(1)
    _show(nodes, form)


def _show(nodes: Iterable["Node"], form: Format) -> None:
    rows = [
        {
            "level": node.level,
            "what": _INDENT * node.level * (form is Format.TABLE) + node.what,
            "name": node.name,
            "from": node.start,
            "to": node.end,
            "quantity": node.quantity,
            "unit": node.unit,
            "unit_price": node.unit_price,
            "amount": node.amount,
            "currency": node.currency,
            "detail": node.detail,
        }
        for node in nodes
    ]
    columns = (
        *([] if form is Format.TABLE else numbers("level")),
        *texts("what", "name", "from", "to"),
        *numbers("quantity"),
        *texts("unit"),
        *numbers("unit_price", "amount"),
        *texts("currency", "detail"),
    )
    show(columns, rows, form)
