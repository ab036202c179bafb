"""The demo: a month of usage through the real pipeline, in a folder of its own, to proven invoices."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg

from pipeline import bootstrap
from pipeline.catalogue.apply import apply, catalogue_digest
from pipeline.catalogue.document import read_catalogue
from pipeline.catalogue.model import Catalogue
from pipeline.catalogue.servers import assign
from pipeline.catalogue.store import load_accounts, load_subscriptions
from pipeline.domain.errors import ConfigurationFault, InvariantViolation, Problem, Problems, TransientFault
from pipeline.domain.period import Period
from pipeline.ingest.replay import ReplayOptions, ReplayReport
from pipeline.ingest.trace_csv import Trace, read_trace
from pipeline.invoice_batch.documents.files import write_whole
from pipeline.invoice_batch.documents.render import render_summary
from pipeline.invoice_batch.model import CloseRequest, RunReport, Step
from pipeline.local import runs
from pipeline.local import trace as generated
from pipeline.local.dealing import deal
from pipeline.local.demo_result import TALLY, DemoResult, summary_facts
from pipeline.local.folder_lock import held
from pipeline.local.processes import Supervisor
from pipeline.local.runs import RunRecord
from pipeline.local.stack import Services, failed_children, local_settings, stage_supervisor, started_services
from pipeline.runtime.postgres import Connection, connect, is_transient
from pipeline.runtime.settings import Settings, schemas_dir
from pipeline.runtime.sql import load_queries
from pipeline.runtime.topics import watermarks

QUERIES = load_queries("pipeline.local", "demo.sql")

SELLER_ZONE = "Europe/Amsterdam"
FAULTS_SEED = 20_260_601
PARTITIONS = 8
# As an agent that catches up sends them: the broker, the readers and the archive handle a message, not an event.
EVENTS_PER_MESSAGE = 100
TRACE_FILE = "trace.csv"

#: The log takes nothing that is further ahead of its clock.
FUTURE_MAX = timedelta(minutes=5)
#: schemas/demo/catalogue.yaml has their subscriptions begin then, as early as an event can be everywhere.
CUSTOMERS_SINCE = datetime(1970, 1, 2, tzinfo=ZoneInfo(SELLER_ZONE))

#: What waits longer than this without moving is stuck.
STUCK_SECONDS = 120.0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """
    What to show.

    root: Folder of all demo runs.
    trace: A recorded trace; None generates one, and adds duplicates, late and bad events to it.
    again: Replay the newest finished run's trace into its folder instead of making a new one.
    workers: Aggregate workers.
    """

    root: Path
    trace: Path | None = None
    again: bool = False
    workers: int = 1


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where to run, what to replay (None: the one generated into the folder), and what an earlier run came to."""

    folder: Path
    trace_path: Path | None
    trace: Trace | None
    before: RunRecord | None


@dataclass(frozen=True, slots=True)
class _Open:
    """What a run works with while everything is up."""

    settings: Settings
    services: Services
    connection: Connection
    supervisor: Supervisor

    def poll(self) -> None:
        """Have crashed stages started again; raise where a service or a stage is down for good."""
        self.services.check()
        self.supervisor.poll()
        if failed := failed_children(self.supervisor):
            raise InvariantViolation("\n".join(failed))


class Demo:
    """Runs the demo; `say` is told each step in a sentence, `progress` how far a long one is."""

    def __init__(
        self, request: DemoRequest, environment: Mapping[str, str], say: Callable[[str], None], progress: Progress
    ) -> None:
        self._request = request
        self._environment = environment
        self._say = say
        self._progress = progress
        self._catalogue = read_catalogue(schemas_dir() / "demo" / "catalogue.yaml")

    def run(self) -> DemoResult:
        """
        Run it from start to end; everything that was started is stopped on the way out, also by Ctrl-C.

        Raises:
            ConfigurationFault: Something is missing, the trace has problems, or the database given is in other use.
            TransientFault: A part did not come up, died, or stands still.
            InvariantViolation: A stage halted.
        """
        started = time.monotonic()
        if database_url := self._environment.get("DATABASE_URL"):
            refuse_other_catalogues(database_url, self._catalogue)
        plan = self._plan()
        self._say(f"folder: {plan.folder}")
        # A trace is generated beside the start of broker and database, which mostly wait.
        with held(plan.folder), ThreadPoolExecutor(1) as beside:
            coming = beside.submit(lambda: plan.trace or self._generated_trace(plan))
            try:
                result = self._run_in(plan, coming)
                trace = coming.result()
            except psycopg.Error as error:
                if not is_transient(error):
                    raise
                raise TransientFault(f"the database stopped answering: {str(error).strip()}") from error
            record = RunRecord(
                trace=None if plan.trace_path is None else str(plan.trace_path),
                digest=trace.digest,
                month=result.month,
                counted=result.tally.get("counted", 0),
                documents=runs.document_digests(result.documents),
            )
            changes = plan.before.changes(record) if plan.before is not None else []
            result = dataclasses.replace(result, changes=changes, seconds=time.monotonic() - started)
            if not result.problems:
                runs.write_record(plan.folder, record)
                runs.remove_older(self._request.root, self._say)
        return result

    def _plan(self) -> _Plan:
        """Choose folder and trace; a recorded trace is read before anything is made."""
        path, before = self._request.trace, None
        if self._request.again:
            folder, before = runs.newest_finished(self._request.root)
            path = path or (Path(before.trace) if before.trace is not None else None)
        trace = None if path is None else self._read(path)
        if before is not None and trace is not None and trace.digest != before.digest:
            raise ConfigurationFault(
                f"{path} is not the trace that {folder} was made of: its content differs. "
                "Bring the trace back, or leave --again out for a run of its own."
            )
        if before is None:
            folder = runs.make_folder(self._request.root)
        return _Plan(folder, None if path is None else path.resolve(), trace, before)

    def _generated_trace(self, plan: _Plan) -> Trace:
        path = plan.folder / TRACE_FILE
        if not path.exists():
            part = path.with_name(f"{TRACE_FILE}.part")
            count = generated.generate(part)
            part.rename(path)
            self._say(f"generated a month of 50 servers: {count} samples")
        trace = self._read(path)
        if plan.before is not None and trace.digest != plan.before.digest:
            raise ConfigurationFault(f"{path} is not what was generated when {plan.folder} was made: run a new demo")
        return trace

    def _read(self, path: Path) -> Trace:
        trace = read_trace(path)
        refuse_other_times(path, trace, datetime.now(UTC))
        self._say(f"trace: {len(trace.rows)} samples of {len(trace.vms)} servers")
        return trace

    def _run_in(self, plan: _Plan, coming: "Future[Trace]") -> DemoResult:
        with started_services(plan.folder, self._environment, self._say, PARTITIONS) as services:
            settings = local_settings(plan.folder, services)
            with bootstrap.database(settings, "rackmeter-demo") as connection:
                trace = coming.result()
                period = self._prepare(connection, trace)
                received_before = _tally(connection)["received"]
                with stage_supervisor(plan.folder, settings, self._request.workers) as supervisor:
                    opened = _Open(settings, services, connection, supervisor)
                    supervisor.start()
                    replayed = self._replay(opened, trace, with_faults=plan.trace_path is None)
                    self._wait_until_read(opened)
                    closed = self._close(opened, period)
                    opened.poll()
                return self._result(plan, opened, replayed, received_before, closed)

    def _prepare(self, connection: Connection, trace: Trace) -> Period:
        """Apply the demo's catalogue and deal the trace's servers to its customers."""
        period = trace.period(SELLER_ZONE)
        apply(connection, self._catalogue)
        subscriptions = sorted(load_subscriptions(connection))
        assign(connection, deal(trace.vms, subscriptions, period, SELLER_ZONE), said_by="demo")
        return period

    def _replay(self, opened: _Open, trace: Trace, *, with_faults: bool) -> ReplayReport:
        def moved(sent: int, total: int) -> None:
            opened.poll()
            self._progress("sending events", sent, total)

        options = ReplayOptions(faults_seed=FAULTS_SEED if with_faults else None, events_per_message=EVENTS_PER_MESSAGE)
        return bootstrap.replay_trace(opened.settings, trace, zone_name=SELLER_ZONE, options=options, progress=moved)

    def _wait_until_read(self, opened: _Open) -> None:
        """Wait until aggregate and archive have passed the end of the log."""
        ends = watermarks(opened.settings.kafka_bootstrap_servers, bootstrap.EVENTS_TOPIC)
        total = 2 * sum(high for _, high in ends.values())
        reached, moved_at = -1, time.monotonic()
        while reached < total:
            opened.poll()
            row = opened.connection.execute(QUERIES["sum_offsets"]).fetchone()
            now_at = int(row[0]) if row else 0
            if now_at != reached:
                reached, moved_at = now_at, time.monotonic()
                self._progress("aggregating and archiving", reached, total)
            elif time.monotonic() - moved_at > STUCK_SECONDS:
                raise TransientFault(f"the stages stand at {reached} of {total}; their logs are in the folder's logs/")
            time.sleep(0.1)

    def _close(self, opened: _Open, period: Period) -> RunReport:
        month = _month(period)
        self._say(f"closing {month}: totals, charges, cut, proof, numbers, documents")
        account_count = len(load_accounts(opened.connection))
        done: Counter[Step] = Counter()

        def listen(step: Step, _name: str) -> None:
            done[step] += 1
            if step is Step.CLOSING:
                self._progress("closing accounts", done[step], account_count)
            elif step in (Step.PROVEN, Step.WITHDRAWN):
                proven = done[Step.PROVEN] + done[Step.WITHDRAWN]
                self._progress("proving invoices", proven, max(proven, done[Step.CUT]))

        request = CloseRequest(month=month, now=period.end + timedelta(days=1), issued_on=_issue_day(period))
        return bootstrap.close_periods(opened.settings, request, while_waiting=opened.poll, listener=listen)

    def _result(
        self, plan: _Plan, opened: _Open, replayed: ReplayReport, received_before: int, closed: RunReport
    ) -> DemoResult:
        self._say("proving every line of the issued invoices from the archive")
        report = bootstrap.verify(opened.settings, month=None)
        connection = opened.connection
        result = DemoResult(
            folder=plan.folder,
            documents=opened.settings.documents_dir,
            month=_month(replayed.period),
            broker=opened.services.broker_name,
            replayed=replayed,
            received_before=received_before,
            tally=_tally(connection),
            run=closed,
            trial_balance=connection.execute(QUERIES["trial_balance"]).fetchall(),
            proof_lines=report.lines_compared,
            compared=report.compared,
            line_counts=dict(connection.execute(QUERIES["count_lines"]).fetchall()),
            proof_differences=report.differences,
            seconds=0.0,
        )
        write_whole(result.summary, render_summary(summary_facts(result)).encode())
        return result


def refuse_other_times(path: Path, trace: Trace, now: datetime) -> None:
    """
    Refuse a trace that would bill nobody: of the future, which no log takes, or of before the demo's customers.

    Raises:
        Problems: Says which timestamp.
    """
    first = datetime.fromtimestamp(min(row.timestamp for row in trace.rows), UTC)
    last = datetime.fromtimestamp(max(row.timestamp for row in trace.rows), UTC)
    if last > now + FUTURE_MAX:
        raise Problems([Problem(str(path), 0, "timestamp", f"goes to {last.isoformat()}, which is yet to come")])
    if first < CUSTOMERS_SINCE:
        message = f"begins at {first.isoformat()}; the demo's customers are there since {CUSTOMERS_SINCE:%Y-%m-%d}"
        raise Problems([Problem(str(path), 0, "timestamp", message)])


def refuse_other_catalogues(database_url: str, catalogue: Catalogue) -> None:
    """
    Leave a database alone that bills somebody: the demo's customers have no place in it.

    Raises:
        ConfigurationFault: It holds a catalogue that is not the demo's.
        TransientFault: It cannot be reached.
    """
    connection = connect(database_url, application_name="rackmeter-demo", role=None)
    try:
        has_catalogues = connection.execute(QUERIES["has_catalogues"]).fetchone()
        if not has_catalogues or not has_catalogues[0]:
            return
        others = connection.execute(QUERIES["count_other_catalogues"], {"digest": catalogue_digest(catalogue)})
        row = others.fetchone()
    finally:
        connection.close()
    if row and row[0]:
        raise ConfigurationFault(
            "the database of DATABASE_URL holds a catalogue that is not the demo's, and the demo would add its "
            "customers and prices to it. Unset DATABASE_URL for a database of the demo's own, or name an empty one."
        )


def _tally(connection: Connection) -> dict[str, int]:
    row = connection.execute(QUERIES["sum_tally"]).fetchone()
    return {name: int(count or 0) for name, count in zip(TALLY, row or (0,) * len(TALLY), strict=True)}


def _month(period: Period) -> str:
    return f"{period.start.astimezone(ZoneInfo(SELLER_ZONE)):%Y-%m}"


def _issue_day(period: Period) -> date:
    """Give the day after the period, where the seller is; fixed, so that the same trace gives the same invoices."""
    return period.end.astimezone(ZoneInfo(SELLER_ZONE)).date()
