"""Wire the stages: what runs until it is told to stop."""

import contextlib
import gc
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from pipeline.domain.errors import ConfigurationFault, Fenced, InvariantViolation, PipelineError, TransientFault
from pipeline.runtime import known_log, metrics
from pipeline.runtime.logs import configure_logs
from pipeline.runtime.postgres import Connection, connect
from pipeline.runtime.settings import Settings

if TYPE_CHECKING:
    from pipeline.aggregate.worker import CatalogueView
    from pipeline.runtime.consumer import LogConsumer
    from pipeline.totals.worker import Worker as TotalsWorker

EVENTS_TOPIC = "usage.events"
TOTALS_TOPIC = "usage.totals"
CHARGES_TOPIC = "billing.charges"

Stage = Literal["aggregate", "archive", "totals", "rate", "ledger_sink", "sealer"]
STAGES: tuple[Stage, ...] = get_args(Stage)

#: Exit codes of a stage, as sysexits has them: what the supervisor and a person do next follows from them.
EXIT_HALTED, EXIT_TRY_AGAIN, EXIT_MISCONFIGURED = 70, 75, 78

#: Of the aggregate stage: so many new objects before Python looks for cycles.
GC_THRESHOLD = 100_000

LOGGER = logging.getLogger("rackmeter.bootstrap")


class LogOwner(Protocol):
    """A stage whose offsets are in the database."""

    def assign(self, partitions: Sequence[int]) -> dict[int, int]:
        """Take partitions over; give the offsets to read from."""

    def revoke(self, partitions: Sequence[int]) -> None:
        """Forget partitions."""

    def distrust(self) -> None:
        """Compare the log again before the next commit."""


class Runnable(Protocol):
    """A stage that works until it is told to stop."""

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop."""


@contextlib.contextmanager
def database(settings: Settings, application_name: str) -> Iterator[Connection]:
    """Open a connection as the application role, and close it."""
    connection = connect(settings.database_url, application_name=application_name)
    try:
        yield connection
    finally:
        connection.close()


def run_stage(stage: str, settings: Settings) -> int:
    """
    Run one stage, or the watch over them, until SIGTERM or SIGINT; give the process's exit code.

    A stage that meets a fault it cannot wait out ends; whoever started it starts it again, and it goes on from what
    is stored. 75: start it again. 70: a law does not hold, a person must look. 78: a setting is wrong.
    """
    configure_logs(settings.log_level, stage)
    health = metrics.Health(stage)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    port = metrics.serve(settings.metrics_port, health, settings.metrics_host)
    LOGGER.info(f"{stage} starts", extra={"action": "start", "metrics_port": port, "slot": settings.worker_slot})
    try:
        with contextlib.ExitStack() as opened:
            build_stage(stage, settings, health, opened).run(stop)
    except PipelineError as error:
        LOGGER.error(error.detail, extra={"action": "end", "code": error.code, "kind": type(error).__name__})
        return exit_code_of(error)
    LOGGER.info(f"{stage} stopped", extra={"action": "stop"})
    return 0


def exit_code_of(error: PipelineError) -> int:
    """Give the exit code that says what to do about an error."""
    if isinstance(error, InvariantViolation):
        return EXIT_HALTED
    if isinstance(error, ConfigurationFault):
        return EXIT_MISCONFIGURED
    return EXIT_TRY_AGAIN if isinstance(error, TransientFault | Fenced) else 1


def build_stage(stage: str, settings: Settings, health: metrics.Health, opened: contextlib.ExitStack) -> Runnable:
    """Wire one stage; what it opens is closed with `opened`."""
    builders: Mapping[str, Callable[[Settings, metrics.Health, contextlib.ExitStack], Runnable]] = {
        "aggregate": _aggregate,
        "archive": _archive,
        "totals": totals_worker,
        "rate": _rate,
        "ledger_sink": _ledger_sink,
        "sealer": _sealer,
        "watch": _watch,
    }
    if stage not in builders:
        raise ConfigurationFault(f"there is no stage {stage!r}; the stages are {', '.join(STAGES)}")
    return builders[stage](settings, health, opened)


def _open_database(settings: Settings, stage: str, opened: contextlib.ExitStack) -> Connection:
    return opened.enter_context(database(settings, f"rackmeter-{stage}-{settings.worker_slot}"))


def _events_consumer(settings: Settings, group: str, worker: LogOwner) -> "LogConsumer":
    from pipeline.runtime.consumer import LogConsumer

    return LogConsumer(
        settings.kafka_bootstrap_servers,
        group,
        EVENTS_TOPIC,
        settings.worker_slot,
        on_assign=worker.assign,
        on_revoke=worker.revoke,
        on_disturbance=worker.distrust,
        rest_seconds=settings.fetch_rest_seconds,
    )


def _aggregate(settings: Settings, health: metrics.Health, opened: contextlib.ExitStack) -> Runnable:
    from pipeline.aggregate.store import Fence
    from pipeline.aggregate.worker import Pace, Worker

    connection = _open_database(settings, "aggregate", opened)
    # A flush gathers millions of small objects that live to its commit: looking through them for cycles again and
    # again, as Python does by default after every 700, took a fifth of the fold's time.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 50, 100)

    def open_log() -> tuple[Fence, int]:
        log = known_log.open_log(connection, settings.kafka_bootstrap_servers, EVENTS_TOPIC, "aggregate")
        return Fence(EVENTS_TOPIC, log.log_id, known_log.read_generation(connection)), log.partition_count

    worker = Worker(
        connection,
        EVENTS_TOPIC,
        open_log=open_log,
        load_catalogue=catalogue_view,
        pace=Pace(settings.flush_events_max, settings.flush_seconds),
        health=health,
    )
    worker.attach(_events_consumer(settings, "aggregate", worker))
    return worker


def catalogue_view(connection: Connection) -> "CatalogueView":
    """Give the meters and ignore rules as the aggregate stage needs them."""
    from pipeline.aggregate.model import MeterRule
    from pipeline.aggregate.store import read_catalogue_number, read_edge_us
    from pipeline.aggregate.worker import CatalogueView
    from pipeline.catalogue import store
    from pipeline.catalogue.meter_versions import effective_meters
    from pipeline.domain.slots import US_PER_SECOND, to_us

    catalogue_number = read_catalogue_number(connection)
    rules: dict[str, list[MeterRule]] = {}
    for meter, effective_to in effective_meters(store.load_meters(connection)):
        rule = MeterRule(
            meter_version_id=meter.meter_version_id,
            meter=meter.meter,
            aggregation=str(meter.aggregation),
            value_field=meter.value_field,
            slot_us=meter.slot_seconds * US_PER_SECOND,
            gap_us=(meter.gap_seconds_max or 0) * US_PER_SECOND,
            from_us=to_us(meter.effective_from),
            to_us=2**62 if effective_to is None else to_us(effective_to),
        )
        rules.setdefault(meter.event_type, []).append(rule)
    ignored = frozenset(store.load_ignore_rules(connection))
    return CatalogueView(catalogue_number, rules, ignored, read_edge_us(connection))


def _archive(settings: Settings, health: metrics.Health, opened: contextlib.ExitStack) -> Runnable:
    from pipeline.archive.worker import Worker

    connection = _open_database(settings, "archive", opened)
    worker = Worker(
        connection,
        EVENTS_TOPIC,
        settings.archive_dir,
        verify_log=lambda: _check_log(connection, settings, "archive"),
        flush_bytes=settings.archive_bytes_max,
        flush_seconds=settings.flush_seconds,
        health=health,
    )
    worker.attach(_events_consumer(settings, "archive", worker))
    return worker


def _check_log(connection: Connection, settings: Settings, stage: str) -> None:
    known_log.open_log(connection, settings.kafka_bootstrap_servers, EVENTS_TOPIC, stage)


def totals_worker(settings: Settings, health: metrics.Health, opened: contextlib.ExitStack) -> "TotalsWorker":
    """Wire the totals stage; a close uses one too, to have everything computed now."""
    from pipeline.runtime.groups import group_lag
    from pipeline.runtime.producer import LogProducer
    from pipeline.totals.worker import Worker

    servers = settings.kafka_bootstrap_servers
    return Worker(
        _open_database(settings, "totals", opened),
        opened.enter_context(LogProducer(servers)),
        TOTALS_TOPIC,
        pace_seconds=settings.totals_pace_seconds,
        sweep_seconds=settings.sweep_seconds,
        lag=lambda: group_lag(servers, "rate", TOTALS_TOPIC) + group_lag(servers, "ledger_sink", CHARGES_TOPIC),
        health=health,
    )


def _rate(settings: Settings, health: metrics.Health, opened: contextlib.ExitStack) -> Runnable:
    del opened  # it opens and closes what it needs in its own loop
    from pipeline.catalogue.store import load_prices
    from pipeline.rate.store import PriceStore
    from pipeline.rate.worker import Worker

    slot = settings.worker_slot
    prices = PriceStore(
        lambda: connect(settings.database_url, application_name=f"rackmeter-rate-{slot}"),
        load_prices,
    )
    return Worker(
        settings.kafka_bootstrap_servers,
        prices,
        health,
        slot=slot,
        state_dir=settings.state_dir,
        fetch_rest_seconds=settings.fetch_rest_seconds,
    )


def _ledger_sink(settings: Settings, health: metrics.Health, opened: contextlib.ExitStack) -> Runnable:
    from pipeline.ledger_sink.worker import Worker
    from pipeline.runtime.consumer import LogConsumer

    servers = settings.kafka_bootstrap_servers
    consumer = LogConsumer(
        servers,
        "ledger_sink",
        CHARGES_TOPIC,
        settings.worker_slot,
        on_assign=lambda partitions: _committed_or_first(servers, partitions),
        on_revoke=lambda _partitions: None,
        rest_seconds=settings.fetch_rest_seconds,
    )
    name = f"rackmeter-ledger_sink-{settings.worker_slot}"
    worker = Worker(lambda: connect(settings.database_url, application_name=name), consumer, health)
    opened.callback(worker.close)
    return worker


def _watch(settings: Settings, health: metrics.Health, opened: contextlib.ExitStack) -> Runnable:
    from pipeline.reports.watch import Watch

    folders = {"archive": settings.archive_dir, "documents": settings.documents_dir, "state": settings.state_dir}
    return Watch(_open_database(settings, "watch", opened), settings.kafka_bootstrap_servers, folders, health)


def _sealer(settings: Settings, health: metrics.Health, opened: contextlib.ExitStack) -> Runnable:
    from pipeline.runtime.journal import Journal
    from pipeline.sealer.worker import Worker

    name = f"rackmeter-sealer-{settings.worker_slot}"
    worker = Worker(
        lambda: connect(settings.database_url, application_name=name), Journal(settings.journal_dir), health
    )
    opened.callback(worker.close)
    return worker


def _committed_or_first(servers: str, partitions: Sequence[int]) -> dict[int, int]:
    """Give where the sink begins: charges are absolute and versioned, so this saves time and decides nothing."""
    from pipeline.runtime.groups import committed_offsets
    from pipeline.runtime.topics import watermarks

    available = watermarks(servers, CHARGES_TOPIC)
    committed = committed_offsets(servers, "ledger_sink", CHARGES_TOPIC)
    begin = {}
    for partition in partitions:
        low, high = available[partition]
        at = committed.get(partition, low)
        begin[partition] = at if low <= at <= high else low
    return begin
