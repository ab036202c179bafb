"""A log in memory, read as the broker is read: for tests of what stages do with messages."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

#: confluent_kafka.TIMESTAMP_LOG_APPEND_TIME
LOG_APPEND_TIME = 2
DAY_MS = 86_400_000


class Stage(Protocol):
    """A stage that is assigned partitions and given its reader."""

    def assign(self, partitions: Sequence[int]) -> Mapping[int, int]: ...

    def attach(self, reader: Any) -> None: ...


class LogMessage:
    """A message of the log in memory."""

    def __init__(self, partition: int, offset: int, at_ms: int, key: bytes | None, value: bytes | None) -> None:
        self._facts = (partition, offset, at_ms, key, value)

    def partition(self) -> int:
        return self._facts[0]

    def offset(self) -> int:
        return self._facts[1]

    def timestamp(self) -> tuple[int, int]:
        return (LOG_APPEND_TIME, self._facts[2])

    def key(self) -> bytes | None:
        return self._facts[3]

    def value(self) -> bytes | None:
        return self._facts[4]


class LogInMemory:
    """A log of several partitions that outlives its readers."""

    def __init__(self) -> None:
        self.partitions: dict[int, list[LogMessage]] = {}

    def append(self, partition: int, value: bytes | None, *, key: bytes | None = b"s", at_ms: int = DAY_MS) -> None:
        messages = self.partitions.setdefault(partition, [])
        messages.append(LogMessage(partition, len(messages), at_ms, key, value))

    def values(self, partition: int) -> list[bytes | None]:
        return [message.value() for message in self.partitions.get(partition, [])]


class Reader:
    """One consumer: starts where its worker says."""

    def __init__(self, log: LogInMemory, owner: Stage, partitions: Sequence[int], batch: int = 7) -> None:
        self._log = log
        self._batch = batch
        self._next = dict(owner.assign(partitions))
        owner.attach(self)

    def poll_batch(self, messages_max: int, timeout_seconds: float) -> list[LogMessage]:
        found: list[LogMessage] = []
        for partition, offset in self._next.items():
            taken = self._log.partitions.get(partition, [])[offset : offset + self._batch]
            self._next[partition] = offset + len(taken)
            found.extend(taken)
        return found

    def commit_hint(self, offsets_next: Mapping[int, int]) -> None:
        pass

    def close(self) -> None:
        pass
