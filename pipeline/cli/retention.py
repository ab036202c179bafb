"""`rackmeter retention`: drop slots and samples of months that are closed for long."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.environment import settings_for
from pipeline.cli.options import FormatOption, examples
from pipeline.cli.output import Format, numbers, say, show, texts
from pipeline.domain.errors import ConfigurationFault

if TYPE_CHECKING:
    from pipeline.maintenance.rules import Edge
    from pipeline.runtime.postgres import Connection

app = typer.Typer(
    no_args_is_help=True,
    help="Slots and samples that nobody needs any more. The archive keeps every event.",
    epilog=examples("rackmeter retention plan --keep-days 400", "rackmeter retention apply --keep-days 400"),
)

KeepDays = Annotated[int, typer.Option(help="How many days of slots and samples stay; 95 or more.")]
Unassigned = Annotated[bool, typer.Option("--drop-unassigned", help="Also slots of servers that nobody ever had.")]


@app.command("plan", epilog=examples("rackmeter retention plan --keep-days 400"))
def show_plan(keep_days: KeepDays, drop_unassigned: Unassigned = False, form: FormatOption = Format.TABLE) -> None:
    """
    Say what would be dropped, and list what holds it. Changes nothing.

    Exit code 1 while something holds it.
    """
    from pipeline.maintenance import retention

    edge = _edge(keep_days)
    with _owner() as connection:
        plan = retention.plan(connection, edge, drop_unassigned=drop_unassigned)
    say(
        f"{plan.buckets} slots and {plan.samples} samples lie before {plan.edge.dropped_before:%Y-%m-%d}; from then on"
        f" events before {plan.edge.edge_at:%Y-%m-%d} are parked"
    )
    rows = [{**asdict(hold), "what": retention.REASONS[hold.reason]} for hold in plan.holds]
    if rows or form is not Format.TABLE:
        show((*texts("reason", "about"), *numbers("count"), *texts("what")), rows, form)
    if rows:
        raise typer.Exit(1)


@app.command(epilog=examples("rackmeter retention apply --keep-days 400"))
def apply(keep_days: KeepDays, drop_unassigned: Unassigned = False, form: FormatOption = Format.TABLE) -> None:
    """
    Record the edge and drop what lies behind it. There is no way back but the archive.

    Refused while a month before the edge is not closed or anything of it is open. The login must own the database.
    """
    from pipeline.maintenance import retention

    edge = _edge(keep_days)
    with _owner() as connection:
        try:
            dropped = retention.apply(connection, edge, drop_unassigned=drop_unassigned)
        except ConfigurationFault as held:
            if held.code != retention.HELD:
                raise
            say(f"nothing was dropped:\n{held.detail}")
            raise typer.Exit(1) from None
    row = {**asdict(dropped), **asdict(dropped.edge)}
    show((*texts("dropped_before", "edge_at", "unit"), *numbers("buckets", "samples")), [row], form)
    say("usage before the edge is proven from the archive from now on")


def _edge(keep_days: int) -> "Edge":
    from pipeline.maintenance.rules import edge_for

    try:
        return edge_for(datetime.now(UTC), keep_days)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@contextlib.contextmanager
def _owner() -> Iterator["Connection"]:
    from pipeline.runtime.postgres import connect

    url = settings_for("database_url").database_url
    opened = connect(url, application_name="rackmeter-retention", role=None, statement_timeout_seconds=0)
    with contextlib.closing(opened) as connection:
        yield connection
