"""`rackmeter servers`: who has which server, from when to when."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, examples, login_name, moment_of, zoned
from pipeline.cli.output import Format, say, show, texts
from pipeline.domain.errors import ConfigurationFault

if TYPE_CHECKING:
    from pipeline.catalogue.model import Assignment

app = typer.Typer(
    no_args_is_help=True,
    help="Assign servers to subscriptions, move and list them.",
    epilog=examples("rackmeter servers list"),
)

AT_HELP = "A date (midnight in the account's zone) or a time with zone, on a 15-minute mark."
ServerArgument = Annotated[str, typer.Argument(help="The server, as its events name it in `subject`.")]
SubscriptionArgument = Annotated[str, typer.Argument(help="The subscription, as the catalogue names it.")]
SaidByOption = Annotated[str, typer.Option("--said-by", help="Who says so, for the record; default: your login.")]

_ASSIGNMENT = texts("server", "subscription", "from", "to")


@app.command(
    epilog=examples(
        "rackmeter servers assign vm-5 acme-main --from 2026-07-01",
        "rackmeter servers assign vm-5 acme-main --from 2026-07-01T06:00:00Z --to 2026-08-01",
        "rackmeter servers assign --file assignments.yaml",
    )
)
def assign(
    server: Annotated[str, typer.Argument(help="The server, as its events name it in `subject`.")] = "",
    subscription: Annotated[str, typer.Argument(help="The subscription that pays for it.")] = "",
    start: Annotated[str, typer.Option("--from", help=AT_HELP)] = "",
    end: Annotated[str, typer.Option("--to", help=f"{AT_HELP} Without it: until further notice.")] = "",
    file: Annotated[Path | None, typer.Option(help="Assignments as YAML, instead of one on the command line.")] = None,
    said_by: SaidByOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Give a server to a subscription. What is said later wins; totals already computed move with it."""
    from pipeline.catalogue import servers
    from pipeline.catalogue.assignments import read_assignments
    from pipeline.catalogue.model import Assignment
    from pipeline.catalogue.store import load_subscriptions, subscription_zones

    if (file is None) == (not (server and subscription and start)) or (file is not None and (server or start or end)):
        raise typer.BadParameter("give SERVER, SUBSCRIPTION and --from, or --file alone")
    with reading(settings_for("database_url")) as connection:
        zones = subscription_zones(connection)
        if file is not None:
            wanted = read_assignments(file, zones, load_subscriptions(connection))
        else:
            zone_name = zones.get(subscription, "UTC")
            valid_to = moment_of(end, zone_name) if end else None
            wanted = [Assignment(0, server, subscription, moment_of(start, zone_name), valid_to)]
        with _times_in(zones, wanted):
            added = servers.assign(connection, wanted, said_by or login_name())
    _show_added(added, form, zones)


@app.command(epilog=examples("rackmeter servers move vm-5 globex-main --at 2026-07-15"))
def move(
    server: ServerArgument,
    subscription: SubscriptionArgument,
    at: Annotated[str, typer.Option("--at", help=AT_HELP)],
    said_by: SaidByOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Give a server to another subscription, from a time on to where its present owner's time ends."""
    from pipeline.catalogue import servers
    from pipeline.catalogue.model import Assignment
    from pipeline.catalogue.store import subscription_zones

    with reading(settings_for("database_url")) as connection:
        zones = subscription_zones(connection)
        moment = moment_of(at, zones.get(subscription, "UTC"))
        with _times_in(zones, [Assignment(0, server, subscription, moment, None)]):
            added = servers.move(connection, server, subscription, moment, said_by or login_name())
    _show_added(added, form, zones)


@app.command(epilog=examples("rackmeter servers retire vm-5 --at 2026-07-20T12:00:00Z"))
def retire(
    server: ServerArgument,
    at: Annotated[str, typer.Option("--at", help="A date (midnight UTC) or a time with zone, on a 15-minute mark.")],
    said_by: SaidByOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Say that nobody has a server from a time on."""
    from pipeline.catalogue import servers

    with reading(settings_for("database_url")) as connection:
        added = servers.retire(connection, server, moment_of(at, "UTC"), said_by or login_name())
    _show_added(added, form, {})


@app.command("list", epilog=examples("rackmeter servers list", "rackmeter servers list --server vm-5 --format csv"))
def list_servers(
    server: Annotated[list[str] | None, typer.Option(help="Only this one; may be given again.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Who has which server when, as all that was said adds up."""
    from pipeline.catalogue import servers

    with reading(settings_for("database_url")) as connection:
        owners = servers.list_owners(connection, server or None)
    rows = [
        {"server": subject, "subscription": one.subscription_id, "from": one.valid_from, "to": one.valid_to}
        for subject, ownerships in owners.items()
        for one in ownerships
    ]
    show(_ASSIGNMENT, rows, form)


def _zone_of(one: "Assignment", zones: Mapping[str, str]) -> str:
    return zones.get(one.subscription_id or "", "UTC")


@contextmanager
def _times_in(zones: Mapping[str, str], wanted: Iterable["Assignment"]) -> Iterator[None]:
    """Have a refusal tell the times that were asked for as the subscriptions' zones write them, not as UTC."""
    try:
        yield
    except ConfigurationFault as error:
        detail = error.detail
        for one in wanted:
            for at in filter(None, (one.valid_from, one.valid_to)):
                detail = detail.replace(at.isoformat(), zoned(at, _zone_of(one, zones)).isoformat())
        raise ConfigurationFault(detail, error.code) from error


def _show_added(added: Iterable["Assignment"], form: Format, zones: Mapping[str, str]) -> None:
    def local(one: "Assignment", at: datetime | None) -> datetime | None:
        return None if at is None else zoned(at, _zone_of(one, zones))

    rows = [
        {
            "server": one.subject,
            "subscription": one.subscription_id,
            "from": local(one, one.valid_from),
            "to": local(one, one.valid_to),
        }
        for one in added
    ]
    show(_ASSIGNMENT, rows, form)
    say(f"{len(rows)} added" if rows else "nothing changes: it is so already")
