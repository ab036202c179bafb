"""A beat: exact events, in order, then `complete_until`; a disk that is full costs a declared hole."""

import errno
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest

from pipeline.agent.beat import Agent
from pipeline.agent.samples import samples
from pipeline.agent.totals import Totals, load_totals
from pipeline.contracts.usage_event import reading_decoder
from pipeline.domain.errors import TransientFault
from tests.unit.agent.machine import CONTAINER, Machine
from tests.unit.ingest.spooling import NOW, Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    with made.disk():
        yield made
    made.kill()


def agent_on(host: Host, machine: Machine, times: list[datetime] | None = None) -> Agent:
    path = host.folder / "totals.json"
    clock = iter(times or [NOW + timedelta(seconds=10 * beat) for beat in range(100)])
    return Agent("web-01", host.start()[1], machine, load_totals(path, "b1"), path, lambda: next(clock))


def test_a_beat_is_samples_and_then_completeness(host: Host) -> None:
    """Host, groups and containers come at one instant, and the source is complete up to it under the next number."""
    agent_on(host, Machine()).beat()
    host.deliver()
    assert [(event.type, event.subject) for event in host.log.events] == [
        ("rackmeter.host.counters.v1", "web-01"),
        ("rackmeter.group.counters.v1", "web-01/php"),
        ("rackmeter.container.counters.v1", "web-01/4d1a7c90b2ef"),
        ("rackmeter.control.complete_until.v1", None),
    ]
    assert bytes(host.log.events[-1].data) == b'{"until":"2026-06-01T12:00:00Z"}'
    assert len({event.occurred_us for event in host.log.events[:3]}) == 1


def test_the_values_are_exact_and_meters_can_read_them(host: Host) -> None:
    """Seconds keep their microseconds, bytes are whole, and every value is one the decoder of meters takes."""
    agent_on(host, Machine()).beat()
    host.deliver()
    first, group, container, _ = host.log.events
    assert msgspec.json.decode(first.data) == {
        "cpu_seconds": "2.52",
        "cpu_cores": 4,
        "memory_total_bytes": 8000,
        "memory_used_bytes": 5000,
        "net_rx_bytes": 100,
        "net_tx_bytes": 200,
        "disk_read_bytes": 300,
        "disk_write_bytes": 400,
        "boot_id": "b1",
    }
    assert reading_decoder(("cpu_seconds", "net_tx_bytes"))(first.data) == (2_520_000_000, 200_000_000_000)
    assert reading_decoder(("cpu_seconds", "process_count"))(group.data) == (10_000_000, 1_000_000_000)
    assert reading_decoder(("cpu_seconds",))(container.data) == (120_004_511_000,)


def test_the_broker_away_blocks_no_beat(host: Host) -> None:
    """Beats go on while nothing is delivered, and all of them arrive, each once."""
    agent = agent_on(host, Machine())
    host.log.is_down = True
    for _ in range(3):
        assert agent.beat()
    with pytest.raises(TransientFault):
        host.deliver()
    host.log.is_down = False
    host.deliver()
    assert host.log.numbers == list(range(1, 13))


def test_a_full_disk_costs_beats_and_no_usage(host: Host) -> None:
    """Beats on a full disk are counted as lost; the counters of the next one make up for them."""
    agent = agent_on(host, Machine())
    agent.beat()
    host.deliver()
    host.is_disk_full = True
    assert not agent.beat()
    assert (agent.state.count, agent.state.failed_count) == (2, 1)
    assert agent.state.fault is not None
    host.is_disk_full = False
    assert agent.beat()
    host.deliver()
    cpu = [msgspec.json.decode(event.data)["cpu_seconds"] for event in host.log.events if event.subject == "web-01"]
    assert cpu == ["2.52", "4.52"]
    assert host.log.settled().covers(1, host.log.numbers[-1])


def test_a_silent_kernel_is_told(host: Host) -> None:
    """What cannot be read is an error of the beat, not the end of the agent."""
    assert not agent_on(host, Machine(is_silent=True)).beat()


def test_a_killed_agent_never_lets_a_counter_fall(host: Host) -> None:
    """Killed after any beat, the next process goes on above what was sent."""
    machine = Machine()
    for _ in range(3):
        agent = agent_on(host, machine)
        agent.beat()
        host.kill()
    host.deliver()
    cpu = [msgspec.json.decode(event.data)["cpu_seconds"] for event in host.log.events if event.subject == "web-01"]
    assert cpu == ["2.52", "3.52", "4.52"]


def test_totals_are_stored_before_their_values_are_spooled(host: Host) -> None:
    """A beat whose totals cannot be stored sends nothing: after a kill they would fall."""
    agent = agent_on(host, Machine())
    (host.folder / "totals.new").mkdir()
    assert not agent.beat()
    host.flush()
    host.deliver()
    assert host.log.events == []


def test_a_full_disk_is_given_what_the_spool_can_spare(host: Host) -> None:
    """Where the spool can make room the beat is made after all; where it cannot, it is lost."""
    room = [True, False]
    path = host.folder / "totals.json"
    agent = Agent("web-01", host.start()[1], Machine(), Totals("b1"), path, lambda: NOW, lambda: room.pop(0))
    store, calls = Totals.store, iter([True, False, True])

    def full(totals: Totals, path: Path) -> None:
        if next(calls):
            raise OSError(errno.ENOSPC, "No space left on device")
        store(totals, path)

    with patch.object(Totals, "store", full):
        assert agent.beat()
        assert not agent.beat()
    assert room == []


def test_totals_of_a_container_go_with_it() -> None:
    """A container that is gone is forgotten; with the same id and a new cgroup it counts from nothing."""
    machine, totals = Machine(), Totals("b1")
    samples("web-01", machine.read(), totals, 1)
    samples("web-01", replace(machine.read(), containers=()), totals, 2)
    again = replace(CONTAINER, cpu_us=5_000_000)
    found = samples("web-01", replace(machine.read(), containers=(again,)), totals, 3)
    assert str(found[-1].data["cpu_seconds"]) == "5.000000"


def test_the_loop_beats_at_once_and_stops_when_told(host: Host) -> None:
    """The first beat does not wait for the interval; told to stop, no further one is made."""
    agent, stop = agent_on(host, Machine()), threading.Event()
    agent.run(3600, stop, stop.set)
    assert agent.state.count == 1
