"""`rackmeter quarantine`: events that were not counted, why, their original bytes, and what to do about them."""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, examples, login_name, moment_of
from pipeline.cli.output import Format, numbers, say, show, show_record, texts

if TYPE_CHECKING:
    from pipeline.aggregate.settling import Selection

app = typer.Typer(
    no_args_is_help=True,
    help="Events that are quarantined, parked or in conflict.",
    epilog=examples("rackmeter quarantine list --reason time_future"),
)

LIMIT = 1000
EVENTS_TOPIC = "usage.events"

ReasonOption = Annotated[str | None, typer.Option(help="Only with this reason code; `explain` has them.")]
SourceOption = Annotated[str | None, typer.Option(help="Only of this source.")]
ServerOption = Annotated[str | None, typer.Option(help="Only about this server.")]
SinceOption = Annotated[str | None, typer.Option(metavar="TIME", help="Only what the log took then or later.")]
UntilOption = Annotated[str | None, typer.Option(metavar="TIME", help="Only what the log took before.")]
_POSITION = (*texts("topic"), *numbers("partition", "offset", "index"))
_LISTED = texts("outcome", "reason", "source", "event_id", "server", "event_type", "occurred_at", "account", "holds")
_SHOWN = texts("outcome", "reason", "detail", "source", "event_id", "server", "event_type", "occurred_at", "log_time")


@app.command(
    "list",
    epilog=examples(
        "rackmeter quarantine list", "rackmeter quarantine list --reason value_negative --server vm-5 --format csv"
    ),
)
def list_decisions(
    reason: ReasonOption = None,
    source: SourceOption = None,
    server: ServerOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what was settled.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, oldest first.")] = LIMIT,
    form: FormatOption = Format.TABLE,
) -> None:
    """
    List events that are not counted and that nobody has settled; `quarantine show` has the detail and the bytes.

    `account` had the server when it happened; `holds` is true where an account cannot be closed before it is settled.
    """
    from pipeline.reports import store

    with reading(settings_for("database_url")) as connection:
        rows = store.decisions(
            connection,
            limit=limit + 1,
            settled=everything,
            reason=reason,
            source=source,
            server=server,
            since=_moment(since),
            until=_moment(until),
        )
    show((*_POSITION, *_LISTED, *texts("settled")), rows[:limit], form)
    if len(rows) > limit:
        say(f"there are more than these {limit}; give --limit, or ask for one --reason, --source or --server")


@app.command(
    "show",
    epilog=examples("rackmeter quarantine show 3 1017", "rackmeter quarantine show 3 1018 -1 --format json"),
    context_settings={"ignore_unknown_options": True},
)
def show_decision(
    partition: Annotated[int, typer.Argument(help="Partition of the log.")],
    offset: Annotated[int, typer.Argument(help="Offset of its message.")],
    index: Annotated[int, typer.Argument(help="Index in the message; -1 for one that could not be taken apart.")] = 0,
    topic: Annotated[str, typer.Option(help="The log's topic.")] = EVENTS_TOPIC,
    form: FormatOption = Format.TABLE,
) -> None:
    """Show one decision with the event's original bytes, every byte that is not plain ASCII escaped as in Python."""
    from pipeline.reports import store

    with reading(settings_for("database_url")) as connection:
        found = store.decision(connection, topic, partition, offset, index)
        changes = store.decision_changes(connection, topic, partition, offset, index)
    record: dict[str, Any] = {**found, "payload": None if found["payload"] is None else escaped(found["payload"])}
    show_record((*_POSITION, *_SHOWN, *texts("settled", "dropped", "digest", "payload")), record, form)
    for change in changes:
        say(
            f"{change['changed_at']:%Y-%m-%d %H:%M:%S%z}: was {change['from_outcome']} ({change['from_reason']}), "
            f"became {change['to_outcome']} ({change['to_reason']}), by {change['said_by']}"
            + (f": {change['note']}" if change["note"] else "")
        )


@app.command(epilog=examples("rackmeter quarantine explain", "rackmeter quarantine explain time_future"))
def explain(
    code: Annotated[str | None, typer.Argument(metavar="CODE", help="A reason code; all of them without it.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Say what a reason code means and what to do about it. Needs no service."""
    from pipeline.reports.reasons import REASONS

    if code is not None and code not in REASONS:
        raise typer.BadParameter(f"there is no reason {code!r}; `rackmeter quarantine explain` lists them")
    wanted = [code] if code is not None else sorted(REASONS)
    rows = [{"reason": name, "meaning": REASONS[name].meaning, "to_do": REASONS[name].to_do} for name in wanted]
    show(texts("reason", "meaning", "to_do"), rows, form)


@app.command(
    epilog=examples(
        "rackmeter quarantine replay --reason too_sparse",
        "rackmeter quarantine replay --source urn:rackmeter:agent:web-1 --since 2026-07-01",
    )
)
def replay(
    reason: ReasonOption = None,
    source: SourceOption = None,
    server: ServerOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    wait_seconds: Annotated[float, typer.Option(min=0, help="Wait so long for the aggregate stage.")] = 30.0,
) -> None:
    """
    Have open events decided about again, by their own bytes and the log's time; all that fit, or all.

    It helps where something besides the event changed: the catalogue, or a release that reads more. The running
    aggregate stage does it. What came under a foreign key, on a foreign partition or cannot be taken apart is left out.
    """
    from pipeline.aggregate import settling

    with reading(settings_for("database_url")) as connection:
        chosen = _selection(reason, source, server, since, until)
        queued = settling.decide_again(connection, EVENTS_TOPIC, chosen, login_name())
        say(f"{queued} events are to be decided about again")
        until_at = time.monotonic() + wait_seconds
        while (left := settling.queued_count(connection, EVENTS_TOPIC)) and time.monotonic() < until_at:
            time.sleep(0.2)
    if left:
        say(f"{left} events wait: is the aggregate stage running? `rackmeter quarantine list` shows what is open")
        raise typer.Exit(75)
    if queued:
        say("all were decided about; `rackmeter quarantine list` shows what is still open")


@app.command(
    epilog=examples(
        'rackmeter quarantine drop --source urn:rackmeter:replay:lab-bench --note "a test bench, nobody is billed"',
        'rackmeter quarantine drop --at 3 1017 0 --note "sent by hand, see ticket 12" --yes',
    )
)
def drop(
    note: Annotated[str, typer.Option(help="Why; kept with each event.")],
    reason: ReasonOption = None,
    source: SourceOption = None,
    server: ServerOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    at: Annotated[
        tuple[int, int, int] | None, typer.Option(metavar="PARTITION OFFSET INDEX", help="This one event.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """
    Let open events go: they are never billed and hold no close any more. Also what is in conflict.

    A good event under the same identity may still come, and counts.
    """
    from pipeline.aggregate import settling

    place = settling.Place(*at) if at is not None else None
    chosen = _selection(reason, source, server, since, until)
    if not yes:
        typer.confirm("Let these events go for ever?", abort=True, err=True)
    with reading(settings_for("database_url")) as connection:
        dropped = settling.drop(connection, EVENTS_TOPIC, chosen, said_by=login_name(), note=note, place=place)
    say(f"{dropped} events were let go")


def _selection(
    reason: str | None, source: str | None, server: str | None, since: str | None, until: str | None
) -> "Selection":
    from pipeline.aggregate.settling import Selection

    return Selection(reason, source, server, _moment(since), _moment(until))


def _moment(text: str | None) -> datetime | None:
    return None if text is None else moment_of(text, "UTC")


def escaped(payload: bytes) -> str:
    r"""The bytes as text that can be turned back: a quote stays a quote, a tab is \t, a byte 255 is \xff."""
    return bytes(payload).decode("latin-1").encode("unicode_escape").decode("ascii")
