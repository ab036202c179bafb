"""A whole installation for a test: real stages in their own processes, on a broker and a database that are given."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

from pipeline import bootstrap
from pipeline.catalogue.apply import apply
from pipeline.catalogue.document import read_catalogue
from pipeline.catalogue.servers import assign
from pipeline.catalogue.store import load_subscriptions
from pipeline.ingest.emitter import Producer
from pipeline.ingest.replay import ReplayOptions, ReplayReport, replay
from pipeline.ingest.trace_csv import Trace, read_trace
from pipeline.invoice_batch.model import CloseRequest, RunReport
from pipeline.local.broker import Broker
from pipeline.local.dealing import deal
from pipeline.local.processes import ChildReport, ChildSpec, ChildState, Supervisor
from pipeline.local.stack import Services, failed_children, local_settings, stage_supervisor
from pipeline.proof.report import Report
from pipeline.runtime.postgres import Connection
from pipeline.runtime.producer import LogProducer
from pipeline.runtime.settings import Settings, checkout_dir, schemas_dir
from pipeline.runtime.topics import watermarks
from tests.support.small_trace import ISSUED_ON, MONTH, ZONE

FAULTS_SEED = 20_130_715
READ_SECONDS_MAX = 90.0
#: The stages that read usage.events.
LOG_READERS = ("aggregate", "archive")

_OFFSETS = "SELECT coalesce(sum(offset_next), 0) FROM consumer_offset WHERE topic = 'usage.events'"
_TALLY = """
SELECT coalesce(sum(received), 0)::bigint, coalesce(sum(counted), 0)::bigint, coalesce(sum(duplicate), 0)::bigint,
    coalesce(sum(conflict), 0)::bigint, coalesce(sum(quarantined), 0)::bigint, coalesce(sum(parked), 0)::bigint,
    coalesce(sum(control), 0)::bigint
FROM partition_tally WHERE topic = 'usage.events'
"""
_BALANCES = "SELECT currency, sum(amount) FROM ledger_entry GROUP BY currency"
# What stands in the books, without the numbers the database gave its rows.
_BOOKS = """
SELECT t.key, a.name, e.amount, e.currency, e.account_id, e.period_start
FROM ledger_entry e JOIN ledger_transaction t USING (ledger_transaction_id) JOIN ledger_account a
    USING (ledger_account_id)
ORDER BY e.ledger_entry_id
"""
_USAGE = """
SELECT s.subject, s.meter_version_id, s.source, b.slot_start, b.quantity
FROM usage_bucket b JOIN series s USING (series_id) ORDER BY s.subject, s.meter_version_id, s.source, b.slot_start
"""

Stages = Sequence[Supervisor]
WrapProducer = Callable[[Producer], Producer]


@dataclass(frozen=True, slots=True)
class Tally:
    """Events since the log began, by what was decided."""

    received: int
    counted: int
    duplicate: int
    conflict: int
    quarantined: int
    parked: int
    control: int

    def minus(self, before: "Tally") -> "Tally":
        """What came since."""
        return Tally(*(getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class Workers:
    """How many processes of each stage."""

    aggregate: int = 1
    archive: int = 1
    totals: int = 1
    rate: int = 1
    ledger_sink: int = 1
    sealer: int = 1


@dataclass(slots=True)
class Installation:
    """One folder, one database, one broker; a trace that is replayed into it."""

    folder: Path
    settings: Settings
    trace: Trace
    stages: list[Supervisor] = field(default_factory=list)

    @classmethod
    def make(
        cls, folder: Path, broker: Broker, database_url: str, trace_file: Path, **settings: object
    ) -> "Installation":
        """Apply the demo's catalogue and deal the servers; `settings` are fields of Settings."""
        services = Services(broker.bootstrap_servers, database_url, broker.name, broker.fetch_rest_seconds)
        wanted: dict[str, object] = {"flush_seconds": 0.3, "totals_pace_seconds": 0.5, "sweep_seconds": 5.0}
        made = replace(local_settings(folder, services), **(wanted | settings))  # type: ignore[arg-type]
        installation = cls(folder, made, read_trace(trace_file))
        with installation.database() as connection:
            apply(connection, read_catalogue(schemas_dir() / "demo" / "catalogue.yaml"))
            period = installation.trace.period(ZONE)
            subscriptions = sorted(load_subscriptions(connection))
            assign(connection, deal(installation.trace.vms, subscriptions, period, ZONE), said_by="test")
        return installation

    @contextlib.contextmanager
    def database(self) -> Iterator[Connection]:
        """Open the database as the application does."""
        with bootstrap.database(self.settings, "rackmeter-test") as connection:
            yield connection

    @contextlib.contextmanager
    def running(self, workers: Workers | None = None) -> Iterator["Installation"]:
        """Run every stage while the block runs; more workers of a stage than the supervisor starts come beside it."""
        workers = workers or Workers()
        more = [
            self._spec(stage, slot)
            for stage in bootstrap.STAGES
            if stage != "aggregate"
            for slot in range(1, getattr(workers, stage))
        ]
        with contextlib.ExitStack() as stack:
            supervisors = [stage_supervisor(self.folder, self.settings, workers.aggregate)]
            if more:
                supervisors.append(Supervisor(self.folder / "logs", more))
            try:
                for supervisor in supervisors:
                    stack.enter_context(supervisor)
                    supervisor.start()
                    self.stages.append(supervisor)
                yield self
            finally:
                self.stages.clear()

    @contextlib.contextmanager
    def reading(self) -> Iterator["Installation"]:
        """Run one worker of each stage that reads usage.events while the block runs."""
        with Supervisor(self.folder / "logs", [self._spec(stage, 0) for stage in LOG_READERS]) as supervisor:
            supervisor.start()
            self.stages.append(supervisor)
            try:
                yield self
            finally:
                self.stages.clear()

    def poll(self) -> None:
        """Let the supervisors start again what ended; fail where a stage will not come back."""
        for supervisor in self.stages:
            supervisor.poll()
            failed = failed_children(supervisor)
            assert not failed, "\n".join(failed)

    def child(self, stage: str) -> ChildReport:
        """How the first worker of a stage stands."""
        return next(report for supervisor in self.stages for report in supervisor.report() if report.name == stage)

    def replay(
        self,
        options: ReplayOptions | None = None,
        wrap: WrapProducer = lambda producer: producer,
        *,
        is_watched: bool = True,
    ) -> ReplayReport:
        """Send the trace and wait until it is durable; `wrap` may put something before the producer."""
        options = options or ReplayOptions(faults_seed=FAULTS_SEED)
        with LogProducer(self.settings.kafka_bootstrap_servers) as producer:
            return replay(
                self.trace,
                wrap(producer),
                bootstrap.EVENTS_TOPIC,
                zone_name=ZONE,
                options=options,
                progress=lambda _sent, _total: self.poll() if is_watched else None,
            )

    def wait_until_read(self) -> None:
        """Wait until aggregate and archive have passed the end of the log."""
        ends = watermarks(self.settings.kafka_bootstrap_servers, bootstrap.EVENTS_TOPIC)
        total = 2 * sum(high for _, high in ends.values())
        with self.database() as connection:
            self.wait_for(lambda: scalar(connection, _OFFSETS) == total, f"{total} messages to be read")

    def wait_for(self, is_so: Callable[[], bool], what: str, timeout_seconds: float = READ_SECONDS_MAX) -> None:
        """Watch over the stages until something is so."""
        deadline = time.monotonic() + timeout_seconds
        while not is_so():
            self.poll()
            assert time.monotonic() < deadline, f"waited {timeout_seconds:g} s for {what}; see {self.folder / 'logs'}"
            time.sleep(0.05)

    def await_halt(self, timeout_seconds: float) -> None:
        """Watch over the stages until every one of them has halted by itself."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            for supervisor in self.stages:
                supervisor.poll()
            states = {report.name: report.state for supervisor in self.stages for report in supervisor.report()}
            if set(states.values()) == {ChildState.HALTED}:
                return
            assert time.monotonic() < deadline, f"not halted after {timeout_seconds:g} s: {states}"
            time.sleep(0.1)

    def move_to(self, bootstrap_servers: str) -> None:
        """Go on with a broker at another address."""
        self.settings = replace(self.settings, kafka_bootstrap_servers=bootstrap_servers)

    def close(self) -> RunReport:
        """Close the trace's month in this process."""
        period = self.trace.period(ZONE)
        request = CloseRequest(MONTH, period.end + timedelta(days=1), issued_on=date.fromisoformat(ISSUED_ON))
        return bootstrap.close_periods(self.settings, request, while_waiting=self.poll)

    def command(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start `rackmeter ...` on this installation."""
        return self.python("-m", "pipeline", *arguments)

    def run(self, *arguments: str, timeout_seconds: float = 60.0) -> tuple[int, str]:
        """Run `rackmeter ...` to its end; give its exit code and all it said."""
        process = self.command(*arguments)
        try:
            said, _ = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            raise AssertionError(f"{arguments} takes over {timeout_seconds:g} s:\n{said[-2000:]}") from None
        return process.returncode, said

    def close_command(self) -> "subprocess.Popen[str]":
        """Start `rackmeter close` of the trace's month."""
        return self.command("close", "--period", MONTH, "--issue-on", ISSUED_ON)

    def python(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a Python process with this installation's settings."""
        environment = os.environ | self.settings.to_environment()
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=checkout_dir(),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def documents(self) -> dict[str, bytes]:
        """Every document that was written: invoices as HTML and JSON, the run as CSV."""
        folder = self.settings.documents_dir
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def tally(self) -> Tally:
        """What was decided about the events of the log."""
        with self.database() as connection:
            row = connection.execute(_TALLY).fetchone()
        assert row is not None
        return Tally(*row)

    def books(self) -> tuple[object, object]:
        """Every posting and every bucket."""
        with self.database() as connection:
            return connection.execute(_BOOKS).fetchall(), connection.execute(_USAGE).fetchall()

    def balances(self) -> Mapping[str, Decimal]:
        """The trial balance by currency."""
        with self.database() as connection:
            return dict(connection.execute(_BALANCES).fetchall())

    def verify(self) -> Report:
        """Prove every issued invoice again."""
        return bootstrap.verify(self.settings)

    def _spec(self, stage: str, slot: int) -> ChildSpec:
        environment = os.environ | replace(self.settings, worker_slot=slot).to_environment()
        return ChildSpec(
            f"{stage}-{slot}" if slot else stage, (sys.executable, "-m", "pipeline", "run", stage), environment
        )


def scalar(connection: Connection, statement: str) -> int:
    """The one whole number a statement gives."""
    row = connection.execute(statement.encode()).fetchone()
    return int(row[0]) if row else 0


def is_up(report: ChildReport) -> bool:
    """Whether a child runs now."""
    return report.state is ChildState.RUNNING and report.pid is not None
