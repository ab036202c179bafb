"""What the demo adds to a trace: duplicates, late events, and bad events from a bench of their own."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, NamedTuple

from pipeline.contracts.usage_event import HOST_SAMPLE_FIELDS, HOST_SAMPLE_TYPE, encode_event
from pipeline.domain.identity import format_sequenced_id

BENCH_SOURCE = "urn:rackmeter:replay:lab-bench"
BENCH_SUBJECT = "lab-bench"
BAD_ROUNDS = 5

_ONE_IN = 100
_DELAY_MAX = 3000
_FAR_FUTURE = "9999-01-01T00:00:00Z"


class Outgoing(NamedTuple):
    """An event on its way: its source and its bytes."""

    source: str
    event: bytes


class BadEvent(NamedTuple):
    """Bytes that must not be counted, and what must become of them."""

    event: bytes
    outcome: Literal["quarantined", "parked"]
    reason: str


@dataclass(slots=True)
class Injected:
    """How much was added, by what must become of it; complete once the last event was taken."""

    duplicate_count: int = 0
    late_count: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    parked: Counter[str] = field(default_factory=Counter)


def bad_events(trace_digest: str, time: str) -> list[BadEvent]:
    """Forty bad events, five of each kind, of a source nobody is assigned; the same for the same trace."""
    epoch = hashlib.sha256(f"{trace_digest}:{BENCH_SOURCE}".encode()).hexdigest()[:16]
    events: list[BadEvent] = []
    for turn in range(BAD_ROUNDS):
        for index, make in enumerate(_KINDS):
            events.append(make(format_sequenced_id(epoch, turn * len(_KINDS) + index + 1), time))
    return events


def inject(
    samples: Iterable[Outgoing], sample_count: int, bad: Sequence[BadEvent], seed: int, injected: Injected
) -> Iterator[Outgoing]:
    """
    Mix faults into a stream of events.

    About one event in a hundred is sent twice, and one in a hundred comes up to some thousand places late; the bad
    events are spread evenly. What was added is counted in `injected`.
    """
    random = Random(seed)  # noqa: S311  # a demonstration's chance, no secret
    held: list[tuple[int, int, Outgoing]] = []
    every = max(1, sample_count // (len(bad) + 1))
    waiting = iter(bad)
    for position, sample in enumerate(samples):
        while held and held[0][0] <= position:
            yield heapq.heappop(held)[2]
        if position % every == every - 1 and (event := next(waiting, None)) is not None:
            yield _counted(event, injected)
        chance = random.getrandbits(20) % (2 * _ONE_IN)
        if chance < 2:
            heapq.heappush(held, (position + 1 + random.getrandbits(20) % _DELAY_MAX, 2 * position, sample))
            injected.late_count += 1
            continue
        yield sample
        if chance < 4:
            heapq.heappush(held, (position + 1 + random.getrandbits(20) % _DELAY_MAX, 2 * position + 1, sample))
            injected.duplicate_count += 1
    while held:
        yield heapq.heappop(held)[2]
    for event in waiting:
        yield _counted(event, injected)


def _counted(bad: BadEvent, injected: Injected) -> Outgoing:
    (injected.parked if bad.outcome == "parked" else injected.quarantined)[bad.reason] += 1
    return Outgoing(BENCH_SOURCE, bad.event)


def _sample(event_id: str, time: str, *, event_type: str = HOST_SAMPLE_TYPE, value: str = "1") -> bytes:
    # Every field carries the value, so that it is met whichever fields are metered.
    return encode_event(
        source=BENCH_SOURCE,
        event_id=event_id,
        event_type=event_type,
        subject=BENCH_SUBJECT,
        time=time,
        data=dict.fromkeys(HOST_SAMPLE_FIELDS, value),
    )


def _broken(event_id: str, time: str) -> BadEvent:
    return BadEvent(_sample(event_id, time)[:-9], "quarantined", "json_invalid")


def _bare_nan(event_id: str, time: str) -> BadEvent:
    return BadEvent(_sample(event_id, time).replace(b':"1"', b":NaN"), "quarantined", "json_invalid")


def _text_nan(event_id: str, time: str) -> BadEvent:
    return BadEvent(_sample(event_id, time, value="NaN"), "quarantined", "value_invalid")


def _negative(event_id: str, time: str) -> BadEvent:
    return BadEvent(_sample(event_id, time, value="-1"), "quarantined", "value_negative")


def _timeless(event_id: str, time: str) -> BadEvent:
    return BadEvent(_sample(event_id, time).replace(f'"time":"{time}",'.encode(), b""), "quarantined", "time_missing")


def _future(event_id: str, _time: str) -> BadEvent:
    return BadEvent(_sample(event_id, _FAR_FUTURE), "quarantined", "time_future")


def _unknown_type(event_id: str, time: str) -> BadEvent:
    return BadEvent(_sample(event_id, time, event_type="rackmeter.gpu.sample.v1"), "parked", "unknown_meter")


def _unsequenced(event_id: str, time: str) -> BadEvent:
    return BadEvent(_sample(f"lab-{event_id[-4:]}", time), "parked", "unsequenced_id")


_KINDS = (_broken, _timeless, _negative, _bare_nan, _text_nan, _future, _unknown_type, _unsequenced)
