"""One process a folder: a lock that the kernel gives back however its holder ends."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.domain.errors import ConfigurationFault

LOCK_FILE = "rackmeter.lock"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """
    Hold the folder while the block runs; its lock file names the process.

    Raises:
        ConfigurationFault: Another process holds it, or removed it meanwhile.
    """
    path = folder / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError as error:
        raise ConfigurationFault(f"{folder} is not there", "folder_missing") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "that just started"
            raise ConfigurationFault(
                f"process {holder} uses this folder; stop it or take another --folder ({folder})", "folder_in_use"
            ) from error
        if not _is_file_at(descriptor, path):
            raise ConfigurationFault(f"{folder} was removed meanwhile", "folder_missing")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # The file stays: removed, two processes could hold locks on two files of one name.
        os.close(descriptor)


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)
