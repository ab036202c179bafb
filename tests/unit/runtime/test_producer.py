"""The producer without a broker: it can be made and given up, leaving nothing behind."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.domain.errors import TransientFault
from pipeline.runtime.producer import LogProducer

TASKS = Path("/proc/self/task")


@pytest.fixture
def without_cycle_search() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.skipif(not TASKS.exists(), reason="threads are counted in /proc")
def test_a_closed_producer_leaves_no_threads(without_cycle_search: None) -> None:
    """Whoever replaces a producer at each fault of a long outage does not gather clients that look for a broker."""
    before = len(list(TASKS.iterdir()))
    for _ in range(3):
        producer = LogProducer("127.0.0.1:1")
        producer.send("usage.events", b"key", b"value")
        producer.close()
        producer.close()
    assert len(list(TASKS.iterdir())) <= before + threading.active_count() - 1


def test_what_no_broker_took_is_a_fault() -> None:
    """A flush that comes back without every acknowledgement says so."""
    with LogProducer("127.0.0.1:1") as producer:
        producer.send("usage.events", b"key", b"value")
        with pytest.raises(TransientFault, match="not acknowledged"):
            producer.flush(0.1)
