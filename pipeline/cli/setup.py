"""`rackmeter migrate`, `upgrade-timescale`, `topics` and `check-config`: getting an installation ready."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.environment import check_environment, described, settings_for
from pipeline.cli.options import FormatOption, examples
from pipeline.cli.output import Format, numbers, say, show, texts

if TYPE_CHECKING:
    from pipeline.runtime.migrations import Migration
    from pipeline.runtime.postgres import Connection

app = typer.Typer()


@app.command(epilog=examples("rackmeter migrate --plan", "rackmeter migrate"))
def migrate(
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be applied.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Bring the database to this program's schema. The login in DATABASE_URL must own the database.

    Where the server has TimescaleDB the usage tables become hypertables, unless they hold usage already: that is
    `rackmeter upgrade-timescale`.
    """
    from pipeline.runtime import migrations, timescale

    with _owner("rackmeter-migrate") as connection:
        if plan:
            found = migrations.pending(connection, migrations.load_migrations())
            say(f"{len(found)} to apply" if found else "nothing to apply")
        else:
            found = migrations.migrate(connection)
            say(f"{len(found)} applied" if found else "nothing to apply: the schema is current")
        offer = timescale.offer(connection)
        converted = (
            list(offer.pending) if plan or not offer.pending or offer.is_upgrade else timescale.convert(connection)
        )
    if offer.reason:
        say(offer.reason)
    elif offer.is_upgrade:
        say("TimescaleDB is here and the usage tables are plain: `rackmeter upgrade-timescale` converts them")
        converted = []
    elif offer.pending:
        say(f"TimescaleDB: {len(offer.pending)} {'to apply' if plan else 'applied'}")
    _show_migrations([("schema", one) for one in found] + [("timescale", one) for one in converted], form)


@app.command("upgrade-timescale", epilog=examples("rackmeter upgrade-timescale"))
def upgrade_timescale(form: FormatOption = Format.TABLE) -> None:
    """
    Turn the usage tables of a plain database into hypertables; their rows move into chunks.

    Stop the stages first: the tables are locked meanwhile. Takes as long as copying them. Also goes on after an
    upgrade that was broken off, and does nothing where it is done.
    """
    from pipeline.runtime import timescale

    with _owner("rackmeter-upgrade") as connection:
        found = timescale.convert(connection)
    say(f"{len(found)} applied" if found else "nothing to apply: the usage tables are hypertables")
    _show_migrations([("timescale", one) for one in found], form)


@contextlib.contextmanager
def _owner(application_name: str) -> Iterator["Connection"]:
    from pipeline.runtime.postgres import connect

    url = settings_for("database_url").database_url
    opened = connect(url, application_name=application_name, role=None, statement_timeout_seconds=0)
    with contextlib.closing(opened) as connection:
        yield connection


def _show_migrations(found: "Sequence[tuple[str, Migration]]", form: Format) -> None:
    rows = [
        {"set": name, "version": f"{one.version:04d}", "name": one.name, "checksum": one.checksum}
        for name, one in found
    ]
    if rows or form is not Format.TABLE:
        show(texts("set", "version", "name", "checksum"), rows, form)


@app.command(epilog=examples("rackmeter topics", "rackmeter topics --partitions usage.events=8"))
def topics(
    partitions: Annotated[
        list[str] | None,
        typer.Option(help="TOPIC=NUMBER, where it differs from schemas/topics.yaml. For life: choose once."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Make the topics of schemas/topics.yaml that are missing, and check those that are there."""
    from pipeline.runtime.topics import ensure_topics, load_topics

    specs = load_topics()
    wanted = dict(_partitions_of(text, [spec.name for spec in specs]) for text in partitions or [])
    identities = ensure_topics(settings_for("kafka_bootstrap_servers").kafka_bootstrap_servers, specs, wanted)
    rows = [
        {
            "topic": one.topic,
            "partitions": one.partition_count,
            "log_id": str(one.log_id),
            "kafka_topic_id": one.kafka_topic_id,
        }
        for one in identities.values()
    ]
    show((*texts("topic"), *numbers("partitions"), *texts("log_id", "kafka_topic_id")), rows, form)


def _partitions_of(text: str, known: list[str]) -> tuple[str, int]:
    topic, equals, count = text.partition("=")
    if not equals or not count.isascii() or not count.isdigit() or int(count) < 1:
        raise typer.BadParameter(f"{text!r} is not TOPIC=NUMBER, e.g. usage.events=8")
    if topic not in known:
        raise typer.BadParameter(f"{topic!r} is not one of the topics {', '.join(known)}")
    return topic, int(count)


@app.command("check-config", epilog=examples("rackmeter check-config", "rackmeter check-config --format json"))
def check_config(form: FormatOption = Format.TABLE) -> None:
    """
    Print every setting, its value (passwords masked) and where it comes from; then every problem, all at once.

    A RACKMETER_ variable that nothing reads is a problem too: it may be a setting misspelt.
    """
    show(texts("setting", "value", "source"), described(), form)
    check_environment()
    say("the settings can be read; `rackmeter doctor` tells whether what they name is there")
