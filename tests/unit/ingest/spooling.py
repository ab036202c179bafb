"""A spooled emitter on a disk that can be full and under a broker that can be away, for tests."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec

from pipeline.contracts.usage_event import UsageEvent, decode_event, split_message
from pipeline.domain.errors import RejectedRecord, TransientFault
from pipeline.domain.identity import IntervalSet
from pipeline.ingest.delivery import Delivery
from pipeline.ingest.emitter import UsageEmitter
from pipeline.ingest.emitter_state import EmitterState, StateFile
from pipeline.ingest.spool import Spool, SpoolLimits
from pipeline.ingest.spool_cursor import store_cursor

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SOURCE = "urn:rackmeter:agent:web-01"
LIMITS = SpoolLimits(bytes_max=8192, keep_acknowledged_seconds=0, segment_bytes=1024)


@dataclass
class Log:
    """The log as the broker has it; down, or losing acknowledgements, when told."""

    events: list[UsageEvent] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    is_down: bool = False
    loses_acknowledgements: bool = False
    waiting: list[bytes] = field(default_factory=list)

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        assert (topic, key) == ("usage.events", SOURCE.encode())
        self.waiting.append(value)

    def flush(self, timeout_seconds: float) -> None:
        if self.is_down:
            raise TransientFault("the broker does not answer")
        for message in self.waiting:
            events = split_message(message)
            assert not isinstance(events, RejectedRecord)
            for raw in events:
                event = decode_event(raw)
                assert isinstance(event, UsageEvent)
                self.events.append(event)
                self.raw.append(raw)
        self.waiting.clear()
        if self.loses_acknowledgements:
            raise TransientFault("the acknowledgement was lost")

    def close(self) -> None:
        self.waiting.clear()

    @property
    def numbers(self) -> list[int]:
        """Of first arrivals, in order."""
        found = dict.fromkeys(event.sequence.number for event in self.events if event.sequence is not None)
        return list(found)

    @property
    def dropped(self) -> list[tuple[int, int]]:
        """What was declared, in order, each once."""
        found: dict[tuple[int, int], None] = {}
        for event in self.events:
            if event.type == "rackmeter.control.dropped.v1":
                data: dict[str, int] = msgspec.json.decode(event.data)
                found[data["first"], data["last"]] = None
        return list(found)

    def settled(self) -> IntervalSet:
        """Numbers that arrived or were declared as dropped."""
        numbers = IntervalSet.from_pairs((number, number + 1) for number in self.numbers)
        for first, last in self.dropped:
            numbers.add_range(first, last + 1)
        return numbers


@dataclass
class Host:
    """A machine with one spooled emitter, which can be killed, lose its power and be started again."""

    folder: Path
    log: Log = field(default_factory=Log)
    limits: SpoolLimits = LIMITS
    block_size: int = 10
    spool: Spool | None = None
    emitter: UsageEmitter | None = None
    is_disk_full: bool = False

    def start(self) -> tuple[Spool, UsageEmitter]:
        if self.spool is None or self.emitter is None:
            self.spool = Spool(self.folder / "spool", SOURCE, self.limits)
            try:
                self.emitter = UsageEmitter(
                    SOURCE, self.folder, "m1", self.spool, block_size=self.block_size, clock=lambda: NOW
                )
            except BaseException:
                self.kill()
                raise
        return self.spool, self.emitter

    def emit(self, count: int = 1) -> list[str]:
        _, emitter = self.start()
        return [emitter.emit("web-01", "rackmeter.host.counters.v1", NOW, {"cpu_seconds": "1.5"}) for _ in range(count)]

    def flush(self) -> None:
        self.start()[1].flush()

    def deliver(self) -> None:
        """Everything that waits, as far as the broker takes it."""
        delivery = Delivery(self.start()[0], SOURCE, "usage.events", lambda _note: self.log)
        while delivery.step():
            pass

    def kill(self) -> None:
        """The process dies: its files stay as they are, its locks do not."""
        if self.spool is not None:
            self.spool.close()
        if self.emitter is not None:
            self.emitter._file.release()
        self.spool = self.emitter = None
        self.log.waiting.clear()

    def lose_power(self) -> None:
        """What was not synced is gone."""
        if self.spool is not None and self.spool._writer is not None:
            writer = self.spool._writer
            os.truncate(writer.path, writer.synced_size)
        self.kill()

    def stop(self) -> None:
        if self.emitter is not None:
            self.emitter.close()
        self.kill()

    @contextmanager
    def disk(self) -> Iterator[None]:
        """While this lasts the disk takes nothing as long as `is_disk_full`."""
        write, store = os.write, StateFile._store

        def check() -> None:
            if self.is_disk_full:
                raise OSError(errno.ENOSPC, "No space left on device")

        def full_write(descriptor: int, data: bytes) -> int:
            if self.is_disk_full:
                write(descriptor, data[: len(data) // 2])
            check()
            return write(descriptor, data)

        def full_store(file: StateFile, state: EmitterState) -> EmitterState:
            check()
            return store(file, state)

        def full_cursor(*arguments: Any) -> None:
            check()
            store_cursor(*arguments)

        with (
            patch.object(os, "write", full_write),
            patch.object(StateFile, "_store", full_store),
            patch("pipeline.ingest.spool.store_cursor", full_cursor),
        ):
            yield
