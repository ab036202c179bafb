"""Our own PostgreSQL starts as whoever we are, keeps what was committed, and leaves nothing running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pipeline.local.postgres import PostgresServer
from pipeline.local.server_process import descendants, is_running

pytestmark = pytest.mark.real

# A parent that starts everything we have, says the process ids, and waits to be killed.
PARENT = """
import sys, time
from pathlib import Path
from pipeline.local.broker import choose_broker
from pipeline.local.postgres import PostgresServer
from pipeline.local.processes import ChildSpec, Supervisor
folder = Path(sys.argv[1])
server = PostgresServer(folder / "postgres")
server.start()
broker = choose_broker(folder / "broker", sys.argv[2]).broker
broker.start()
supervisor = Supervisor(folder, [ChildSpec("sleeper", ("sleep", "600"))])
supervisor.start()
print(server.pid, broker.pid, supervisor.report()[0].pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    made = PostgresServer(tmp_path / "postgres")
    made.start()
    yield made
    made.stop()


def setting(url: str, name: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
        assert row is not None
        return str(row[0])


def test_settings_are_durable_and_closed_to_the_network(server: PostgresServer) -> None:
    """Commits wait for the disk, pages survive a torn write, and no TCP port is open."""
    url = server.database_url()
    found = {
        name: setting(url, name)
        for name in ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses", "TimeZone")
    }
    assert found == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
        "TimeZone": "UTC",
    }
    assert (setting(url, "server_encoding"), setting(url, "lc_messages")) == ("UTF8", "C")


def test_committed_rows_survive_a_kill_and_open_ones_do_not(server: PostgresServer) -> None:
    """kill -9 of the server and all its sessions loses exactly what was not committed."""
    with psycopg.connect(server.database_url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (number integer)")
        connection.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
    opened = psycopg.connect(server.database_url())
    opened.execute("INSERT INTO kept SELECT generate_series(1001, 2000)")
    assert server.pid is not None
    family = [server.pid, *descendants(server.pid)]
    server.kill()
    opened.close()
    assert not [pid for pid in family if is_running(pid)]
    with psycopg.connect(server.start()) as connection:
        assert connection.execute("SELECT count(*), max(number) FROM kept").fetchone() == (1000, 1000)


def test_a_restart_keeps_rows_and_ends_open_sessions(server: PostgresServer) -> None:
    """A clean stop does not wait for sessions, and loses nothing."""
    opened = psycopg.connect(server.database_url(), autocommit=True)
    opened.execute("CREATE TABLE kept (number integer)")
    url = server.restart()
    with pytest.raises(psycopg.OperationalError):
        opened.execute("SELECT 1")
    opened.close()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_long_folder_name_is_fine(tmp_path: Path) -> None:
    """The kernel's limit on socket paths does not limit where a checkout may lie."""
    server = PostgresServer(tmp_path / ("long" * 30))
    try:
        with psycopg.connect(server.start()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.stop()


@pytest.mark.parametrize("wanted", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_running_when_the_parent_dies(tmp_path: Path, wanted: signal.Signals) -> None:
    """Database, broker and supervised children end with their parent, even when it is killed with -9."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), os.environ.get("RACKMETER_BROKER", "")],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3
        family = [*pids, *(below for pid in pids for below in descendants(pid))]
        assert all(is_running(pid) for pid in pids)
        parent.send_signal(wanted)
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in family if is_running(pid)]


def test_a_fresh_database_has_the_whole_schema(database_url: str) -> None:
    """Tests get a migrated database of their own."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM installation").fetchone()
    assert row == (1,)
