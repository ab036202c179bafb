"""A collector as a process of its own, for tests: settings from the environment, the topic as argument."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from pipeline.bootstrap import run_collector
from pipeline.runtime.postgres import connect
from pipeline.runtime.settings import Settings
from pipeline.web import store
from pipeline.web.tokens import NewToken, Scope, make_token

NOT_NEEDED = ("archive_dir", "documents_dir", "journal_dir", "state_dir")
START_SECONDS = 30.0


@dataclass
class Collector:
    """A running collector; `log` gathers what it says."""

    process: "subprocess.Popen[str]"
    log: list[str] = field(default_factory=list)
    port: int = 0
    metrics_port: int = 0
    _listens: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, token: NewToken, timeout_seconds: float = 20.0) -> httpx.Client:
        """A client with a token."""
        return httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {token.text}"}, timeout=timeout_seconds
        )

    def follow(self) -> None:
        """Read the log until the process ends."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if '"action": "start"' in line:
                said = json.loads(line)
                self.port, self.metrics_port = said["port"], said["metrics_port"]
                self._listens.set()
        self._listens.set()

    def await_start(self) -> None:
        """Wait until it answers."""
        assert self._listens.wait(START_SECONDS)
        assert self.port, "".join(self.log)
        httpx.get(f"{self.url}/healthz", timeout=START_SECONDS).raise_for_status()


@contextlib.contextmanager
def collecting(
    bootstrap_servers: str, database_url: str, topic: str, settings: Mapping[str, str] | None = None
) -> Iterator[Collector]:
    """Run a collector while the block runs; killed at its end where it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RACKMETER_")} | {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "DATABASE_URL": database_url,
        "RACKMETER_COLLECTOR_PORT": "0",
        **(settings or {}),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.collector_process", topic],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    collector = Collector(process)
    follower = threading.Thread(target=collector.follow, daemon=True)
    follower.start()
    with process:
        try:
            collector.await_start()
            yield collector
        finally:
            process.kill()
            follower.join(5.0)


def new_token(
    database_url: str, scope: Scope = "ingest", *, source_prefix: str | None = None, account_id: str | None = None
) -> NewToken:
    """Make a token as the command does."""
    new = make_token()
    prefix = source_prefix or ("rack-1" if scope == "ingest" else None)
    with closing(connect(database_url, application_name="tests-owner", role=None)) as connection:
        store.add_token(connection, new, scope, source_prefix=prefix, account_id=account_id)
    return new


if __name__ == "__main__":
    raise SystemExit(run_collector(Settings.from_environment(not_needed=NOT_NEEDED), sys.argv[1]))
