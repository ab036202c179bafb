"""One writer a source: a lock the kernel lets go of when its process ends, however it ends."""

import errno
import fcntl
import os
from pathlib import Path

from pipeline.domain.errors import ConfigurationFault


def take_lock(path: Path, source: str) -> int:
    """
    Lock a file for this process.

    Returns:
        The descriptor that holds the lock; closing it lets go.

    Raises:
        ConfigurationFault: Another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise ConfigurationFault(
            f"another process emits as {source} ({path} is locked): one writer a source; stop it, "
            "or give this one a source of its own"
        ) from None
    return descriptor
