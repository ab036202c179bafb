"""Wire the collector, and the commands that make its tokens."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from datetime import UTC, datetime

from pipeline.bootstrap.stages import EVENTS_TOPIC, catalogue_view, exit_code_of
from pipeline.domain.errors import PipelineError
from pipeline.runtime import metrics
from pipeline.runtime.logs import configure_logs
from pipeline.runtime.postgres import Connection, connect
from pipeline.runtime.settings import Settings

LOGGER = logging.getLogger("rackmeter.bootstrap")
COLLECTOR = "collector"

#: Usage is asked for by people and pages that wait.
STATEMENT_TIMEOUT_SECONDS = 10
#: A request waits for others to share a round trip with, but not for long.
LINGER_MS = 5


def run_collector(settings: Settings, topic: str = EVENTS_TOPIC) -> int:
    """
    Serve HTTP until SIGTERM or SIGINT; give the process's exit code, as `run_stage` has them.

    What is in flight when the signal comes is answered first.
    """
    configure_logs(settings.log_level, COLLECTOR)
    health = metrics.Health(COLLECTOR)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn takes the signals while it serves, and sends them on to these once it has ended.
        signal.signal(number, lambda _number, _frame: None)
    try:
        _serve(settings, topic, health)
    except PipelineError as error:
        LOGGER.error(error.detail, extra={"action": "end", "code": error.code, "kind": type(error).__name__})
        return exit_code_of(error)
    LOGGER.info(f"{COLLECTOR} stopped", extra={"action": "stop"})
    return 0


def _serve(settings: Settings, topic: str, health: metrics.Health) -> None:
    from pipeline.aggregate.rules import MeterBook
    from pipeline.runtime.producer import LogProducer
    from pipeline.runtime.topics import read_log_identity
    from pipeline.web.limits import EventRate, InFlight
    from pipeline.web.sender import Sender
    from pipeline.web.server import Parts, listen, serve
    from pipeline.web.services import Services
    from pipeline.web.store import COLLECTOR_ROLE
    from pipeline.web.views import KnownView, UsageReader

    listening = listen(settings.collector_host, settings.collector_port)
    # A topic that is not there would be made by the broker at the first message, with some number of partitions.
    read_log_identity(settings.kafka_bootstrap_servers, topic)

    def open_database() -> Connection:
        return connect(
            settings.database_url,
            application_name=f"rackmeter-{COLLECTOR}-{settings.worker_slot}",
            role=COLLECTOR_ROLE,
            statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
        )

    catalogue_number = -1

    def load_book(connection: Connection, known: MeterBook | None) -> MeterBook:
        nonlocal catalogue_number
        view = catalogue_view(connection)
        if known is not None and view.catalogue_number == catalogue_number:
            return known
        catalogue_number = view.catalogue_number
        return MeterBook(view.meters, view.ignored_types)

    failures: list[str] = []
    sender = Sender(
        lambda: LogProducer(settings.kafka_bootstrap_servers, linger_ms=LINGER_MS),
        topic,
        ack_seconds=settings.collector_ack_seconds,
        health=health,
    )
    view = KnownView(open_database, load_book, on_failure=failures.append)
    with contextlib.closing(UsageReader(open_database)) as reader:
        services = Services(
            sender=sender,
            known=view.known,
            used=view.used,
            read_usage=reader.read,
            in_flight=InFlight(settings.collector_in_flight_bytes_max),
            rate=EventRate(settings.collector_events_per_second_max),
            health=health,
            clock=lambda: datetime.now(UTC),
            body_bytes_max=settings.collector_body_bytes_max,
            ack_seconds=settings.collector_ack_seconds,
        )
        host, port = listening.getsockname()[:2]
        extra = {"action": "start", "port": port, "metrics_port": metrics.serve(settings.metrics_port, health)}
        LOGGER.info(f"{COLLECTOR} listens on {host}:{port}", extra=extra)
        parts = Parts(sender, view, lambda: "the sender ended" if sender.has_failed else "".join(failures[:1]))
        serve(services, parts, listening)


@contextlib.contextmanager
def owner_database(settings: Settings) -> Iterator[Connection]:
    """Open the database with the login's own rights: only its owner makes and ends tokens."""
    with contextlib.closing(connect(settings.database_url, application_name="rackmeter-cli", role=None)) as connection:
        yield connection
