"""The spool: what is durable is delivered, in order, under its ids; what is lost is declared."""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.domain.errors import ConfigurationFault, TransientFault
from pipeline.ingest.spool import Batch, Spool, SpoolFull, SpoolLimits
from pipeline.ingest.spool_holes import declared_by
from pipeline.ingest.spool_segment import EVENT_BYTES_MAX, MAGIC, frame
from tests.unit.ingest.spooling import LIMITS, SOURCE, Host, Log


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    with made.disk():
        yield made
    made.kill()


def segments(host: Host) -> list[Path]:
    return sorted((host.folder / "spool").glob("*.seg"))


def test_an_outage_loses_nothing(host: Host) -> None:
    """What is emitted while the broker is away arrives afterwards, in order, each once."""
    host.log.is_down = True
    host.emit(20)
    host.flush()
    with pytest.raises(TransientFault):
        host.deliver()
    host.log.is_down = False
    host.deliver()
    host.emit(3)
    host.flush()
    host.deliver()
    assert [event.sequence.number for event in host.log.events if event.sequence] == list(range(1, 24))


def test_only_what_is_durable_is_delivered(host: Host) -> None:
    """An event is not sent before it is synced: a number the log has is one the spool keeps."""
    host.emit(2)
    host.deliver()
    assert host.log.events == []
    host.flush()
    host.deliver()
    assert host.log.numbers == [1, 2]


def test_a_kill_loses_nothing_that_was_written(host: Host) -> None:
    """After kill -9 the same events go out under the same ids, and only the rest of the block is a hole."""
    ids = host.emit(4)
    host.flush()
    host.kill()
    host.emit()
    host.flush()
    host.deliver()
    assert [event.id for event in host.log.events[:4]] == ids
    assert host.log.dropped == [(5, 10)]
    assert host.log.numbers == [1, 2, 3, 4, 11, 12]


def test_a_clean_stop_leaves_no_hole(host: Host) -> None:
    """What waits at the stop is delivered after the next start, and numbers go on."""
    host.emit(4)
    host.stop()
    host.emit(2)
    host.flush()
    host.deliver()
    assert host.log.numbers == [1, 2, 3, 4, 5, 6]
    assert host.log.dropped == []


def test_a_torn_tail_is_cut_off(host: Host) -> None:
    """Half a record at the end is no event; the one before it is, and the next one is whole."""
    host.emit(3)
    host.flush()
    host.kill()
    newest = segments(host)[-1]
    os.truncate(newest, newest.stat().st_size - 5)
    host.emit()
    host.flush()
    host.deliver()
    assert host.log.numbers == [1, 2, 11, 12]
    assert host.log.dropped == [(3, 10)]


def test_a_lost_acknowledgement_repeats_the_same_bytes(host: Host) -> None:
    """What may be in the log already is sent again byte for byte, so that it counts once."""
    host.emit(3)
    host.flush()
    host.log.loses_acknowledgements = True
    with pytest.raises(TransientFault):
        host.deliver()
    host.log.loses_acknowledgements = False
    host.deliver()
    assert len(host.log.raw) == 6
    assert host.log.raw[:3] == host.log.raw[3:]


def test_a_full_spool_drops_the_oldest_and_says_so(host: Host) -> None:
    """Beyond its bound the oldest segment goes, its numbers are declared, and the newest events are there."""
    host.log.is_down = True
    host.emit(100)
    host.flush()
    assert sum(path.stat().st_size for path in segments(host)) <= LIMITS.bytes_max
    host.log.is_down = False
    host.deliver()
    last = host.log.numbers[-1]
    assert host.log.dropped[0][0] == 1
    assert host.log.settled().covers(1, last)
    assert host.log.numbers == list(range(host.log.numbers[0], last + 1))
    assert len(host.log.numbers) > 20


def test_a_drop_that_a_crash_kept_from_being_declared_is_declared(host: Host) -> None:
    """The process dies between dropping and declaring: the next start sees the missing numbers at the front."""
    host.emit(30)
    host.flush()
    spool = host.start()[0]
    assert spool.make_room()
    host.kill()
    host.emit()
    host.flush()
    host.deliver()
    first = min(host.log.numbers)
    assert first > 1
    assert (1, first - 1) in host.log.dropped
    assert host.log.settled().covers(1, max(host.log.numbers))


def test_a_declaration_that_is_dropped_itself_is_made_again(host: Host) -> None:
    """What a dropped segment would have declared is declared by a later event, also when its numbers lie far back."""
    host.emit(10)
    host.flush()
    spool = host.start()[0]
    spool._drop_oldest("the test says so")
    host.emit(20)
    host.flush()
    first = _waiting(spool)
    while not any(declared_by(record) for record in _waiting(spool).records):
        spool.acknowledge(_waiting(spool))
    while any(declared_by(record) for record in _waiting(spool).records):
        spool._drop_oldest("the test says so")
    host.emit()
    host.flush()
    host.deliver()
    assert host.log.settled().covers(1, first.records[0].number - 1)


def _waiting(spool: Spool) -> Batch:
    batch = spool.pending(100, 10_000)
    assert batch is not None
    return batch


def test_a_full_disk_makes_a_declared_hole(host: Host) -> None:
    """While the disk takes nothing events are refused; afterwards their numbers are declared and the source goes on."""
    host.emit(3)
    host.flush()
    host.is_disk_full = True
    for _ in range(4):
        with pytest.raises(SpoolFull):
            host.emit()
    host.is_disk_full = False
    host.emit()
    host.flush()
    host.deliver()
    assert host.log.dropped == [(4, 7)]
    assert host.log.numbers == [1, 2, 3, 8, 9]


def test_a_disk_that_is_full_gives_up_the_oldest_first(host: Host) -> None:
    """Where older segments can go, a full disk costs them and not the new event."""
    host.emit(30)
    host.flush()
    oldest, write = segments(host)[0], os.write

    def full_until_dropped(descriptor: int, data: bytes) -> int:
        if oldest.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    with patch.object(os, "write", full_until_dropped):
        host.emit(2)
    host.flush()
    host.deliver()
    assert host.log.dropped[0][0] == 1
    assert host.log.settled().covers(1, host.log.numbers[-1])


def test_a_failed_sync_counts_nothing_as_kept(host: Host) -> None:
    """What a failed fsync may have lost is not delivered but declared."""
    host.emit(2)
    host.flush()
    host.emit(2)
    with patch.object(os, "fsync", side_effect=OSError(errno.EIO, "I/O error")), pytest.raises(SpoolFull):
        host.flush()
    host.emit()
    host.flush()
    host.deliver()
    assert host.log.dropped == [(3, 4)]
    assert host.log.numbers == [1, 2, 5, 6]


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_damaged_record_gives_up_the_rest_of_its_segment_only(host: Host, which: int) -> None:
    """Bytes that rotted are found by their checksum; what cannot be framed any more is declared, the rest arrives."""
    host.emit(20)
    host.flush()
    path = segments(host)[which]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    host.deliver()
    host.emit()
    host.flush()
    host.deliver()
    assert len(host.log.dropped) == 1
    assert host.log.settled().covers(1, host.log.numbers[-1])
    assert len(host.log.numbers) > 10


def test_a_lost_cursor_sends_again(host: Host) -> None:
    """Without the acknowledgement's file everything in the spool goes out once more, under the same ids."""
    host.emit(3)
    host.flush()
    host.deliver()
    host.stop()
    (host.folder / "spool" / "acknowledged.json").write_text("", encoding="utf-8")
    host.deliver()
    assert host.log.raw[:3] == host.log.raw[3:]


def test_a_lost_spool_is_declared(host: Host) -> None:
    """Whoever deletes the folder of the spool loses what waited in it, and the log is told."""
    host.emit(7)
    host.stop()
    for path in (host.folder / "spool").iterdir():
        path.unlink()
    host.emit()
    host.flush()
    host.deliver()
    assert host.log.dropped == [(1, 7)]
    assert host.log.numbers == [8, 9]


def test_what_was_acknowledged_is_kept_for_a_while(tmp_path: Path) -> None:
    """Acknowledged segments stay for their time, to be sent again to a broker that lost them, and go then."""
    clock = [1_000_000]
    with patch(
        "tests.unit.ingest.spooling.Spool", lambda *given: Spool(given[0], given[1], given[2], lambda: clock[0])
    ):
        host = Host(tmp_path, limits=replace(LIMITS, keep_acknowledged_seconds=60))
        host.emit(20)
        host.flush()
        host.deliver()
        kept = segments(host)
        assert len(kept) > 2
        clock[0] += 61_000_000
        host.emit()
        host.flush()
        host.deliver()
        assert set(segments(host)).isdisjoint(kept[:-1])
        host.kill()


def test_a_second_process_is_refused(host: Host) -> None:
    """One process at a time has a spool open."""
    host.start()
    with pytest.raises(ConfigurationFault, match="one writer"):
        Spool(host.folder / "spool", SOURCE)


def test_another_versions_spool_is_refused(host: Host) -> None:
    """Bytes of an unknown version are neither sent nor thrown away."""
    host.emit()
    host.flush()
    host.kill()
    path = segments(host)[0]
    path.write_bytes(path.read_bytes().replace(MAGIC, b"rackmeter-spool-2 "))
    with pytest.raises(ConfigurationFault, match="this version"):
        host.start()
    assert path.exists()


#: A segment's beginning and a record as version 1 wrote them. Never edit them: an upgrade must read them.
HEADER_OF_VERSION_1 = "7261636b6d657465722d73706f6f6c2d3120303066336131623263336434653566360a"
RECORD_OF_VERSION_1 = "00000000000000010006532fef1590000000001527be6a447b227370656376657273696f6e223a22312e30227d"


def test_the_format_of_version_1_stays(tmp_path: Path) -> None:
    """An upgraded agent delivers what the one before it spooled."""
    first = b'{"specversion":"1.0"}'
    assert frame(1, 1_780_315_200_000_000, first).hex() == RECORD_OF_VERSION_1
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "0000000001.seg").write_bytes(bytes.fromhex(HEADER_OF_VERSION_1 + RECORD_OF_VERSION_1))
    spool = Spool(folder, SOURCE)
    batch = spool.pending(10, 10_000)
    spool.close()
    assert batch is not None
    assert (batch.epoch, batch.records[0].number, batch.records[0].event) == ("00f3a1b2c3d4e5f6", 1, first)


def test_limits_and_sizes_are_checked(host: Host) -> None:
    """A bound that holds no four segments, and an event no message could take, are refused."""
    with pytest.raises(ConfigurationFault, match="too small"):
        SpoolLimits(bytes_max=1000)
    with pytest.raises(ValueError, match="1 to"):
        host.start()[0].put(1, b"x" * (EVENT_BYTES_MAX + 1))


STEPS = (
    ["emit"] * 8
    + ["flush"] * 3
    + ["deliver"] * 2
    + ["kill", "power", "stop", "full", "room", "room", "down", "up", "up", "ackless", "room_made"]
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=30, max_size=120))
def test_nothing_is_lost_in_silence_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """Under kills, power cuts, full disks, outages and lost acknowledgements every number arrives or is declared."""
    host = Host(tmp_path_factory.mktemp("host"), Log())
    with host.disk(), patch.object(os, "fsync", lambda _descriptor: None):
        for step in [*steps, "up", "room", "kill", "emit", "flush", "deliver", "emit", "flush", "deliver"]:
            try:
                _take(host, step)
            except (TransientFault, OSError):
                host.log.waiting.clear()
        host.kill()
    contents: dict[str, bytes] = {}
    for event, raw in zip(host.log.events, host.log.raw, strict=True):
        assert contents.setdefault(event.id, raw) == raw
    assert host.log.numbers == sorted(host.log.numbers)
    assert host.log.settled().covers(1, max(host.log.numbers))
    assert len({event.sequence.epoch for event in host.log.events if event.sequence}) == 1


def _take(host: Host, step: str) -> None:
    if step in ("full", "room"):
        host.is_disk_full = step == "full"
    elif step in ("down", "up"):
        host.log.is_down, host.log.loses_acknowledgements = step == "down", False
    elif step == "ackless":
        host.log.loses_acknowledgements = True
    elif step == "emit":
        host.emit(3)
    elif step == "power":
        host.lose_power()
    elif step == "room_made":
        host.start()[0].make_room()
    else:
        {"flush": host.flush, "deliver": host.deliver, "kill": host.kill, "stop": host.stop}[step]()
