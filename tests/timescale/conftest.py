"""A TimescaleDB of the test run's own: WebAssembly under Node, one connection at a time."""

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from pipeline.runtime.migrations import migrate
from pipeline.runtime.postgres import APPLICATION_ROLE, Connection, connect
from pipeline.runtime.timescale import convert
from tests.tidy.source import ROOT

MODULES = ROOT / ".rackmeter" / "timescale"


@pytest.fixture
def timescale_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """
    An empty database; the extension is on the server and not created.

    A server each: all connections are one session to it, and the extension is loaded once a session.
    """
    if not (MODULES / "installed").is_file():
        pytest.fail("there is no TimescaleDB for the tests: run `make test-timescale`, which brings it", pytrace=False)
    folder = tmp_path_factory.mktemp("timescale")
    command = ["node", str(MODULES / "serve.mjs"), str(folder / ".s.PGSQL.5432")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            said = server.stdout.readline() if server.stdout else ""
            if said.strip() != "ready":
                pytest.fail(f"TimescaleDB under Node did not start: it said {said!r}", pytrace=False)
            yield f"postgresql://postgres:postgres@/postgres?host={folder}&sslmode=disable&gssencmode=disable"
        finally:
            server.terminate()


@pytest.fixture
def plain(timescale_url: str) -> Iterator[Connection]:
    """The one connection to it, with the owner's rights."""
    with contextlib.closing(connect(timescale_url, application_name="tests", role=None)) as connection:
        yield connection


@pytest.fixture
def timescale(plain: Connection) -> Connection:
    """The same with the schema, as hypertables; acts as the stages do."""
    migrate(plain)
    plain.execute("CREATE EXTENSION timescaledb")
    convert(plain)
    plain.execute(f"SET ROLE {APPLICATION_ROLE}".encode())
    return plain
