"""The sender: durable before it says so, a fault is told to those it concerns, and it ends in order."""

import threading
from collections.abc import Iterator

import pytest

from pipeline.domain.errors import TransientFault
from pipeline.runtime.metrics import Health
from pipeline.web.sender import Sender


class Log:
    """What producers made; `down` refuses flushes, `hold` keeps one waiting."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.durable: list[bytes] = []
        self.producers = 0
        self.is_down = False
        self.is_broken = False
        self.may_flush = threading.Event()
        self.may_flush.set()
        self.is_flushing = threading.Event()

    def producer(self) -> "LogProducerInMemory":
        self.producers += 1
        return LogProducerInMemory(self)


class LogProducerInMemory:
    """A producer: of no more use after its first fault."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._pending: list[bytes] = []

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        if self._log.is_broken:
            raise ZeroDivisionError
        self._log.sent.append(value)
        self._pending.append(value)

    def flush(self, timeout_seconds: float = 30.0) -> None:
        self._log.is_flushing.set()
        self._log.may_flush.wait(5.0)
        if self._log.is_down:
            raise TransientFault("not acknowledged")
        self._log.durable += self._pending
        self._pending = []

    def close(self) -> None:
        self._pending = []


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def health() -> Health:
    return Health("collector")


@pytest.fixture
def sender(log: Log, health: Health) -> Iterator[Sender]:
    sender = Sender(log.producer, "events", ack_seconds=5.0, health=health)
    sender.start()
    yield sender
    sender.close()


def test_done_means_durable(log: Log, sender: Sender) -> None:
    """The future is done after the flush, not before."""
    log.may_flush.clear()
    done = sender.publish([(b"k", b"1"), (b"k", b"2")])
    assert log.is_flushing.wait(5.0)
    assert not done.done()
    log.may_flush.set()
    done.result(5.0)
    assert log.durable == [b"1", b"2"]


def test_those_who_wait_share_a_flush(log: Log, sender: Sender) -> None:
    """What comes while one flush is under way goes together with the next."""
    log.may_flush.clear()
    first = sender.publish([(b"k", b"1")])
    assert log.is_flushing.wait(5.0)
    later = [sender.publish([(b"k", b"%d" % number)]) for number in range(2, 6)]
    assert log.sent == [b"1"]
    log.may_flush.set()
    for done in (first, *later):
        done.result(5.0)
    assert log.durable == [b"1", b"2", b"3", b"4", b"5"]


def test_a_fault_is_told_and_survived(log: Log, sender: Sender) -> None:
    """A new producer is made for those that come later."""
    log.is_down = True
    with pytest.raises(TransientFault):
        sender.publish([(b"k", b"1")]).result(5.0)
    log.is_down = False
    sender.publish([(b"k", b"2")]).result(5.0)
    assert log.durable == [b"2"]
    assert log.producers == 2


def test_who_gave_up_before_their_turn_is_not_sent(log: Log, sender: Sender) -> None:
    """The sender of it was told 503 and comes again."""
    log.may_flush.clear()
    first = sender.publish([(b"k", b"1")])
    assert log.is_flushing.wait(5.0)
    assert sender.publish([(b"k", b"2")]).cancel()
    log.may_flush.set()
    first.result(5.0)
    sender.close()
    assert log.sent == [b"1"]


def test_what_was_published_is_sent_before_it_ends(log: Log, sender: Sender) -> None:
    """Closing waits for the flush."""
    pending = [sender.publish([(b"k", b"%d" % number)]) for number in range(5)]
    sender.close()
    assert all(done.done() for done in pending)
    assert len(log.durable) == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_ours_leaves_nobody_waiting(log: Log, sender: Sender, health: Health) -> None:
    """Whoever waits is told, health says so, and nothing more is taken."""
    log.is_broken = True
    with pytest.raises(TransientFault):
        sender.publish([(b"k", b"1")]).result(5.0)
    with pytest.raises(TransientFault):
        sender.publish([(b"k", b"2")]).result(5.0)
    assert sender.has_failed
    assert "sender ended" in (health.problem() or "")
