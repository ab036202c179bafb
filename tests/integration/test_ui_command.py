"""`rackmeter ui` over a folder: it brings the database up, shows it, and leaves nothing running."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from pipeline.domain.errors import ConfigurationFault
from pipeline.local.folder_lock import held
from pipeline.local.looking import folder_database
from pipeline.local.postgres import PostgresServer
from pipeline.runtime.migrations import migrate
from pipeline.runtime.postgres import connect
from pipeline.runtime.settings import checkout_dir

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a run leaves it: a migrated database that does not run."""
    made = tmp_path_factory.mktemp("run")
    server = PostgresServer(made / "database")
    try:
        with closing(connect(server.start(), application_name="tests", role=None)) as connection:
            migrate(connection)
    finally:
        server.stop()
    return made


@contextmanager
def looking(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the command; give its process and the address it said."""
    given = {
        name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS")
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "ui", "--folder", str(folder)],
        cwd=checkout_dir(),
        env=given | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process:
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("look at "):
                    yield process, line.split()[-1]
                    return
            pytest.fail("".join(said))
        finally:
            process.kill()


def ended(process: "subprocess.Popen[str]", number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    return process.returncode, said


def test_a_folder_is_shown_by_two_at_once_and_left_as_it_was(folder: Path) -> None:
    """The first starts the database, the second uses it; whoever ends, however, ends cleanly."""
    with looking(folder) as (first, url):
        assert "Flow" in httpx.get(url).text
        with looking(folder) as (second, other_url):
            assert other_url != url
            assert httpx.get(other_url + "ledger").status_code == 200
            assert ended(second, signal.SIGINT)[0] == 0
        assert httpx.get(url + "proof").status_code == 200
        code, said = ended(first, signal.SIGTERM)
    assert (code, said.splitlines()[-1]) == (0, "stopped; nothing is left running")
    assert not (folder / "database" / "data" / "postmaster.pid").exists()
    with held(folder):
        assert PostgresServer(folder / "database").running_url() is None


def test_a_folder_without_a_database_is_refused(tmp_path: Path) -> None:
    """A misspelt folder makes no new database."""
    with pytest.raises(ConfigurationFault, match="holds no database"), folder_database(tmp_path / "no", print):
        pass
    assert list(tmp_path.iterdir()) == []
