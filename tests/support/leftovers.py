"""Processes that a run left behind."""

import time
from pathlib import Path


def processes_of(folder: Path) -> list[str]:
    """Name every running process whose command line or environment names the folder."""
    name = str(folder).encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if name in command or name in (process / "environ").read_bytes():
                found.append(f"{process.name}: {command.replace(bytes(1), b' ').decode(errors='replace')[:200]}")
        except OSError:
            # It ended while we looked, or it is a zombie's.
            continue
    return found


def await_none(folder: Path, timeout_seconds: float = 5.0) -> list[str]:
    """Give what still runs after the time; a process that was told to end may need a moment."""
    deadline = time.monotonic() + timeout_seconds
    while (found := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
