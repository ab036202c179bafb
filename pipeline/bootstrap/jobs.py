"""Wire the jobs: what runs once and ends. Replay, close, verify, adopt a log."""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.bootstrap.payments import payment_gateways
from pipeline.bootstrap.stages import EVENTS_TOPIC, database, totals_worker
from pipeline.runtime import known_log, metrics
from pipeline.runtime.postgres import Connection
from pipeline.runtime.settings import Settings

if TYPE_CHECKING:
    from pipeline.domain.period import Period
    from pipeline.ingest.replay import Progress, ReplayOptions, ReplayReport
    from pipeline.ingest.trace_csv import Trace
    from pipeline.invoice_batch.model import CloseRequest, Listener, Ports, RunReport
    from pipeline.payments.gateway import Gateway
    from pipeline.proof.chain import ChainReport
    from pipeline.proof.report import Report
    from pipeline.runtime.log_adoption import Adoption


def replay_trace(
    settings: Settings, trace: "Trace", *, zone_name: str, options: "ReplayOptions", progress: "Progress | None" = None
) -> "ReplayReport":
    """Send a trace that was read and checked, and wait until it is durable."""
    from pipeline.ingest.replay import replay
    from pipeline.runtime.producer import LogProducer

    with LogProducer(settings.kafka_bootstrap_servers) as producer:
        return replay(trace, producer, EVENTS_TOPIC, zone_name=zone_name, options=options, progress=progress)


def close_periods(
    settings: Settings,
    request: "CloseRequest",
    while_waiting: Callable[[], None] = lambda: None,
    listener: "Listener" = lambda _step, _name: None,
) -> "RunReport":
    """
    Close what is asked for: have every duplicate judged and every total computed and booked first, then close.

    Args:
        settings: Of this process.
        request: Which month, which accounts.
        while_waiting: Called now and then while totals come back booked.
        listener: Told of each step of the close that was committed.

    Raises:
        ConfigurationFault: The month or an account is not known.
        TransientFault: Broker or database stopped answering; run it again.
    """
    from pipeline.invoice_batch.worker import Worker

    with contextlib.ExitStack() as opened:
        settle_duplicates(settings)
        totals_worker(settings, metrics.Health("close"), opened).drain()
        connection = opened.enter_context(database(settings, "rackmeter-close"))
        gateways = opened.enter_context(payment_gateways(settings))
        wait_until_booked(connection, while_waiting)
        worker = Worker(
            connection,
            _close_ports(settings, gateways),
            settings.documents_dir,
            close_grace_seconds=settings.close_grace_seconds,
            listener=listener,
        )
        return worker.close(request)


#: How long a close waits for totals it has sent to come back booked; the gate holds what does not come.
BOOKED_WAIT_SECONDS = 60.0


def wait_until_booked(
    connection: Connection, while_waiting: Callable[[], None], timeout_seconds: float = BOOKED_WAIT_SECONDS
) -> bool:
    """Wait until every total is booked at its revision; False where it did not happen in time."""
    from pipeline.totals.store import count_open

    waited, pause = 0.0, threading.Event()
    while waited < timeout_seconds:
        if not count_open(connection)[1]:
            return True
        while_waiting()
        pause.wait(0.1)
        waited += 0.1
    return False


def settle_duplicates(settings: Settings) -> None:
    """Compare every duplicate that has no verdict with its twin in the archive."""
    from pipeline.archive import twins

    with database(settings, "rackmeter-settle") as connection:
        partitions = range(known_log.known_log(connection, EVENTS_TOPIC).partition_count)
        twins.settle(connection, settings.archive_dir, EVENTS_TOPIC, partitions)


def adopt_log(settings: Settings, connection: Connection, topic: str, *, from_start: bool) -> "Adoption":
    """Take the topic at the broker for the log from now on; errors are those of `log_adoption.adopt`."""
    from pipeline.archive.lost import find_lost
    from pipeline.runtime.log_adoption import adopt, look_at_log

    return adopt(
        connection,
        look_at_log(settings.kafka_bootstrap_servers, topic),
        lambda connection: find_lost(connection, settings.archive_dir, topic),
        from_start=from_start,
    )


def _close_ports(settings: Settings, gateways: "Mapping[str, Gateway]") -> "Ports":
    from pipeline.bootstrap.payments import intents_to_journal
    from pipeline.invoice_batch.model import Ports, ProofResult
    from pipeline.payments.attempts import request_payments
    from pipeline.payments.manual import creditor_reference
    from pipeline.proof.verify import owed_without_invoice, verify_invoices
    from pipeline.runtime.journal import Journal
    from pipeline.runtime.topics import watermarks

    write_down = intents_to_journal(settings)

    def prove(connection: Connection, invoice_ids: Sequence[str]) -> dict[str, ProofResult]:
        report = verify_invoices(connection, settings.archive_dir, invoice_ids)
        return {
            invoice_id: ProofResult(
                ok=report.is_proven(invoice_id),
                report=report.summary(invoice_id),
                differences=report.differences_of(invoice_id),
            )
            for invoice_id in invoice_ids
        }

    def prove_nothing_owed(connection: Connection, periods: Sequence[tuple[str, "Period"]]) -> dict[str, ProofResult]:
        spans = [(account_id, period.start, period.end) for account_id, period in periods]
        owed = owed_without_invoice(connection, settings.archive_dir, spans)
        return {
            account_id: ProofResult(ok=not sentences, report={"differences": len(sentences)}, differences=sentences)
            for account_id, sentences in owed.items()
        }

    return Ports(
        prove=prove,
        prove_nothing_owed=prove_nothing_owed,
        log_ends=lambda: {
            partition: high
            for partition, (_, high) in watermarks(settings.kafka_bootstrap_servers, EVENTS_TOPIC).items()
        },
        request_payments=lambda connection, invoice_ids: request_payments(
            connection, gateways, invoice_ids, write_down
        ),
        payment_reference=lambda gateway, number: creditor_reference(number) if gateway == "manual" else "",
        journal=Journal(settings.journal_dir),
    )


def verify(settings: Settings, *, invoice: str | None = None, month: tuple[int, int] | None = None) -> "Report":
    """
    Recompute issued invoices from the archive: one (number or id), a month's, or all.

    Where the journal is set, documents are compared with it too.
    """
    from pipeline.proof.verify import select_invoices, verify_invoices
    from pipeline.runtime.journal import Journal
    from pipeline.runtime.settings import NOT_SET

    journal_dir = None if settings.journal_dir.name == NOT_SET else settings.journal_dir
    if journal_dir is not None:
        Journal(journal_dir)  # a folder that is not there is no empty journal
    with database(settings, "rackmeter-verify") as connection:
        chosen = select_invoices(connection, invoice=invoice, month=month)
        return verify_invoices(connection, settings.archive_dir, chosen, journal_dir=journal_dir)


def verify_books(settings: Settings, expected: tuple[int, str] | None = None) -> "ChainReport":
    """Recompute the chain of the books and compare it with the journal, and with a head kept elsewhere."""
    from pipeline.proof.chain import verify_chain
    from pipeline.runtime.journal import Journal

    Journal(settings.journal_dir)  # a folder that is not there is no empty journal
    with database(settings, "rackmeter-verify") as connection:
        return verify_chain(connection, settings.journal_dir, expected)
