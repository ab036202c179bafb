"""Delivery: from a spool to the log, whatever the broker does, and what it tells about the clock."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.contracts.usage_event import split_message
from pipeline.domain.errors import RejectedRecord, TransientFault
from pipeline.ingest.delivery import MESSAGE_BYTES_MAX, Delivery, certain_skew_ms, messages
from pipeline.ingest.spool_report import acknowledged_since, inspect_spool
from pipeline.ingest.spool_segment import Record
from tests.unit.ingest.spooling import SOURCE, Host, Log


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.kill()


def test_events_are_gathered_in_order_up_to_what_a_message_takes() -> None:
    """A hundred events or half a message's bytes at most; nothing is left out or moved."""
    records = [Record(number, 0, b'{"n":%d}' % number, 0) for number in range(250)]
    found: list[bytes] = []
    for message in messages(records):
        events = split_message(message)
        assert not isinstance(events, RejectedRecord)
        found += events
    assert found == [record.event for record in records]
    assert len(list(messages(records))) == 3
    large = [Record(number, 0, b'"%s"' % (b"x" * 250_000), 0) for number in range(5)]
    assert all(len(message) <= MESSAGE_BYTES_MAX + 300_000 for message in messages(large))
    assert list(messages(records[:1])) == [records[0].event]


def test_a_faulty_producer_is_replaced(host: Host) -> None:
    """After a fault the producer is closed and another one made; state says why, until it goes well again."""
    host.emit(3)
    host.flush()
    made: list[Log] = []

    def make(note: Callable[[int], None]) -> Log:
        made.append(Log(is_down=not made))
        return made[-1]

    delivery = Delivery(host.start()[0], SOURCE, "usage.events", make)
    with pytest.raises(TransientFault):
        delivery.step()
    failed = delivery.state
    assert delivery.step()
    well = delivery.state
    assert (failed.fault, failed.acknowledged_us) == ("the broker does not answer", None)
    assert (well.fault, well.fault_count) == (None, 1)
    assert well.acknowledged_us is not None
    assert made[1].numbers == [1, 2, 3]


def test_what_waits_at_the_stop_is_delivered(host: Host) -> None:
    """Told to stop, a delivery whose broker answers empties the spool first."""
    host.emit(3)
    host.flush()
    stop = threading.Event()
    stop.set()
    Delivery(host.start()[0], SOURCE, "usage.events", lambda _note: host.log).run(stop)
    assert host.log.numbers == [1, 2, 3]


@pytest.mark.parametrize(
    ("log_ms", "skew_ms"), [(999, 1), (1000, 0), (1500, 0), (2000, 0), (2001, -1), (500, 500), (9000, -7000)]
)
def test_a_clocks_skew_is_what_is_certain(log_ms: int, skew_ms: int) -> None:
    """A stamp between sending and acknowledgement says nothing; outside, the clocks differ by that much at least."""
    assert certain_skew_ms(1_000_000, 2_000_000, log_ms) == skew_ms


def test_the_skew_is_told(host: Host) -> None:
    """The log's own time of the last message is compared with the clock."""
    host.emit()
    host.flush()

    def make(note: Callable[[int], None]) -> Log:
        note(5_000)
        return host.log

    delivery = Delivery(host.start()[0], SOURCE, "usage.events", make, now_us=lambda: 9_000_000)
    delivery.step()
    assert delivery.state.skew_ms == 4000


def test_a_report_counts_what_waits_and_names_holes(host: Host) -> None:
    """From outside one sees what waits, what was acknowledged and which numbers are lost, while the agent runs."""
    host.emit(4)
    host.flush()
    host.deliver()
    host.kill()
    host.emit(2)
    host.flush()
    report = inspect_spool(host.folder / "spool")
    assert (report.acknowledged_number, report.last_number, report.waiting_events) == (4, 13, 3)
    assert report.holes == ((5, 10),)
    assert 0 < report.waiting_bytes < report.kept_bytes
    assert report.oldest_waiting_us is not None
    host.deliver()
    assert inspect_spool(host.folder / "spool").waiting_events == 0


def test_what_was_acknowledged_can_be_sent_again(tmp_path: Path) -> None:
    """A broker that lost what it had gets it again: everything acknowledged since then, and nothing that waits."""
    host = Host(tmp_path)
    host.limits = host.limits.__class__(8192, 3600, 1024)
    host.emit(12)
    host.flush()
    host.deliver()
    host.emit(2)
    host.flush()
    folder = tmp_path / "spool"
    numbers = [record.number for records in acknowledged_since(folder, 0) for record in records]
    assert numbers == list(range(1, 13))
    later = int(datetime.now(UTC).timestamp() + 60) * 1_000_000
    assert [record.number for records in acknowledged_since(folder, later) for record in records] == numbers[8:]
    host.kill()
