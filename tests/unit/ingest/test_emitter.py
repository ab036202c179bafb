"""The emitter: a number is used once, whatever crashes, and a hole is declared."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.contracts.usage_event import UsageEvent, decode_event
from pipeline.domain.errors import ConfigurationFault, TransientFault
from pipeline.domain.identity import IntervalSet
from pipeline.ingest.emitter import UsageEmitter
from pipeline.ingest.machine import machine_id
from pipeline.ingest.outlet import DirectOutlet

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SOURCE = "urn:rackmeter:host:web-01"


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Log:
    """The log as the broker has it: what was flushed. Crashes or fails when told."""

    events: list[UsageEvent] = field(default_factory=list)
    waiting: list[bytes] = field(default_factory=list)
    is_down: bool = False

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        assert (topic, key) == ("usage.events", SOURCE.encode())
        self.waiting.append(value)

    def flush(self, timeout_seconds: float) -> None:
        if self.is_down:
            raise TransientFault("the broker does not answer")
        self.deliver(len(self.waiting))

    def deliver(self, count: int) -> None:
        for raw in self.waiting[:count]:
            event = decode_event(raw)
            assert isinstance(event, UsageEvent)
            self.events.append(event)
        del self.waiting[:count]

    @property
    def numbers(self) -> list[int]:
        return [event.sequence.number for event in self.events if event.sequence is not None]

    def settled(self) -> IntervalSet:
        """Numbers that arrived or were declared as dropped."""
        numbers = IntervalSet.from_pairs((number, number + 1) for number in self.numbers)
        for event in self.events:
            if event.type == "rackmeter.control.dropped.v1":
                data: dict[str, int] = msgspec.json.decode(event.data)
                numbers.add_range(data["first"], data["last"] + 1)
        return numbers


def open_emitter(state_dir: Path, log: Log, **changes: Any) -> UsageEmitter:
    options: dict[str, Any] = {"source": SOURCE, "machine_id": "m1", "block_size": 5, "clock": lambda: NOW, **changes}
    outlet = DirectOutlet(log, "usage.events", options["source"])
    return UsageEmitter(state_dir=state_dir, outlet=outlet, **options)


def emit(emitter: UsageEmitter) -> str:
    return emitter.emit("web-01", "rackmeter.host.sample.v1", NOW, {"cpu_cores": 4})


def die(emitter: UsageEmitter, log: Log) -> None:
    """What a killed process leaves: the state file as it is, no lock, nothing of the client's buffer."""
    emitter._file.release()
    log.waiting.clear()


def test_numbers_go_on_after_a_clean_close(tmp_path: Path) -> None:
    """Ids of one epoch rise by one from 1 on, over blocks and over restarts, without a hole."""
    log = Log()
    for _ in range(3):
        with open_emitter(tmp_path, log) as emitter:
            for _ in range(7):
                emit(emitter)
    assert log.numbers == list(range(1, 22))
    assert len({event.sequence.epoch for event in log.events if event.sequence}) == 1


def test_hole_of_a_crash_is_declared_by_the_next_start(tmp_path: Path) -> None:
    """After a crash the rest of the block is dropped by a numbered event, and nothing is missing without a word."""
    log = Log()
    emitter = open_emitter(tmp_path, log)
    for _ in range(7):
        emit(emitter)
    log.deliver(1)
    die(emitter, log)
    with open_emitter(tmp_path, log) as emitter:
        emit(emitter)
    dropped = [event for event in log.events if event.type == "rackmeter.control.dropped.v1"]
    assert [msgspec.json.decode(event.data) for event in dropped] == [{"first": 6, "last": 10}]
    assert log.numbers == [1, 2, 3, 4, 5, 6, 11, 12]
    assert log.settled().covers(1, 12)


@dataclass
class Disk:
    """Renames files, and crashes just before or just after when told."""

    crash_at: str | None = None
    rename: Callable[[Path, Path], Path] = Path.replace

    def replace(self, path: Path, target: Path) -> Path:
        crash_at, self.crash_at = self.crash_at, None
        if crash_at == "crash_store":
            raise Crash
        moved = self.rename(path, target)
        if crash_at == "crash_stored":
            raise Crash
        return moved


#: Mostly emitting, so that blocks are used up between the faults.
STEPS = ["emit"] * 8 + ["deliver", "flush", "close", "kill", "kill", "crash_store", "crash_stored", "down", "up", "up"]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=40, max_size=80))
def test_no_number_is_used_twice_whatever_crashes(tmp_path_factory: pytest.TempPathFactory, actions: list[str]) -> None:
    """A crash between any two steps never lets a number be used again, and every hole ends up declared."""
    folder, log = tmp_path_factory.mktemp("state"), Log()
    emitter: UsageEmitter | None = None
    used: list[str] = []
    disk = Disk()
    with patch.object(Path, "replace", lambda path, target: disk.replace(path, target)):
        for action in [*actions, "up", "kill", "emit", "close", "emit", "close"]:
            try:
                if action in ("crash_store", "crash_stored"):
                    disk.crash_at = action
                elif action in ("down", "up"):
                    log.is_down = action == "down"
                elif action == "deliver":
                    log.deliver(1)
                elif action == "kill":
                    disk.crash_at = None
                    if emitter is not None:
                        die(emitter, log)
                    emitter = None
                elif action == "emit":
                    emitter = emitter or open_emitter(folder, log)
                    used.append(emit(emitter))
                elif action == "flush" and emitter is not None:
                    emitter.flush()
                elif action == "close" and emitter is not None:
                    closing, emitter = emitter, None
                    closing.close()
            except TransientFault:
                log.waiting.clear()
            except Crash:
                if emitter is not None:
                    die(emitter, log)
                log.waiting.clear()
                emitter = None
    assert len(used) == len(set(used))
    assert len(log.numbers) == len(set(log.numbers))
    assert log.settled().covers(1, max(log.numbers, default=0))


def test_undelivered_event_stops_the_emitter(tmp_path: Path) -> None:
    """After a failed flush nothing more is taken: a hole must be declared before the source goes on."""
    log = Log(is_down=True)
    emitter = UsageEmitter(SOURCE, tmp_path, "m1", DirectOutlet(log, "usage.events", SOURCE))
    emitter._number_next = emitter._file.reserve(5).block_first
    emit(emitter)
    with pytest.raises(TransientFault):
        emitter.flush()
    log.is_down = False
    with pytest.raises(TransientFault, match="not delivered"):
        emit(emitter)
    emitter.close()
    log.waiting.clear()
    with open_emitter(tmp_path, log) as emitter:
        emit(emitter)
    assert log.settled().covers(1, 7)


def test_second_writer_of_a_source_is_refused(tmp_path: Path) -> None:
    """While one process emits a source, another one cannot; of other sources it can."""
    with open_emitter(tmp_path, Log()):
        with pytest.raises(ConfigurationFault, match="one writer"):
            open_emitter(tmp_path, Log())
        open_emitter(tmp_path, Log(), source="urn:other").close()
    open_emitter(tmp_path, Log()).close()


def test_state_of_another_machine_is_refused(tmp_path: Path) -> None:
    """A cloned server does not send under the epoch of its twin."""
    open_emitter(tmp_path, Log()).close()
    with pytest.raises(ConfigurationFault, match="machine id m1, not m2"):
        open_emitter(tmp_path, Log(), machine_id="m2")
    open_emitter(tmp_path, Log()).close()


def test_broken_state_is_refused(tmp_path: Path) -> None:
    """A state file that cannot be read stops the start instead of beginning at 1 again."""
    open_emitter(tmp_path, Log()).close()
    next(tmp_path.glob("*.json")).write_text("{", encoding="utf-8")
    with pytest.raises(ConfigurationFault, match="no emitter state"):
        open_emitter(tmp_path, Log())


def test_refused_value_spends_no_number(tmp_path: Path) -> None:
    """An event that cannot be encoded leaves no hole."""
    log = Log()
    with open_emitter(tmp_path, log) as emitter:
        with pytest.raises(TypeError):
            emitter.emit("web-01", "t", NOW, {"cpu_cores": 0.5})  # type: ignore[dict-item]
        with pytest.raises(ValueError, match="no zone"):
            emitter.emit("web-01", "t", datetime(2026, 6, 1), {})  # noqa: DTZ001
        emit(emitter)
    assert log.numbers == [1]


def test_control_events_are_numbered(tmp_path: Path) -> None:
    """Heartbeat, completeness and retirement are events with numbers of their own."""
    log = Log()
    with open_emitter(tmp_path, log) as emitter:
        emitter.heartbeat()
        emitter.complete_until(datetime(2026, 7, 1, tzinfo=UTC))
        emitter.retired()
    assert log.numbers == [1, 2, 3]
    assert [event.type for event in log.events] == [
        "rackmeter.control.heartbeat.v1",
        "rackmeter.control.complete_until.v1",
        "rackmeter.control.retired.v1",
    ]
    assert bytes(log.events[1].data) == b'{"until":"2026-07-01T00:00:00Z"}'


def test_state_is_on_disk_before_a_number_is_used(tmp_path: Path) -> None:
    """The block is synced before its first number is handed to the producer."""
    order: list[str] = []
    log = Log()
    with open_emitter(tmp_path, log) as emitter:
        real_fsync = os.fsync

        def fsync(descriptor: int) -> None:
            order.append("fsync")
            real_fsync(descriptor)

        with (
            patch.object(os, "fsync", fsync),
            patch.object(log, "send", lambda *_: order.append("send")),
        ):
            emit(emitter)
    assert order == ["fsync", "fsync", "send"]


def test_machine_id_is_read_or_refused(tmp_path: Path) -> None:
    """The machine's id is the file's text; an empty or missing file says what to do."""
    path = tmp_path / "machine-id"
    with pytest.raises(ConfigurationFault, match="systemd-machine-id-setup"):
        machine_id(path)
    path.write_text("\n")
    with pytest.raises(ConfigurationFault, match="is empty"):
        machine_id(path)
    path.write_text("0123456789abcdef\n")
    assert machine_id(path) == "0123456789abcdef"
