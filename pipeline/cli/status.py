"""`rackmeter status`: how far everything is."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from pipeline.cli.environment import NOT_SET, reading, settings_for
from pipeline.cli.options import FormatOption, examples
from pipeline.cli.output import Format, numbers, say, show, texts
from pipeline.domain.errors import PipelineError
from pipeline.runtime.settings import Settings

app = typer.Typer()

EVENTS_TOPIC = "usage.events"
LOG_STAGES = ("aggregate", "archive")
# Stages whose position is only a hint at the broker, with what they read.
GROUP_STAGES = {"rate": "usage.totals", "ledger_sink": "billing.charges"}
OUTCOMES = (
    "received", "counted", "duplicate", "conflict", "quarantined", "parked", "ignored", "control", "handed_over",
)  # fmt: skip
INVOICE_MONTHS = 6


@app.command(epilog=examples("rackmeter status", "rackmeter status --partitions --format csv"))
def status(
    partitions: Annotated[bool, typer.Option("--partitions", help="A row a partition of usage.events.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Show how far each stage is, what became of the events, what is not yet in the books, and the last invoices.

    Works without the broker: what only it knows is left empty then.
    """
    from pipeline.reports import store

    settings = settings_for("database_url")
    ends = _log_ends(settings)
    with reading(settings) as connection:
        offsets, tallies = store.stage_offsets(connection), store.tallies(connection, EVENTS_TOPIC)
        work, invoices = store.work_left(connection), store.last_invoices(connection, INVOICE_MONTHS)
    if partitions:
        names = [f"{stage}_{word}" for stage in LOG_STAGES for word in ("offset", "lag")]
        columns = numbers("partition", "log_end", *names, *OUTCOMES)
        show(columns, partition_rows(ends, offsets, tallies), form)
        return
    rows = [*_stage_rows(ends, offsets), *_group_rows(settings if ends else None)]
    totals: Counter[str] = Counter()
    for tally in tallies:
        totals.update({outcome: tally[outcome] for outcome in OUTCOMES})
    rows += [_row("events", EVENTS_TOPIC, outcome, totals[outcome]) for outcome in OUTCOMES]
    rows += [_row("work left", "database", name.replace("_", " "), count) for name, count in work.items()]
    for one in invoices:
        rows.append(_row("invoices", one["period"], one["state"], one["count"]))
        rows.append(_row("invoices", one["period"], f"{one['state']} total", one["total"], one["currency"]))
    show((*texts("about", "name", "figure"), *numbers("value"), *texts("unit")), rows, form)


def partition_rows(
    ends: Mapping[int, int], offsets: list[dict[str, Any]], tallies: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row a partition: log end, offset and lag of each stage that reads it, and what became of its events."""
    by_stage = {(row["stage"], row["partition"]): row["offset_next"] for row in offsets if row["topic"] == EVENTS_TOPIC}
    by_partition = {row["partition"]: row for row in tallies}
    rows = []
    for partition in sorted({*ends, *by_partition, *(number for _, number in by_stage)}):
        end = ends.get(partition)
        row: dict[str, Any] = {"partition": partition, "log_end": end}
        for stage in LOG_STAGES:
            at = by_stage.get((stage, partition))
            row[f"{stage}_offset"] = at
            row[f"{stage}_lag"] = None if end is None else end - (at or 0)
        row.update({outcome: by_partition.get(partition, {}).get(outcome, 0) for outcome in OUTCOMES})
        rows.append(row)
    return rows


def _stage_rows(ends: Mapping[int, int], offsets: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for stage in LOG_STAGES:
        mine = {row["partition"]: row for row in offsets if row["stage"] == stage and row["topic"] == EVENTS_TOPIC}
        read = sum(row["offset_next"] for row in mine.values())
        yield _row("stage", stage, "read", read, "messages")
        lag = sum(end - (mine[partition]["offset_next"] if partition in mine else 0) for partition, end in ends.items())
        yield _row("stage", stage, "lag", lag if ends else None, "messages")
        if mine:
            yield _row("stage", stage, "last flush", max(row["updated_at"] for row in mine.values()))


def _group_rows(settings: Settings | None) -> Iterator[dict[str, Any]]:
    from pipeline.runtime.groups import group_lag

    for stage, topic in GROUP_STAGES.items():
        try:
            lag = None if settings is None else group_lag(settings.kafka_bootstrap_servers, stage, topic)
        except PipelineError as error:
            say(error.detail)
            lag = None
        yield _row("stage", stage, "lag", lag, "messages")


def _log_ends(settings: Settings) -> dict[int, int]:
    from pipeline.runtime.topics import watermarks

    if settings.kafka_bootstrap_servers == NOT_SET:
        say("KAFKA_BOOTSTRAP_SERVERS is not set: ends of logs and lags are left empty")
        return {}
    try:
        return {
            partition: high
            for partition, (_, high) in watermarks(settings.kafka_bootstrap_servers, EVENTS_TOPIC).items()
        }
    except PipelineError as error:
        say(error.detail)
        say("ends of logs and lags are left empty")
        return {}


def _row(about: str, name: str, figure: str, value: object, unit: str = "") -> dict[str, Any]:
    return {"about": about, "name": name, "figure": figure, "value": value, "unit": unit}
