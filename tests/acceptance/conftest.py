"""What acceptance tests share: a small trace, a broker of our own, and one run that was closed without any trouble."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.ingest.replay import ReplayReport
from pipeline.local.broker import Broker
from pipeline.local.kafka_embedded import EmbeddedKafka
from tests.support.databases import copied_database
from tests.support.fresh_logs import make_fresh_logs
from tests.support.installation import Installation, Tally
from tests.support.small_trace import write_small_trace

MakeInstallation = Callable[..., Installation]


@dataclass(frozen=True, slots=True)
class ClosedRun:
    """A run that nothing disturbed; its stages have stopped, its database is `database_name`."""

    installation: Installation
    database_name: str
    sent: ReplayReport
    tally: Tally
    documents: dict[str, bytes]


@pytest.fixture(scope="session")
def small_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of ten servers, as CSV."""
    return write_small_trace(tmp_path_factory.mktemp("trace") / "small.csv")


@contextlib.contextmanager
def empty_logs(broker: Broker, folder: Path) -> Iterator[Broker]:
    """
    Give a broker of our own with empty logs; never one that was given to us, as topics are deleted.

    The embedded one keeps what groups committed for a topic that is deleted, so each run gets one of its own.
    """
    with contextlib.ExitStack() as stack:
        if broker.name == EmbeddedKafka.name:
            broker = EmbeddedKafka(folder / "broker")
            stack.callback(broker.stop)
            broker.start()
        make_fresh_logs(broker.bootstrap_servers)
        yield broker


@pytest.fixture
def own_broker(broker: Broker, tmp_path: Path) -> Iterator[Broker]:
    """A broker with empty logs."""
    with empty_logs(broker, tmp_path) as empty:
        yield empty


@pytest.fixture
def make_installation(own_broker: Broker, database_url: str, small_trace: Path, tmp_path: Path) -> MakeInstallation:
    """Make an installation with an empty database and empty logs: `make_installation(**settings)`."""

    def make(**settings: object) -> Installation:
        return Installation.make(tmp_path, own_broker, database_url, small_trace, **settings)

    return make


@pytest.fixture(scope="session")
def closed_run(
    broker: Broker,
    server_url: str,
    migrated_template: str,
    small_trace: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ClosedRun]:
    """The trace with duplicates, late and bad events, replayed and closed with everything as it is by default."""
    with contextlib.ExitStack() as stack:
        name, url = stack.enter_context(copied_database(server_url, migrated_template))
        folder = tmp_path_factory.mktemp("closed-run")
        empty = stack.enter_context(empty_logs(broker, folder))
        installation = Installation.make(folder, empty, url, small_trace)
        with installation.running():
            sent = installation.replay()
            installation.wait_until_read()
            run = installation.close()
        assert run.exit_code == 0, run.results
        yield ClosedRun(installation, name, sent, installation.tally(), installation.documents())


@pytest.fixture(scope="session")
def closed_run_invoices(closed_run: ClosedRun) -> dict[str, bytes]:
    """The undisturbed run's invoices, without the CSV files of the run."""
    return {name: content for name, content in closed_run.documents.items() if name.endswith((".html", ".json"))}
