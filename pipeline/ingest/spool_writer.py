"""The spool's newest segment, open for appending: a record is on it whole or not at all."""

import errno
import os
from pathlib import Path

from pipeline.ingest.spool_segment import HEADER_BYTES, header, sync_folder


class SegmentWriter:
    """
    Appends to one segment.

    `size` is the bytes that were written whole, `synced_size` those of them that are durable.

    Args:
        path: An existing segment, cut to whole records.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        self.path = path
        self.size = self.synced_size = os.fstat(self._descriptor).st_size

    @classmethod
    def create(cls, path: Path, epoch: str) -> "SegmentWriter":
        """Begin a segment; OSError, and no file, where the disk does not take it."""
        path.touch(mode=0o600)
        try:
            made = cls(path)
        except OSError:
            path.unlink()
            raise
        try:
            made.append(header(epoch))
            sync_folder(path.parent)
        except OSError:
            made.close()
            path.unlink()
            raise
        # No record is durable yet; the header becomes so with the first one.
        made.synced_size = HEADER_BYTES
        return made

    def append(self, data: bytes) -> None:
        """Write at the end; OSError, and nothing written, where the disk does not take it."""
        try:
            if os.write(self._descriptor, data) < len(data):
                raise OSError(errno.ENOSPC, "only a part was written")
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Make durable what was written; OSError, and everything since the last time cut off, where that fails."""
        try:
            os.fsync(self._descriptor)
        except OSError:
            # After a failed fsync nobody knows which pages are on disk, so none of them counts as kept.
            os.ftruncate(self._descriptor, self.synced_size)
            self.size = self.synced_size
            raise
        self.synced_size = self.size

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)
