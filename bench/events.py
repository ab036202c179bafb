"""Events with a known truth: seeded host samples, as replay sends them, and what a pipeline must make of them."""

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

from pipeline.contracts.usage_event import HOST_SAMPLE_FIELDS, HOST_SAMPLE_TYPE

SOURCE_PREFIX = "urn:rackmeter:bench:"
START_SECONDS = 1_735_689_600  # 2025-01-01
INTERVAL_SECONDS = 300
SLOT_SECONDS = 900
#: How long a value holds; the meters of samples.yaml say so too.
GAP_SECONDS = 600
#: More of one server would lie in the future.
SAMPLES_PER_SERVER_MAX = 100_000

#: Of a thousand new events.
LATE_SHARE, DUPLICATE_SHARE, BAD_SHARE = 30, 10, 1
DELAY_MAX = 20_000

#: Truth is kept in whole 10^-15 of a meter's unit: 9 decimals of a value, 6 of a second.
TRUTH_DECIMALS = 15
#: Values are written with 4 decimals, and held for whole seconds.
_UNIT = 10 ** (TRUTH_DECIMALS - 4)

_DATA = ",".join(f'"{name}":"%s"' for name in HOST_SAMPLE_FIELDS)

Outcome = Literal["counted", "duplicate", "quarantined", "parked"]


@dataclass(frozen=True, slots=True)
class Workload:
    """
    A way to meter the same events.

    catalogue: The meters.
    meters: Their names, in the order of cpu_cores, memory_provisioned_kb, disk read and write, network in and out.
    is_held: A value counts for the seconds it holds; else it counts once.
    active_meter: The meter that counts slots with a sample.
    """

    name: str
    catalogue: Path
    meters: tuple[str, str, str, str, str, str]
    is_held: bool
    active_meter: str | None


_HERE = Path(__file__).parent
SAMPLES = Workload(
    "samples",
    _HERE / "samples.yaml",
    ("cpu_core_seconds", "memory_kib_seconds", "disk_read_kb", "disk_write_kb", "network_in_kb", "network_out_kb"),
    is_held=True,
    active_meter="server_hours",
)
SUMS = Workload(
    "sums",
    _HERE / "sums.yaml",
    ("cpu_cores", "memory_provisioned", "disk_read", "disk_write", "network_in", "network_out"),
    is_held=False,
    active_meter=None,
)
WORKLOADS = {workload.name: workload for workload in (SAMPLES, SUMS)}


@dataclass(frozen=True, slots=True)
class Load:
    """What to generate: `events` new events of `servers` servers; duplicates come on top."""

    events: int
    servers: int
    seed: int = 1


class Generated(NamedTuple):
    """An event on its way; a bad one travels alone, since in an array it would spoil its neighbours."""

    server: int
    value: bytes
    is_bad: bool


#: (meter, server) -> quantity in 10^-15 of the meter's unit.
Quantities = dict[tuple[str, str], int]


@dataclass(slots=True)
class Truth:
    """What was generated so far; quantities are complete once the last event was taken."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    quantities: dict[str, Quantities] = field(default_factory=dict)

    @property
    def event_count(self) -> int:
        """All events, whatever becomes of them."""
        return self.outcomes.total()


def source_of(server: int) -> str:
    """Give the source a server's events come from."""
    return f"{SOURCE_PREFIX}{subject_of(server)}"


def subject_of(server: int) -> str:
    """Give the server's name."""
    return f"vm-{server:06d}"


def generate(load: Load, truth: Truth) -> Iterator[Generated]:
    """
    Generate the load: of a thousand new events 30 come up to 20,000 places late, 10 are sent twice, 1 is bad.

    The same load gives the same bytes. Servers take turns; their clocks run ahead by about five minutes a turn, with
    gaps and with two samples of one instant now and then.

    Args:
        load: How much.
        truth: Is filled in as events are taken.
    """
    random = Random(load.seed)
    getrandbits = random.getrandbits
    servers = [_Server(index, load.seed, getrandbits(32)) for index in range(load.servers)]
    held: list[tuple[int, int, Generated]] = []
    for position in range(load.events):
        while held and held[0][0] <= position:
            yield heapq.heappop(held)[2]
        server = servers[position % load.servers]
        chance = (getrandbits(32) * 1000) >> 32
        if chance < BAD_SHARE:
            outcome, value = _spoilt(server.take(getrandbits(64), is_good=False), getrandbits(16))
            truth.outcomes[outcome] += 1
            yield Generated(server.index, value, is_bad=True)
            continue
        event = Generated(server.index, server.take(getrandbits(64), is_good=True), is_bad=False)
        truth.outcomes["counted"] += 1
        due = position + 1 + getrandbits(32) % DELAY_MAX
        if chance < BAD_SHARE + LATE_SHARE:
            heapq.heappush(held, (due, position, event))
            continue
        yield event
        if chance < BAD_SHARE + LATE_SHARE + DUPLICATE_SHARE:
            truth.outcomes["duplicate"] += 1
            heapq.heappush(held, (due, position, event))
    while held:
        yield heapq.heappop(held)[2]
    for one in servers:
        one.finish()
    for workload in WORKLOADS.values():
        truth.quantities[workload.name] = _quantities(servers, workload)


class _Server:
    """One server: its clock, its numbers, and what its good samples come to."""

    def __init__(self, index: int, seed: int, bits: int) -> None:
        self.index = index
        epoch = sha256(f"{seed}:{index}".encode()).hexdigest()[:16]
        self._head = f'{{"specversion":"1.0","id":"{epoch}-'
        self._middle = (
            f'","source":"{source_of(index)}","type":"{HOST_SAMPLE_TYPE}","subject":"{subject_of(index)}","time":"'
        )
        self._at = START_SECONDS + bits % INTERVAL_SECONDS
        self._cores = 1 + (bits >> 16) % 16
        self._memory_kb = (1 + (bits >> 24) % 64) * 1_048_576
        self._number = 0
        # In 10^-4, as the events write them; held ones times seconds.
        self.held = [0] * 6
        self.single = [0] * 6
        self.active_slots = 0
        self._last: tuple[int, tuple[int, ...]] | None = None

    def take(self, bits: int, *, is_good: bool) -> bytes:
        """Make the next event and move the clock; only a good one changes the truth."""
        self._number += 1
        read, write = bits & 0xFFFFF, bits >> 10 & 0xFFFFFF
        received, sent = bits >> 20 & 0xFFFFFFF, bits >> 30 & 0x3FFFFFF
        usage = self._cores * (bits >> 40 & 0xFFFFF)
        used = self._memory_kb * (bits >> 50 & 1023) >> 10
        at = self._at
        values = (
            self._cores, self._cores * 2600, f"{usage // 10_000}.{usage % 10_000:04d}", self._memory_kb, used,
            *(f"{value // 10_000}.{value % 10_000:04d}" for value in (read, write, received, sent)),
        )  # fmt: skip
        if is_good:
            self._count(at, (self._cores * 10_000, self._memory_kb * 10_000, read, write, received, sent))
        self._at = at + _step_seconds(bits >> 54)
        return f'{self._head}{self._number:012d}{self._middle}{_time(at)}","data":{{{_DATA % values}}}}}'.encode()

    def finish(self) -> None:
        """Let the last value hold as long as it may."""
        if self._last is not None:
            self._hold(GAP_SECONDS, self._last[1])

    def _count(self, at: int, readings: tuple[int, ...]) -> None:
        last, self._last = self._last, (at, readings)
        if last is not None:
            self._hold(min(at - last[0], GAP_SECONDS), last[1])
        if last is None or last[0] // SLOT_SECONDS != at // SLOT_SECONDS:
            self.active_slots += 1
        for place, value in enumerate(readings):
            self.single[place] += value

    def _hold(self, seconds: int, readings: tuple[int, ...]) -> None:
        for place, value in enumerate(readings):
            self.held[place] += value * seconds


def _quantities(servers: list[_Server], workload: Workload) -> Quantities:
    found: Quantities = {}
    for server in servers:
        subject = subject_of(server.index)
        for place, meter in enumerate(workload.meters):
            found[meter, subject] = (server.held if workload.is_held else server.single)[place] * _UNIT
        if workload.active_meter is not None:
            found[workload.active_meter, subject] = server.active_slots * 10**TRUTH_DECIMALS
    return found


def _step_seconds(bits: int) -> int:
    """Mostly the interval; a second more, a gap longer than a value holds, or none at all, now and then."""
    chance = bits & 1023
    if chance == 0:
        return 0
    if chance == 1:
        return 2 * GAP_SECONDS + 300
    return INTERVAL_SECONDS + (chance < 34)


def _spoilt(value: bytes, bits: int) -> tuple[Outcome, bytes]:
    outcome, old, new = _FAULTS[bits % len(_FAULTS)]
    return outcome, value.replace(old, new) if old else value[:-9]


_FAULTS: tuple[tuple[Outcome, bytes, bytes], ...] = (
    ("quarantined", b"", b""),
    ("quarantined", b'"cpu_cores":"', b'"cpu_cores":"-'),
    ("quarantined", b'"cpu_cores":"', b'"cpu_cores":"NaN'),
    ("parked", HOST_SAMPLE_TYPE.encode(), b"rackmeter.gpu.sample.v1"),
    ("parked", b'"id":"', b'"id":"lab-'),
)


def _time(at: int) -> str:
    minute, second = divmod(at, 60)
    return f"{_minute(minute)}{second:02d}Z"


@lru_cache(maxsize=100_000)
def _minute(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%dT%H:%M:")
