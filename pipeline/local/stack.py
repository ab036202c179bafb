"""A whole Rackmeter on one machine: broker, database, topics and every stage, in one folder, under one supervisor."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.bootstrap import EVENTS_TOPIC, STAGES
from pipeline.local.broker import choose_broker, keep_broker, kept_broker
from pipeline.local.folder_lock import held
from pipeline.local.postgres import PostgresServer
from pipeline.local.processes import ChildSpec, ChildState, Supervisor
from pipeline.runtime.migrations import migrate
from pipeline.runtime.postgres import connect
from pipeline.runtime.settings import Settings
from pipeline.runtime.topics import ensure_topics, load_topics, read_log_identity

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Services:
    """
    Where broker and database are, and what the broker is.

    checks: One for each service that we started.
    """

    kafka_bootstrap_servers: str
    database_url: str
    broker_name: str
    fetch_rest_seconds: float = 0.0
    checks: tuple[Callable[[], None], ...] = ()

    def check(self) -> None:
        """Raise TransientFault, with the end of its log, where a service of ours has ended by itself."""
        for check in self.checks:
            check()


@contextlib.contextmanager
def running_services(folder: Path, environment: Mapping[str, str], say: Say, partitions: int) -> Iterator[Services]:
    """
    Hold the folder, so that nobody else runs in it, and give the services of `started_services`.

    Raises:
        ConfigurationFault: Also where another process holds the folder; nothing was touched then.
    """
    with held(folder), started_services(folder, environment, say, partitions) as services:
        yield services


@contextlib.contextmanager
def started_services(folder: Path, environment: Mapping[str, str], say: Say, partitions: int) -> Iterator[Services]:
    """
    Give a broker and a database, migrated and with topics: those of the environment, else our own in the folder.

    Args:
        folder: Held by the caller (`folder_lock.held`); used again, it keeps its data.
        environment: KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL and RACKMETER_BROKER are looked at.
        say: Told what is started.
        partitions: Of usage.events where the topic is made now.

    Raises:
        ConfigurationFault: What is missing on this machine, and what to do.
        TransientFault: A service does not come up.
    """
    with contextlib.ExitStack() as stack:
        checks: list[Callable[[], None]] = []
        database_url = environment.get("DATABASE_URL", "")
        if not database_url:
            server = PostgresServer(folder / "database")
            stack.callback(server.stop)
            database_url = server.start()
            checks.append(server.check)
            say("database: PostgreSQL in the folder, durable settings")
        owner = connect(database_url, application_name="rackmeter-migrate", role=None)
        try:
            migrate(owner)
        finally:
            owner.close()
        servers, name, rest_seconds = environment.get("KAFKA_BOOTSTRAP_SERVERS", ""), "given", 0.0
        if not servers:
            forced = environment.get("RACKMETER_BROKER")
            wanted = kept_broker(folder / "broker", forced)
            chosen = choose_broker(folder / "broker", wanted)
            keep_broker(folder / "broker", chosen.broker.name)
            say(f"broker: {chosen.reason if wanted == forced else f'{wanted}, as before in this folder'}")
            stack.callback(chosen.broker.stop)
            servers, name = chosen.broker.start(), chosen.broker.name
            rest_seconds = chosen.broker.fetch_rest_seconds
            checks.append(chosen.broker.check)
        ensure_topics(servers, load_topics(), {EVENTS_TOPIC: _partitions(servers, partitions)})
        yield Services(servers, database_url, name, rest_seconds, tuple(checks))


def _partitions(servers: str, wanted: int) -> int:
    """Give what the topic has, where it is there: the number is for life."""
    try:
        return read_log_identity(servers, EVENTS_TOPIC).partition_count
    except Exception as error:
        if getattr(error, "code", "") in ("topic_missing", "log_id_missing"):
            return wanted
        raise


def local_settings(folder: Path, services: Services) -> Settings:
    """Give the settings of a local run: everything in the folder, totals without a pace, so that results come soon."""
    return Settings(
        kafka_bootstrap_servers=services.kafka_bootstrap_servers,
        database_url=services.database_url,
        archive_dir=folder / "archive",
        documents_dir=folder / "documents",
        journal_dir=folder / "journal",
        state_dir=folder / "state",
        totals_pace_seconds=10.0,
        sweep_seconds=10.0,
        fetch_rest_seconds=services.fetch_rest_seconds,
    )


def stage_supervisor(folder: Path, settings: Settings, workers: int = 1) -> Supervisor:
    """
    Give a supervisor of every stage, not started yet; each child's log is in the folder.

    Args:
        folder: For the log files.
        settings: Handed to the children through their environment.
        workers: How many aggregate workers; the other stages have one.
    """
    for path in (settings.archive_dir, settings.documents_dir, settings.journal_dir, settings.state_dir):
        path.mkdir(parents=True, exist_ok=True)
    specs = []
    for stage in STAGES:
        for slot in range(workers if stage == "aggregate" else 1):
            environment = {
                **os.environ,
                **replace(settings, worker_slot=slot).to_environment(),
                "PYTHONUNBUFFERED": "1",
            }
            name = f"{stage}-{slot}" if slot else stage
            specs.append(ChildSpec(name, (sys.executable, "-m", "pipeline", "run", stage), environment))
    return Supervisor(folder / "logs", specs)


def failed_children(supervisor: Supervisor) -> list[str]:
    """Give a line for each stage that will not come back by itself, with the end of its log."""
    lines = []
    for child in supervisor.report():
        if child.state in (ChildState.HALTED, ChildState.MISCONFIGURED) or child.restarts > 5:
            tail = child.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            lines.append(f"{child.name} is {child.state} (exit code {child.exit_code}): " + "\n".join(tail))
    return lines
