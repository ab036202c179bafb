"""The demo: a month of usage through the real pipeline, in a folder of its own, to proven invoices."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from pipeline import bootstrap
from pipeline.catalogue.apply import apply
from pipeline.catalogue.document import read_catalogue
from pipeline.catalogue.servers import assign
from pipeline.catalogue.store import load_subscriptions
from pipeline.domain.decimals import plain
from pipeline.domain.errors import InvariantViolation, TransientFault
from pipeline.domain.money import format_minor
from pipeline.domain.period import Period
from pipeline.ingest.replay import ReplayOptions, ReplayReport
from pipeline.ingest.trace_csv import Trace, read_trace
from pipeline.invoice_batch.documents.files import write_whole
from pipeline.invoice_batch.documents.render import BalanceRow, InvoiceRow, SummaryFacts, render_summary
from pipeline.invoice_batch.model import CloseRequest, RunReport
from pipeline.local import trace as generated
from pipeline.local.dealing import deal
from pipeline.local.processes import Supervisor
from pipeline.local.stack import (
    Services,
    failed_children,
    local_settings,
    running_services,
    stage_supervisor,
)
from pipeline.runtime.postgres import Connection
from pipeline.runtime.settings import Settings, schemas_dir
from pipeline.runtime.sql import load_queries
from pipeline.runtime.topics import watermarks

QUERIES = load_queries("pipeline.local", "demo.sql")

SELLER_ZONE = "Europe/Amsterdam"
FAULTS_SEED = 20_260_601
PARTITIONS = 8
FOLDERS_KEPT = 2
TRACE_FILE = "trace.csv"

#: What waits longer than this without moving is stuck.
STUCK_SECONDS = 120.0

TALLY = ("received", "counted", "duplicate", "conflict", "quarantined", "parked", "ignored", "control")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """
    What to show.

    root: Folder of all demo runs.
    trace: A recorded trace; None generates one, and adds duplicates, late and bad events to it.
    again: Replay into the newest folder instead of a new one.
    workers: Aggregate workers.
    """

    root: Path
    trace: Path | None = None
    again: bool = False
    workers: int = 1


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came of it; counts are since the folder was made."""

    folder: Path
    documents: Path
    summary: Path
    period: Period
    broker: str
    replayed: ReplayReport
    tally: Mapping[str, int]
    run: RunReport
    trial_balance: Sequence[tuple[str, str, Decimal]]
    proof_lines: int
    compared: Mapping[str, int]
    line_counts: Mapping[str, int]
    proof_differences: Sequence[str]
    seconds: float

    @property
    def lost(self) -> int:
        """How many of the events sent now were not received; more than were sent now came in earlier replays."""
        return max(0, self.replayed.events_sent - self.tally.get("received", 0))

    @property
    def problems(self) -> list[str]:
        """Everything that is not as it must be."""
        found = list(self.proof_differences)
        if self.lost:
            found.append(f"{self.lost} events were sent and not received")
        if any(balance for _, balance in self.balance_by_currency()):
            found.append("the trial balance is not zero")
        if self.run.exit_code:
            found.append("an account is held or not proven")
        return found

    def balance_by_currency(self) -> list[tuple[str, Decimal]]:
        """Sum the trial balance by currency."""
        sums: dict[str, Decimal] = {}
        for _, currency, balance in self.trial_balance:
            sums[currency] = sums.get(currency, Decimal(0)) + balance
        return sorted(sums.items())


class Demo:
    """Runs the demo; `say` is told each step in a sentence, `progress` how far a long one is."""

    def __init__(
        self, request: DemoRequest, environment: Mapping[str, str], say: Callable[[str], None], progress: Progress
    ) -> None:
        self._request = request
        self._environment = environment
        self._say = say
        self._progress = progress

    def run(self) -> DemoResult:
        """
        Run it from start to end; everything that was started is stopped on the way out, also by Ctrl-C.

        Raises:
            ConfigurationFault: Something is missing, or the trace has problems.
            TransientFault: A part did not come up, or stands still.
            InvariantViolation: A stage halted.
        """
        started = time.monotonic()
        folder = self._folder()
        self._say(f"folder: {folder}")
        trace = self._trace(folder)
        with running_services(folder, self._environment, self._say, PARTITIONS) as services:
            settings = local_settings(folder, services)
            with bootstrap.database(settings, "rackmeter-demo") as connection:
                period = self._prepare(connection, trace)
                with stage_supervisor(folder, settings, self._request.workers) as supervisor:
                    supervisor.start()
                    replayed = self._replay(settings, trace, supervisor)
                    self._wait_until_read(connection, settings, supervisor)
                    run = self._close(settings, period, supervisor)
                    supervisor.poll()
                return self._result(connection, settings, services, period, replayed, run, folder, started)

    def _folder(self) -> Path:
        root = self._request.root
        root.mkdir(parents=True, exist_ok=True)
        runs = sorted(path for path in root.glob("run-*") if path.is_dir())
        if self._request.again and runs:
            return runs[-1]
        number = int(runs[-1].name.removeprefix("run-")) + 1 if runs else 1
        for old in runs[: max(0, len(runs) - FOLDERS_KEPT + 1)]:
            self._say(f"removing the older run {old}")
            shutil.rmtree(old, ignore_errors=True)
        folder = root / f"run-{number:04d}"
        folder.mkdir()
        return folder

    def _trace(self, folder: Path) -> Trace:
        path = self._request.trace
        if path is None:
            path = folder / TRACE_FILE
            if not path.exists():
                count = generated.generate(path)
                self._say(f"generated a month of 50 servers: {count} samples")
        trace = read_trace(path)
        self._say(f"trace: {len(trace.rows)} samples of {len(trace.vms)} servers")
        return trace

    def _prepare(self, connection: Connection, trace: Trace) -> Period:
        """Apply the demo's catalogue and deal the trace's servers to its customers."""
        period = trace.period(SELLER_ZONE)
        apply(connection, read_catalogue(schemas_dir() / "demo" / "catalogue.yaml"))
        subscriptions = sorted(load_subscriptions(connection))
        assign(connection, deal(trace.vms, subscriptions, period, SELLER_ZONE), said_by="demo")
        return period

    def _replay(self, settings: Settings, trace: Trace, supervisor: Supervisor) -> ReplayReport:
        def moved(sent: int, total: int) -> None:
            supervisor.poll()
            self._progress("sending events", sent, total)

        options = ReplayOptions(faults_seed=FAULTS_SEED if self._request.trace is None else None)
        return bootstrap.replay_trace(settings, trace, zone_name=SELLER_ZONE, options=options, progress=moved)

    def _wait_until_read(self, connection: Connection, settings: Settings, supervisor: Supervisor) -> None:
        """Wait until aggregate and archive have passed the end of the log."""
        ends = watermarks(settings.kafka_bootstrap_servers, bootstrap.EVENTS_TOPIC)
        total = 2 * sum(high for _, high in ends.values())
        reached, moved_at = -1, time.monotonic()
        while reached < total:
            supervisor.poll()
            if failed := failed_children(supervisor):
                raise InvariantViolation("\n".join(failed))
            row = connection.execute(QUERIES["sum_offsets"]).fetchone()
            now_at = int(row[0]) if row else 0
            if now_at != reached:
                reached, moved_at = now_at, time.monotonic()
                self._progress("aggregating and archiving", reached, total)
            elif time.monotonic() - moved_at > STUCK_SECONDS:
                raise TransientFault(f"the stages stand at {reached} of {total}; their logs are in the folder's logs/")
            time.sleep(0.1)

    def _close(self, settings: Settings, period: Period, supervisor: Supervisor) -> RunReport:
        month = period.start.astimezone(ZoneInfo(SELLER_ZONE))
        self._say(f"closing {month:%Y-%m}: totals, charges, cut, proof, numbers, documents")
        request = CloseRequest(month=f"{month:%Y-%m}", now=period.end + timedelta(days=1), issued_on=_issue_day(period))
        return bootstrap.close_periods(settings, request, while_waiting=supervisor.poll)

    def _result(
        self,
        connection: Connection,
        settings: Settings,
        services: Services,
        period: Period,
        replayed: ReplayReport,
        run: RunReport,
        folder: Path,
        started: float,
    ) -> DemoResult:
        self._say("proving every line of the issued invoices from the archive")
        report = bootstrap.verify(settings, month=None)
        tally_row = connection.execute(QUERIES["sum_tally"]).fetchone()
        result = DemoResult(
            folder=folder,
            documents=settings.documents_dir,
            summary=settings.documents_dir / "summary.html",
            period=period,
            broker=services.broker_name,
            replayed=replayed,
            tally=dict(zip(TALLY, tally_row or (), strict=False)),
            run=run,
            trial_balance=connection.execute(QUERIES["trial_balance"]).fetchall(),
            proof_lines=report.lines_compared,
            compared=report.compared,
            line_counts=dict(connection.execute(QUERIES["count_lines"]).fetchall()),
            proof_differences=report.differences,
            seconds=time.monotonic() - started,
        )
        write_whole(result.summary, render_summary(summary_facts(result)).encode())
        return result


def summary_facts(result: DemoResult) -> SummaryFacts:
    """Give what the summary page shows of a run."""
    month = result.period.start.astimezone(ZoneInfo(SELLER_ZONE)).strftime("%Y-%m")
    invoices = [
        InvoiceRow(
            number=one.number,
            account=one.account_id,
            period=one.month,
            lines=result.line_counts.get(one.invoice_id, 0),
            total=f"{format_minor(one.total.minor, one.total.currency)} {one.total.currency}" if one.total else "",
            state=str(one.outcome),
            html_link=f"{one.month}/{one.number}.html" if one.number else "",
            json_link=f"{one.month}/{one.number}.json" if one.number else "",
        )
        for one in result.run.results
    ]
    return SummaryFacts(
        title="Rackmeter demo",
        period=month,
        counts=[("sent", result.replayed.events_sent), *((name, result.tally.get(name, 0)) for name in TALLY)],
        invoices=invoices,
        trial_balance=[BalanceRow(name, currency, plain(balance)) for name, currency, balance in result.trial_balance],
        balance_sums={currency: plain(balance) for currency, balance in result.balance_by_currency()},
        proof_ok=not result.proof_differences,
        proof_sentence=f"{result.proof_lines} invoice lines recomputed from the archive.",
        proof_facts=[(name.replace("_", " "), str(count)) for name, count in sorted(result.compared.items())],
        held=[f"{one.account_id}: {reason.sentence}" for one in result.run.results for reason in one.reasons],
        links=[("invoices of the month, CSV", f"{month}/invoices.csv"), ("their lines, CSV", f"{month}/lines.csv")],
    )


def _issue_day(period: Period) -> date:
    """Give the day after the period, where the seller is; fixed, so that the same trace gives the same invoices."""
    return period.end.astimezone(ZoneInfo(SELLER_ZONE)).date()
