"""`rackmeter quarantine`: events that were not counted, why, and their original bytes."""

from typing import Annotated, Any

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, examples
from pipeline.cli.output import Format, numbers, say, show, show_record, texts

app = typer.Typer(
    no_args_is_help=True,
    help="Events that are quarantined, parked or in conflict.",
    epilog=examples("rackmeter quarantine list --reason time_future"),
)

LIMIT = 1000
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
    reason: Annotated[str | None, typer.Option(help="Only with this reason code; docs/reasons.md has them.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    server: Annotated[str | None, typer.Option(help="Only about this server.")] = None,
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
            connection, limit=limit + 1, settled=everything, reason=reason, source=source, server=server
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
    topic: Annotated[str, typer.Option(help="The log's topic.")] = "usage.events",
    form: FormatOption = Format.TABLE,
) -> None:
    """Show one decision with the event's original bytes, every byte that is not plain ASCII escaped as in Python."""
    from pipeline.reports import store

    with reading(settings_for("database_url")) as connection:
        found = store.decision(connection, topic, partition, offset, index)
    record: dict[str, Any] = {**found, "payload": None if found["payload"] is None else escaped(found["payload"])}
    show_record((*_POSITION, *_SHOWN, *texts("settled", "digest", "payload")), record, form)


def escaped(payload: bytes) -> str:
    r"""The bytes as text that can be turned back: a quote stays a quote, a tab is \t, a byte 255 is \xff."""
    return bytes(payload).decode("latin-1").encode("unicode_escape").decode("ascii")
