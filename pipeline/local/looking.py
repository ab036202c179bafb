"""A run's folder to look at: its database, that of whoever runs there, or started for the time of looking."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.domain.errors import ConfigurationFault
from pipeline.local.folder_lock import held
from pipeline.local.metrics_urls import last_said
from pipeline.local.postgres import PostgresServer

#: How long a process that has just taken the folder may take to bring its database up.
STARTING_SECONDS_MAX = 15.0


def has_database(folder: Path) -> bool:
    """Tell whether a run keeps a database in the folder."""
    return (folder / "database" / "data" / "PG_VERSION").is_file()


@contextlib.contextmanager
def folder_database(folder: Path, say: Callable[[str], None]) -> Iterator[str]:
    """
    Give the URL of a folder's database while the block runs; what was started for it is stopped after it.

    Args:
        folder: Of `rackmeter up` or of a run of the demo.
        say: Told what is looked at.

    Raises:
        ConfigurationFault: There is no database in the folder, or another process holds the folder without one.
        TransientFault: The database does not come up.
    """
    if not has_database(folder):
        raise ConfigurationFault(
            f"{folder} holds no database. `rackmeter demo` and `rackmeter up` say which folder they use.",
            "folder_missing",
        )
    server = PostgresServer(folder / "database")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(folder))
        except ConfigurationFault as fault:
            if fault.code != "folder_in_use":
                raise
            yield _others_database(server, fault)
            return
        stack.callback(server.stop)
        url = server.start()
        say("database: that of the folder, started to be looked at")
        yield url


def _others_database(server: PostgresServer, fault: ConfigurationFault) -> str:
    until = time.monotonic() + STARTING_SECONDS_MAX
    while time.monotonic() < until:
        if url := server.running_url():
            return url
        time.sleep(0.3)
    raise fault


def metrics_urls(folder: Path) -> dict[str, str]:
    """Give where the folder's stages served their metrics when they were last started; they may have ended."""
    return last_said(folder / "logs")
