"""`rackmeter log`: going on after a topic was lost, re-created or rolled back."""

from collections.abc import Sequence
from typing import Annotated

import typer

from pipeline.cli.environment import reading, settings_for
from pipeline.cli.options import FormatOption, examples
from pipeline.cli.output import Format, numbers, say, show, texts

app = typer.Typer(
    no_args_is_help=True,
    help="The logs this installation reads.",
    epilog=examples("rackmeter log list", "rackmeter log adopt --topic usage.events --yes"),
)

SOURCES_NAMED_MAX = 50


@app.command("list", epilog=examples("rackmeter log list"))
def list_logs(form: FormatOption = Format.TABLE) -> None:
    """List the logs as this database adopted them."""
    from pipeline.reports import store

    with reading(settings_for("database_url")) as connection:
        rows = store.known_logs(connection)
    columns = (
        *texts("topic"),
        *numbers("partition_count"),
        *texts("log_id", "kafka_topic_id", "adopted_at", "is_read"),
    )
    show(columns, rows, form)


@app.command(
    epilog=examples(
        "rackmeter log adopt --topic usage.events --yes", "rackmeter log adopt --topic usage.events --from-start --yes"
    )
)
def adopt(
    topic: Annotated[str, typer.Option(help="The topic.")] = "usage.events",
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without it nothing is changed.")] = False,
    from_start: Annotated[bool, typer.Option("--from-start", help="Read it again from its beginning.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Take the topic at the broker for the log from now on, after `rackmeter doctor` said that it is another one.

    Stop the stages first. A topic that was made again or lost records is read from its beginning; what was counted
    before is a duplicate then. Sources should send again what they sent since the times this prints, and all of what
    was counted but not archived yet. The old log's archive files and decisions stay as evidence.
    """
    from pipeline.bootstrap import adopt_log

    if not yes:
        raise typer.BadParameter("this changes where every stage reads; stop the stages, then give --yes")
    settings = settings_for("kafka_bootstrap_servers", "database_url", "archive_dir")
    with reading(settings) as connection:
        adoption = adopt_log(settings, connection, topic, from_start=from_start)
    rows = [
        {
            "stage": one.stage,
            "partition": one.partition,
            "offset_before": one.offset_before,
            "offset_next": one.offset_next,
        }
        for one in adoption.positions
    ]
    show((*texts("stage"), *numbers("partition", "offset_before", "offset_next")), rows, form)
    where = "from its beginning" if adoption.is_from_start else "from where the stages stood"
    say(f"{topic} is log {adoption.log.log_id} now, read {where}")
    if adoption.lost:
        count = sum(one.count for one in adoption.lost)
        say(f"{count} events were counted and lost before they were archived; until these sources send them again, the")
        say("accounts they concern are held:")
        for source in _named(sorted({one.source for one in adoption.lost})):
            say(f"  {source}")
    if adoption.sources:
        say("what may have been lost with the old log is not known here; these sources should send again:")
        said = [source + (f", all since {until.isoformat()}" if until else "") for source, until in adoption.sources]
        for line in _named(said):
            say(f"  {line}")


def _named(sources: Sequence[str]) -> list[str]:
    more = len(sources) - SOURCES_NAMED_MAX
    return [*sources[:SOURCES_NAMED_MAX], *([f"and {more} more"] if more > 0 else [])]
