"""`rackmeter agent`: measures this host and sends it, spooled; `agent status`, `agent resend`."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import typer

from pipeline.cli.environment import settings_for
from pipeline.cli.options import FormatOption, examples, moment_of
from pipeline.cli.output import Format, numbers, say, show, show_record, texts

app = typer.Typer()

SourceOption = Annotated[
    str, typer.Option(help="Who emits, a URI; else urn:rackmeter:agent: and the host's name.", show_default=False)
]

#: A status older than so many intervals is of an agent that does not run.
STALE_INTERVALS = 3

_STATUS = (
    *texts("source", "subject", "state", "last_beat_at"),
    *numbers("beats", "failed_beats", "cpu_percent", "rss_mib"),
    *numbers("waiting_events", "waiting_bytes", "kept_bytes", "last_number"),
    *texts("oldest_waiting_at", "acknowledged_at"),
    *numbers("acknowledged_number", "clock_ahead_ms"),
    *texts("holes", "fault"),
)


@app.callback(
    invoke_without_command=True,
    epilog=examples(
        "rackmeter agent --dry-run",
        "rackmeter agent --interval 10 --group 'web=nginx|gunicorn' --containers",
        "rackmeter agent status",
    ),
)
def agent(
    context: typer.Context,
    interval: Annotated[int, typer.Option(metavar="SECONDS", min=1, max=3600, help="From beat to beat.")] = 10,
    subject: Annotated[str, typer.Option(help="The host's name in events; else its host name.")] = "",
    source: SourceOption = "",
    group: Annotated[
        list[str] | None, typer.Option(metavar="NAME=REGEX", help="Processes whose command line matches; repeat it.")
    ] = None,
    containers: Annotated[bool, typer.Option("--containers", help="Each container (cgroup v2) by itself too.")] = False,
    spool_mib: Annotated[int, typer.Option(min=4, max=65536, help="What the spool may grow to.")] = 256,
    keep_hours: Annotated[int, typer.Option(min=0, max=8760, help="How long what was acknowledged is kept.")] = 72,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the events of one beat, send nothing.")] = False,
) -> None:
    """
    Measure this host every few seconds until SIGTERM, through a spool on disk that outlives broker and process.

    Logs are JSON on stderr; /metrics and /healthz are on RACKMETER_METRICS_PORT; the spool is in RACKMETER_STATE_DIR.
    docs/agent.md says what is in the events.
    """
    if context.invoked_subcommand is not None:
        return
    from pipeline.agent.options import AgentOptions
    from pipeline.ingest.spool import SpoolLimits

    options = AgentOptions(
        interval_seconds=interval,
        subject=subject,
        source=source,
        groups=tuple(group or ()),
        is_reading_containers=containers,
        limits=SpoolLimits(bytes_max=spool_mib * 1_048_576, keep_acknowledged_seconds=keep_hours * 3600),
    )
    if dry_run:
        from pipeline.agent.dry_run import dry_run as one_beat

        for event in one_beat(options):
            typer.echo(event.decode())
        say("nothing was sent; the ids of real events have an epoch of their own instead of zeros")
        return
    from pipeline.agent.service import run_agent

    run_agent(settings_for("kafka_bootstrap_servers", "state_dir"), options)


@app.command(epilog=examples("rackmeter agent status", "rackmeter agent status --format json"))
def status(source: SourceOption = "", form: FormatOption = Format.TABLE) -> None:
    """
    Show how the agent of this host is: spool, last acknowledgement, clock, holes, its own use of processor and memory.

    `clock_ahead_ms` is by how much the clock is certainly ahead of the log's, negative where behind. Exit code 1 where
    the agent does not run or its last beat or delivery failed.
    """
    from pipeline.agent.options import AgentOptions
    from pipeline.agent.status import load_status, spool_folder, status_path
    from pipeline.domain.errors import ConfigurationFault
    from pipeline.ingest.spool_report import inspect_spool

    state_dir = settings_for("state_dir").state_dir
    source = source or AgentOptions().named()[0]
    found = load_status(status_path(state_dir, source))
    if found is None:
        raise ConfigurationFault(
            f"no agent of {source} has run with RACKMETER_STATE_DIR={state_dir}; is --source right?"
        )
    spool = inspect_spool(spool_folder(state_dir, source))
    now_us = int(datetime.now(UTC).timestamp()) * 1_000_000
    is_alive = now_us - found.beat_us < STALE_INTERVALS * found.interval_seconds * 1_000_000
    fault = found.beat_fault or found.fault
    row = {
        "source": source,
        "subject": found.subject,
        "state": "running" if is_alive else "not running",
        "last_beat_at": _moment(found.beat_us),
        "beats": found.beat_count,
        "failed_beats": found.failed_beat_count,
        "cpu_percent": _percent(found.cpu_us, found.beat_us - found.started_us),
        "rss_mib": (Decimal(found.rss_bytes) / 1_048_576).quantize(Decimal("0.1")),
        "waiting_events": spool.waiting_events,
        "waiting_bytes": spool.waiting_bytes,
        "kept_bytes": spool.kept_bytes,
        "last_number": spool.last_number,
        "oldest_waiting_at": _moment(spool.oldest_waiting_us),
        "acknowledged_at": _moment(spool.acknowledged_us),
        "acknowledged_number": spool.acknowledged_number,
        "clock_ahead_ms": found.skew_ms,
        "holes": tuple(f"{first} to {last}" for first, last in spool.holes),
        "fault": fault,
    }
    show_record(_STATUS, row, form)
    raise typer.Exit(0 if is_alive and fault is None else 1)


@app.command(epilog=examples("rackmeter agent resend --since 2026-06-01T12:00:00Z"))
def resend(
    since: Annotated[str, typer.Option(help="A time with its zone, or a date in UTC: acknowledged then or later.")],
    source: SourceOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """
    Send again what the broker acknowledged and may have lost. Ids stay, so what it still has counts once.

    The agent may run meanwhile. As far back as --keep-hours of the agent reaches.
    """
    from pipeline.agent.options import AgentOptions
    from pipeline.agent.resend import resend as send_again

    settings = settings_for("kafka_bootstrap_servers", "state_dir")
    count = send_again(settings, source or AgentOptions().named()[0], moment_of(since, "UTC"))
    show((*texts("sent"), *numbers("count")), [{"sent": "events", "count": count}], form)


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else datetime.fromtimestamp(microseconds // 1_000_000, UTC)


def _percent(part: int, whole: int) -> Decimal:
    return (Decimal(100 * part) / max(whole, 1)).quantize(Decimal("0.01"))
